"""``nft``: nftables' words and listing."""

import pytest

from tests.frames import OUR_IP, udp
from tests.memory_host import memory_host


@pytest.fixture
def it(serve):
    with memory_host() as it:
        serve(it.host)
        yield it


def test_rules_are_listed_as_they_were_given(it, good):
    it.meet()
    it.socket(OUR_IP, 9000)
    assert good("nft", "list", "ruleset") == ""
    good(
        "nft", "add", "rule", "ip", "filter", "input", "udp", "dport", "9000", "counter", "drop"
    )
    good("nft", 'add rule ip filter input iifname "tap0" ip saddr 10.0.0.0/8 accept')
    good("nft", "add rule netdev filter ingress udp dport { 1, 2 } counter comment 'a b'")
    it.put(udp(b"1234"))
    assert good("nft", "list", "ruleset") == (
        "table ip filter {\n"
        "\tchain input {\n"
        "\t\ttype filter hook input priority filter; policy accept;\n"
        "\t\tudp dport 9000 counter packets 1 bytes 32 drop\n"
        '\t\tiifname "tap0" ip saddr 10.0.0.0/8 accept\n'
        "\t}\n"
        "}\n"
        "table netdev filter {\n"
        "\tchain ingress {\n"
        "\t\ttype filter hook ingress priority filter; policy accept;\n"
        '\t\tudp dport { 1, 2 } counter packets 0 bytes 0 comment "a b"\n'
        "\t}\n"
        "}\n"
    )
    assert " drop # handle 2\n" in good("nft", "-a", "list", "chain", "ip", "filter", "input")
    objects = good("nft", "list", "ruleset", "--json")["nftables"]
    assert [next(iter(each)) for each in objects[:3]] == ["table", "table", "chain"]
    assert objects[3]["rule"] | {"rule": ""} == {
        "family": "ip", "table": "filter", "chain": "input", "handle": 2, "rule": "",
        "packets": 1, "bytes": 32,
    }  # fmt: skip
    good("nft", "delete", "rule", "ip", "filter", "input", "handle", "2")
    good("nft", "flush", "ruleset")
    assert good("nft", "list", "ruleset") == ""


def test_what_a_listing_says_can_be_given_again(it, good):
    rule = "ip saddr != 10.0.0.0/8 udp dport { 1, 5-9 } counter packets 0 bytes 0 drop"
    good("nft", f"add rule ip filter forward {rule}")
    assert f"\t\t{rule}\n" in good("nft", "list", "chain", "ip", "filter", "forward")


@pytest.mark.parametrize(
    "words", ["bogus", "add rule ip filter input udp dport x drop", "list"]
)
def test_what_can_not_be_is_refused(it, refused, words):
    refused("nft", *words.split())


@pytest.mark.parametrize("words", ["", "list", "list tables", "_class _", "is by_flow"])
def test_what_nft_can_do_here_is_said(it, refused, words):
    error = refused("nft", *words.split())
    assert "allowed: list ruleset, list table, list chain, add rule" in error


@pytest.mark.parametrize("where", ["ip6 filter input", "ip nat input", "inet filter input"])
def test_a_chain_that_is_not_there_is_named_as_it_was_given(it, refused, where):
    error = refused("nft", "add", "rule", *where.split(), "drop")
    assert f"chain {where}\n" in error
    assert "FAMILY TABLE CHAIN" in refused("nft", "add", "rule")
