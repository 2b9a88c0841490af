"""``capture``: tcpdump's words reach the host's tap, and what comes back is printed or written."""

import base64

import pytest

from netstack.capture.bpf import compile_filter
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
    assert good("capture", "-D") == "1.tap0 (both directions)\n"


def test_a_broken_filter_is_refused_before_the_host_is_asked(directory, refused):
    error = refused("capture", "udp", "prot", "53")
    assert "syntax error" in error


def test_an_unknown_interface_gets_those_there_are(host, refused):
    assert "try: netstack capture -i tap0" in refused("capture", "-i", "eth0")
    assert "no place tap0@gro" in refused("capture", "-i", "tap0@gro")


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
