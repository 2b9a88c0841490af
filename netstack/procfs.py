"""What a host knows in the kernel's own text: /proc/net, interrupts, softirqs, sysctls.

Tools that read Linux read these as well: the columns are the kernel's, and what netstack does
not have (TCP, UDP-Lite) stands there as on a kernel where it was never used.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

from netstack import cpumask, stats
from netstack.config import PAGE_SIZE
from netstack.errors import UsageError, oserror
from netstack.netstat_columns import COLUMNS

# What the kernel prints for a TCP that has done nothing; MaxConn is "no limit".
TCP_IDLE = {
    "RtoAlgorithm": 1, "RtoMin": 200, "RtoMax": 120000, "MaxConn": -1, "ActiveOpens": 0,
    "PassiveOpens": 0, "AttemptFails": 0, "EstabResets": 0, "CurrEstab": 0, "InSegs": 0,
    "OutSegs": 0, "RetransSegs": 0, "InErrs": 0, "OutRsts": 0, "InCsumErrors": 0,
}  # fmt: skip
TCP_ESTABLISHED, TCP_CLOSE = 1, 7  # <net/tcp_states.h>; an unconnected socket is in CLOSE
RTF_UP, RTF_GATEWAY, RTF_HOST, RTF_REJECT = 0x1, 0x2, 0x4, 0x200  # <linux/route.h>
USER_HZ = 100  # of times in the kernel's texts
ATF_COM, ATF_PERM = 0x2, 0x4  # <linux/if_arp.h>: the hardware address is known, for ever
SOFTIRQS = (
    "HI", "TIMER", "NET_TX", "NET_RX", "BLOCK",
    "IRQ_POLL", "TASKLET", "SCHED", "HRTIMER", "RCU",
)  # fmt: skip

MAX_CPUS = 64  # of a list that are looked at
Host = Any  # netstack.host.Host; what is used of it is what the functions below call


def _two_rows(name: str, values: Mapping[str, int]) -> str:
    """Print a group as the kernel does: a row of names, a row of values."""
    return f"{name}: {' '.join(values)}\n{name}: {' '.join(map(str, values.values()))}\n"


def net_snmp(host: Host) -> str:
    """Print /proc/net/snmp. [snmp_seq_show()]."""
    groups = stats.snmp(host.net)
    udp = groups.pop("Udp")
    message = groups.pop("IcmpMsg")
    text = "".join(_two_rows(name, values) for name, values in groups.items())
    if message:
        text += _two_rows("IcmpMsg", message)
    for name, values in (("Tcp", TCP_IDLE), ("Udp", udp), ("UdpLite", dict.fromkeys(udp, 0))):
        text += _two_rows(name, values)
    return text


def net_netstat(host: Host) -> str:
    """Print /proc/net/netstat. [netstat_seq_show()]."""
    ours = stats.netstat(host.net)
    return "".join(
        _two_rows(group, dict.fromkeys(names, 0) | ours.get(group, {}))
        for group, names in COLUMNS.items()
    )


def net_softnet_stat(host: Host) -> str:
    """Print /proc/net/softnet_stat, 15 columns a CPU. [softnet_seq_show()]."""
    lines = []
    for cpu in host.softnet():
        waiting, processing = cpu.get("input_qlen", 0), cpu.get("process_qlen", 0)
        row = [cpu["processed"], cpu["dropped"], cpu["time_squeeze"], 0, 0, 0, 0, 0, 0]
        row += [cpu["received_rps"], cpu["flow_limit_count"], waiting + processing]
        row += [cpu["cpu"], waiting, processing]
        lines.append(" ".join(f"{value & 0xFFFFFFFF:08x}" for value in row) + "\n")
    return "".join(lines)


def net_dev(host: Host) -> str:
    """Print /proc/net/dev; which counters a column adds up is dev_seq_printf_stats()."""
    lines = [
        "Inter-|   Receive                                                "
        "|  Transmit\n"
        " face |bytes    packets errs drop fifo frame compressed multicast"
        "|bytes    packets errs drop fifo colls carrier compressed\n"
    ]
    for name, of in ((device.name, device.stats()) for device in host.devices):
        rx = [of["rx_bytes"], of["rx_packets"], of.get("rx_errors", 0)]
        rx.append(of["rx_dropped"] + of.get("rx_missed_errors", 0))
        rx.append(of.get("rx_fifo_errors", 0))
        kinds = ("rx_length_errors", "rx_over_errors", "rx_crc_errors", "rx_frame_errors")
        rx += [sum(of.get(kind, 0) for kind in kinds), 0, of.get("multicast", 0)]
        tx = [of["tx_bytes"], of["tx_packets"], of.get("tx_errors", 0), of.get("tx_dropped", 0)]
        tx += [of.get("tx_fifo_errors", 0), 0, 0, 0]
        widths = (7, 7, 4, 4, 4, 5, 10, 9, 8, 7, 4, 4, 4, 5, 7, 10)
        cells = " ".join(f"{v:{w}}" for v, w in zip(rx + tx, widths, strict=True))
        lines.append(f"{name:>6}: {cells}\n")
    return "".join(lines)


def _native(address: str) -> str:
    """Print an address as the kernel prints its __be32: in the byte order of the machine."""
    return f"{int.from_bytes(IPv4Address(address).packed, sys.byteorder):08X}"


def _sockets(host: Host, proto: str) -> list[dict[str, Any]]:
    return [sock for sock in host.sockets() if sock["proto"] == proto]


def _socket_rows(rows: Iterable[dict[str, Any]], width: int) -> list[str]:
    lines = []
    for number, row in enumerate(rows):
        (local, lport), (peer, pport) = row["local"], row["peer"] or ("0.0.0.0", 0)
        state = TCP_ESTABLISHED if row["peer"] else TCP_CLOSE
        lines.append(
            f"{lport or number:{width}d}: {_native(local)}:{lport:04X} {_native(peer)}:{pport:04X}"
            f" {state:02X} {0:08X}:{row['rmem']:08X} 00:00000000 00000000 {0:5d} {0:8d}"
            f" {row['inode']} 2 {0:016x} {row['drops']}"
        )
    return lines


def net_udp(host: Host) -> str:
    """Print /proc/net/udp: 127 characters a line. [udp4_seq_show()]."""
    head = (
        "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt"
        "   uid  timeout inode ref pointer drops"
    )
    lines = [head, *_socket_rows(_sockets(host, "udp"), 5)]
    return "".join(f"{line:<127}\n" for line in lines)


def net_raw(host: Host) -> str:
    """Print /proc/net/raw; the port is the IP protocol. [raw_seq_show()]."""
    head = (
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt"
        "   uid  timeout inode ref pointer drops"
    )
    return "".join(f"{line}\n" for line in [head, *_socket_rows(_sockets(host, "raw"), 4)])


def net_arp(host: Host) -> str:
    """Print /proc/net/arp. [arp_seq_show()]."""
    lines = ["IP address       HW type     Flags       HW address            Mask     Device\n"]
    for entry in host.neighbours():
        flags = ATF_COM if entry.get("lladdr") else 0
        flags |= ATF_PERM if "PERMANENT" in entry["state"] else 0
        address = entry.get("lladdr") or "00:00:00:00:00:00"
        lines.append(
            f"{entry['dst']:<16} {'0x1':<12}{f'0x{flags:x}':<12}{address:<17}     *        "
            f"{entry['dev']}\n"
        )
    return "".join(lines)


def net_route(host: Host) -> str:
    """Print /proc/net/route: 127 characters a line. [fib_route_seq_show()]."""
    head = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT"
    lines = [head]
    for route in host.routes():
        gateway = route.get("gateway") or "0.0.0.0"
        network, _, prefix = route["dst"].replace("default", "0.0.0.0/0").partition("/")
        size = int(prefix or 32)
        mask = IPv4Address((0xFFFFFFFF << (32 - size)) & 0xFFFFFFFF)
        flags = RTF_UP | (RTF_GATEWAY if "gateway" in route else 0)
        flags |= (RTF_HOST if size == 32 else 0) | (
            RTF_REJECT if route.get("type") in ("unreachable", "prohibit") else 0
        )
        lines.append(
            f"{route.get('dev', '*')}\t{_native(network)}\t{_native(gateway)}\t{flags:04X}\t0\t0\t"
            f"{route.get('metric', 0)}\t{_native(str(mask))}\t0\t0\t0"
        )
    return "".join(f"{line:<127}\n" for line in lines)


def net_sockstat(host: Host) -> str:
    """Print /proc/net/sockstat; memory is in pages. [sockstat_seq_show()]."""
    udp, raw = _sockets(host, "udp"), _sockets(host, "raw")
    pages = sum(sock["rmem"] for sock in udp) // PAGE_SIZE
    return (
        f"sockets: used {len(host.sockets())}\n"
        "TCP: inuse 0 orphan 0 tw 0 alloc 0 mem 0\n"
        f"UDP: inuse {len(udp)} mem {pages}\n"
        "UDPLITE: inuse 0\n"
        f"RAW: inuse {len(raw)}\n"
        f"FRAG: inuse {host.fragments()[0]} memory {host.fragments()[1]}\n"
    )


def net_igmp(host: Host) -> str:
    """Print /proc/net/igmp; the time until a report is in hundredths of a second. [igmp_mc_seq_show()]."""
    lines = ["Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter\n"]
    for device in host.devices:
        groups = host.groups(device.ifindex)
        for row in groups[:1]:
            head = f"{device.ifindex}\t{device.name:<10}: {len(groups):5d} "
            lines.append(f"{head}     V{row['querier']}\n")
        for row in groups:
            running, left = row["timer"] is not None, int((row["timer"] or 0) * USER_HZ)
            lines.append(
                f"\t\t\t\t{_native(row['group'])} {row['users']:5d} {running:d}:{left:08X}\t\t"
                f"{row['reporter']:d}\n"
            )
    return "".join(lines)


def net_mcfilter(host: Host) -> str:
    """Print /proc/net/mcfilter: the sources of each group. [igmp_mcf_seq_show()]."""
    lines = ["Idx Device        MCA        SRC    INC    EXC\n"]
    for device in host.devices:
        for row in host.groups(device.ifindex):
            group = int(IPv4Address(row["group"]))
            for source, excluded, included in row["sources"]:
                lines.append(
                    f"{device.ifindex:3d} {device.name[:6]:>6} 0x{group:08x} "
                    f"0x{int(IPv4Address(source)):08x} {included:6d} {excluded:6d}\n"
                )
    return "".join(lines)


def net_dev_mcast(host: Host) -> str:
    """Print /proc/net/dev_mcast: what a device's address filter lets in. [dev_mc_seq_show()]."""
    return "".join(
        f"{device.ifindex:<4d} {device.name:<15} {users:<5d} {0:<5d} {mac.hex()}\n"
        for device in host.devices
        for mac, users in host.group_addresses(device.ifindex).items()
        if device.name != "lo"
    )


