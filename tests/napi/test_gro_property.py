"""Whatever comes in, in whatever order: what goes up splits into just what came in."""

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from tests.napi.flows import EVENTS, Event, frames, may_overtake
from tests.napi.gro import (
    NETIF_F_GRO,
    NETIF_F_GRO_FRAGLIST,
    NETIF_F_GRO_UDP_FWD,
    UDP_GRO_ENABLED,
    UDP_GRO_HAS_SOCKET,
    Gro,
)

FEATURES = st.sampled_from(
    [0, NETIF_F_GRO, NETIF_F_GRO | NETIF_F_GRO_FRAGLIST, NETIF_F_GRO | NETIF_F_GRO_UDP_FWD]
)


def flow_of(frame: bytes) -> bytes:
    return frame[6:12] + frame[23:24] + frame[26:38]


@given(
    EVENTS,
    FEATURES,
    st.booleans(),
    st.sampled_from([0, 1]),
    st.integers(1, 40),
    st.sampled_from([0, 7]),
)
def test_what_comes_out_is_what_came_in(
    events: list[Event],
    features: int,
    socket: bool,
    ip_summed: int,
    poll_of: int,
    buckets: int,
) -> None:
    gro = Gro()
    gro.bench.features(features)
    if socket:
        gro.bench.udp_socket(5000, UDP_GRO_HAS_SOCKET | UDP_GRO_ENABLED)
    packets = []
    for number, frame in enumerate(frames(events)):
        gro.bench.poll(number // poll_of)
        gro.feed(frame, ip_summed=ip_summed, hash=events[number][0] & buckets)
        if number % poll_of == poll_of - 1:
            gro.bench.flush(old=True)
            packets += gro.up()
    packets += gro.flushed()
    gro.check()

    ids = [id for packet in packets for id in packet.ids]
    parts = [part for packet in packets for part in packet.parts]
    assert sorted(ids) == list(range(1, len(events) + 1))
    assert [part for _, part in sorted(zip(ids, parts, strict=True))] == gro.sent
    assert sum(packet.frames for packet in packets) == len(events)
    order = defaultdict(list)
    for id, part in zip(ids, parts, strict=True):
        if not may_overtake(events[id - 1]):
            order[flow_of(part)].append(id)
    assert all(flow == sorted(flow) for flow in order.values()), "a flow went up out of order"


@given(st.binary(min_size=14, max_size=200))
def test_noise_goes_up_as_it_came(noise: bytes) -> None:
    gro = Gro()
    gro.bench.features(NETIF_F_GRO | NETIF_F_GRO_FRAGLIST)
    header = b"\2\0\0\0\0\2\2\0\0\0\0\1\x08\0\x45\0"
    sent = [noise, header + noise[2:], header + noise[2:]]
    gro.feed(*sent)
    assert sorted(part for packet in gro.flushed() for part in packet.parts) == sorted(sent)
    gro.check()
