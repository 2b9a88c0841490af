"""The command line: tcpdump's forms, and messages that say what to type."""

import pytest

from netstack.capture import Direction
from netstack.capture.dissect import Style
from netstack.capture.options import HELP, Options, Place, parse
from netstack.errors import UsageError, hint_of


def test_nothing_given():
    assert parse([]) == Options()
    assert parse([]).live
    assert parse([]).prints


@pytest.mark.parametrize(
    "line",
    [
        "-n -n -e -c 10 -i tap0 udp port 53",
        "-nne -c10 -itap0 udp port 53",
        "-nnec10 -i tap0 udp port 53",
        "udp port 53 -nne -c 10 -i tap0",
        "-nne -c 10 --interface=tap0 udp port 53",
        "-ne --interface tap0 -c 10 -- udp port 53",
    ],
)
def test_flags_bundle_and_may_stand_behind_the_filter(line):
    options = parse(line.split())
    assert options.style == Style(link=True)
    assert (options.count, options.places) == (10, (Place("tap0"),))
    assert options.filter_text == "udp port 53"


def test_flags_given_again_count():
    options = parse(
        ["-vv", "-xx", "-XX", "-A", "-qq", "-tttt", "-#SK", "--nano", "-ddd", "-lUpO"]
    )
    assert options.style == Style(
        verbose=2, hex=2, hex_ascii=2, ascii=1, quiet=2, time=4, number=True,
        absolute=True, no_checksums=True, nano=True,
    )  # fmt: skip
    assert options.dump_program == 3
    assert options.line_buffered
    assert options.packet_buffered
    assert not options.promiscuous
    assert not options.optimize


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ("-r a.pcap", "read", "a.pcap"),
        ("-r -", "read", "-"),
        ("-w -", "write", "-"),
        ("-s 0", "snaplen", 262144),
        ("-s96", "snaplen", 96),
        ("--snapshot-length=96", "snaplen", 96),
        ("-Q in", "direction", Direction.IN),
        ("-Q out", "direction", Direction.OUT),
        ("-Q inout", "direction", None),
        ("-D", "list_places", True),
        ("--list-interfaces", "list_places", True),
        ("--json", "json", True),
        ("--help", "help", True),
        ("-h", "help", True),
    ],
)
def test_each_option_has_its_field(line, field, value):
    assert getattr(parse(line.split()), field) == value


@pytest.mark.parametrize(
    ("line", "live", "prints"),
    [
        ("-i tap0", True, True),
        ("-w a", True, False),
        ("-w a --print", True, True),
        ("-r a", False, True),
        ("-r a -w b", False, False),
        ("-d udp", False, True),
        ("-D", True, True),
        ("-h", False, True),
    ],
)
def test_what_a_command_line_needs(line, live, prints):
    options = parse(line.split())
    assert (options.live, options.prints) == (live, prints)


@pytest.mark.parametrize(
    ("line", "several"),
    [
        ("-i tap0", False),
        ("-i tap0@gro", False),
        ("-i any", True),
        ("-i tap0@any", True),
        ("-i tap0 -i tap0@gro", True),
    ],
)
def test_lines_name_their_place_when_there_may_be_several(line, several):
    assert parse(line.split()).style.place == several


@pytest.mark.parametrize(
    ("place", "covered"),
    [
        (Place("tap0"), {("tap0", "")}),
        (Place("tap0", "gro"), {("tap0", "gro")}),
        (Place("tap0", "any"), {("tap0", ""), ("tap0", "gro")}),
        (Place("any", "gro"), {("tap0", "gro"), ("tap1", "gro")}),
        (Place("any"), {("tap0", ""), ("tap0", "gro"), ("tap1", "gro")}),
    ],
)
def test_a_place_covers(place, covered):
    seen = {("tap0", ""), ("tap0", "gro"), ("tap1", "gro")}
    assert {where for where in seen if place.covers(*where)} == covered


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        ("-Z", "option -Z not recognized", "--help"),
        ("--colour", "option --colour not recognized", "--help"),
        ("-c", "option -c requires argument", "--help"),
        ("-c 0", "invalid packet count 0", "-c 10"),
        ("-c -1", "invalid packet count -1", "-c 10"),
        ("-c ten", "invalid packet count ten", "-c 10"),
        ("-s 262145", "invalid snaplen 262145", "-s 128"),
        ("-s x", "invalid snaplen x", "-s 128"),
        ("-Q up", "unknown capture direction 'up'", "-Q in"),
        ("-i @gro", "invalid interface '@gro'", "-i tap0"),
        ("-i tap0@", "invalid interface 'tap0@'", "tap0@socket"),
        ("-tttttt", "only -t", "-ttttt"),
        ("--json -w a", "--json prints packets", "--print"),
        ("--print -w -", "both want the standard output", "-w FILE"),
    ],
)
def test_what_cannot_be_says_what_to_type(line, message, hint):
    with pytest.raises(UsageError) as caught:
        parse(line.split())
    assert message in str(caught.value)
    assert hint in hint_of(caught.value)


def test_the_help_names_every_flag():
    body = HELP.partition("what to look at")[2]
    for flag in "AdDehKlnOpqStUvxX#ciQrsw":
        assert f"-{flag}" in body
    assert max(map(len, HELP.splitlines())) <= 80
