"""The Internet checksum against RFC 1071 written down word by word."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from netstack._checksum import _loops, internet_checksum


def rfc1071(data: bytes, initial: int = 0) -> int:
    """Add the words one by one, fold, complement: section 4.1."""
    data += bytes(len(data) % 2)
    total = initial + sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def test_the_example_of_rfc_1071_section_3() -> None:
    assert internet_checksum(bytes.fromhex("0001f203f4f5f6f7")) == 0x220D


@given(st.binary(max_size=300), st.integers(0, 0xFFFF_FFFF))
def test_every_length_and_start_gives_the_sum_of_the_words(data: bytes, initial: int) -> None:
    assert internet_checksum(data, initial) == rfc1071(data, initial)


def test_every_length_up_to_a_jumbo_frame() -> None:
    data = bytes(i * 37 % 251 for i in range(9728))
    for size in [*range(700), *range(1400, 1600), 9728]:
        assert internet_checksum(data[:size]) == rfc1071(data[:size])


def test_odd_addresses_need_no_alignment() -> None:
    data = bytes(i * 37 % 251 for i in range(1500))
    for start in range(9):
        assert internet_checksum(memoryview(data)[start:]) == rfc1071(data[start:])


def test_every_loop_agrees_at_the_extremes() -> None:
    for word in (b"\0\0", b"\xff\xff", b"\x80\0", b"\x7f\xff", b"\0\x80"):
        for blocks in (1, 2, 23, 512, 513, 8192, 8193, 20000):
            data = word * 32 * blocks
            assert set(_loops(data)) == {rfc1071(data)}, (word, blocks)


def test_data_with_its_checksum_sums_to_zero() -> None:
    data = bytes(range(250))
    assert internet_checksum(data + internet_checksum(data).to_bytes(2, "big")) == 0
