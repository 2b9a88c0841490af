"""``ethtool``: the shapes of the real tool."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.memory_host import memory_host
from tests.netns import fresh_netns


class Nic:
    def stats(self):
        return {"rx_packets": 12, "rx_missed_errors": 0, "rx_queue_0_packets": 12}

    def drvinfo(self):
        return {"driver": "igb", "version": "6.18", "bus-info": "tap0"}

    def ring(self):
        return {"rx": 256, "tx": 256, "rx-max": 4096, "tx-max": 4096}

    def coalesce(self):
        return {"rx-usecs": 3, "tx-usecs": 3}


@pytest.fixture
def nic(host):
    host.devices[0].nic = Nic()
    return host


def test_statistics(nic, good):
    assert good("ethtool", "-S", "tap0") == (
        "NIC statistics:\n"
        "     rx_packets: 12\n     rx_missed_errors: 0\n     rx_queue_0_packets: 12\n"
    )
    assert good("ethtool", "-S", "tap0", "--json")[0]["rx_packets"] == 12


def test_driver(nic, good):
    assert good("ethtool", "-i", "tap0") == (
        "driver: igb\nversion: 6.18\nfirmware-version: \nexpansion-rom-version: \n"
        "bus-info: tap0\nsupports-statistics: yes\nsupports-test: yes\n"
        "supports-eeprom-access: no\nsupports-register-dump: no\nsupports-priv-flags: no\n"
    )


def test_ring(nic, good):
    assert good("ethtool", "-g", "tap0") == (
        "Ring parameters for tap0:\n"
        "Pre-set maximums:\nRX:\t\t4096\nRX Mini:\tn/a\nRX Jumbo:\tn/a\nTX:\t\t4096\n"
        "Current hardware settings:\nRX:\t\t256\nRX Mini:\tn/a\nRX Jumbo:\tn/a\nTX:\t\t256\n"
        "RX Buf Len:\t\tn/a\nCQE Size:\t\tn/a\nTX Push:\tn/a\nTCP data split:\tn/a\n"
    )
    assert good("ethtool", "-g", "tap0", "--json") == [
        {"ifname": "tap0", "rx": 256, "tx": 256, "rx-max": 4096, "tx-max": 4096}
    ]


def test_coalesce(nic, good):
    lines = good("ethtool", "-c", "tap0").splitlines()
    assert lines[:2] == ["Coalesce parameters for tap0:", "Adaptive RX: n/a  TX: n/a"]
    assert "rx-usecs: 3" in lines
    assert "rx-frames: n/a" in lines
    assert lines[-2:] == ["CQE mode RX: n/a  TX: n/a", ""]


def test_unknown_device_and_no_question_are_refused(nic, refused):
    assert "try: netstack ethtool -S tap0" in refused("ethtool", "-S", "eth9")
    assert "try: netstack ethtool -S tap0" in refused("ethtool", "tap0")
    assert "not allowed with" in refused("ethtool", "-S", "-g", "tap0")


# ---- on a host that runs


@pytest.fixture
def it(serve):
    with memory_host() as it:
        serve(it.host)
        yield it


def test_rings_throttle_and_features_are_set(it, good):
    assert good("ethtool", "-G", "tap0", "rx", "512", "tx", "64") == ""
    assert good("ethtool", "-g", "tap0", "--json")[0]["rx"] == 512
    assert good("ethtool", "-C", "tap0", "rx-usecs", "100") == ""
    assert "\nrx-usecs: 100\n" in good("ethtool", "-c", "tap0")
    assert good("ethtool", "-K", "tap0", "gro", "off", "rxhash", "off") == ""
    text = good("ethtool", "-k", "tap0")
    assert "\ngeneric-receive-offload: off\n" in text
    assert "\nreceive-hashing: off\n" in text
    assert "\nntuple-filters: off [fixed]\n" in text


def test_queues_and_hash(it, good):
    assert good("ethtool", "-l", "tap0") == (
        "Channel parameters for tap0:\n"
        "Pre-set maximums:\nRX:\t\tn/a\nTX:\t\tn/a\nOther:\t\t1\nCombined:\t8\n"
        "Current hardware settings:\nRX:\t\tn/a\nTX:\t\tn/a\nOther:\t\t1\nCombined:\t1\n"
    )
    assert good("ethtool", "-L", "tap0", "combined", "1") == ""
    assert good("ethtool", "-X", "tap0", "hkey", ":".join(["6d"] * 40), "equal", "1") == ""
    lines = good("ethtool", "-x", "tap0").splitlines()
    assert lines[0] == "RX flow hash indirection table for tap0 with 1 RX ring(s):"
    assert lines[1] == "    0:      0     0     0     0     0     0     0     0"
    assert lines[16] == "  120:      0     0     0     0     0     0     0     0"
    assert lines[17:19] == ["RSS hash key:", ":".join(["6d"] * 40)]
    assert lines[19:] == [
        "RSS hash function:",
        "    toeplitz: on",
        "    xor: off",
        "    crc32: off",
    ]
    assert good("ethtool", "-n", "tap0") == "1 RX rings available\nTotal 0 rules\n\n"
    assert good("ethtool", "-N", "tap0", "rx-flow-hash", "udp4", "sdfn") == ""
    assert good("ethtool", "-n", "tap0", "rx-flow-hash", "udp4") == (
        "UDP over IPV4 flows use these fields for computing Hash flow key:\nIP SA\nIP DA\n"
        "L4 bytes 0 & 1 [TCP/UDP src port]\nL4 bytes 2 & 3 [TCP/UDP dst port]\n\n"
    )


def test_the_self_test(it, good, netstack):
    assert good("ethtool", "-t", "tap0") == (
        "The test result is PASS\nThe test extra info:\n"
        "Register test  (offline)\t 0\nInterrupt test (offline)\t 0\n"
        "Loopback test  (offline)\t 0\nLink test   (on/offline)\t 0\n\n"
    )
    it.device.nic.close()
    status, out, _ = netstack("ethtool", "-t", "tap0", "online")
    assert status == 1
    assert "The test result is FAIL" in out
    it.device.nic.open()


@pytest.mark.parametrize(
    "words",
    [
        "-G tap0", "-G tap0 rx", "-G tap0 rx 7", "-C tap0 blah 5", "-K tap0 ntuple on",
        "-L tap0 combined 9", "-X tap0 equal 2", "-X tap0 rings 2", "-X tap0", "-N tap0",
        "-N tap0 flow-type udp4 action 0", "-t tap0 sometimes", "-g tap0 rx", "-G lo rx 64",
    ],
)  # fmt: skip
def test_what_can_not_be_is_refused(it, refused, words):
    refused("ethtool", *words.split())


@pytest.mark.tap
@pytest.mark.skipif(not shutil.which("ethtool"), reason="no ethtool here to compare with")
def test_features_stand_in_the_lines_of_the_real_tool(it, good):
    with fresh_netns():
        subprocess.run("ip link add d0 type veth peer name d1", shell=True, check=True)
        text = subprocess.run(
            ["ethtool", "-k", "d0"], check=True, capture_output=True, text=True
        ).stdout
        data = json.loads(
            subprocess.run(
                ["ethtool", "--json", "-k", "d0"], check=True, capture_output=True, text=True
            ).stdout
        )
    names = re.findall(r"^(\t?[\w-]+):", text, re.MULTILINE)
    assert re.findall(r"^(\t?[\w-]+):", good("ethtool", "-k", "tap0"), re.MULTILINE) == names
    ours = good("ethtool", "-k", "tap0", "--json")
    assert list(ours[0]) == list(data[0])
    for name, row in data[0].items():
        assert name == "ifname" or list(ours[0][name]) == list(row)
        assert name == "ifname" or (ours[0][name]["fixed"] is None) == (row["fixed"] is None)


# What the driver says when the real tool asks: RXFH are the fields, RINGS the queues. What it is told it writes.
DRIVER = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

int ioctl(int fd, unsigned long request, ...)
{
    va_list ap;
    va_start(ap, request);
    void *argument = va_arg(ap, void *);
    va_end(ap);
    if (request != SIOCETHTOOL)
        return ((int (*)(int, unsigned long, ...))dlsym(RTLD_NEXT, "ioctl"))(fd, request, argument);
    struct ethtool_rxnfc *nfc = (void *)((struct ifreq *)argument)->ifr_data;
    if (nfc->cmd == ETHTOOL_GRXFH)
        nfc->data = strtoul(getenv("RXFH"), NULL, 0);
    if (nfc->cmd == ETHTOOL_SRXFH)
        printf("flow %u fields %#llx\n", nfc->flow_type, nfc->data);
    if (nfc->cmd == ETHTOOL_GRXRINGS)
        nfc->data = strtoul(getenv("RINGS"), NULL, 0);
    if (nfc->cmd == ETHTOOL_GRXCLSRLCNT)
        nfc->rule_cnt = 0;
    return 0;
}
"""
RXH = {"s": 1 << 4, "d": 1 << 5, "f": 1 << 6, "n": 1 << 7}  # <linux/ethtool.h>


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Give a function that runs the real ethtool on a driver that says what it is told to."""
    folder = tmp_path_factory.mktemp("driver")
    Path(folder, "driver.c").write_text(DRIVER)
    command = ["cc", "-shared", "-fPIC", "-o", "driver.so", "driver.c", "-ldl"]
    subprocess.run(command, cwd=folder, check=True)

    def run(*words, fields=0, rings=1):
        told = {"RXFH": str(fields), "RINGS": str(rings), "LD_PRELOAD": f"{folder}/driver.so"}
        done = subprocess.run(
            ["ethtool", *words], env=os.environ | told, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.mark.parametrize("option", ["-n", "-u", "--show-nfc", "--show-ntuple"])
def test_what_is_hashed_is_said_in_the_words_of_the_real_tool(it, good, real, option):
    for fields in ("sd", "sdfn"):
        good("ethtool", "-N", "tap0", "rx-flow-hash", "udp4", fields)
        for flow, letters in {
            "udp4": fields, "tcp4": "sdfn", "sctp4": "sd", "ah4": "sd", "esp4": "sd",
        }.items():  # fmt: skip
            words = (option, "tap0", "rx-flow-hash", flow)
            theirs = real(*words, fields=sum(RXH[letter] for letter in letters))
            assert good("ethtool", *words) == theirs
    assert good("ethtool", option, "tap0") == real(option, "tap0")


@pytest.mark.parametrize("option", ["-N", "-U", "--config-nfc", "--config-ntuple"])
@pytest.mark.parametrize("letters", ["sd", "ds", "sdfn", "nfds", "fsdn"])
def test_what_is_to_be_hashed_is_taken_in_the_words_of_the_real_tool(
    it, good, real, option, letters
):
    words = (option, "tap0", "rx-flow-hash", "udp4", letters)
    (told,) = re.findall("fields (0x[0-9a-f]+)", real(*words))
    assert good("ethtool", *words) == ""
    fields = it.host.devices[1].nic.rss()["udp4"]
    assert sum(RXH[letter] for letter in fields) == int(told, 16)
