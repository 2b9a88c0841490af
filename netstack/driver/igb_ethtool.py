"""igb: what ethtool shows and accepts: names, their order, and the allowed values.

Stage 2 of 8:  device [driver] irq napi netif nf proto sock
In       registers and ring counters      driver/_igb.pyx
Out      dicts, ValueErrors               cli/ethtool.py
Context  process context
Kernel   igb_gstrings_stats[], igb_get_stats64(), drivers/net/ethernet/intel/igb/igb_ethtool.c
"""

from __future__ import annotations

from collections.abc import Sequence

from netstack.errors import UsageError

MIN_MTU, MAX_MTU = 68, 9216
MIN_RING, MAX_RING, RING_MULTIPLE = 64, 4096, 8
MAX_QUEUES, INDIRECTION = 8, 128

# Name and register of each statistic, in the order of `ethtool -S`. None: what this NIC can't have
# (a manager's own traffic, TSO, time stamps), always 0.
STATISTICS: tuple[tuple[str, str | None], ...] = (
    ("rx_packets", "GPRC"),
    ("tx_packets", "GPTC"),
    ("rx_bytes", "GORC"),
    ("tx_bytes", "GOTC"),
    ("rx_broadcast", "BPRC"),
    ("tx_broadcast", "BPTC"),
    ("rx_multicast", "MPRC"),
    ("tx_multicast", "MPTC"),
    ("multicast", "MPRC"),
    ("collisions", "COLC"),
    ("rx_crc_errors", "CRCERRS"),
    ("rx_no_buffer_count", "RNBC"),
    ("rx_missed_errors", "MPC"),
    ("tx_aborted_errors", "ECOL"),
    ("tx_carrier_errors", "TNCRS"),
    ("tx_window_errors", "LATECOL"),
    ("tx_abort_late_coll", "LATECOL"),
    ("tx_deferred_ok", "DC"),
    ("tx_single_coll_ok", "SCC"),
    ("tx_multi_coll_ok", "MCC"),
    ("tx_timeout_count", None),
    ("rx_long_length_errors", "ROC"),
    ("rx_short_length_errors", "RUC"),
    ("rx_align_errors", "ALGNERRC"),
    ("tx_tcp_seg_good", "TSCTC"),
    ("tx_tcp_seg_failed", None),
    ("rx_flow_control_xon", "XONRXC"),
    ("rx_flow_control_xoff", "XOFFRXC"),
    ("tx_flow_control_xon", "XONTXC"),
    ("tx_flow_control_xoff", "XOFFTXC"),
    ("rx_long_byte_count", "GORC"),
    ("tx_dma_out_of_sync", None),
    ("tx_smbus", "MGTPTC"),
    ("rx_smbus", "MGTPRC"),
    ("dropped_smbus", "MGTPDC"),
    ("os2bmc_rx_by_bmc", None),
    ("os2bmc_tx_by_bmc", None),
    ("os2bmc_tx_by_host", None),
    ("os2bmc_rx_by_host", None),
    ("tx_hwtstamp_timeouts", None),
    ("tx_hwtstamp_skipped", None),
    ("rx_hwtstamp_cleared", None),
)
NETDEV_STATISTICS = (
    "rx_errors",
    "tx_errors",
    "tx_dropped",
    "rx_length_errors",
    "rx_over_errors",
    "rx_frame_errors",
    "rx_fifo_errors",
    "tx_fifo_errors",
    "tx_heartbeat_errors",
)
TESTS = ("Register test  (offline)", "Interrupt test (offline)", "Loopback test  (offline)",
         "Link test   (on/offline)")  # fmt: skip
# The 32-bit statistics registers that are read; octets have two each, and RQDPC one a queue.
OTHER_TOTALS = {"GORC", "GOTC", "RQDPC"}
REGISTERS = sorted({reg for _, reg in STATISTICS if reg} - OTHER_TOTALS | {"RXERRC"})


def check_mtu(mtu: int) -> int:
    """Return the MTU if it is one for this NIC."""
    if not MIN_MTU <= mtu <= MAX_MTU:
        raise UsageError(f"mtu {mtu}: an igb takes {MIN_MTU} to {MAX_MTU}", hint="--mtu 1500")
    return mtu


