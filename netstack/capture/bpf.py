"""Compile tcpdump's filter language to BPF, with libpcap.

libpcap is loaded with ctypes at the first filter, so neither building nor starting netstack
needs it. A :class:`Program` runs in Python (0.4 µs a frame) or, through the two addresses it
gives, in compiled code (15 ns)::

    ctypedef unsigned int (*bpf_fn)(const void*, const unsigned char*, unsigned int,
                                    unsigned int) noexcept nogil
    run = <bpf_fn><uintptr_t>program.function
    kept = run(<const void*><uintptr_t>program.address, frame, wire_len, captured_len)

Source: pcap-filter(7), pcap_compile(3PCAP); struct bpf_insn of net/bpf.h.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import re
import struct
import threading
from ctypes import POINTER, byref, c_char_p, c_int, c_uint, c_uint32, c_void_p
from functools import cache

from netstack.capture import DLT_EN10MB, SNAPLEN
from netstack.errors import UsageError, oserror

__all__ = ["Program", "compile_filter", "libpcap_version"]

INSN_SIZE = 8  # struct bpf_insn: u16 code, u8 jt, u8 jf, u32 k
NETMASK_UNKNOWN = 0xFFFFFFFF
_DLT_OF = {101: 12}  # raw IP has one number in files (LINKTYPE_) and another in libpcap (DLT_)
_BPF_LD, _BPF_ABS, _SKF_LL_OFF = 0x00, 0x20, 0xFFE00000

_SONAMES = ("libpcap.so.0.8", "libpcap.so.1")  # Debian and Ubuntu; everybody else
_image_lock = threading.Lock()  # bpf_image() returns a static buffer

_MANUAL = "man pcap-filter"
_HINTS = (  # libpcap's words, and what to type instead
    (r"syntax error", f"netstack capture 'udp port 5000 and not host 10.0.0.1'\n{_MANUAL}"),
    (r"unknown host", "host 10.0.0.1"),
    (r"unknown port|port '.*' is (?:tcp|udp)", "port 5000"),
    (r"unknown protocol", "ip proto 17"),
    (r"unknown ether proto", "ether proto 0x0800"),
    (r"inbound/outbound", "-Q in\n-Q out"),
    (r"netmask not known", "dst host 10.0.0.255"),
)


class _Insn(ctypes.Structure):
    _fields_ = [
        ("code", ctypes.c_uint16),
        ("jt", ctypes.c_uint8),
        ("jf", ctypes.c_uint8),
        ("k", c_uint32),
    ]


class _Program(ctypes.Structure):
    _fields_ = [("len", c_uint), ("insns", POINTER(_Insn))]


_FUNCTIONS: dict[str, tuple[object, list[object]]] = {  # name: result, arguments
    "pcap_open_dead": (c_void_p, [c_int, c_int]),
    "pcap_compile": (c_int, [c_void_p, POINTER(_Program), c_char_p, c_int, c_uint32]),
    "pcap_freecode": (None, [POINTER(_Program)]),
    "pcap_close": (None, [c_void_p]),
    "pcap_geterr": (c_char_p, [c_void_p]),
    "pcap_lib_version": (c_char_p, []),
    "bpf_filter": (c_uint, [c_void_p, c_char_p, c_uint, c_uint]),
    "bpf_image": (c_char_p, [POINTER(_Insn), c_int]),
}


@cache
def _libpcap() -> ctypes.CDLL:
    """Load libpcap and declare the functions used; OSError when there is none."""
    library = _find()
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def _find() -> ctypes.CDLL:
    for name in _SONAMES:
        with contextlib.suppress(OSError):
            return ctypes.CDLL(name)
    from ctypes.util import find_library  # runs ldconfig, so it comes last

    if found := find_library("pcap"):
        return ctypes.CDLL(found)
    raise oserror(
        errno.ELIBACC,
        "libpcap was not found, and filters need it",
        hint="sudo apt-get install libpcap0.8",
    )


class Program:
    """Hold a compiled filter; immutable, and safe to use from several threads.

    ``insns`` has the instructions as an array of struct bpf_insn. The two addresses stay valid
    as long as the object lives: whoever hands them to compiled code keeps a reference to it.
    """

    __slots__ = ("_array", "_lib", "address", "function", "insns", "text")

    def __init__(self, insns: bytes, text: str = "") -> None:
        """Take instructions from bytes, as :func:`compile_filter` makes them."""
        if not insns or len(insns) % INSN_SIZE:
            raise ValueError(
                f"a BPF program has a multiple of {INSN_SIZE} bytes, not {len(insns)}"
            )
        self._lib = _libpcap()
        self._array = (_Insn * (len(insns) // INSN_SIZE)).from_buffer_copy(insns)
        self.insns = insns
        self.text = text
        self.address: int = ctypes.addressof(self._array)
        self.function: int = ctypes.cast(self._lib.bpf_filter, c_void_p).value or 0

    def __len__(self) -> int:
        """Return the number of instructions."""
        return len(self._array)

    def __repr__(self) -> str:
        """Show the filter and its size."""
        return f"<Program {self.text!r}, {len(self)} instructions>"

    def matches(self, frame: bytes, wire_len: int | None = None) -> int:
        """Return how many bytes of the frame to keep: 0 if the filter rejects it."""
        length = len(frame)
        kept: int = self._lib.bpf_filter(
            self.address, frame, length if wire_len is None else wire_len, length
        )
        return kept

    def disassemble(self, style: int = 1) -> str:
        """Return the program as ``tcpdump -d`` (1), ``-dd`` (2) or ``-ddd`` (3) prints it."""
        if style <= 1:
            return "".join(f"{self._image(n)}\n" for n in range(len(self)))
        if style == 2:
            rows = (f"{{ {i.code:#x}, {i.jt}, {i.jf}, 0x{i.k:08x} }},\n" for i in self._array)
            return "".join(rows)
        rows = (f"{i.code} {i.jt} {i.jf} {i.k}\n" for i in self._array)
        return f"{len(self)}\n" + "".join(rows)

    def _image(self, n: int) -> str:
        with _image_lock:
            image: bytes = self._lib.bpf_image(byref(self._array[n]), n)
        return image.decode()


def compile_filter(
    text: str,
    linktype: int = DLT_EN10MB,
    snaplen: int = SNAPLEN,
    *,
    optimize: bool = True,
    netmask: int = NETMASK_UNKNOWN,
) -> Program:
    """Compile a filter expression; the empty one accepts everything.

    ``linktype`` is a LINKTYPE_ number. ``netmask`` (host byte order) is needed by 'ip
    broadcast' only. ``optimize=False`` is ``tcpdump -O``. Raises UsageError with libpcap's own
    words and what to type instead.
    """
    if "\0" in text:
        raise _error(text, "a NUL character")
    lib = _libpcap()
    handle = lib.pcap_open_dead(_DLT_OF.get(linktype, linktype), snaplen)
    if not handle:
        raise MemoryError("pcap_open_dead")
    program = _Program()
    try:
        if lib.pcap_compile(handle, byref(program), text.encode(), int(optimize), netmask):
            why = lib.pcap_geterr(handle).decode(errors="replace")
            raise _error(text, why)
        insns = ctypes.string_at(program.insns, program.len * INSN_SIZE)
        lib.pcap_freecode(byref(program))
    finally:
        lib.pcap_close(handle)
    if any(_asks_kernel(code, k) for code, _, _, k in struct.iter_unpack("=HBBI", insns)):
        raise _error(text, "inbound/outbound is not in the frame")
    return Program(insns, text)


def libpcap_version() -> str:
    """Return libpcap's own version line."""
    version: bytes = _libpcap().pcap_lib_version()
    return version.decode()


def _asks_kernel(code: int, k: int) -> bool:
    """Tell whether an instruction loads what only the kernel's BPF knows (SKF_AD_OFF).

    libpcap writes such loads for 'inbound' even without a live device, and its own interpreter
    then rejects every frame without a word.
    """
    return code & 0x07 == _BPF_LD and code & 0xE0 == _BPF_ABS and k >= _SKF_LL_OFF


def _error(text: str, why: str) -> UsageError:
    hint = next((hint for pattern, hint in _HINTS if re.search(pattern, why)), _MANUAL)
    return UsageError(f"filter {text!r}: {why}", hint=hint)
