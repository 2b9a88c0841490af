"""Understand tcpdump's command line.

Flags, their bundling (``-nne``, ``-c10``) and the filter words behind them are tcpdump's. Added
are a stage behind the interface (``-i tap0@gro``, xdpdump's convention), ``-i`` given more than
once, and ``--json``.
"""

from __future__ import annotations

import getopt
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from netstack.capture import DLT_EN10MB, SNAPLEN, Direction
from netstack.capture.bpf import Program, compile_filter
from netstack.capture.dissect import Style
from netstack.errors import UsageError

__all__ = ["HELP", "Options", "Place", "parse"]

HELP = """\
usage: netstack capture [-AdDehKlnOpqStUvxX#] [-c COUNT]
                        [-i INTERFACE[@STAGE]]... [-Q in|out|inout]
                        [-r FILE] [-s SNAPLEN] [-w FILE]
                        [--json] [--nano] [--print] [FILTER]

what to look at
  -i NAME[@STAGE]   interface, and the stage of the receive path: nic gro
                    prerouting input forward output postrouting socket drop;
                    again for more; "any" for all of either
  -D                list the interfaces and stages, and leave
  -r FILE           read a pcapng or pcap file instead; - is standard input
  -Q in|out|inout   only frames that came in, or went out
  -c COUNT          leave after so many packets
  -s SNAPLEN        keep so many bytes of each packet (0 and default: 262144)
  -p                do not put the interface into promiscuous mode
  FILTER            words of tcpdump's filter language, see pcap-filter(7);
                    -O leaves it unoptimized
  -d, -dd, -ddd     show the filter's program as instructions, C, or numbers

what to show
  -e                link-layer header
  -q, -v, -vv       less, more, still more
  -#                number the packets
  -t                no time; -tt seconds since 1970, -ttt since the last packet,
                    -tttt date and time, -ttttt since the first packet
  -x, -X, -A        the bytes in hex, in hex and ASCII, in ASCII; given twice,
                    with the link-layer header
  -S                absolute TCP sequence numbers
  -K                do not verify checksums
  -n                no names (always so)
  -l                flush after each line
  --nano            nanoseconds
  --json            one JSON object for each packet

what to write
  -w FILE           write pcapng to FILE instead of printing; - is standard
                    output
  -U                flush after each packet
  --print           print as well
  -h                show this help

examples
  netstack capture -i tap0 -ne udp port 5000
  netstack capture -i any -c 10 icmp or arp
  netstack capture -i tap0@drop -n
  netstack capture -i tap0 -i tap0@any -w trip.pcapng
  netstack capture -i tap0 -w - | tshark -nli -
  netstack capture -d udp port 53
"""

_SHORT = "Ac:dDehi:KlnOpqQ:r:s:StUvw:xX#"
_LONG = {  # tcpdump's long names, and ours
    "absolute-tcp-sequence-numbers": "-S",
    "direction=": "-Q",
    "dont-verify-checksums": "-K",
    "help": "-h",
    "interface=": "-i",
    "json": "--json",
    "list-interfaces": "-D",
    "micro": "--micro",
    "nano": "--nano",
    "no-optimize": "-O",
    "no-promiscuous-mode": "-p",
    "number": "-#",
    "packet-buffered": "-U",
    "print": "--print",
    "snapshot-length=": "-s",
}
_SNAPLEN_MAX = 262144
_DIRECTIONS = {"in": Direction.IN, "out": Direction.OUT, "inout": None}
_TIME_KINDS = 5


@dataclass(frozen=True, slots=True)
class Place:
    """Name where frames are seen: an interface, and a stage of the receive path behind it."""

    ifname: str
    stage: str = ""

    def __str__(self) -> str:
        """Return the form that ``-i`` takes."""
        return f"{self.ifname}@{self.stage}" if self.stage else self.ifname

    @property
    def several(self) -> bool:
        """Tell whether more than one place may be meant."""
        return "any" in (self.ifname, self.stage)

    def covers(self, ifname: str, stage: str) -> bool:
        """Tell whether a record from there is asked for."""
        return self.ifname in ("any", ifname) and (
            self.stage in ("any", stage) or (self.several and not self.stage)
        )


@dataclass(slots=True)
class Options:
    """Hold a parsed command line."""

    style: Style = field(default_factory=Style)
    places: tuple[Place, ...] = ()  # none: the first interface there is
    words: tuple[str, ...] = ()  # the filter
    read: str | None = None
    write: str | None = None
    count: int | None = None
    snaplen: int = SNAPLEN
    direction: Direction | None = None
    promiscuous: bool = True
    optimize: bool = True
    dump_program: int = 0
    list_places: bool = False
    line_buffered: bool = False
    packet_buffered: bool = False
    print_too: bool = False
    json: bool = False
    help: bool = False

    @property
    def filter_text(self) -> str:
        """Return the filter expression."""
        return " ".join(self.words)

    @property
    def live(self) -> bool:
        """Tell whether a source of live records is needed."""
        return not (self.read is not None or self.dump_program or self.help)

    @property
    def prints(self) -> bool:
        """Tell whether packets are printed."""
        return self.write is None or self.print_too

    def compile(self, linktype: int = DLT_EN10MB) -> Program:
        """Compile the filter; UsageError when it can't be."""
        return compile_filter(self.filter_text, linktype, self.snaplen, optimize=self.optimize)


