"""The capture itself: from a source or a file to lines, JSON and pcapng."""

import io
import json
import os
import re
import struct
import subprocess
import sys

import pytest

from netstack.capture import Direction, Record, Stats
from netstack.capture.options import parse
from netstack.capture.pcapng import Writer
from netstack.capture.reader import CaptureFileError, Reader
from netstack.capture.run import EXIT_SIGPIPE, run
from netstack.errors import InternalError, UsageError

NOW = 1_700_000_000_000_000_000
LINE = "IP 10.0.0.1.1234 > 10.0.0.2.5000: UDP, length 4"


def datagram(port=5000):
    """Return a frame with a UDP datagram."""
    ip = bytes.fromhex("020000000001020000000002080045000020000100004011f96d0a0000010a000002")
    return ip + struct.pack(">HHHH4s", 1234, port, 12, 0, b"ping")


def records(*ports):
    """Return a record for each port, at two stages in turn."""
    return [
        Record(
            *(NOW + n, datagram(port), 46, n, "tap0", "" if n % 2 == 0 else "socket"),
            Direction.IN if n % 2 == 0 else Direction.OUT,
        )
        for n, port in enumerate(ports)
    ]


class Source:
    """Give records that a test has put together."""

    def __init__(self, *items, stats=None):
        """Take records, None for a wait, and what is called or raised in between."""
        self.items = items
        self.given = 0
        self.totals = stats or Stats(len(items), 0)

    def __iter__(self):
        """Give them in order."""
        for item in self.items:
            if isinstance(item, BaseException):
                raise item
            if callable(item):
                item()
                continue
            self.given += 1
            yield item

    def stats(self):
        """Return the totals."""
        return self.totals

    def places(self):
        """Return the places."""
        return [("tap0", "the wire"), ("tap0@socket", "")]


class Streams:
    """Hold an output and an error stream."""

    def __init__(self):
        """Open them in memory."""
        self.raw = io.BytesIO()
        self.out = io.TextIOWrapper(self.raw, "utf-8")
        self.err = io.StringIO()

    def run(self, line, source=None):
        """Run a command line; return the status, the output, the errors."""
        status = run(parse(line.split()), source, self.out, self.err)
        self.out.flush()
        return status, self.raw.getvalue(), self.err.getvalue()


@pytest.fixture
def streams():
    """Return fresh streams."""
    return Streams()


@pytest.fixture
def capture(tmp_path):
    """Return the path of a capture of five frames."""
    path = tmp_path / "five.pcapng"
    with path.open("wb") as file:
        writer = Writer(file)
        for record in records(5000, 5001, 5000, 5001, 5000):
            writer.write(record)
        writer.close()
    return path


def test_a_live_capture_speaks_as_tcpdump_does(streams):
    source = Source(*records(5000, 5000), stats=Stats(7, 1))
    status, out, err = streams.run("-t -i tap0 udp", source)
    assert (status, out.decode()) == (0, f"{LINE}\n{LINE}\n")
    assert err == (
        "netstack capture: verbose output suppressed, use -v[v]... for full protocol decode\n"
        "listening on tap0, link-type EN10MB (Ethernet), snapshot length 262144 bytes\n"
        "2 packets captured\n"
        "7 packets received by filter\n"
        "1 packet dropped by capture\n"
    )


def test_the_first_line_when_verbose_or_writing(streams, tmp_path):
    for line in ("-v", f"-w {tmp_path / 'a'}"):
        err = Streams().run(line, Source())[2]
        first = "netstack capture: listening on tap0, link-type EN10MB (Ethernet), "
        assert err.startswith(first)


def test_a_count_ends_the_capture_without_asking_for_more(streams):
    source = Source(*records(5000, 5000, 5000))
    status, out, err = streams.run("-tc2", source)
    assert (status, out.count(b"\n"), source.given) == (0, 2, 2)
    assert "2 packets captured\n" in err


def test_an_interrupt_ends_the_capture_with_the_summary(streams):
    status, out, err = streams.run("-t", Source(*records(5000), KeyboardInterrupt()))
    assert (status, out.decode()) == (0, f"{LINE}\n\n")
    assert "1 packet captured\n" in err


