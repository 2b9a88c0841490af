"""Capture files: every form that Wireshark's tools write, and broken ones."""

import io
import struct
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netstack.capture import Record
from netstack.capture.pcapng import Writer
from netstack.capture.reader import CaptureFileError, Reader

NOW = 1_700_000_000_123_456_789
FRAME = bytes(range(60))


def capture():
    """Return a pcapng file with three records."""
    file = io.BytesIO()
    writer = Writer(file)
    for number in range(3):
        writer.write(Record(NOW + number, FRAME, 60 + number, number, "tap0", comment="no"))
    writer.close()
    return file.getvalue()


def classic(order, magic, *packets):
    """Return a classic pcap file; packets are (seconds, ticks, bytes)."""
    head = struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, 65535, 1)
    body = (struct.pack(order + "IIII", s, t, len(d), 99) + d for s, t, d in packets)
    return head + b"".join(body)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("magic", "tick"), [(0xA1B2C3D4, 1000), (0xA1B23C4D, 1)])
def test_classic_pcap(order, magic, tick):
    reader = Reader(io.BytesIO(classic(order, magic, (7, 999, FRAME), (8, 0, b""))))
    assert (reader.linktype, reader.snaplen) == (1, 65535)
    first, second = reader
    assert (first.ts_ns, first.data, first.wire_len) == (7 * 10**9 + 999 * tick, FRAME, 99)
    assert (second.ts_ns, second.data) == (8 * 10**9, b"")


