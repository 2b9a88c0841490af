"""What is changed on the kernel's end is the least possible, and every change can be undone."""

import errno
from dataclasses import replace
from ipaddress import IPv4Interface
from pathlib import Path

import pytest

from netstack.device.link import (
    Change,
    Link,
    apply,
    find_link,
    plan,
    put_back,
    refuse_conflicts,
)
from netstack.errors import hint_of
from tests.users import NOBODY, in_child

FOUND = Link(7, "tap0", up=False, mtu=1500, txqueuelen=1000)
PEER = IPv4Interface("10.0.0.1/24")
HOST = IPv4Interface("10.0.0.2/24")
NO_IPV6 = Path("/nonexistent")


def lines(steps: list[Change]) -> list[str]:
    return [step.line for step in steps]


def test_nothing_asked_of_a_link_that_is_up_changes_nothing() -> None:
    assert plan(replace(FOUND, up=True), ipv6=NO_IPV6) == []


def test_what_is_there_already_is_not_set_again() -> None:
    found = replace(FOUND, up=True, addresses=(PEER,))
    assert plan(found, peer=PEER, mtu=1500, txqueuelen=1000, ipv6=NO_IPV6) == []


def test_steps_are_the_ip_commands_a_user_would_type_and_up_is_last() -> None:
    steps = plan(FOUND, peer=PEER, mtu=9000, txqueuelen=5000, ipv6=NO_IPV6)
    assert lines(steps) == [
        "ip link set tap0 mtu 9000",
        "ip link set tap0 txqueuelen 5000",
        "ip addr add 10.0.0.1/24 dev tap0",
        "ip link set tap0 up",
    ]
    assert [step.undo for step in steps] == [
        ("link", {"mtu": 1500}),
        ("link", {"txqlen": 1000}),
        ("addr del", {"address": "10.0.0.1", "prefixlen": 24}),
        ("link", {"state": "down"}),
    ]


@pytest.mark.parametrize(
    ("value", "uses_ipv6", "expected"),
    [("0\n", False, True), ("1\n", False, False), ("0\n", True, False)],
)
def test_ipv6_is_switched_off_unless_it_is_off_or_wanted(
    tmp_path: Path, value: str, uses_ipv6: bool, expected: bool
) -> None:
    switch = tmp_path / "tap0" / "disable_ipv6"
    switch.parent.mkdir()
    switch.write_text(value)
    found = replace(FOUND, up=True, uses_ipv6=uses_ipv6)
    steps = plan(found, ipv6=tmp_path)
    assert bool(steps) == expected
    done = apply(found, steps)
    assert switch.read_text().strip() == ("1" if expected else value.strip())
    put_back(found, done)
    assert switch.read_text().strip() == value.strip()


def test_step_that_is_not_needed_may_fail() -> None:
    step = Change(
        "x", ("write", {"path": Path("/nonexistent/x"), "value": "1"}), ("nothing", {})
    )
    assert apply(FOUND, [replace(step, needed=False)]) == []
    with pytest.raises(FileNotFoundError, match="`x` gives: No such file"):
        apply(FOUND, [step])


def test_failed_step_undoes_those_before_it(tmp_path: Path) -> None:
    file = tmp_path / "value"
    file.write_text("old")
    good = Change(
        "one",
        ("write", {"path": file, "value": "new"}),
        ("write", {"path": file, "value": "old"}),
    )
    bad = Change("two", ("write", {"path": tmp_path, "value": ""}), ("nothing", {}))
    with pytest.raises(IsADirectoryError):
        apply(FOUND, [good, bad])
    assert file.read_text() == "old"


def test_overlapping_subnet_of_another_interface_is_refused_with_a_free_one() -> None:
    eth0 = Link(2, "eth0", True, 1500, 1000, addresses=(IPv4Interface("10.0.0.9/16"),))
    with pytest.raises(OSError, match=r"10.0.0.0/24 overlaps 10.0.0.9/16 of eth0") as caught:
        refuse_conflicts(FOUND, [eth0], peer=PEER, host=HOST)
    assert caught.value.errno == errno.EADDRINUSE
    assert hint_of(caught.value) == "netstack up tap0 --addr 10.1.0.2/24"


def test_overlap_that_the_user_set_up_himself_is_his_decision() -> None:
    eth0 = Link(2, "eth0", True, 1500, 1000, addresses=(IPv4Interface("10.0.0.9/16"),))
    refuse_conflicts(replace(FOUND, addresses=(PEER,)), [eth0], peer=PEER, host=HOST)


def test_host_address_that_this_machine_owns_is_refused() -> None:
    ours = replace(FOUND, addresses=(HOST,))
    with pytest.raises(OSError, match=r"10.0.0.2 belongs to this machine's own tap0"):
        refuse_conflicts(ours, [], host=HOST)


def test_interface_does_not_conflict_with_itself() -> None:
    ours = replace(FOUND, addresses=(IPv4Interface("10.0.0.77/24"),))
    refuse_conflicts(ours, [ours], peer=PEER, host=HOST)


@pytest.mark.tap
@pytest.mark.usefixtures("netns")
def test_apply_and_put_back_leave_an_interface_as_it_was() -> None:
    before = find_link("lo")
    assert before is not None
    steps = plan(before, peer=PEER, mtu=1280, txqueuelen=77)
    done = apply(before, steps)
    changed = find_link("lo")
    assert changed is not None
    assert (changed.mtu, changed.txqueuelen, PEER in changed.addresses) == (1280, 77, True)
    put_back(before, done)
    assert find_link("lo") == before


@pytest.mark.tap
@pytest.mark.usefixtures("netns")
def test_put_back_does_not_mind_what_is_gone() -> None:
    before = find_link("lo")
    assert before is not None
    done = apply(before, plan(before, peer=PEER))
    put_back(before, done)
    put_back(before, done)
    put_back(replace(before, index=4711), done)


@pytest.mark.tap
@pytest.mark.usefixtures("netns")
def test_without_the_capability_every_missing_command_is_named() -> None:
    def attempt() -> None:
        lo = find_link("lo")
        assert lo is not None
        apply(lo, plan(lo, peer=PEER, mtu=1280))

    with pytest.raises(PermissionError, match="CAP_NET_ADMIN") as caught:
        in_child(attempt, uid=NOBODY)
    assert hint_of(caught.value) == (
        "sudo ip link set lo mtu 1280\nsudo ip addr add 10.0.0.1/24 dev lo"
    )
