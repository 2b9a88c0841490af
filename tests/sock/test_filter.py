"""Socket filters: the same programs on a kernel socket, the same datagrams, the same answers."""

import ctypes
import random
import socket as kernel
import struct

import pytest

from netstack.socket import SO_ATTACH_FILTER, SO_DETACH_FILTER
from tests.sock.rig import OUR_IP, rig, udp_frame

LD, LDX, ST, STX, ALU, JMP, RET, MISC = range(8)
W, H, B = 0, 8, 0x10
IMM, ABS, IND, MEM, LEN, MSH = 0, 0x20, 0x40, 0x60, 0x80, 0xA0
K, X, A = 0, 8, 0x10
JA, JEQ, JGT, JGE, JSET = 0, 0x10, 0x20, 0x30, 0x40
AD, NET = 0xFFFFF000, 0xFFF00000
KEEP, DROP = (RET, 0, 0, 0xFFFF), (RET, 0, 0, 0)


def attach(sock, program) -> int:
    """Attach a program, a list of (code, jt, jf, k); give the errno."""
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *insn) for insn in program))
    try:
        value = struct.pack("HxxxxxxQ", len(program), ctypes.addressof(code) if program else 0)
        sock.setsockopt(kernel.SOL_SOCKET, SO_ATTACH_FILTER, value)
    except OSError as error:
        return error.errno
    return 0


def received(sock, settle, sender, payloads) -> list[bytes]:
    """Send datagrams to a filtered socket; give those that came through."""
    sock.setblocking(False)
    for payload in payloads:
        sender.sendto(payload, sock.getsockname())
    settle()
    out = []
    while True:
        try:
            out.append(sock.recv(2000))
        except BlockingIOError:
            return out


def both(program, payloads):
    """Give errno and what came through, of the kernel and of ours."""
    with (
        kernel.socket(type=kernel.SOCK_DGRAM) as sock,
        kernel.socket(type=kernel.SOCK_DGRAM) as sender,
    ):
        sock.bind(("127.0.0.1", 9753))
        theirs = attach(sock, program), received(sock, lambda: None, sender, payloads)
    with rig() as it:
        sock, sender = it.socket("127.0.0.1", 9753), it.socket()
        ours = attach(sock, program), received(sock, it.settle, sender, payloads)
        ended = it.count("UdpInErrors"), sock.info["drops"]
    assert ended == (len(payloads) - len(ours[1]),) * 2
    return theirs, ours


PAYLOADS = [b"", b"a", b"abc", b"b", b"hello world", bytes(range(200)), b"\xff" * 1400]

GOOD = {
    "keep": [KEEP],
    "drop": [DROP],
    "cut": [(RET, 0, 0, 12)],
    "cut below the header": [(RET, 0, 0, 3)],
    "first byte is a": [(LD | B | ABS, 0, 0, 8), (JMP | JEQ, 0, 1, 0x61), KEEP, DROP],
    "destination port": [(LD | H | ABS, 0, 0, 2), (JMP | JEQ, 0, 1, 9753), KEEP, DROP],
    "length above 20": [(LD | LEN, 0, 0, 0), (JMP | JGT, 0, 1, 20), KEEP, DROP],
    "return A": [(LD | LEN, 0, 0, 0), (ALU | 0x10, 0, 0, 2), (RET | A, 0, 0, 0)],
    "word out of bounds": [(LD | W | ABS, 0, 0, 8), KEEP],
    "indirect": [
        (LDX | IMM, 0, 0, 6),
        (LD | B | IND, 0, 0, 3),
        (JMP | JSET, 0, 1, 1),
        KEEP,
        DROP,
    ],
    "memory": [
        (LD | LEN, 0, 0, 0),
        (ST, 0, 0, 3),
        (LDX | MEM, 0, 0, 3),
        (MISC | 0x80, 0, 0, 0),
        (RET | A, 0, 0, 0),
    ],
    "header length": [(LDX | B | MSH, 0, 0, 4), (MISC | 0x80, 0, 0, 0), (RET | A, 0, 0, 0)],
    "IP protocol": [(LD | B | ABS, 0, 0, NET + 9), (JMP | JEQ, 0, 1, 17), KEEP, DROP],
    "EtherType": [(LD | H | ABS, 0, 0, AD), (JMP | JEQ, 0, 1, 0x800), KEEP, DROP],
    "division by zero": [(LDX | IMM, 0, 0, 0), (ALU | 0x30 | X, 0, 0, 0), KEEP],
    "jump over": [(JMP | JA, 0, 0, 1), DROP, KEEP],
    "stored on both ways": [
        (JMP | JEQ, 0, 2, 0),
        (ST, 0, 0, 1),
        (JMP | JA, 0, 0, 1),
        (STX, 0, 0, 1),
        (LD | MEM, 0, 0, 1),
        KEEP,
    ],
    "loaded where nothing leads": [(JMP | JA, 0, 0, 1), (LD | MEM, 0, 0, 1), KEEP],
}

