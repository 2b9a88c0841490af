"""The live view: a table on a terminal, lines elsewhere, JSON on request."""

import io
import json
import re

import pytest

from netstack._counters import skb_drop_reason
from netstack.cli import live
from tests.fakehost import FakeHost


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def host():
    return FakeHost()


def count(host, frames, delivered, no_socket=0):
    host.net.frames = frames
    host.net.fates[skb_drop_reason.SKB_DELIVERED] = delivered
    host.net.fates[skb_drop_reason.SKB_DROP_REASON_NO_SOCKET] = no_socket
    host.places = {"socket queues": frames - delivered - no_socket}


def two_samples(host):
    before = live.sample(host, at=100.0)
    count(host, 1000, 900, 60)
    return live.sample(host, at=102.0), before


def test_rates_are_differences_over_the_time_between(host):
    found = live.rates(*two_samples(host))
    assert found["received"] == 500
    assert found["delivered"] == 450
    assert found["dropped"] == 30


def test_two_samples_at_one_moment_divide_by_no_zero(host):
    before = live.sample(host, at=1.0)
    assert live.rates(before, before)["received"] == 0


def test_a_line_has_rates_reasons_and_queues(host):
    assert live.plain_line(*two_samples(host)) == (
        "500 frames/s in, 0 out, 450 delivered, 30 dropped, NO_SOCKET 60, socket queues 40"
    )


def test_json_has_totals_and_rates(host):
    data = json.loads(live.json_line(*two_samples(host)))
    assert data["totals"]["received"] == 1000
    assert data["per_second"]["dropped"] == 30.0
    assert data["dropped"] == {"NO_SOCKET": 60}
    assert data["queued"] == {"socket queues": 40}


def visible(lines):
    return [re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", line) for line in lines]


def test_table_lists_reasons_and_queues_below_their_sums(host):
    lines = visible(live.table_lines("tap0", *two_samples(host)))
    assert lines[0] == "tap0"
    assert ["NO_SOCKET", "30", "60"] in [line.split() for line in lines]
    assert ["socket", "queues", "40"] in [line.split() for line in lines]
    assert len({len(line) for line in lines[1:]}) == 1


def test_losses_before_the_nic_are_shown_once_there_are_any(host):
    now, before = two_samples(host)
    assert not [line for line in live.table_lines("t", now, before) if "missed" in line]
    host.devices[0].counts["rx_missed_errors"] = 5
    lines = live.table_lines("t", live.sample(host, at=103.0), now)
    assert [line.split()[1:] for line in visible(lines) if "missed" in line] == [["5", "5"]]


def test_table_fits_the_terminal(host):
    for number, name in enumerate(skb_drop_reason.__members__):
        if "DROP_REASON" in name:
            host.net.fates[number] = 1
    now = live.sample(host, at=1.0)
    assert len(live.table_lines("t", now, now, height=10)) == 9
    for width in (120, 54, 40, 20):
        lines = visible(live.table_lines("t" * 200, now, now, width=width))
        assert max(map(len, lines)) == min(width - 1, 199)
        assert {len(line) for line in lines[1:]} == {min(width - 1, 54)}


def test_terminal_is_redrawn_in_place_and_left_with_its_cursor(host):
    out = Terminal()
    view = live.Live(host, "tap0", out)
    assert view.interval == 1.0
    view.show()
    first = out.getvalue()
    assert live.HIDE_CURSOR in first
    drawn = first.count("\n")
    view.show()
    assert f"\x1b[{drawn}A" in out.getvalue()[len(first) :]
    view.close()
    assert out.getvalue().endswith(live.SHOW_CURSOR)


def test_elsewhere_there_are_plain_lines(host):
    out = io.StringIO()
    view = live.Live(host, "tap0", out)
    view.show()
    view.close()
    assert view.interval == 10.0
    assert re.fullmatch(r"0 frames/s in, .*\n", out.getvalue())
    assert "\x1b" not in out.getvalue()


def test_json_is_a_line_a_look(host):
    out = Terminal()
    view = live.Live(host, "tap0", out, as_json=True)
    view.show()
    view.show()
    assert [json.loads(line)["totals"]["received"] for line in out.getvalue().splitlines()] == [
        0,
        0,
    ]
