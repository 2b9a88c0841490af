"""pcapng: what we write is what Wireshark's reader and our own read, while it grows too."""

import io
import struct
import subprocess

import pytest

from netstack.capture import Direction, Record, Stats
from netstack.capture.pcapng import Writer
from netstack.capture.reader import Reader

FRAME = bytes.fromhex("0200000000010200000000020800") + bytes(46)
NOW = 1_700_000_000_123_456_789
FIELDS = (
    "frame.packet_id",
    "frame.interface_name",
    "frame.interface_description",
    "frame.comment",
    "frame.time_epoch",
    "frame.cap_len",
    "frame.len",
    "frame.packet_flags_direction",
    "frame.interface_queue",
    "frame.drop_count",
)


def tshark(path, *fields):
    """Return tshark's view of a capture: a list of its fields for each frame."""
    command = ["tshark", "-nr", str(path), "-T", "fields"]
    for field in fields:
        command += ["-e", field]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return [line.split("\t") for line in result.stdout.splitlines()]


def written(*records, stats=None, **options):
    """Return the bytes of a capture with these records."""
    file = io.BytesIO()
    writer = Writer(file, **options)
    for record in records:
        writer.write(record)
    writer.close(stats)
    return file.getvalue()


def test_tshark_reads_every_field(tmp_path):
    path = tmp_path / "a.pcapng"
    with path.open("wb") as file:
        writer = Writer(file)
        writer.add_interface("tap0", description="the wire")
        writer.write(Record(NOW, FRAME, 60, 17, "tap0", "", Direction.IN, queue=1, dropped=3))
        writer.write(
            Record(NOW + 1, FRAME, 60, 17, "tap0", "socket", comment="NO_SOCKET: port 9")
        )
        writer.close()
    wire, socket = tshark(path, *FIELDS)
    sizes = ["60", "60"]
    assert wire == [
        *("17", "tap0", "the wire", "", "1700000000.123456789"),
        *(*sizes, "0x00000001", "1", "3"),
    ]
    assert socket == [
        *("17", "tap0@socket", "", "NO_SOCKET: port 9", "1700000000.123456790"),
        *(*sizes, "", "", ""),
    ]


def test_totals_stand_at_the_end(tmp_path):
    path = tmp_path / "a.pcapng"
    path.write_bytes(written(Record(NOW, FRAME, 60, ifname="tap0"), stats=Stats(9, 8)))
    result = subprocess.run(["capinfos", str(path)], capture_output=True, text=True, check=True)
    assert "Number of stat entries = 1" in result.stdout
    totals = struct.pack("=HHQHHQ", 4, 8, 9, 5, 8, 8)
    assert totals in path.read_bytes()[-44:]


def test_a_live_reader_sees_each_packet_at_once():
    command = ["tshark", "-nli", "-", "-T", "fields", "-e", "frame.packet_id"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as reader:
        writer = Writer(reader.stdin, unbuffered=True)
        for number in (17, 18, 19):
            writer.write(Record(NOW, FRAME, 60, number, "tap0"))
            assert reader.stdout.readline() == b"%d\n" % number
        reader.stdin.close()


def test_without_unbuffered_nothing_is_flushed_until_asked():
    raw = io.BytesIO()
    file = io.BufferedWriter(raw, 1 << 16)
    writer = Writer(file)
    header = len(raw.getvalue())
    assert header > 0
    writer.write(Record(NOW, FRAME, 60))
    assert len(raw.getvalue()) == header
    writer.flush()
    assert len(raw.getvalue()) > header + 60


def test_snapshot_length_cuts_the_data_and_keeps_the_length():
    (record,) = Reader(io.BytesIO(written(Record(NOW, FRAME, 60), snaplen=14)))
    assert (record.data, record.wire_len) == (FRAME[:14], 60)


@pytest.mark.parametrize("size", [14, 15, 16, 17, 1514])
def test_our_reader_gives_back_every_record_whole(size):
    records = [
        Record(NOW, bytes(size), size, 17, "tap0", "", Direction.IN, "gone: é", 3, 2),
        Record(NOW + 1, bytes(size), size + 9, 2**63, "tap0", "gro", Direction.OUT),
        Record(0, b"", 0),
    ]
    assert list(Reader(io.BytesIO(written(*records)))) == records


def test_a_comment_longer_than_an_option_is_cut_between_characters():
    (record,) = Reader(io.BytesIO(written(Record(NOW, FRAME, 60, comment="é" * 60000))))
    assert set(record.comment) == {"é"}
    assert 32000 < len(record.comment) < 32768


def test_one_place_is_one_interface():
    writer = Writer(io.BytesIO())
    numbers = [
        writer.add_interface("tap0", stage) for stage in ("", "gro", "", "gro", "socket")
    ]
    assert numbers == [0, 1, 0, 1, 2]


def test_an_error_of_the_file_reaches_the_caller():
    class Full(io.BytesIO):
        def write(self, data):
            if self.tell() > 150:
                raise OSError(28, "No space left on device")
            return super().write(data)

    writer = Writer(Full())
    writer.write(Record(NOW, FRAME, 60))
    with pytest.raises(OSError, match="No space"):
        writer.write(Record(NOW, FRAME, 60))
