"""What ethtool sets on a running host: the words, the effect, and what is refused."""

from __future__ import annotations

import errno

import pytest

from netstack import ethnl
from netstack.errors import UsageError, hint_of
from tests.frames import OUR_IP, udp
from tests.memory_host import memory_host


@pytest.fixture
def it():
    with memory_host() as it:
        it.meet()
        yield it


def shown(it, what, **options):
    return ethnl.SHOW[what]("tap0", it.device.nic, **options)


def change(it, what, **values):
    ethnl.SET[what]("tap0", it.device.nic, values)


def active(it):
    return {row["name"]: row["active"] for row in shown(it, "features")}


def test_features_by_any_of_their_names(it):
    assert active(it)["generic-receive-offload"]
    for name in ("gro", "rx-gro", "generic-receive-offload"):
        change(it, "features", **{name: "off"})
        assert not active(it)["generic-receive-offload"]
        change(it, "features", **{name: "on"})
        assert active(it)["generic-receive-offload"]


def test_all_features_that_are_named_change_or_none(it):
    with pytest.raises(OSError, match=r"rx-ntuple-filter: off \[requested on\]") as info:
        change(it, "features", gro="off", ntuple="on")
    assert info.value.errno == errno.EOPNOTSUPP
    assert active(it)["generic-receive-offload"]
    change(it, "features", gro="off", ntuple="off", rx="off")
    assert not active(it)["generic-receive-offload"]
    assert not active(it)["rx-checksumming"]


def test_without_rx_checksumming_a_bad_datagram_is_found_by_the_protocol(it):
    it.socket(OUR_IP, 9000)
    broken = bytearray(udp(b"x" * 30))
    broken[-1] ^= 1
    it.put(bytes(broken))
    before = it.device.nic.stats()["rx_queue_0_csum_err"]
    assert before == 1
    change(it, "features", rx="off")
    it.put(bytes(broken))
    assert it.device.nic.stats()["rx_queue_0_csum_err"] == before
    assert it.drops() == {"UDP_CSUM": 2}


def tagged(frame, vid):
    return frame[:12] + b"\x81\x00" + vid.to_bytes(2) + frame[12:]


@pytest.mark.parametrize("offload", ["on", "off"])
def test_a_tag_ends_the_same_with_and_without_the_offload(it, offload):
    sock = it.socket(OUR_IP, 9000)
    change(it, "features", rxvlan=offload)
    assert it.device.nic.registers()["CTRL"] >> 30 & 1 == (offload == "on")
    it.put(tagged(udp(b"priority"), 0), tagged(udp(b"other"), 7))
    assert sock.recv(100) == b"priority"
    assert it.drops() == {"OTHERHOST": 1}


def test_a_tag_without_a_packet_behind_it_is_dropped(it):
    change(it, "features", rxvlan="off")
    it.put(udp()[:12] + b"\x81\x00\x00\x00\x08")
    assert it.drops() == {"PKT_TOO_SMALL": 1}


def test_the_ring(it):
    change(it, "ring", rx="512", tx=128)
    assert shown(it, "ring") == {"rx-max": 4096, "tx-max": 4096, "rx": 512, "tx": 128}


def test_the_throttle_holds_interrupts_back(it):
    change(it, "coalesce", **{"rx-usecs": "50"})
    assert shown(it, "coalesce")["rx-usecs"] == 50
    it.put(udp())
    assert it.device.nic.vector_itr() == 200


def test_the_ports_of_udp_are_hashed_on_request(it):
    assert shown(it, "rxnfc", flow="udp4")["fields"] == "sd"
    change(it, "rxnfc", udp4="fnds")
    assert shown(it, "rxnfc", flow="udp4")["fields"] == "sdfn"
    assert shown(it, "rxnfc") == {"rx-rings": 1, "rules": 0}


def test_the_key(it):
    key = ":".join(f"{n:02x}" for n in range(40))
    change(it, "rxfh", hkey=key)
    assert shown(it, "rxfh")["rss-hash-key"] == list(range(40))
    change(it, "rxfh", equal="1")
    change(it, "rxfh", weight=["5"])
    change(it, "channels", combined="1")