@pytest.mark.parametrize(("form", "grain"), [("pcap", 1000), ("nsecpcap", 1), ("pcapng", 1)])
def test_what_editcap_writes(form, grain, tmp_path):
    source, path = tmp_path / "a.pcapng", tmp_path / "b"
    source.write_bytes(capture())
    subprocess.run(["editcap", "-F", form, source, path], check=True)
    with path.open("rb") as file:
        records = list(Reader(file))
    assert [r.ts_ns for r in records] == [(NOW + n) // grain * grain for n in range(3)]
    assert [(r.data, r.wire_len) for r in records] == [(FRAME, 60 + n) for n in range(3)]


def big_endian(*blocks):
    """Return a big-endian pcapng file."""
    out = b""
    for kind, body in blocks:
        size = struct.pack(">I", 12 + len(body))
        out += struct.pack(">I", kind) + size + body + size
    return out


SECTION = (0x0A0D0D0A, struct.pack(">IHHq", 0x1A2B3C4D, 1, 0, -1))


def interface(*options, snaplen=0):
    """Return a big-endian interface block with options (code, value)."""
    body = struct.pack(">HHI", 1, 0, snaplen)
    for code, value in options:
        body += struct.pack(">HH", code, len(value)) + value + bytes(-len(value) % 4)
    return 1, body


def packet(ts, data=b"abcd"):
    """Return a big-endian enhanced packet block."""
    return 6, struct.pack(">IIIII", 0, ts >> 32, ts & 0xFFFFFFFF, len(data), len(data)) + data


@pytest.mark.parametrize(
    ("options", "ts", "ns"),
    [
        ((), 1_500_000, 1_500_000_000),
        (((9, b"\x09"),), 1_500_000_001, 1_500_000_001),
        (((9, b"\x81"),), 3, 1_500_000_000),
        (((9, b"\x00"), (14, struct.pack(">q", 10))), 5, 15 * 10**9),
    ],
)
def test_timestamps_follow_the_interface_in_big_endian(options, ts, ns):
    (record,) = Reader(io.BytesIO(big_endian(SECTION, interface(*options), packet(ts))))
    assert (record.ts_ns, record.data) == (ns, b"abcd")


def test_the_blocks_of_older_writers():
    old = (2, struct.pack(">HHIIII", 0, 5, 0, 1_000_000, 4, 9) + b"abcd")
    simple = (3, struct.pack(">I", 9) + b"abcdefgh")
    unknown = (0x0BAD, b"what")
    blocks = SECTION, unknown, interface(snaplen=6), old, unknown, simple
    first, second = Reader(io.BytesIO(big_endian(*blocks)))
    assert (first.ts_ns, first.data, first.wire_len, first.dropped) == (10**9, b"abcd", 9, 5)
    assert (second.ts_ns, second.data, second.wire_len) == (0, b"abcdef", 9)


def test_a_second_section_begins_anew_in_its_own_byte_order():
    both = big_endian(SECTION, interface((2, b"eth9")), packet(1)) + capture()
    assert [r.ifname for r in Reader(io.BytesIO(both))] == ["eth9", "tap0", "tap0", "tap0"]


def test_the_header_is_known_before_the_first_packet_arrives():
    class Pipe(io.BytesIO):
        def read(self, size=-1):
            data = super().read(size)
            if len(data) < size:
                raise AssertionError("a live reader would wait here")
            return data

    whole = capture()
    header = whole[: whole.index(struct.pack("=I", 6))]
    assert Reader(Pipe(header)).snaplen == 262144


def test_an_empty_capture_has_no_records():
    assert list(Reader(io.BytesIO(classic("<", 0xA1B2C3D4)))) == []
    assert list(Reader(io.BytesIO(big_endian(SECTION)))) == []


@pytest.mark.parametrize(
    "whole", [capture(), classic("<", 0xA1B2C3D4, (1, 2, FRAME), (3, 4, FRAME))]
)
def test_a_file_cut_anywhere_gives_what_was_whole_and_then_says_so(whole):
    complete = list(Reader(io.BytesIO(whole)))
    ends = set()
    for length in range(len(whole)):
        got = []
        try:
            for record in Reader(io.BytesIO(whole[:length])):
                got.append(record)
            ends.add(length)
        except CaptureFileError:
            pass
        assert got == complete[: len(got)]
    assert len(ends) <= len(complete) + 2  # only on the border of a block is a cut not seen


@pytest.mark.parametrize(
    ("blocks", "why"),
    [
        ((SECTION, packet(1)), "interface 0, and 0 are described"),
        ((SECTION, interface(), (6, bytes(8))), "shorter than its own fields"),
        (
            (SECTION, interface(), (6, struct.pack(">IIIII", 0, 0, 0, 99, 99))),
            "packet of 99 bytes",
        ),
        ((SECTION, (1, struct.pack(">HHIHH", 1, 0, 0, 2, 99))), "option of 99 bytes"),
        (((0x0A0D0D0A, struct.pack(">IHHq", 0x1A2B3C4D, 2, 0, -1)),), "version 2"),
        (((0x0A0D0D0A, bytes(16)),), "byte-order magic"),
    ],
)
def test_a_broken_file_says_what_is_wrong(blocks, why):
    with pytest.raises(CaptureFileError, match=why):
        list(Reader(io.BytesIO(big_endian(*blocks)), "x.pcapng"))


def test_a_block_that_lies_about_its_length():
    whole = bytearray(big_endian(SECTION, interface()))
    whole[-4:] = struct.pack(">I", 24)
    with pytest.raises(CaptureFileError, match="two lengths differ"):
        Reader(io.BytesIO(whole))
    whole[-16:-12] = struct.pack(">I", 0x7FFFFFF0)
    with pytest.raises(CaptureFileError, match=r"block of 2147483632 bytes"):
        Reader(io.BytesIO(whole))


def test_something_else_is_no_capture():
    with pytest.raises(CaptureFileError, match="begins with 7f454c46"):
        Reader(io.BytesIO(b"\x7fELF and more"), "ls")
    with pytest.raises(CaptureFileError, match="0 bytes"):
        Reader(io.BytesIO(b""))


@given(st.binary(max_size=200), st.integers(0, 300))
def test_noise_raises_nothing_else(noise, where):
    whole = bytearray(capture())
    whole[where : where + len(noise)] = noise
    try:
        for record in Reader(io.BytesIO(whole)):
            assert len(record.data) <= len(whole)
    except CaptureFileError:
        pass
