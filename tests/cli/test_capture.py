"""``capture``: tcpdump's words reach the host's tap, and what comes back is printed or written."""

import base64

import pytest

from netstack.capture.bpf import compile_filter
from netstack.capture.stages import STAGES
from netstack.commands import COMMANDS

PING = bytes.fromhex(
    "02aa0000000202aa00000001080045000054d2b14000400153f60a0000010a000002080019dd00010001"
) + bytes(range(56))


@pytest.fixture
def seen(host):
    """Let two pings wait in every new tap."""
    host.waiting = [(1, 1, 2, False, len(PING), PING), (2, 2, 2, False, len(PING), PING)]
    return host


def test_frames_are_printed_until_the_count(seen, netstack):
    status, out, err = netstack("capture", "-c", "2", "-tn", "icmp")
    assert status == 0
    assert out.count("IP 10.0.0.1 > 10.0.0.2: ICMP echo request") == 2
    assert err.startswith("netstack capture: verbose output suppressed")
    assert "2 packets captured\n2 packets received by filter\n0 packets dropped" in err


def test_the_filter_goes_to_the_host_as_a_program(seen, netstack, monkeypatch):
    asked = {}
    real = COMMANDS["capture"]

    def capture(it, **arguments):
        asked.update(arguments)
        return real(it, **arguments)

    monkeypatch.setitem(COMMANDS, "capture", capture)
    netstack("capture", "-c", "1", "-s", "96", "udp", "port", "5000")
    expected = compile_filter("udp port 5000", snaplen=96).insns
    assert base64.b64decode(asked["program"]) == expected
    assert asked["snaplen"] == 96
    netstack("capture", "-c", "1")
    assert asked["program"] == ""


def test_pcapng_goes_to_standard_output(seen, netstack, monkeypatch, tmp_path):
    path = tmp_path / "out.pcapng"
    status, out, _ = netstack("capture", "-c", "2", "-w", path)
    assert (status, out) == (0, "")
    status, out, _ = netstack("capture", "-tn", "-r", path)
    assert out.count("ICMP echo request") == 2


def test_interfaces_are_listed(host, good):
    listed = good("capture", "--list-interfaces").splitlines()
    assert listed[:2] == [
        "1.tap0 (both directions)",
        "2.tap0@nic (as the driver takes it off the ring, before GRO)",
    ]
    assert [line.split(" ")[0].partition("@")[2] for line in listed[1:]] == [*STAGES]
    assert good("capture", "-D").splitlines() == listed


def test_a_broken_filter_is_refused_before_the_host_is_asked(directory, refused):
    error = refused("capture", "udp", "prot", "53")
    assert "syntax error" in error


def test_an_unknown_interface_gets_those_there_are(host, refused):
    assert "try: netstack capture -i tap0" in refused("capture", "-i", "eth0")
    said = refused("capture", "-i", "tap0@gor")
    assert "no place tap0@gor" in said
    assert all(f"netstack capture -i tap0@{stage}" in said for stage in STAGES)


def test_stages_and_both_programs_go_to_the_host(seen, netstack, monkeypatch):
    asked = {}
    real = COMMANDS["capture"]

    def capture(it, **arguments):
        asked.update(arguments)
        return real(it, **arguments)

    monkeypatch.setitem(COMMANDS, "capture", capture)
    netstack("capture", "-c", "1", "-i", "tap0", "-i", "any@output", "udp")
    assert asked["wanted"] == [["tap0", ""], ["any", "output"]]
    assert base64.b64decode(asked["program"]) == compile_filter("udp").insns
    assert base64.b64decode(asked["raw"]) == compile_filter("udp", 101).insns


def test_a_filter_that_no_packet_of_the_stage_can_match_is_refused(host, refused):
    error = refused("capture", "-i", "tap0@output", "ether", "host", "02:00:00:00:00:01")
    assert "ether host" in error


def test_the_interface_names_the_host_when_several_run(seen, serve, netstack):
    from tests.fakehost import FakeHost

    serve(FakeHost(), "tap9")
    status, out, _ = netstack("capture", "-i", "tap0", "-c", "1")
    assert status == 0
    assert "ICMP" in out


def test_program_and_file_need_no_host(directory, netstack):
    status, out, _ = netstack("capture", "-d", "icmp")
    assert status == 0
    assert out.startswith("(000) ldh")


def test_the_tap_is_closed_when_the_reader_has_enough(seen, netstack):
    netstack("capture", "-c", "1")
    assert seen.taps[0].closed.wait(5)