def net_ptype(host: Host) -> str:
    """Print /proc/net/ptype: who is given packets of a type. [ptype_seq_show()]."""
    lines = ["Type Device      Function\n"]
    lines += [f"{kind:<4} {device:<8} {who}\n" for kind, device, who in host.handlers()]
    return "".join(lines)


def _per_cpu(count: int) -> str:
    return "".join(f"CPU{cpu:<8d}" for cpu in range(count))


def interrupts(host: Host) -> str:
    """Print /proc/interrupts. [show_interrupts()]."""
    lines = [f"           {_per_cpu(len(host.softnet()))}\n"]
    for irq in host.interrupts():
        counts = "".join(f"{count:10d} " for count in irq["counts"])
        lines.append(f"{irq['irq']:3d}: {counts}{irq['chip']:>8} {irq['hwirq']:3d}-edge      "
                     f"{irq['name']}\n")  # fmt: skip
    return "".join(lines)


def softirqs(host: Host) -> str:
    """Print /proc/softirqs. [show_softirqs()]."""
    cpus = host.softirqs()
    lines = [f"                    {_per_cpu(len(cpus))}\n"]
    for name in SOFTIRQS:
        lines.append(f"{name:>12}:" + "".join(f" {cpu[name]:10d}" for cpu in cpus) + "\n")
    return "".join(lines)


