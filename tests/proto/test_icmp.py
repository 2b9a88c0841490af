"""RFC 1122 section 3.2.2: what is answered, what is told, what is kept silent, and how often."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, IPerror

from netstack._counters import mib
from netstack.proto import _icmp
from tests.proto.odd_frames import options, to_all
from tests.proto.stack import ADDR, PEER, PEER_MAC, Stack, eth, ip, number, ping


def no_protocol(**kwargs: object) -> object:
    """Make a packet that is answered with an error."""
    return eth() / ip(proto=77, **kwargs) / b"hello"


# ---- echo


def test_an_echo_comes_back_unchanged(stack: Stack) -> None:
    (reply,) = stack.give(ping(1000, tos=0x20))
    assert (reply[IP].src, reply[IP].dst, reply[IP].tos) == (ADDR, PEER, 0x20)
    assert (reply[ICMP].type, reply[ICMP].id, reply[ICMP].seq) == (0, 7, 1)
    assert bytes(reply[ICMP].payload) == bytes(ping(1000)[ICMP].payload)


@given(st.binary(max_size=1472))
def test_any_data_comes_back_with_a_right_checksum(data: bytes) -> None:
    for fast in (True, False):
        stack = Stack(fast)
        (reply,) = stack.give(eth() / ip() / ICMP(id=1) / data)
        rebuilt = reply.copy()
        del rebuilt[ICMP].chksum, rebuilt[IP].chksum
        assert bytes(rebuilt[ICMP].payload) == data
        if any(data) or rebuilt[ICMP].id:
            assert bytes(rebuilt) == bytes(reply)
        stack.inet.close()


def test_a_jumbo_echo_over_two_buffers_comes_back(stack: Stack) -> None:
    stack.bench.mtu = 9000
    (reply,) = stack.give(ping(5000))
    assert bytes(reply[ICMP].payload) == bytes(ping(5000)[ICMP].payload)


def test_ignore_all_answers_no_ping(stack: Stack) -> None:
    stack.config["net.ipv4.icmp_echo_ignore_all"] = 1
    assert stack.give(ping()) == []
    assert stack.fates() == {"CONSUMED": 1}
    assert stack.net.mib(mib.IcmpInEchos) == 1


def test_a_ping_to_all_is_answered_only_on_request(stack: Stack) -> None:
    assert stack.give(to_all(ICMP())) == []
    stack.config["net.ipv4.icmp_echo_ignore_broadcasts"] = 0
    (reply,) = stack.give(to_all(ICMP()))
    assert (reply[IP].src, reply[IP].dst) == (ADDR, PEER)


def test_a_ping_to_ourselves_is_answered(stack: Stack) -> None:
    message = bytes(ICMP(id=1) / b"hello")
    assert _icmp.push(stack.net, message, number(ADDR), 0) == 0
    stack.settle()
    counters = stack.counters()
    assert counters["IcmpInEchos"] == counters["IcmpInEchoReps"] == 1
    assert stack.fates() == {}  # no frame came off a wire


def test_a_timestamp_is_answered_with_the_time_of_day(stack: Stack) -> None:
    (reply,) = stack.give(eth() / ip() / ICMP(type=13, ts_ori=12345))
    now = stack.now() // 1_000_000 % 86_400_000
    assert (reply[ICMP].ts_ori, reply[ICMP].ts_rx, reply[ICMP].ts_tx) == (12345, now, now)


def test_a_recorded_route_goes_both_ways(stack: Stack) -> None:
    (reply,) = stack.give(options(b"\x07\x27\x04" + bytes(36)))
    (route, _end) = reply[IP].options
    assert route.routers[:2] == [ADDR, ADDR]
    assert route.pointer == 12


# ---- errors


def test_an_unknown_protocol_is_told(stack: Stack) -> None:
    frame = no_protocol(tos=0x38)
    (error,) = stack.give(frame)
    assert (error[ICMP].type, error[ICMP].code) == (3, 2)
    assert error[IP].tos == 0xC0 | 0x18
    assert bytes(error[ICMP].payload) == bytes(frame[IP])
    assert stack.fates() == {"IP_NOPROTO": 1}


def test_an_error_has_at_most_576_bytes(stack: Stack) -> None:
    (error,) = stack.give(eth() / ip(proto=77) / bytes(1400))
    assert error[IP].len == 576


def test_an_error_fits_a_small_mtu(stack: Stack) -> None:
    stack.bench.mtu = 200
    (error,) = stack.give(eth() / ip(proto=77) / bytes(1400))
    assert error[IP].len == 200


def test_a_wrong_option_is_told_where(stack: Stack) -> None:
    (error,) = stack.give(options(b"\x01\x07\x07\x03\0\0\0\0"))
    assert (error[ICMP].type, error[ICMP].ptr) == (12, 23)
    assert error[IPerror].dst == ADDR
    assert stack.fates() == {"IP_INHDR": 1}


@pytest.mark.parametrize(
    "frame",
    [
        eth() / ip(proto=77, frag=8) / b"12345678",
        to_all(b"hello", proto=77),
        eth(dst="ff:ff:ff:ff:ff:ff") / ip(proto=77) / b"hello",
        eth(dst="01:00:5e:00:00:01") / ip(dst="224.0.0.1", proto=77) / b"hello",
    ],
    ids=["later fragment", "broadcast", "unicast in broadcast", "multicast"],
)
def test_nobody_is_told_about(stack: Stack, frame: object) -> None:
    assert stack.give(frame) == []


def test_nobody_is_told_about_an_error(stack: Stack) -> None:
    del stack.inet.protocols[1]
    error = eth() / ip() / ICMP(type=3, code=1) / bytes(28)
    stack.fast = False
    assert stack.give(error) == []
    assert len(stack.give(ping())) == 1  # but a question is no error


def test_the_protocol_that_is_quoted_hears_of_an_error(stack: Stack) -> None:
    from netstack.proto import net_protocol

    heard = []
    stack.inet.add_protocol(
        77,
        net_protocol(
            lambda host, skb: skb.consume(),
            lambda host, skb, type_, code, info, quoted: heard.append(
                (type_, code, info, quoted)
            ),
        ),
    )
    quoted = bytes(IP(src=ADDR, dst=PEER, proto=77) / b"12345678")
    stack.give(eth() / ip() / ICMP(type=3, code=4, nexthopmtu=1400) / quoted)
    assert heard == [(3, 4, 1400, quoted)]


# ---- limits


def test_a_peer_gets_six_errors_at_once_and_then_one_a_second(stack: Stack) -> None:
    assert len(stack.give(*[no_protocol()] * 10)) == 6
    assert stack.net.mib(mib.IcmpOutRateLimitHost) == 4
    stack.advance(0.9)
    assert stack.give(no_protocol()) == []
    stack.advance(0.1)
    assert len(stack.give(*[no_protocol()] * 3)) == 1
    stack.advance(100)
    assert len(stack.give(*[no_protocol()] * 10)) == 6


def test_peers_have_limits_of_their_own(stack: Stack) -> None:
    for i in range(20, 24):
        stack.neighbour(f"10.0.0.{i}", PEER_MAC)
        assert len(stack.give(*[no_protocol(src=f"10.0.0.{i}")] * 8)) == 6


def test_ratelimit_0_limits_no_peer(stack: Stack) -> None:
    stack.config["net.ipv4.icmp_ratelimit"] = 0
    assert len(stack.give(*[no_protocol()] * 20)) == 20


def test_all_peers_together_get_about_fifty_at_once(stack: Stack) -> None:
    stack.config["net.ipv4.icmp_ratelimit"] = 0
    sent = len(stack.give(*[no_protocol()] * 200))
    # Each takes 0, 1 or 2 of the credit of 50, at random.
    assert 30 <= sent <= 90
    assert stack.net.mib(mib.IcmpOutRateLimitGlobal) == 200 - sent
    stack.advance(0.01)
    assert stack.give(no_protocol()) == []
    stack.advance(0.02)
    assert 10 <= len(stack.give(*[no_protocol()] * 100)) <= 90


def test_msgs_burst_is_the_credit(stack: Stack) -> None:
    stack.config["net.ipv4.icmp_ratelimit"] = 0
    stack.config["net.ipv4.icmp_msgs_burst"] = 5
    assert 2 <= len(stack.give(*[no_protocol()] * 100)) <= 20


def test_msgs_per_sec_is_how_fast_the_credit_comes_back(stack: Stack) -> None:
    stack.config["net.ipv4.icmp_ratelimit"] = 0
    stack.config["net.ipv4.icmp_msgs_per_sec"] = 20
    stack.give(*[no_protocol()] * 200)
    stack.advance(1)
    assert 8 <= len(stack.give(*[no_protocol()] * 200)) <= 40


def test_echo_replies_are_not_limited_by_default(stack: Stack) -> None:
    assert len(stack.give(*[ping()] * 200)) == 200


def test_ratemask_chooses_what_is_limited(stack: Stack) -> None:
    stack.config["net.ipv4.icmp_ratemask"] = 1
    assert len(stack.give(*[ping()] * 10)) == 6
    assert len(stack.give(*[no_protocol()] * 10)) == 10
    assert stack.net.mib(mib.IcmpOutRateLimitHost) == 4


def test_a_message_has_a_header(stack: Stack) -> None:
    with pytest.raises(ValueError, match="at least 8 bytes, not 4"):
        _icmp.push(stack.net, b"abcd", number(PEER), 0)


def test_one_host_has_one_icmp(stack: Stack) -> None:
    with pytest.raises(RuntimeError, match="already"):
        _icmp.ICMP(stack.net, 1)
