"""``drops``, ``ledger``, ``softnet``: what they print, as text and as JSON."""

from netstack._counters import skb_drop_reason


def test_drops_have_count_place_meaning_and_hint(host, good):
    assert good("drops") == "no frame was dropped\n"
    host.net.fates[skb_drop_reason.SKB_DROP_REASON_NO_SOCKET] = 1234
    text = good("drops")
    assert "       1,234  NO_SOCKET  (proto/udp.py udp_rcv)" in text
    assert "no socket is bound to the address and port" in text
    assert "try: bind a socket" in text
    (row,) = good("drops", "--json")
    assert row["reason"] == "NO_SOCKET"
    assert row["count"] == 1234
    assert set(row) == {"reason", "count", "place", "text", "hint"}


def test_ledger_says_balanced(host, good):
    host.net.frames = 3
    host.net.fates[skb_drop_reason.SKB_DELIVERED] = 2
    host.places = {"socket queues": 1}
    assert good("ledger").endswith("balanced\n")
    account = good("ledger", "--json")
    assert account["balanced"]
    assert account["queued"] == {"socket queues": 1}


def test_a_ledger_that_is_off_has_status_1(host, netstack):
    host.net.frames = 3
    status, out, _ = netstack("ledger")
    assert status == 1
    assert "off by 3 frames" in out


def test_a_ledger_that_is_off_while_frames_move_says_so(host, good, monkeypatch):
    def moving():
        host.net.frames += 1
        return host.net.frames

    monkeypatch.setattr(host.net, "rx_frames", moving)
    text = good("ledger")
    assert "off by" in text
    assert text.endswith("frames are moving: some are between two places\n")
    assert good("ledger", "--json")["moving"]


def test_a_ledger_is_taken_at_a_moment_when_it_balances(host, good, monkeypatch):
    counts = iter([5, 5, 5, 3, 9])
    monkeypatch.setattr(host.net, "rx_frames", lambda: next(counts))
    host.net.fates[skb_drop_reason.SKB_CONSUMED] = 3
    assert good("ledger", "--json")["balanced"]


def test_softnet_has_a_column_a_cpu(serve, good):
    from tests.fakehost import FakeHost

    serve(FakeHost(cpus=2))
    lines = good("softnet").splitlines()
    assert lines[0].split() == ["cpu", "0", "1"]
    assert ["time_squeeze", "1", "2"] in [line.split() for line in lines]
    assert [row["cpu"] for row in good("softnet", "--json")] == [0, 1]