def check_ring(what: str, count: int) -> int:
    """Return the number of descriptors if a ring can have it."""
    if MIN_RING <= count <= MAX_RING and count % RING_MULTIPLE == 0:
        return count
    near = min(max(count // RING_MULTIPLE * RING_MULTIPLE, MIN_RING), MAX_RING)
    raise UsageError(
        f"{what} {count}: a ring has {MIN_RING} to {MAX_RING} descriptors, "
        f"a multiple of {RING_MULTIPLE}",
        hint=f"--ring {near}",
    )


def check_names(name: str, mac: bytes) -> None:
    """Refuse what can't be the name and the address of a device."""
    if not 1 <= len(name.encode()) <= 15:
        raise ValueError(f"name={name!r}: a device's name has 1 to 15 bytes")
    if len(mac) != 6 or mac[0] & 1 or not any(mac):
        wanted = "give 6 bytes of a unicast address, as 02:00:00:00:00:01"
        raise ValueError(f"mac={mac.hex(':')!r}: {wanted}")


def check_multicast(addresses: Sequence[bytes]) -> None:
    """Refuse what is no group's address."""
    for address in addresses:
        if len(address) != 6 or not address[0] & 1:
            text = bytes(address).hex(":")
            raise ValueError(f"{text!r} is no multicast address: its first byte is odd")


def check_queues(count: int) -> int:
    """Return the number of queue pairs if an igb has so many."""
    if 1 <= count <= MAX_QUEUES:
        return count
    raise UsageError(f"queues {count}: an igb has 1 to {MAX_QUEUES} pairs", hint="--queues 2")


def check_indirection(table: Sequence[int], queues: int) -> None:
    """Refuse a table that is not for 128 hash values, or names a queue that is not there."""
    if len(table) != INDIRECTION or not all(0 <= queue < queues for queue in table):
        raise UsageError(
            f"an indirection table has {INDIRECTION} entries, each a queue from 0 to {queues - 1}",
            hint="netstack ethtool -X tap0 default",
        )


def check_usecs(rx_usecs: int) -> int:
    """Return rx-usecs if ``ethtool -C`` of an igb would take it."""
    if rx_usecs in (0, 1, 3) or 10 <= rx_usecs <= 10000:
        return rx_usecs
    raise UsageError(
        f"rx-usecs {rx_usecs}: allowed are 0 (no throttle), 1 (dynamic), 3 (dynamic, at most "
        "20000 interrupts a second), and 10 to 10000 microseconds",
        hint="rx-usecs 3",
    )


def drvinfo() -> dict[str, str]:
    """Return what ``ethtool -i`` prints."""
    from netstack import __version__

    return {
        "driver": "igb",
        "version": __version__,
        "firmware-version": "",
        "expansion-rom-version": "",
        "bus-info": "",
    }


def link_stats(registers: dict[str, int], counted: dict[str, int]) -> dict[str, int]:
    """Add what only the NIC knows to what the driver counted. [igb_update_stats()]"""
    length = registers["RUC"] + registers["ROC"]
    return counted | {
        "collisions": registers["COLC"],
        "rx_errors": length
        + registers["RXERRC"]
        + registers["CRCERRS"]
        + registers["ALGNERRC"],
        "rx_length_errors": length,
        "rx_over_errors": 0,
        "rx_crc_errors": registers["CRCERRS"],
        "rx_frame_errors": registers["ALGNERRC"],
        "rx_fifo_errors": registers["MPC"] + registers["RQDPC"],
        "rx_missed_errors": registers["MPC"],
        "tx_errors": registers["ECOL"] + registers["LATECOL"],
        "tx_aborted_errors": registers["ECOL"],
        "tx_carrier_errors": registers["TNCRS"],
        "tx_fifo_errors": 0,
        "tx_heartbeat_errors": 0,
        "tx_window_errors": registers["LATECOL"],
    }


def stats(
    registers: dict[str, int], link: dict[str, int], queues: dict[str, int]
) -> dict[str, int]:
    """Return what ``ethtool -S`` prints."""
    out = {name: registers[reg] if reg else 0 for name, reg in STATISTICS}
    out |= {name: link[name] for name in NETDEV_STATISTICS}
    return out | queues