def parse(args: Sequence[str]) -> Options:
    """Parse the words behind ``netstack capture``; UsageError for what can't be understood.

    The filter is compiled later, when the link type is known.
    """
    try:
        given, words = getopt.gnu_getopt(list(args), _SHORT, list(_LONG))
    except getopt.GetoptError as error:
        raise UsageError(str(error), hint="netstack capture --help") from None
    options = Options(words=tuple(words))
    for flag, value in given:
        name = flag
        if flag.startswith("--"):
            name = _LONG.get(flag[2:]) or _LONG[flag[2:] + "="]
        if name in _FLAGS:
            _FLAGS[name](options)
        else:
            _VALUES[name](options, value)
    _check(options)
    return options


def _check(options: Options) -> None:
    """Refuse what can't be had together."""
    if options.style.time > _TIME_KINDS:
        raise UsageError("only -t, -tt, -ttt, -tttt and -ttttt are supported", hint="-ttttt")
    if options.json and not options.prints:
        raise UsageError(
            "--json prints packets and -w writes them instead", hint="--print --json -w FILE"
        )
    if options.print_too and options.write == "-":
        raise UsageError(
            "--print and -w - both want the standard output", hint="--print -w FILE"
        )
    options.style.place = len(options.places) > 1 or any(p.several for p in options.places)


def _count(options: Options, value: str) -> None:
    if not value.isdecimal() or int(value) == 0:
        raise UsageError(f"invalid packet count {value}: it is a number above 0", hint="-c 10")
    options.count = int(value)


def _interface(options: Options, value: str) -> None:
    ifname, at, stage = value.partition("@")
    if not ifname or (at and not stage):
        raise UsageError(
            f"invalid interface {value!r}: it is NAME or NAME@STAGE",
            hint="-i tap0\n-i tap0@socket\n-D",
        )
    options.places += (Place(ifname, stage),)


def _direction(options: Options, value: str) -> None:
    if value not in _DIRECTIONS:
        raise UsageError(
            f"unknown capture direction {value!r}: it is in, out or inout", hint="-Q in"
        )
    options.direction = _DIRECTIONS[value]


def _snaplen(options: Options, value: str) -> None:
    if not value.isdecimal() or int(value) > _SNAPLEN_MAX:
        raise UsageError(
            f"invalid snaplen {value} (must be >= 0 and <= {_SNAPLEN_MAX})", hint="-s 128"
        )
    options.snaplen = int(value) or SNAPLEN


def _add(name: str) -> Callable[[Options], None]:
    """Return what counts a flag of the style."""

    def add(options: Options) -> None:
        setattr(options.style, name, getattr(options.style, name) + 1)

    return add


def _style(name: str, value: bool = True) -> Callable[[Options], None]:
    return lambda options: setattr(options.style, name, value)


def _set(name: str, value: bool = True) -> Callable[[Options], None]:
    return lambda options: setattr(options, name, value)


def _keep(name: str) -> Callable[[Options, str], None]:
    return lambda options, value: setattr(options, name, value)


def _dump(options: Options) -> None:
    options.dump_program += 1


_FLAGS: dict[str, Callable[[Options], None]] = {
    "-A": _add("ascii"),
    "-d": _dump,
    "-D": _set("list_places"),
    "-e": _style("link"),
    "-h": _set("help"),
    "-K": _style("no_checksums"),
    "-l": _set("line_buffered"),
    "-n": lambda options: None,  # names are never looked up
    "-O": _set("optimize", False),
    "-p": _set("promiscuous", False),
    "-q": _add("quiet"),
    "-S": _style("absolute"),
    "-t": _add("time"),
    "-U": _set("packet_buffered"),
    "-v": _add("verbose"),
    "-x": _add("hex"),
    "-X": _add("hex_ascii"),
    "-#": _style("number"),
    "--json": _set("json"),
    "--micro": _style("nano", False),
    "--nano": _style("nano"),
    "--print": _set("print_too"),
}
_VALUES: dict[str, Callable[[Options, str], None]] = {
    "-c": _count,
    "-i": _interface,
    "-Q": _direction,
    "-r": _keep("read"),
    "-s": _snaplen,
    "-w": _keep("write"),
}
