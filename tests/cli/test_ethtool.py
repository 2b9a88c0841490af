"""``ethtool``: the shapes of the real tool."""

import pytest


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
        "bus-info: tap0\nsupports-statistics: yes\nsupports-test: no\n"
        "supports-eeprom-access: no\nsupports-register-dump: no\nsupports-priv-flags: no\n"
    )


def test_ring(nic, good):
    assert good("ethtool", "-g", "tap0") == (
        "Ring parameters for tap0:\n"
        "Pre-set maximums:\nRX:\t\t4096\nRX Mini:\tn/a\nRX Jumbo:\tn/a\nTX:\t\t4096\n"
        "Current hardware settings:\nRX:\t\t256\nRX Mini:\tn/a\nRX Jumbo:\tn/a\nTX:\t\t256\n"
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