FILES: dict[str, Callable[[Host], str]] = {
    "interrupts": interrupts,
    "softirqs": softirqs,
    "net/arp": net_arp,
    "net/dev": net_dev,
    "net/dev_mcast": net_dev_mcast,
    "net/igmp": net_igmp,
    "net/mcfilter": net_mcfilter,
    "net/netstat": net_netstat,
    "net/ptype": net_ptype,
    "net/raw": net_raw,
    "net/route": net_route,
    "net/snmp": net_snmp,
    "net/sockstat": net_sockstat,
    "net/softnet_stat": net_softnet_stat,
    "net/udp": net_udp,
}


def _mask_of(host: Host, row: Mapping[str, Any], kind: str) -> str | None:
    """Print a file of /proc/irq/N; None when there is no such file. [irq_affinity_proc_show()]"""
    effective = 1 << row["cpu"]
    mask = effective if kind.startswith("effective") else row["smp_affinity"]
    if kind in ("smp_affinity", "effective_affinity"):
        return cpumask.text(mask, len(host.softnet())) + "\n"
    if kind in ("smp_affinity_list", "effective_affinity_list"):
        cpus = [cpu for cpu in range(len(host.softnet())) if mask >> cpu & 1]
        return ",".join(map(str, cpus)) + "\n"
    return None


