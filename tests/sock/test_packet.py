"""AF_PACKET sockets do as in Linux: the same calls and the same frames, the same results."""

import ctypes
import socket as kernel
import struct

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import ARP, Ether

from tests.memory_host import memory_host
from tests.proto.stack import ADDR, MAC, PEER, PEER_MAC, ping
from tests.sock.rig import udp_frame
from tests.sock.worlds import Cases, attempt, drain, our_host, same

RAW, DGRAM = kernel.SOCK_RAW, kernel.SOCK_DGRAM
ALL, IP_TYPE, ARP_TYPE = (kernel.htons(n) for n in (3, 0x0800, 0x0806))
SOL_PACKET, ADD, DROP, STATISTICS, IGNORE_OUTGOING = 263, 1, 2, 6, 23
case = Cases()


def packet(w, kind=RAW, proto=ALL, bound=True):
    sock = w.socket(kind, proto, kernel.AF_PACKET)
    if bound:
        sock.bind((w.dev, 0))
    return sock


def seen(sock):
    """Receive everything; IP ids and checksums are blanked."""
    rows = []
    for data, *_rest, address in drain(sock):
        at = 14 if sock.type == RAW else 0
        blank = data
        if address[1] == 0x0800:
            blank = (
                data[: at + 4] + b"\0\0" + data[at + 6 : at + 10] + b"\0\0" + data[at + 12 :]
            )
        rows.append((blank, address))
    return rows


def everything(w):
    """Let frames go both ways."""
    sock = w.udp(ADDR, 9000)
    w.give(
        udp_frame(b"one"), ping(10), Ether(dst="ff:ff:ff:ff:ff:ff", src=PEER_MAC, type=0x88B5)
    )
    w.give(Ether(dst=MAC, src=PEER_MAC) / ARP(op=1, psrc=PEER, hwsrc=PEER_MAC, pdst=ADDR))
    sock.sendto(b"two", (PEER, 7))
    w.settle()
    w.sent()
    sock.close()


@case
def frames_both_ways(w):
    socks = [
        packet(w, kind, proto) for kind in (RAW, DGRAM) for proto in (ALL, IP_TYPE, ARP_TYPE, 0)
    ]
    everything(w)
    return [seen(sock) for sock in socks]


@case
def outgoing_can_be_left_out(w):
    sock = packet(w)
    out = [sock.getsockopt(SOL_PACKET, IGNORE_OUTGOING)]
    sock.setsockopt(SOL_PACKET, IGNORE_OUTGOING, 1)
    out += [attempt(sock.setsockopt, SOL_PACKET, IGNORE_OUTGOING, 2)]
    everything(w)
    return out, seen(sock)


@case
def names(w):
    out = []
    for proto in (0, IP_TYPE, ALL):
        sock = packet(w, RAW, proto, bound=False)
        out += [
            sock.getsockname(),
            attempt(sock.getpeername),
            attempt(sock.connect, (w.dev, 0)),
        ]
        for address in ((w.dev, 0), (w.dev, 0x0806), (w.dev, 0, 4, 1, b"abc"), ("lo", 0)):
            out += [attempt(sock.bind, address), sock.getsockname()]
        out += [attempt(sock.bind, ("none9", 0))]
        level = kernel.SOL_SOCKET
        options = kernel.SO_TYPE, kernel.SO_DOMAIN
        out += [[sock.getsockopt(level, name) for name in options]]
        out += [attempt(sock.getsockopt, kernel.SOL_IP, kernel.IP_TTL)]
        sock.close()
    return out


@case
def statistics_and_a_full_queue(w):
    sock = packet(w, proto=IP_TYPE)
    sock.setsockopt(kernel.SOL_SOCKET, kernel.SO_RCVBUF, 4096)
    w.give(*[udp_frame(bytes(100))] * 30)
    out = [struct.unpack("2I", sock.getsockopt(SOL_PACKET, STATISTICS, 8)) for _ in range(2)]
    return out, len(drain(sock))


def attach(sock, *program):
    code = b"".join(struct.pack("HBBI", *row) for row in program)
    buffer = ctypes.create_string_buffer(code)
    fprog = struct.pack("HP", len(program), ctypes.addressof(buffer))
    sock.setsockopt(kernel.SOL_SOCKET, 26, fprog)


@case
def a_filter_chooses_and_cuts(w):
    out = []
    for kind, at in ((RAW, 23), (DGRAM, 9)):
        sock = packet(w, kind)
        # ldb [protocol]; jeq #17; ret #40; ret #0
        attach(sock, (0x30, 0, 0, at), (0x15, 0, 1, 17), (6, 0, 0, 40), (6, 0, 0, 0))
        everything(w)
        out.append(seen(sock))
        out.append(struct.unpack("2I", sock.getsockopt(SOL_PACKET, STATISTICS, 8)))
    return out