REFUSED = [
    ("ring", {"rx": "5"}, "rx 5: a ring has 64 to 4096 descriptors"),
    ("ring", {"rx": "many"}, "rx many: not a number"),
    ("coalesce", {"rx-usecs": "few"}, "rx-usecs few: not a number"),
    ("channels", {"combined": "0"}, "requested channel count is too small: combined 0"),
    ("rxfh", {"weight": []}, "instead of nothing"),
    ("rxfh", {"equal": "99999999999"}, "instead of 1 1"),
    ("rxfh", {"weight": ["0"]}, "not all 0"),
    ("rxfh", {"equal": "x"}, "equal x: not a number"),
    ("rxfh", {"equal": "1", "default": True}, "equal and default are mutually exclusive"),
    ("ring", {"rx-mini": "64"}, "cannot modify an unsupported parameter: rx-mini"),
    ("ring", {"tx": "512", "size": "1"}, "unknown parameter 'size'"),
    ("ring", {}, "nothing to set"),
    ("coalesce", {"rx-usecs": "5"}, "rx-usecs 5"),
    ("coalesce", {"adaptive-rx": "on"}, "cannot modify an unsupported parameter: adaptive-rx"),
    ("coalesce", {"tx-usecs": "5"}, "cannot modify an unsupported parameter: tx-usecs"),
    ("features", {"foo": "on"}, "there is no feature 'foo'"),
    ("features", {"gro": "bad"}, "flag 'bad' for parameter 'gro' is not followed by"),
    ("features", {"lro": "on"}, r"rx-lro: off \[requested on\]"),
    ("channels", {"combined": "9"}, "requested channel count exceeds maximum"),
    ("channels", {"rx": "1"}, "cannot modify an unsupported parameter: rx"),
    ("rxfh", {"equal": "2"}, r"tap0 has 1 RX ring\(s\)"),
    ("rxfh", {"weight": ["1", "1"]}, r"tap0 has 1 RX ring\(s\)"),
    ("rxfh", {"hkey": "01:02"}, "hkey of 2 bytes: give 40"),
    ("rxfh", {"hkey": "xy"}, "hkey of 0 bytes: give 40"),
    ("rxfh", {"hfunc": "xor"}, "hfunc xor: Operation not supported"),
    ("rxnfc", {"udp4": "s"}, "udp4 s; allowed: sd sdfn"),
    ("rxnfc", {"tcp4": "sd"}, "tcp4 sd; allowed: sdfn"),
    ("rxnfc", {"udp6": "sd"}, "rx-flow-hash udp6: allowed are"),
]


@pytest.mark.parametrize(("what", "values", "message"), REFUSED)
def test_what_can_not_be_is_refused_with_what_can_and_changes_nothing(
    it, what, values, message
):
    before = {name: shown(it, name) for name in ethnl.SHOW if name != "test"}
    with pytest.raises((ValueError, OSError), match=message) as info:
        change(it, what, **values)
    assert hint_of(info.value)
    assert {name: shown(it, name) for name in before} == before


MISTAKES = [
    ("ring", {"tx": "63"}, "-G tap0 tx 64"),
    ("ring", {"rx": "many"}, "-G tap0 rx 512"),
    ("coalesce", {"rx-usecs": "few"}, "-C tap0 rx-usecs 3"),
    ("channels", {"combined": "x"}, "-L tap0 combined 8"),
    ("rxfh", {"equal": "x"}, "-X tap0 equal 1"),
]


@pytest.mark.parametrize(("what", "values", "way"), MISTAKES)
def test_what_is_to_be_typed_instead_works(it, what, values, way):
    with pytest.raises(UsageError) as info:
        change(it, what, **values)
    assert hint_of(info.value) == f"netstack ethtool {way}"
    name, value = way.split()[2:]
    change(it, what, **{name: value})


def test_loopback_has_features_only(it):
    assert ethnl.SHOW["features"]("lo", it.host.lo.nic)
    for what in ethnl.SHOW.keys() - {"features"}:
        with pytest.raises(OSError, match="Operation not supported: lo has no") as info:
            ethnl.SHOW[what]("lo", it.host.lo.nic)
        assert info.value.errno == errno.EOPNOTSUPP
    for what in ethnl.SET.keys() - {"features"}:
        with pytest.raises(OSError, match="lo has no"):
            ethnl.SET[what]("lo", it.host.lo.nic, {"rx": "on"})


def test_what_only_a_wire_with_virtio_headers_can_is_fixed_on_others(it):
    for name in ("rx-gro-hw", "tx-udp-segmentation", "tx-checksum-ip-generic"):
        assert not active(it)[name]
        with pytest.raises(OSError, match="Could not change any device features"):
            change(it, "features", **{name: "on"})
        change(it, "features", **{name: "off"})


def test_and_there_it_can_be_switched():
    with memory_host(vnet_hdr=True) as it:
        rows = {row["name"]: row for row in shown(it, "features")}
        assert rows["tx-udp-segmentation"]["active"]
        assert not rows["tx-udp-segmentation"]["fixed"]
        assert rows["rx-gro-hw"]["active"]
        assert rows["rx-gro-hw"]["fixed"], "the cable is not asked"
        assert rows["tx-checksumming"]["active"]
        change(it, "features", tx="off")
        assert not active(it)["tx-checksumming"]
        change(it, "features", **{"tx-checksum-ip-generic": "on"})
        assert active(it)["tx-checksumming"]
