"""``nstat``: names, increments since the last look, and iproute2's own output beside ours."""

import os
import subprocess

from netstack._counters import mib


def test_only_what_has_counted_is_shown(host, good):
    host.net.count(mib.UdpNoPorts, 3)
    assert good("nstat", "-s") == f"#kernel\n{'UdpNoPorts':<32}{3:<16}   0.0\n"


def test_the_second_look_shows_the_increment(host, good):
    host.net.count(mib.UdpNoPorts, 3)
    good("nstat")
    assert good("nstat") == "#kernel\n"
    host.net.count(mib.UdpNoPorts, 2)
    host.net.count(mib.IpInReceives, 2)
    values = [line.split()[:2] for line in good("nstat").splitlines()[1:]]
    assert values == [["IpInReceives", "2"], ["UdpNoPorts", "2"]]


def test_history_can_be_ignored_kept_and_forgotten(host, good):
    host.net.count(mib.UdpNoPorts, 3)
    good("nstat", "-n")
    assert good("nstat", "-a", "-s", "--json")["kernel"]["UdpNoPorts"] == 3
    assert good("nstat", "-s", "--json") == {"kernel": {}}
    assert good("nstat", "-r", "-s", "--json")["kernel"]["UdpNoPorts"] == 3
    assert good("nstat", "-n") == ""


def test_the_history_of_an_earlier_host_is_not_taken_for_this_ones(host, serve, good):
    host.net.count(mib.UdpNoPorts, 3)
    serve(host, "tap1", started=1.0)
    good("nstat", "--name", "tap1", "-n")
    server = serve(host, "tap2", started=2.0)
    os.replace(server.path.with_name("tap1.nstat"), server.path.with_name("tap2.nstat"))
    assert good("nstat", "--name", "tap2", "--json")["kernel"]["UdpNoPorts"] == 3


def test_a_broken_history_file_is_no_history(host, directory, good):
    (directory / "tap0.nstat").write_text("[1, 2")
    assert good("nstat", "-s") == "#kernel\n"
    (directory / "tap0.nstat").write_text("[1, 2]")
    assert good("nstat", "-s") == "#kernel\n"


def test_zeros_and_patterns(host, good):
    names = good("nstat", "-az", "--json")["kernel"]
    assert "UdpInDatagrams" in names
    assert "IpExtInOctets" in names
    assert list(good("nstat", "-az", "--json", "UdpIn*", "IcmpInMsgs")["kernel"]) == [
        "IcmpInMsgs",
        "UdpInDatagrams",
        "UdpInErrors",
        "UdpInCsumErrors",
    ]


def test_a_pattern_that_names_no_counter_is_refused(host, refused):
    error = refused("nstat", "UdpNoPort")
    assert "no counter matches 'UdpNoPort'" in error
    assert "try: netstack nstat -az UdpNoPorts" in error


def test_text_is_iproute2s_to_the_letter(host, good, tmp_path):
    """Both read the same counters: ours from the host, theirs from the tree that we write."""
    host.net.count(mib.UdpNoPorts, 7)
    host.net.count(mib.IpInReceives, 123456)
    good("proc", "--root", tmp_path)
    environment = os.environ | {
        "PROC_ROOT": str(tmp_path),
        "NSTAT_HISTORY": str(tmp_path / "h"),
    }
    theirs = subprocess.run(
        ["nstat", "-a", "-s", "Udp*", "IpIn*"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert good("nstat", "-a", "-s", "Udp*", "IpIn*") == theirs.stdout