@case
def sending(w):
    out = []
    sock = packet(w, bound=False)
    frame = bytes(Ether(dst=PEER_MAC, src=MAC) / IP(src=ADDR, dst=PEER) / UDP() / b"data")
    out += [attempt(sock.send, frame), attempt(sock.sendto, frame, (w.dev, 0))]
    out.append([f.hex() for f in w.sent()])
    out.append(seen(sock))
    sock.bind((w.dev, 0))
    for size in (0, 13, 14, 60, 1514, 1515, 1518, 1519, 4000):
        out.append((size, attempt(sock.send, frame[:14].ljust(size, b"x")[:size])))
        out.append([len(f) for f in w.sent()])
    out.append(attempt(sock.send, frame[:12] + b"\x81\0\0\x05" + bytes(1500)))
    out.append([len(f) for f in w.sent()])
    cooked = packet(w, DGRAM, bound=False)
    to = (w.dev, 0x0800, 0, 1, bytes.fromhex(PEER_MAC.replace(":", "")))
    out += [attempt(cooked.sendto, frame[14:], to), [f.hex() for f in w.sent()]]
    out += [attempt(cooked.sendto, b"x" * 1500, to), attempt(cooked.sendto, b"x" * 1501, to)]
    cooked.bind((w.dev, 0x0800))
    out += [attempt(cooked.send, b"x"), [len(f) for f in w.sent()]]
    return out


@case
def memberships(w):
    sock = packet(w)
    index = kernel.if_nametoindex("lo") + 1

    def change(option, ifindex, kind, size=16, alen=0):
        value = struct.pack("iHH8s", ifindex, kind, alen, b"")[:size]
        return attempt(sock.setsockopt, SOL_PACKET, option, value)

    out = [change(ADD, index, kind) for kind in (0, 1, 2, 9)]
    out += [change(ADD, 99, 1), change(ADD, index, 1, 7), change(ADD, index, 1, 8)]
    out += [change(DROP, index, 1), change(DROP, index, 1), change(DROP, index, 1)]
    return [*out, change(DROP, index, 2), change(DROP, 99, 1)]


@case
def there_is_nothing_to_shut_down(w):
    sock = packet(w)
    out = [attempt(sock.shutdown, how) for how in (0, 1, 2, 3)]
    w.give(udp_frame(b"x"))
    return [*out, len(drain(sock))]


@pytest.mark.tap
@pytest.mark.odd_frames  # what a program writes is sent as it is
@pytest.mark.parametrize("name", case)
def test_the_kernel_s_sockets_give_the_same(name):
    same(case[name], our_host)


# ---- rules that need no kernel


@pytest.fixture(params=[True, False], ids=["fast", "python"])
def it(request):
    with memory_host(fast_path=request.param) as made:
        made.meet()
        yield made


def opened(it, kind=RAW, proto=ALL):
    sock = it.host.socket(kernel.AF_PACKET, kind, proto)
    sock.setblocking(False)
    it.sockets.append(sock)
    return sock


def test_a_promiscuous_socket_makes_the_nic_take_every_frame_until_it_is_closed(it):
    sock = opened(it)
    other = udp_frame(b"x", mac="02:00:00:00:00:99")
    it.put(other)
    assert drain(sock) == []
    sock.setsockopt(SOL_PACKET, ADD, struct.pack("iHH8s", 2, 1, 0, b""))
    it.put(other)
    ((data, _cmsgs, _flags, address),) = drain(sock)
    assert (data, address[2]) == (other, kernel.PACKET_OTHERHOST)
    second = opened(it)
    second.setsockopt(SOL_PACKET, ADD, struct.pack("iHH8s", 2, 1, 0, b""))
    sock.close()
    it.put(other)
    assert len(drain(second)) == 1
    second.close()
    it.put(other)
    assert it.drops() == {"NIC_DROP_FILTER": 2, "OTHERHOST": 2}


def test_all_multicast_lets_every_group_in(it):
    sock = opened(it, proto=IP_TYPE)
    group = udp_frame(b"x", mac="01:00:5e:01:02:03", dst="224.1.2.3")
    it.put(group)
    assert drain(sock) == []
    sock.setsockopt(SOL_PACKET, ADD, struct.pack("iHH8s", 2, 2, 0, b""))
    it.put(group)
    assert len(drain(sock)) == 1


def test_a_frame_that_only_a_packet_socket_takes_is_no_drop(it):
    frame = bytes(Ether(dst=MAC, src=PEER_MAC, type=0x88B5)) + b"x" * 50
    sock = opened(it, proto=kernel.htons(0x88B5))
    it.put(frame)
    assert it.drops() == {}
    sock.close()
    it.put(frame)
    assert it.drops() == {"UNHANDLED_PROTO": 1}


def test_who_does_not_read_keeps_no_frame_from_its_end(it):
    sock = opened(it)
    it.put(udp_frame(b"x", dport=9))
    assert it.drops() == {"NO_SOCKET": 1}
    assert sock.info["queued"] == 2  # the datagram, and our ICMP error


def test_a_jumbo_frame_is_seen_and_sent_whole(it):
    with memory_host(mtu=9000) as big:
        sock = opened(big)
        frame = udp_frame(bytes(8000))
        big.put(frame)
        assert drain(sock)[0][0] == frame
        sock.bind(("tap0", 0))
        assert sock.send(frame) == len(frame)
        big.host.run()
        assert frame in big.sent()