BAD = {
    "empty": [],
    "no return": [(LD | IMM, 0, 0, 1)],
    "unknown code": [(0x7F, 0, 0, 0), KEEP],
    "long code": [(0x100, 0, 0, 0), KEEP],
    "return X": [(RET | X, 0, 0, 0)],
    "jump outside": [(JMP | JA, 0, 0, 1), KEEP],
    "far jump": [(JMP | JA, 0, 0, 0xFFFFFFFF), KEEP],
    "branch outside": [(JMP | JEQ, 1, 0, 0), KEEP],
    "other branch outside": [(JMP | JEQ, 0, 1, 0), KEEP],
    "divide by 0": [(ALU | 0x30, 0, 0, 0), KEEP],
    "modulo 0": [(ALU | 0x90, 0, 0, 0), KEEP],
    "shift by 32": [(ALU | 0x60, 0, 0, 32), KEEP],
    "memory 16": [(LD | MEM, 0, 0, 16), KEEP],
    "loaded, not stored": [(LD | MEM, 0, 0, 1), KEEP],
    "loaded to X, another stored": [(ST, 0, 0, 2), (LDX | MEM, 0, 0, 1), KEEP],
    "stored on one way": [(JMP | JEQ, 0, 1, 0), (ST, 0, 0, 1), (LD | MEM, 0, 0, 1), KEEP],
    "a way past the store": [
        (JMP | JSET, 1, 0, 1),
        (STX, 0, 0, 15),
        (LDX | MEM, 0, 0, 15),
        KEEP,
    ],
    "store 16": [(ST, 0, 0, 16), KEEP],
    "indirect X": [(LDX | IND, 0, 0, 0), KEEP],
    "byte immediate": [(LD | B | IMM, 0, 0, 0), KEEP],
    "too long": [KEEP] * 4097,
}


@pytest.mark.parametrize("name", GOOD)
def test_a_program_lets_through_what_it_does_in_the_kernel(name):
    theirs, ours = both(GOOD[name], PAYLOADS)
    assert ours == theirs


@pytest.mark.parametrize("name", BAD)
def test_a_bad_program_is_refused_as_in_the_kernel(name):
    theirs, ours = both(BAD[name], [b"x"])
    assert ours == theirs


def test_arithmetic_is_the_kernel_s():
    numbers = random.Random(1)
    for _ in range(60):
        program = [(LD | IMM, 0, 0, numbers.getrandbits(32))]
        for op in (0, 0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0x80, 0x90, 0xA0):
            small = numbers.randrange(1, 32)
            value = small if op in (0x60, 0x70, 0x30, 0x90) else numbers.getrandbits(32)
            if op == 0x80 or numbers.random() < 0.5:
                program.append((ALU | op, 0, 0, value))
            else:
                program += [(LDX | IMM, 0, 0, value), (ALU | op | X, 0, 0, 0)]
        program += [(ALU | 0x50, 0, 0, 1023), (ALU | 0x40, 0, 0, 8), (RET | A, 0, 0, 0)]
        theirs, ours = both(program, [bytes(1100)])
        assert ours == theirs, program


def test_a_refused_datagram_is_dropped_with_its_reason(it):
    sock = it.socket(OUR_IP, 9000)
    assert attach(sock, [DROP]) == 0
    it.receive(udp_frame(b"x"))
    assert it.fates() == {"SOCKET_FILTER": 1}
    assert (it.count("UdpInErrors"), sock.info["drops"]) == (1, 1)


def test_a_filter_sees_verified_bytes_only(it):
    sock = it.socket(OUR_IP, 9000)
    assert attach(sock, [KEEP]) == 0
    it.receive(udp_frame(b"x" * 500, check=1))
    assert it.fates() == {"UDP_CSUM": 1}
    assert (it.count("UdpInCsumErrors"), sock.info["queued"]) == (1, 0)


def test_a_program_is_replaced_and_taken_away(it):
    sock = it.socket(OUR_IP, 9000)
    for program, count in (([DROP], 0), ([KEEP], 1), ([DROP], 1)):
        assert attach(sock, program) == 0
        it.receive(udp_frame(b"x"))
        assert sock.info["queued"] == count
    sock.setsockopt(kernel.SOL_SOCKET, SO_DETACH_FILTER, 0)
    it.receive(udp_frame(b"x"))
    assert sock.info["queued"] == 2
    with pytest.raises(FileNotFoundError):
        sock.setsockopt(kernel.SOL_SOCKET, SO_DETACH_FILTER, 0)


def test_a_wrong_pointer_is_an_error_and_no_crash(it):
    sock = it.socket()
    with pytest.raises(OSError, match="Bad address"):
        sock.setsockopt(kernel.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HxxxxxxQ", 1, 8))
    with pytest.raises(OSError, match="Invalid argument"):
        sock.setsockopt(kernel.SOL_SOCKET, SO_ATTACH_FILTER, b"short")