def test_only_one_direction(streams):
    source = Source(*records(1, 2, 3, 4))
    assert streams.run("-t -Q out", source)[1].decode().count("UDP") == 2


def test_snapshot_length_cuts_what_is_shown(streams):
    out = streams.run("-t -x -s 30", Source(*records(5000)))[1].decode()
    assert out == "IP [|ip]\n\t0x0000:  4500 0020 0001 0000 4011 f96d 0a00 0001\n".replace(
        "IP [", "IP  ["
    )


def test_lines_are_flushed_before_each_wait(streams):
    seen = []
    first, second = records(5000, 5000)

    def look():
        seen.append(streams.raw.getvalue().count(b"\n"))

    streams.run("-t", Source(first, look, None, look, second, look))
    assert seen == [0, 1, 1]


def test_line_buffered_lines_are_flushed_at_once(streams):
    seen = []
    streams.run("-tl", Source(*records(5000), lambda: seen.append(streams.raw.getvalue())))
    assert seen == [LINE.encode() + b"\n"]


def test_places_are_named_when_there_are_several(streams):
    out = streams.run("-t -i any", Source(*records(5000, 5000)))[1].decode()
    assert out == f"tap0  In  {LINE}\ntap0@socket Out {LINE}\n"


def test_json_has_an_object_a_line(streams):
    first, second = records(5000, 5001)
    second.comment = "NO_SOCKET"
    _, printed, said = streams.run("--json", Source(first, second))
    out = printed.decode()
    assert said.startswith("netstack capture: listening on")
    one, two = (json.loads(line) for line in out.splitlines())
    assert one == {
        "time_ns": NOW,
        "packet_id": 0,
        "interface": "tap0",
        "direction": "in",
        "length": 46,
        "captured": 46,
        "summary": LINE,
        "data": datagram().hex(),
    }
    assert (two["comment"], two["interface"]) == ("NO_SOCKET", "tap0@socket")


def test_a_written_file_has_the_totals(streams, tmp_path):
    path = tmp_path / "a.pcapng"
    source = Source(*records(5000, 5001), stats=Stats(9, 7))
    status, out, err = streams.run(f"-w {path} udp", source)
    assert (status, out) == (0, b"")
    with path.open("rb") as file:
        assert [record.frame_id for record in Reader(file)] == [0, 1]
    assert struct.pack("=HHQHHQ", 4, 8, 9, 5, 8, 7) in path.read_bytes()
    assert b"\0udp" in path.read_bytes()
    assert "2 packets captured\n9 packets received by filter\n7 packets dropped" in err


def test_print_too(streams, tmp_path):
    path = tmp_path / "a.pcapng"
    out = streams.run(f"-t -w {path} --print", Source(*records(5000)))[1].decode()
    assert out == LINE + "\n"
    assert path.stat().st_size > 100


