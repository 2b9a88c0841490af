"""Filters: libpcap's program, tcpdump's listings, and errors that say what to type."""

import ctypes
import struct
import subprocess

import pytest

from netstack.capture import bpf
from netstack.capture.bpf import INSN_SIZE, Program, compile_filter
from netstack.errors import hint_of

FILTERS = [
    "",
    "udp port 5000",
    "ip host 10.0.0.1 and not tcp",
    "icmp[0] == 8 or arp",
    "ether multicast",
    "vlan 7 and udp",
    "tcp[tcpflags] & (tcp-syn|tcp-fin) != 0",
    "ip6",
    "portrange 1000-2000",
    "len > 100",
    "ip[6:2] & 0x1fff != 0",
]
UDP = bytes.fromhex(
    "020000000001020000000002080045000020000100004011f96d0a0000010a000002"
) + struct.pack(">HHHH4s", 1234, 5000, 12, 0, b"ping")


@pytest.fixture
def empty_pcap(tmp_path):
    """Make a file that has tcpdump compile for Ethernet without privileges."""
    path = tmp_path / "empty.pcap"
    path.write_bytes(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, 1))
    return path


@pytest.mark.parametrize("optimize", [True, False])
@pytest.mark.parametrize("style", [1, 2, 3])
@pytest.mark.parametrize("text", FILTERS)
def test_listing_is_tcpdumps(text, style, optimize, empty_pcap):
    command = [
        "tcpdump",
        "-" + "d" * style,
        "-r",
        str(empty_pcap),
        *([] if optimize else ["-O"]),
        text,
    ]
    wanted = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert compile_filter(text, optimize=optimize).disassemble(style) == wanted


def test_matches_keeps_the_snapshot_length_or_nothing():
    assert compile_filter("udp port 5000", snaplen=96).matches(UDP) == 96
    assert compile_filter("udp port 5001").matches(UDP) == 0


def test_a_cut_frame_is_judged_by_its_length_on_the_wire():
    assert compile_filter("greater 1000").matches(UDP) == 0
    assert compile_filter("greater 1000").matches(UDP, wire_len=1500) != 0


@pytest.mark.parametrize("length", range(len(UDP)))
def test_a_frame_too_short_to_answer_is_rejected(length):
    assert compile_filter("udp dst port 5000").matches(UDP[:length]) == (
        262144 if length >= 38 else 0
    )


def test_addresses_can_be_called_by_compiled_code():
    program = compile_filter("udp port 5000")
    run = ctypes.CFUNCTYPE(
        ctypes.c_uint, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint, ctypes.c_uint
    )(program.function)
    assert run(program.address, UDP, len(UDP), len(UDP)) == 262144
    assert ctypes.string_at(program.address, len(program.insns)) == program.insns


def test_a_program_survives_the_way_through_bytes():
    first = compile_filter("udp port 5000")
    second = Program(first.insns)
    assert len(second) == len(first.insns) // INSN_SIZE
    assert second.matches(UDP) == first.matches(UDP) != 0


@pytest.mark.parametrize("insns", [b"", b"1234567"])
def test_bytes_that_are_no_program_are_refused(insns):
    with pytest.raises(ValueError, match="multiple of 8"):
        Program(insns)


@pytest.mark.parametrize(
    ("text", "why", "hint"),
    [
        ("udp port", "syntax error", "udp port 5000"),
        ("port nosuchservice", "unknown port", "port 5000"),
        ("ip broadcast", "netmask not known", "10.0.0.255"),
        ("vlan 5000", "4095", "pcap-filter"),
        ("udp port 70000", "70000 > 65535", "pcap-filter"),
        ("inbound", "not in the frame", "-Q in"),
        ("udp or outbound", "not in the frame", "-Q in"),
        ("udp\0", "NUL", ""),
    ],
)
def test_an_error_has_libpcaps_words_and_a_hint(text, why, hint):
    with pytest.raises(ValueError, match=why) as caught:
        compile_filter(text)
    assert hint in hint_of(caught.value)


def test_broadcast_compiles_with_the_netmask():
    directed = bytearray(UDP)
    directed[30:34] = bytes([10, 0, 0, 255])
    program = compile_filter("ip broadcast", netmask=0xFFFFFF00)
    assert program.matches(bytes(directed))
    assert not program.matches(UDP)


def test_a_machine_without_libpcap_is_told_what_to_install(monkeypatch):
    monkeypatch.setattr(bpf, "_SONAMES", ("libnosuch.so.1",))
    monkeypatch.setattr("ctypes.util.find_library", lambda name: None)
    with pytest.raises(OSError, match="libpcap was not found") as caught:
        bpf._find()
    assert "apt-get install libpcap" in hint_of(caught.value)
