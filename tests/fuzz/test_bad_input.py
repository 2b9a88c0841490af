"""Floods of bad input: memory stays inside its limits, ping and other sockets go on.

A short run of tools/bad_input.py, by both roads; the tool runs them in full.
"""

import pytest

from tools.bad_input import FLOODS, Target, flood, is_good

FRAMES = 4000
HIGH_THRESH = 4 << 20
A_FRAGMENT = 2304
GC_THRESH3 = 1024

both_ways = pytest.mark.parametrize("fast_path", [True, False], ids=["fast", "python"])


@both_ways
@pytest.mark.parametrize("name", FLOODS)
def test_others_go_on_and_memory_stays_inside_its_limits(name: str, fast_path: bool) -> None:
    result = flood(name, FRAMES, fast_path=fast_path)
    assert is_good(result), result
    assert result["fragment_bytes"] <= HIGH_THRESH + A_FRAGMENT
    assert result["neighbours"] <= GC_THRESH3


def test_more_open_queues_than_memory_allows_are_refused_by_name() -> None:
    result = flood("open", 8000)
    assert result["fragment_bytes"] > HIGH_THRESH - A_FRAGMENT
    assert result["dropped"]["NOMEM"] > 1000


def test_more_neighbours_than_the_table_holds_are_refused() -> None:
    result = flood("arp", 8000)
    assert result["neighbours"] > GC_THRESH3 // 2


def test_a_flood_that_hurts_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Target, "probe", lambda self: setattr(self, "rounds", self.rounds + 1))
    result = flood("noise", 1000)
    assert result["ping_loss"] == result["socket_loss"] == 100
    assert not is_good(result)