def test_tshark_follows_a_capture_on_standard_output():
    command = ["tshark", "-nli", "-", "-T", "fields", "-e", "frame.packet_id"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as tshark:
        first, second, third = records(1, 2, 3)

        def seen(number):
            assert tshark.stdout.readline() == b"%d\n" % number

        out = io.TextIOWrapper(tshark.stdin)
        source = Source(
            *(first, None, lambda: seen(0)),
            *(second, third, None, lambda: seen(1), lambda: seen(2)),
        )
        assert run(parse(["-w", "-"]), source, out, io.StringIO()) == 0
        out.close()


def test_a_reader_that_leaves_ends_the_capture(streams):
    read_end, write_end = os.pipe()
    out = os.fdopen(write_end, "w")
    source = Source(*records(5000), None, lambda: os.close(read_end), *records(5000), None)
    assert run(parse(["-t"]), source, out, streams.err) == EXIT_SIGPIPE
    assert "2 packets captured" in streams.err.getvalue()
    with pytest.raises(BrokenPipeError):
        out.close()


def test_a_full_disk_is_the_callers_error(streams):
    with pytest.raises(OSError, match="No space left"):
        streams.run("-U -w /dev/full", Source(*records(5000)))


def test_a_file_that_cannot_be_opened(streams, tmp_path):
    with pytest.raises(FileNotFoundError):
        streams.run(f"-r {tmp_path / 'nothing'}")
    with pytest.raises(IsADirectoryError):
        streams.run(f"-w {tmp_path}", Source())


def test_reading_a_file_filters_it(streams, capture):
    status, out, err = streams.run(f"-t -r {capture} port 5000")
    assert (status, out.decode()) == (0, f"{LINE}\n" * 3)
    assert err == (
        f"reading from file {capture}, link-type EN10MB (Ethernet), snapshot length 262144\n"
    )


@pytest.mark.parametrize("options", ["", "port 5001", "-c 2", "-# -v", "-XX"])
def test_reading_a_file_prints_what_tcpdump_prints(streams, capture, options):
    command = ["tcpdump", "-nr", str(capture), *options.split()]
    theirs = subprocess.run(command, capture_output=True, text=True, check=True)
    _, out, err = streams.run(f"-nr {capture} {options}")
    assert (out.decode(), err) == (theirs.stdout, theirs.stderr)


def test_reading_a_file_can_select_a_place(streams, capture):
    out = streams.run(f"-t -r {capture} -i tap0@socket")[1].decode()
    assert len(out.splitlines()) == 2


def test_a_file_is_copied_through_the_filter(streams, capture, tmp_path):
    copy = tmp_path / "copy.pcapng"
    streams.run(f"-r {capture} -w {copy} port 5001")
    with copy.open("rb") as file:
        assert [record.frame_id for record in Reader(file)] == [1, 3]


def test_a_broken_file_prints_what_was_whole(streams, capture):
    capture.write_bytes(capture.read_bytes()[:-5])
    with pytest.raises(CaptureFileError, match="after 4 frames"):
        streams.run(f"-t -r {capture}")
    streams.out.flush()
    assert streams.raw.getvalue().count(b"\n") == 4


def test_a_link_type_is_told_to_the_filter(streams, tmp_path):
    path = tmp_path / "raw.pcap"
    data = datagram()[14:]
    head = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101)
    path.write_bytes(head + struct.pack("<IIII", 0, 0, len(data), len(data)) + data)
    _, out, err = streams.run(f"-t -r {path} udp port 5000")
    assert out.decode() == LINE + "\n"
    assert "link-type RAW (Raw IP), snapshot length 65535" in err


def test_the_program_of_a_filter(streams):
    status, out, err = streams.run("-d udp port 5000")
    assert (status, err) == (0, "")
    assert out.startswith(b"(000) ldh      [12]\n")


def test_a_filter_that_cannot_be(streams, capture):
    with pytest.raises(UsageError, match="syntax error"):
        streams.run(f"-r {capture} udp prot 5000")


def test_the_list_of_places(streams):
    out = streams.run("-D", Source())[1].decode()
    assert out == "1.tap0 (the wire)\n2.tap0@socket\n"


def test_help(streams):
    status, out, _ = streams.run("--help")
    assert status == 0
    assert out.startswith(b"usage: netstack capture")


def test_a_live_capture_without_a_source_is_our_fault(streams):
    with pytest.raises(InternalError):
        streams.run("-i tap0")


MAIN = """
import sys
from netstack.capture.options import parse
from netstack.capture.run import run
sys.exit(run(parse(sys.argv[1:]), None, sys.stdout, sys.stderr))
"""


def test_a_pipe_that_closes_is_quiet_at_exit(capture):
    command = [sys.executable, "-c", MAIN, "-lnr", str(capture)]
    read_end, write_end = os.pipe()
    os.close(read_end)
    result = subprocess.run(command, stdout=write_end, stderr=subprocess.PIPE, text=True)
    os.close(write_end)
    assert result.returncode == EXIT_SIGPIPE
    assert re.fullmatch(r"reading from file .*\n", result.stderr)


def test_standard_input_is_read_as_it_comes(capture):
    command = [sys.executable, "-c", MAIN, "-lntr", "-"]
    whole = capture.read_bytes()
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as reader:
        first = len(whole) // 2
        reader.stdin.write(whole[:first])
        reader.stdin.flush()
        assert reader.stdout.readline().decode() == LINE + "\n"
        reader.stdin.write(whole[first:])
        reader.stdin.close()
        assert reader.stdout.read().count(b"\n") == 4
