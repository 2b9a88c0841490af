"""``up``: what is refused before anything is touched, what is said, how it ends."""

import argparse
import json
import os
import signal
import threading
import time
from contextlib import contextmanager
from ipaddress import IPv4Interface

import pytest

import netstack
from netstack import lab
from netstack._counters import skb_drop_reason
from netstack.cli import up
from netstack.control import ControlServer
from netstack.control_client import Control, hosts
from tests.fakehost import FakeHost


class UpHost(FakeHost):
    """A host that records what became of it."""

    closed = False

    def __init__(self):
        super().__init__()
        device = self.devices[0]
        device.addresses = [IPv4Interface("10.0.0.2/24")]
        device.mac = "02:00:00:00:00:02"
        device.mtu = 1500

    def close(self):
        self.closed = True


@pytest.fixture
def fake(monkeypatch, directory):
    """Replace the library's ``up``; what it was asked for is in ``fake.asked``."""
    host = UpHost()

    @contextmanager
    def make(name, **options):
        host.asked = {"name": name} | options
        host.devices[0].name = name
        try:
            yield host
        finally:
            host.close()

    monkeypatch.setattr(netstack, "up", make, raising=False)
    monkeypatch.setattr(lab, "is_needed", lambda name: False)
    monkeypatch.delenv("SUDO_USER", raising=False)
    return host


@pytest.fixture
def run(fake, directory, netstack):
    """Run ``up`` until ``when`` has been called with a connection to it; then end it."""

    def start(*words, when=lambda control: None, by="stop"):
        failed = []

        def other_terminal():
            try:
                while not hosts(directory):
                    time.sleep(0.001)  # the other thread needs the CPU
                with Control.find(directory) as control:
                    when(control)
                    if by == "stop":
                        control.request("stop")
                    else:
                        os.kill(os.getpid(), by)
            except Exception as error:
                failed.append(error)
                os.kill(os.getpid(), signal.SIGTERM)

        thread = threading.Thread(target=other_terminal)
        thread.start()
        result = netstack("up", *words)
        thread.join()
        assert failed == []
        assert hosts(directory) == []
        assert fake.closed
        return result

    return start


@pytest.mark.parametrize("by", ["stop", signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_every_orderly_end_is_a_success_with_a_summary(run, fake, by):
    status, out, err = run("tap0", "--app", "none", by=by)
    assert (status, err) == (0, "")
    assert out.endswith("balanced\n")


def test_it_says_what_is_up_and_what_to_type_next(run):
    _, out, _ = run("tap0", "--app", "none")
    assert out.startswith("tap0 is up. Behind it is the host 10.0.0.2/24")
    assert "  ping 10.0.0.2\n" in out


def test_options_reach_the_host(run, fake):
    run("tap7", "--addr", "10.9.0.2/24", "--peer", "10.9.0.1", "--mac", "02:00:00:00:00:07",
        "--mtu", "9000", "--ring", "64", "--queues", "4", "--cpus", "2",
        "--no-offload", "--no-fast-path", "--app", "none")  # fmt: skip
    assert fake.asked == {
        "name": "tap7",
        "addr": "10.9.0.2/24",
        "peer": "10.9.0.1",
        "mac": "02:00:00:00:00:07",
        "mtu": 9000,
        "ring": 64,
        "queues": 4,
        "cpus": 2,
        "offload": False,
        "fast_path": False,
        "control": False,
    }


def test_offloads_are_on_unless_refused(run, fake):
    run("tap0", "--app", "none")
    assert fake.asked["offload"] is True
    run("tap0", "--offload", "--app", "none")
    assert fake.asked["offload"] is True


def test_the_control_socket_answers_while_it_runs(run):
    seen = {}

    def look(control):
        seen.update(control.request("info"))

    run("tap0", "--app", "none", when=look)
    assert seen["name"] == "tap0"
    assert seen["pid"] == os.getpid()
    assert seen["devices"] == ["tap0"]


def test_a_second_host_of_the_name_is_refused_and_the_first_goes_on(run, directory):
    def second(control):
        with pytest.raises(OSError, match="a host named tap0 is running already"):
            ControlServer("tap0", directory, None, {})
        assert control.request("ledger")["balanced"]

    assert run("tap0", "--app", "none", when=second)[0] == 0


def test_quiet_prints_nothing(run):
    assert run("--quiet", "--app", "none") == (0, "", "")


def test_json_ends_with_the_ledger(run):
    _, out, _ = run("--json", "--app", "none")
    assert json.loads(out.splitlines()[-1])["ledger"]["balanced"] is True


def test_a_ledger_that_is_off_is_a_failure(run, fake):
    fake.net.frames = 1
    status, _, err = run("--app", "none")
    assert status == 1
    assert "the ledger does not balance; please report it" in err


def test_the_summary_has_what_happened(run, fake):
    fake.net.frames = 5
    fake.net.fates = {
        skb_drop_reason.SKB_DELIVERED: 3,
        skb_drop_reason.SKB_DROP_REASON_NO_SOCKET: 2,
    }
    _, out, _ = run("--app", "none")
    assert "NO_SOCKET" in out


def test_an_unknown_app_is_refused_before_there_is_a_host(fake, refused):
    assert "try: --app echo" in refused("up", "--app", "ecko")
    assert "No module named" in refused("up", "--app", "no_such_module:serve")
    assert "--app echo is given twice" in refused("up", "--app", "echo", "--app", "echo")
    assert not hasattr(fake, "asked")


def test_a_number_that_is_none_is_refused(fake, refused):
    assert "invalid int value: 'big'" in refused("up", "--ring", "big")


def test_what_stands_behind_and_is_a_device_with_an_address(fake, refused):
    one = ("--and", "tap1", "--addr", "10.0.1.2/24")
    for words in (("--and",), (*one, "--and"), (*one, "--and", "--addr", "10.0.2.2/24")):
        assert "required: TAP" in refused("up", "tap0", *words)
    assert "an address of its own" in refused("up", "tap0", "--and", "tap1")
    assert "try: netstack up --help" in refused("up", "tap0", *one, "--cpus", "2")
    assert not hasattr(fake, "asked")


def test_in_a_lab_the_way_in_is_shown(fake):
    text = up.banner(fake, "tap0", [up.apps.find("echo")], in_lab=True)
    assert "  netstack exec ping 10.0.0.2" in text
    assert "  netstack exec nc -u 10.0.0.2 7" in text
    assert "serving echo on UDP port 7" in text


def test_after_sudo_the_way_to_ask_is_with_sudo(fake, monkeypatch):
    monkeypatch.setenv("SUDO_USER", "someone")
    assert "  sudo netstack drops" in up.banner(fake, "tap0", [], in_lab=False)


@pytest.mark.parametrize("quiet", [True, False])
def test_no_wait_is_so_long_that_a_signal_before_it_would_be_missed(fake, quiet):
    """Python runs a handler in the main thread; what comes when that is about to sleep does not keep it awake."""
    waits = []

    class Ended:
        def wait(self, seconds):
            waits.append(seconds)
            return len(waits) == 3

    up._watch(fake, argparse.Namespace(device="tap0", quiet=quiet, json=False), Ended())
    assert all(seconds is not None and seconds <= 0.5 for seconds in waits)
