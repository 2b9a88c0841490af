#!/usr/bin/env python3
"""Send UDP datagrams as fast as a compiled loop can, or at a rate: load for a host behind a TAP.

    .venv/bin/python tools/pktgen.py 10.0.0.2                                   # 18 bytes to port 9 for 5 s, sendmmsg
    .venv/bin/python tools/pktgen.py 10.0.0.2 --mode gso --size 1472            # the kernel splits, three times as fast
    .venv/bin/python tools/pktgen.py 10.0.0.2 --mode raw --dev tap0 --flows 64  # whole frames, no qdisc
    .venv/bin/python tools/pktgen.py 10.0.0.2 --rate 100000 --seconds 10 --json

``gso`` finds a receiver's limit; ``mmsg`` is slower than most receivers. Frames that find the TAP's queue full are lost
without a word to the sender: ``ip -s link show tap0`` counts them as TX dropped.
"""

from __future__ import annotations

import argparse
import json
import socket
import struct
import sys

SO_PACKET_QDISC_BYPASS = 20
SOL_PACKET = 263
UDP_SEGMENT = 103


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("to", help="IPv4 address of the receiver")
    parser.add_argument("--port", type=int, default=9, help="UDP port (default 9, discard)")
    parser.add_argument("--mode", choices=["mmsg", "gso", "raw"], default="mmsg")
    parser.add_argument("--size", type=int, default=18, help="bytes of payload (default 18)")
    parser.add_argument(
        "--flows", type=int, default=1, help="source ports, raw only (default 1)"
    )
    parser.add_argument("--rate", type=float, default=0, help="packets a second, 0: no limit")
    parser.add_argument("--seconds", type=float, default=5, help="how long (default 5)")
    parser.add_argument("--count", type=int, default=0, help="how many, instead of how long")
    parser.add_argument("--dev", help="device of the raw frames, e.g. tap0")
    parser.add_argument("--json", action="store_true", help="result as JSON")
    args = parser.parse_args(argv)
    if args.mode == "raw" and not args.dev:
        parser.error("raw frames need a device: --dev tap0")
    if args.flows != 1 and args.mode != "raw":
        parser.error("--flows needs whole frames: --mode raw --dev tap0")
    if not 0 <= args.size <= 1472:
        parser.error(f"--size {args.size}: 0 to 1472 bytes fit into a frame")
    if args.mode == "gso" and args.size == 0:
        parser.error("--size 0: segments have at least 1 byte")
    return args


def checksum(data: bytes) -> int:
    """RFC 1071."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def udp_frame(
    src_mac: bytes, dst_mac: bytes, src: str, dst: str, port: int, size: int
) -> bytes:
    """Make an Ethernet frame with a UDP datagram of ``size`` bytes from port 1024, UDP checksum 0."""
    ip = struct.pack(
        "!BBHHHBBH4s4s",
        *(0x45, 0, 28 + size, 0, 0x4000, 64, 17, 0),
        *(socket.inet_aton(src), socket.inet_aton(dst)),
    )
    ip = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:]
    udp = struct.pack("!HHHH", 1024, port, 8 + size, 0)
    return dst_mac + src_mac + b"\x08\x00" + ip + udp + bytes(size)


def neighbour(dev: str, address: str) -> bytes:
    """Ask the kernel for the MAC address of a neighbour, after making it resolve it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.sendto(b"", (address, 9))
    for _ in range(200):
        with open("/proc/net/arp") as table:
            for line in table:
                fields = line.split()
                if (
                    fields[0] == address
                    and fields[5] == dev
                    and fields[3] != "00:00:00:00:00:00"
                ):
                    return bytes.fromhex(fields[3].replace(":", ""))
    sys.exit(f"pktgen: {address} does not answer on {dev}; is `netstack up {dev}` running?")


def raw_socket(args: argparse.Namespace) -> tuple[socket.socket, list[bytes]]:
    """Open a packet socket past the queueing discipline, and make its frames."""
    from netstack.testing._traffic import udp_frames

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((args.to, args.port))
        source = probe.getsockname()[0]
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sock.setsockopt(SOL_PACKET, SO_PACKET_QDISC_BYPASS, 1)
    sock.bind((args.dev, 0))
    mac = sock.getsockname()[4]
    frame = udp_frame(mac, neighbour(args.dev, args.to), source, args.to, args.port, args.size)
    return sock, udp_frames(frame, args.flows)


def send(args: argparse.Namespace) -> dict[str, float]:
    """Send, and give packets, seconds, rates and the sender's own cost."""
    from netstack.testing import _traffic

    if args.mode == "raw":
        sock, frames = raw_socket(args)
    else:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        sock.connect((args.to, args.port))
        frames = [bytes(args.size)]
    with sock:
        if args.mode == "gso":
            segments = max(1, min(64, 65507 // args.size))
            sock.setsockopt(socket.IPPROTO_UDP, UDP_SEGMENT, args.size)
            tally = _traffic.send_gso(
                sock.fileno(), args.size, segments, args.count, args.rate, args.seconds
            )
        else:
            tally = _traffic.send_burst(
                sock.fileno(), frames, args.count, args.rate, args.seconds
            )
    seconds = tally["wall_ns"] / 1e9
    return {
        "packets": tally["packets"],
        "seconds": seconds,
        "packets_per_second": tally["packets"] / seconds,
        "bits_per_second": tally["packets"] * (args.size + 42) * 8 / seconds,
        "cpu_ns_per_packet": tally["cpu_ns"] / max(1, tally["packets"]),
    }


def main(argv: list[str] | None = None) -> int:
    """Send and print."""
    args = parse(argv)
    try:
        result = send(args)
    except OSError as error:
        print(f"pktgen: {error}", file=sys.stderr)
        print(f"try: ip route get {args.to}; sudo netstack up", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    if args.json:
        print(
            json.dumps([{"mode": args.mode, "size": args.size, "flows": args.flows, **result}])
        )
    else:
        print(
            f"Result: OK {result['seconds']:.2f} s, {result['packets']:.0f} packets of "
            f"{args.size} bytes, {args.mode}\n  {result['packets_per_second']:.0f} pps, "
            f"{result['bits_per_second'] / 1e6:.0f} Mb/s on the wire, "
            f"{result['cpu_ns_per_packet']:.0f} ns of this CPU a packet"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
