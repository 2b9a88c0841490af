"""Flows that go on side by side, with frames in between that break one rule each."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import strategies as st

from tests.napi.frames import ACK, Ip, Tcp, Udp

Event = tuple[int, int, dict[str, object]]  # flow, bytes of payload, what is odd about it

# Mostly a frame that continues its flow, now and then one that breaks a rule.
CHANGES: list[dict[str, object]] = [
    *[{}] * 12,
    *[{"flags": ACK | 1 << bit} for bit in range(8)],
    {"ttl": 1}, {"tos": 3}, {"frag_off": 0}, {"frag_off": 0x2001}, {"frag_off": 0xC000},
    {"ident": 99}, {"seq": 99}, {"ack": 9}, {"window": 9}, {"tcp_options": bytes(4)},
    {"check": 0}, {"check": 0x1234}, {"ip_check": 0}, {"tot_len": 0}, {"pad": bytes(3)},
    {"ulen": 9}, {"doff": 15}, {"vhl": 0x46}, {"src_mac": bytes(6)}, {"sport": 7},
]  # fmt: skip
EVENTS = st.lists(
    st.tuples(
        st.integers(0, 11),
        st.sampled_from([100, 100, 100, 100, 99, 101, 0]),
        st.sampled_from(CHANGES),
    ),
    max_size=120,
)


def frames(events: list[Event]) -> list[Ip]:
    """Let six TCP and six UDP flows go on, each by one frame an event."""
    seq: dict[int, int] = defaultdict(int)
    ident: dict[int, int] = defaultdict(int)
    out: list[Ip] = []
    for number, (flow, size, change) in enumerate(events):
        data = bytes([number & 0xFF]) * size
        kind = Tcp if flow < 6 else Udp
        known = {key: value for key, value in change.items() if hasattr(kind(), key)}
        one = kind(sport=1000 + flow, data=data, ident=ident[flow])
        if isinstance(one, Tcp):
            one = one.but(seq=seq[flow])
        out.append(one.but(**known))
        seq[flow] += size
        ident[flow] += 1
    return out


def may_overtake(event: Event) -> bool:
    """Tell whether a frame is too odd to be compared with the held packet of its flow."""
    flow, size, change = event
    odd = {"check", "ip_check", "vhl", "ulen", "doff", "pad", "tot_len"} & change.keys()
    return bool(odd) or change.get("frag_off") == 0x2001 or (flow >= 6 and size == 0)
