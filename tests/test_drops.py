"""Every drop reason is explained: where, why, what to do."""

import re
from pathlib import Path

import pytest

from netstack._counters import skb_drop_reason
from netstack.drops import REASONS, drops, explain
from netstack.stats import NOT_DROPS, reason_name
from tests.fakehost import FakeHost

PACKAGE = Path(__file__).parent.parent / "netstack"  # the sources: a build elsewhere has none


def test_every_reason_of_the_enum_has_a_row_and_no_row_is_left_over():
    names = {reason_name(n) for n in skb_drop_reason.__members__} - {"SKB_FATE_NR", *NOT_DROPS}
    assert set(REASONS) == names


@pytest.mark.parametrize("name", REASONS)
def test_a_row_says_where_why_and_what_to_do(name):
    row = REASONS[name]
    assert row.text
    assert row.hint
    assert not row.text.endswith(".")


def uses(path, name):
    """Tell whether a file drops for this reason."""
    full = name if name.startswith("NIC_") else f"SKB_DROP_REASON_{name}"
    return bool(re.search(rf"\b{full}\b", path.read_text()))


@pytest.mark.parametrize("name", REASONS)
def test_the_place_is_where_it_happens(name):
    """A reason that nothing here gives has no place; Linux has it for what is not here."""
    places = [place.split() for place in REASONS[name].place.split(",")]
    if places == [[]]:
        files = [f for f in PACKAGE.rglob("*.py*") if f.suffix in (".py", ".pyx")]
        assert [f.name for f in files if f.name != "drops.py" and uses(f, name)] == []
        return
    for file, function in places:
        assert uses(PACKAGE / file, name)
        assert re.search(
            rf"\b(def|cdef|cpdef|inline)\b.*\b{function}\(", (PACKAGE / file).read_text()
        )


def test_drops_are_listed_by_count_with_their_meaning():
    host = FakeHost()
    host.net.fates[skb_drop_reason.SKB_DELIVERED] = 100
    host.net.fates[skb_drop_reason.SKB_DROP_REASON_NO_SOCKET] = 2
    host.net.fates[skb_drop_reason.SKB_DROP_REASON_SOCKET_RCVBUFF] = 9
    listed = drops(host.net)
    assert [(row["reason"], row["count"]) for row in listed] == [
        ("SOCKET_RCVBUFF", 9),
        ("NO_SOCKET", 2),
    ]
    assert "SO_RCVBUF" in listed[0]["hint"]


def test_a_reason_is_found_with_and_without_prefix():
    assert explain("SKB_DROP_REASON_NO_SOCKET") is explain("NO_SOCKET")
