"""Clients of services get from netstack what they get from the kernel."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from tests.e2e.conftest import HOST
from tests.e2e.small_servers import FILE, collect, ntp, snmp, tftp
from tests.e2e.twins import Client, World, echo, meaning, same

pytestmark = pytest.mark.tap

BIG = bytes((i * 7 + i // 251) & 0xFF for i in range(60_000))


@contextmanager
def dns(world: World) -> Iterator[None]:
    """Run the example's server, in a thread of its own."""
    example = pytest.importorskip("examples.dns_server", exc_type=ImportError)
    server = example.server(SimpleNamespace(socket=world.make), HOST)
    server.start_thread()
    try:
        yield
    finally:
        server.stop()
        server.thread.join()
        server.server.server_close()


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("www.example.net", "10.0.0.80"),
        ("web.example.net", "CNAME"),
        ("example.net MX", "mail.example.net"),
        ("no.example.net", "NXDOMAIN"),
        ("big.example.net TXT +ignore +bufsize=4096", "lllll"),
    ],
)
def test_dig_asks_a_name_server_of_pypi(question, answer):
    command = f"dig @{HOST} +tries=1 +time=5 +nocookie {question}"
    assert answer in same(Client(command, host=dns))


def test_dnsperf_loses_no_query(tmp_path):
    questions = tmp_path / "questions"
    questions.write_text("www.example.net A\nweb.example.net A\nexample.net MX\n")
    keep = "Queries (sent|completed|lost)|Response codes|rror"
    command = f'dnsperf -s {HOST} -q 10 -n 100 -d {questions} 2>&1 | grep -E "{keep}"'
    out = same(Client(f"sh -c '{command}'", host=dns, needs=("dnsperf",)))
    assert re.search(r"Queries completed: +300 \(100.00%\)", out)


def test_socat_has_60000_bytes_sent_back():
    command = f"socat -t 1 -b 65507 STDIO UDP4:{HOST}:7"
    out = same(Client(command, ((7, echo),), stdin=BIG))
    assert out == meaning(BIG)


def test_socat_sends_60000_bytes():
    same(
        Client(
            f"socat -u -b 65507 STDIN UDP4-SENDTO:{HOST}:9", ((9, collect),), stdin=BIG, notes=1
        )
    )


def test_socat_is_sent_60000_bytes():
    command = "sh -c 'socat -u -b 65507 UDP4-RECVFROM:9001 STDOUT | cksum'"
    out = same(Client(command, say=(9001, BIG), needs=("socat",)))
    assert out.split()[1] == "60000"


def test_netcat_is_answered_and_spoken_to():
    assert same(Client(f"nc -u -w 1 {HOST} 7", ((7, echo),), stdin=b"hello\n")) == "hello"
    assert same(Client("nc -u -l -W 1 9001", say=(9001, b"from the host"))) == "from the host"


@pytest.mark.parametrize("option", ["--rfc5424=notime,nohost", "--rfc3164"])
def test_logger_logs(option):
    command = f"logger -n {HOST} -P 514 -d {option} -t me -p user.err something"
    strip = "sh -c 'exec " + command + "'"
    same(Client(strip, ((514, collect),), notes=1, needs=("logger",)))


def test_ntpdig_knows_the_time():
    command = f"sh -c 'ntpdig -t 3 {HOST} | cut -d\" \" -f7-'"
    assert "no-leap" in same(Client(command, ((123, ntp),), needs=("ntpdig",)))


def test_snmpget_gets():
    command = f"snmpget -v2c -c public -On -r 0 -t 5 {HOST} 1.3.6.1.2.1.1.1.0 1.3.6.1.2.1.1.5.0"
    out = same(Client(command, ((161, snmp),)))
    assert '.1.3.6.1.2.1.1.5.0 = STRING: "a host"' in out


def test_tftp_reads_and_writes_a_file():
    read = (
        f"t=$(mktemp) && tftp -m binary {HOST} -c get it $t && wc -c < $t && cksum < $t; rm $t"
    )
    out = same(Client(f"sh -c '{read}'", ((69, tftp),), needs=("tftp",)))
    assert out.splitlines()[-1].endswith(f" {len(FILE)}")
    write = f"cat > ${{t:=$(mktemp)}} && tftp -m binary {HOST} -c put $t it; rm $t"
    same(Client(f"sh -c '{write}'", ((69, tftp),), stdin=BIG, notes=1, needs=("tftp",)))