def _irq_file(host: Host, name: str) -> str:
    _, number, *rest = name.split("/")
    for row in host.interrupts():
        text = _mask_of(host, row, "/".join(rest)) if str(row["irq"]) == number else None
        if text is not None:
            return text
    lines = [f"netstack proc irq/{row['irq']}/smp_affinity" for row in host.interrupts()]
    raise UsageError(f"there is no file {name!r}", hint="\n".join(lines[:2]))


def write(host: Host, path: str, text: str) -> None:
    """Write a file below /proc: irq/N/smp_affinity (hexadecimal) or smp_affinity_list (0,2-3)."""
    name = path.removeprefix("/proc/").strip("/")
    before = read(host, name)
    if not name.startswith("irq/") or not name.endswith(
        ("/smp_affinity", "/smp_affinity_list")
    ):
        tunable = name.removeprefix("sys/").replace("/", ".") if name.startswith("sys/") else ""
        way = f"proc {next(iter(_affinities(host)), 'interrupts')}=1"
        raise oserror(
            errno.EACCES,
            f"{path} can't be written; irq/N/smp_affinity can, and sysctls by netstack sysctl",
            hint=f"netstack sysctl {tunable}={before.strip()}"
            if tunable
            else f"netstack {way}",
        )
    hint = f"netstack proc {path}={before.strip()}"
    if name.endswith("_list"):
        cpus = _cpus_of_list(text, path, hint)
    else:
        mask = cpumask.parse(text, len(host.softnet()), path, hint)
        cpus = {cpu for cpu in range(mask.bit_length()) if mask >> cpu & 1}
    if not cpus & set(range(len(host.softnet()))):
        message = (
            f"{path} = {text!r} is refused: it names none of the {len(host.softnet())} CPUs"
        )
        raise oserror(errno.EINVAL, message, hint=hint)
    host.set_smp_affinity(int(name.split("/")[1]), cpus)


def _cpus_of_list(text: str, path: str, hint: str) -> set[int]:
    cpus: set[int] = set()
    try:
        for part in text.split(","):
            first, _, last = part.partition("-")
            cpus |= set(range(int(first), int(last or first) + 1)) & set(range(MAX_CPUS))
    except ValueError:
        message = f"{path} = {text!r} is no list of CPUs, such as 0 or 0,2-3"
        raise oserror(errno.EINVAL, message, hint=hint) from None
    return cpus


def _affinities(host: Host) -> list[str]:
    return [f"irq/{row['irq']}/smp_affinity" for row in host.interrupts()]


def names(host: Host) -> list[str]:
    """Return the path of every file, below /proc."""
    settings = (key for key in host.config if key.startswith("net."))
    return sorted(
        [*FILES, *_affinities(host), *("sys/" + key.replace(".", "/") for key in settings)]
    )


def read(host: Host, path: str) -> str:
    """Return the text of a file below /proc."""
    name = path.removeprefix("/proc/").strip("/")
    if name.startswith("sys/"):
        return str(host.config.text(name.removeprefix("sys/"))) + "\n"
    if name.startswith("irq/"):
        return _irq_file(host, name)
    if name not in FILES:
        near = get_close_matches(name, [*FILES, *(f.rpartition("/")[2] for f in FILES)], n=1)
        raise UsageError(
            f"there is no file {path!r}",
            hint=f"netstack proc {_full(near[0])}" if near else "netstack proc",
        )
    return FILES[name](host)


def _full(name: str) -> str:
    return next(path for path in FILES if path == name or path.endswith("/" + name))


def write_tree(files: Mapping[str, str], root: Path) -> None:
    """Write path and text of files below ``root``, for tools that take a PROC_ROOT."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
