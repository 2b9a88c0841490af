"""Drive a capture: from a live source or a file, through the filter, to lines, JSON or pcapng.

What tcpdump says on its error stream before and after is said here in the same words.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from types import MappingProxyType
from typing import BinaryIO, Literal, TextIO

from netstack.capture import DLT_EN10MB, Record, Source, Stats
from netstack.capture.dissect import Style
from netstack.capture.options import HELP, Options
from netstack.capture.outputs import JsonOutput, LineOutput, Output, PcapngOutput
from netstack.capture.pcapng import Writer
from netstack.capture.printer import LINK_TYPES, Printer
from netstack.capture.reader import Reader
from netstack.capture.stages import LINKTYPE_RAW, RAW_ONLY
from netstack.errors import InternalError

__all__ = ["EXIT_SIGPIPE", "run"]

PROGRAM = "netstack capture"
EXIT_OK, EXIT_SIGPIPE = 0, 128 + 13  # what a shell shows for a tcpdump whose reader went away


def run(options: Options, source: Source | None, out: TextIO, err: TextIO) -> int:
    """Do what the options say and return the exit status.

    ``source`` is needed when ``options.live``; its records are those that the filter accepted,
    and they are consumed. Raises UsageError (a filter, a file that is no capture) and OSError
    (a file that can't be opened or written). KeyboardInterrupt ends the capture as it ends
    tcpdump's: with the summary, and status 0.
    """
    if options.help:
        out.write(HELP)
        return EXIT_OK
    if options.read is not None:
        with _opened(options.read, "rb", sys.stdin) as file:
            reader = Reader(file, "standard input" if options.read == "-" else options.read)
            return _run_file(options, reader, out, err)
    if options.dump_program:
        out.write(options.compile().disassemble(options.dump_program))
        return EXIT_OK
    if source is None:
        raise InternalError("a live capture was started without a source")
    if options.list_places:
        for number, (name, description) in enumerate(source.places(), 1):
            out.write(f"{number}.{name}{f' ({description})' if description else ''}\n")
        return EXIT_OK
    return _run_live(options, source, out, err)


def _run_live(options: Options, source: Source, out: TextIO, err: TextIO) -> int:
    if options.write is None and not (options.style.verbose or options.json):
        err.write(
            f"{PROGRAM}: verbose output suppressed, use -v[v]... for full protocol decode\n"
        )
    else:
        err.write(f"{PROGRAM}: ")
    name = ", ".join(map(str, options.places)) or source.places()[0][0]
    stages = {place.stage for place in options.places}
    linktype = LINKTYPE_RAW if stages and stages <= RAW_ONLY else DLT_EN10MB
    err.write(f"listening on {name}, {_link_type(linktype)}")
    err.write(f", snapshot length {options.snaplen} bytes\n")
    err.flush()
    known = dict(source.places())
    captured, status = _copy(options, source, source.stats, out, linktype, known)
    stats = source.stats()
    err.write(
        f"{_packets(captured)} captured\n"
        f"{_packets(stats.received)} received by filter\n"
        f"{_packets(stats.dropped)} dropped by capture\n"
    )
    err.flush()
    return status


def _run_file(options: Options, reader: Reader, out: TextIO, err: TextIO) -> int:
    program = options.compile(reader.linktype)
    compiled = {reader.linktype: program}
    if options.dump_program:
        out.write(program.disassemble(options.dump_program))
        return EXIT_OK
    err.write(f"reading from file {options.read}, {_link_type(reader.linktype)}")
    err.write(f", snapshot length {reader.snaplen}\n")
    err.flush()

    def asked_for() -> Iterator[Record]:
        places = options.places
        for record in reader:
            if places and not any(p.covers(record.ifname, record.stage) for p in places):
                continue
            if record.linktype not in compiled:
                compiled[record.linktype] = options.compile(record.linktype)
            if compiled[record.linktype].matches(record.data, record.wire_len):
                yield record

    return _copy(options, asked_for(), None, out, reader.linktype)[1]


def _copy(
    options: Options,
    records: Iterable[Record | None],
    stats: Callable[[], Stats] | None,
    out: TextIO,
    linktype: int,
    descriptions: Mapping[str, str] = MappingProxyType({}),
) -> tuple[int, int]:
    """Move records to where they are wanted; return how many, and the exit status."""
    captured, status = 0, EXIT_OK
    try:
        with _outputs(options, out, linktype, stats, descriptions) as outputs:
            try:
                for record in records:
                    if record is None:
                        for output in outputs:
                            output.flush()
                    elif options.direction in (None, record.direction):
                        captured += 1
                        record.data = record.data[: options.snaplen]
                        for output in outputs:
                            output.put(record)
                        if captured == options.count:
                            break
            except KeyboardInterrupt:
                if options.prints:
                    out.write("\n")  # the terminal has just shown ^C
    except BrokenPipeError:
        status = EXIT_SIGPIPE
        _abandon(out)
    return captured, status


@contextlib.contextmanager
def _outputs(
    options: Options,
    out: TextIO,
    linktype: int,
    stats: Callable[[], Stats] | None,
    descriptions: Mapping[str, str],
) -> Iterator[list[Output]]:
    """Open what the options ask for, and close it behind the last record."""
    outputs: list[Output] = []
    with ExitStack() as stack:
        if options.write is not None:
            file = stack.enter_context(_opened(options.write, "wb", out))
            writer = Writer(
                file,
                snaplen=options.snaplen,
                filter_text=options.filter_text,
                application=PROGRAM,
                unbuffered=options.packet_buffered,
                descriptions=descriptions,
            )
            outputs.append(PcapngOutput(writer, stats))
        if options.prints:
            kind = JsonOutput if options.json else LineOutput
            style = Style(time=1) if options.json else options.style
            outputs.append(kind(out, Printer(style, linktype), options.line_buffered))
        yield outputs
        for output in outputs:
            output.close()


@contextlib.contextmanager
def _opened(path: str, mode: Literal["rb", "wb"], standard: TextIO) -> Iterator[BinaryIO]:
    """Open a file; ``-`` is a standard stream, which stays open."""
    if path == "-":
        yield standard.buffer
    else:
        with open(path, mode) as file:
            yield file


def _abandon(out: TextIO) -> None:
    """Keep Python from complaining at exit about what standard output can't take."""
    if out is sys.stdout:
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), out.fileno())


def _packets(count: int) -> str:
    return f"{count} packet{'' if count == 1 else 's'}"


def _link_type(number: int) -> str:
    name, description = LINK_TYPES.get(number, (None, None))
    return f"link-type {name} ({description})" if name else f"link-type {number}"
