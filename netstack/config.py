"""Every tunable: its names, unit, default, range, and what it does, one row each.

The values live in ``struct net``, where the data path reads them without a lock; what is set
here holds from the next packet on. Names are the kernel's: ``net.core.netdev_budget`` is a
sysctl, ``class.net.gro_flush_timeout`` a file below ``/sys/class/net/DEVICE``, and
``netstack.*`` has no equal in Linux. Defaults are those of Linux 6.18 with HZ=250.

::

    host.config.netdev_budget = 50
    host.config["net.ipv4.ip_local_port_range"] = 40000, 50000
    print(host.config.text("net.ipv4.udp_mem"))
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Protocol

from netstack import config_devices, cpumask
from netstack._net import sysctl
from netstack.errors import UsageError

INT_MAX = 2**31 - 1
LONG_MAX = 2**63 - 1
PAGE_SIZE = 4096  # of the kernel's texts: udp_mem counts pages
SOCK_MIN_RCVBUF = 2304  # 2048 + 256: one packet always fits
SOCK_MIN_SNDBUF = 4608  # twice as much
UDP_MEMORY = 64 << 20  # bytes, where the host does not say how large its pools are

Value = int | tuple[int, ...]


class Numbers(Protocol):
    """Describe what holds the numbers: ``netstack._net.Net``."""

    @property
    def cpus(self) -> int:
        """Return how many CPUs the host has."""

    def get(self, which: int) -> int:
        """Return the tunable ``which``, a member of ``sysctl``."""

    def set(self, which: int, value: int) -> None:
        """Set it, unchecked."""

    def set_forwarding(self, on: bool) -> None:
        """Set it for all devices, those to come too."""


@dataclass(frozen=True, slots=True)
class Tunable:
    """Describe one sysctl, of one value or of several.

    ``low`` and ``high`` bound each value; several values must not fall. ``scale`` is what a
    unit of the sysctl is in ``struct net``: udp_mem is in pages here and in bytes there.
    ``form``: "cpumask" for a mask of CPUs, which as text is hexadecimal; "power of 2" for just those.
    """

    key: str
    fields: tuple[int, ...]
    default: tuple[int, ...]
    low: int
    high: int
    unit: str
    text: str
    scale: int = 1
    form: str = ""

    @property
    def name(self) -> str:
        """The last part of the key: netdev_budget."""
        return self.key.rpartition(".")[2]

    @property
    def range(self) -> str:
        """Say what is allowed, for messages and help."""
        if self.form == "cpumask":
            return cpumask.ALLOWED
        each = f"{self.low} to {self.high}{f' {self.unit}' if self.unit else ''}"
        each = f"a power of 2, {each}" if self.form == "power of 2" else each
        count = len(self.fields)
        return each if count == 1 else f"{count} values of {each} that do not fall"


def _row(
    key: str, default: int, low: int, high: int, unit: str, text: str, field: str = "",
    form: str = "",
) -> Tunable:  # fmt: skip
    which = sysctl[field or key.rpartition(".")[2]]
    return Tunable(key, (which,), (default,), low, high, unit, text, form=form)


def _neigh(name: str, default: int, low: int, unit: str, text: str) -> Tunable:
    key = f"net.ipv4.neigh.default.{name}"
    return _row(key, default, low, INT_MAX, unit, text, f"neigh_{name}")


TUNABLES: tuple[Tunable, ...] = (
    # Softirq and NAPI.
    _row("net.core.netdev_budget", 300, 1, INT_MAX, "packets",
         "packets that one run of net_rx_action may poll"),
    _row("net.core.netdev_budget_usecs", 8000, 0, INT_MAX, "us",
         "time that one run of net_rx_action may take"),
    _row("net.core.dev_weight", 64, 1, INT_MAX, "packets",
         "packets that process_backlog may take in one poll, times dev_weight_rx_bias"),
    _row("net.core.dev_weight_rx_bias", 1, 1, INT_MAX, "",
         "what dev_weight is multiplied by"),
    _row("net.core.netdev_max_backlog", 1000, 0, INT_MAX, "packets",
         "length of a CPU's backlog, and of the seam to the Python layers"),
    _row("net.core.flow_limit_cpu_bitmap", 0, 0, 2**32 - 1, "",
         "CPUs that drop packets of a flow which takes more than half of a backlog they fill",
         form="cpumask"),
    _row("net.core.flow_limit_table_len", 4096, 1, 1 << 20, "buckets",
         "table of a flow limit that is switched on from now on", form="power of 2"),
    _row("net.core.rps_sock_flow_entries", 0, 0, 1 << 24, "flows",
         "flows whose reader RFS knows, rounded up to a power of 2; 0 for no RFS"),
    _row("net.core.netdev_tstamp_prequeue", 1, 0, 1, "",
         "1: time stamps say when a packet came to the device core; 0: when it left its queue there"),
    _row("net.core.gro_normal_batch", 8, 1, INT_MAX, "segments",
         "unmerged packets that NAPI passes up together"),
    _row("net.core.busy_poll", 0, 0, INT_MAX, "us",
         "time that the CPU spins before it sleeps, for programs in poll and select"),
    _row("net.core.busy_read", 0, 0, INT_MAX, "us",
         "SO_BUSY_POLL of a new socket: time that a receive may spin"),
    _row("class.net.gro_flush_timeout", 0, 0, LONG_MAX, "ns",
         "wait before GRO gives up packets it holds; also the timer of deferred interrupts"),
    _row("class.net.napi_defer_hard_irqs", 0, 0, INT_MAX, "polls",
         "empty polls before the device's interrupt is switched on again"),
    _row("netstack.poll_spin_usecs", 50, 0, 1_000_000, "us",
         "time that an idle CPU polls before it sleeps"),
    _row("netstack.irq_suspend_timeout", 1_000_000, 0, LONG_MAX, "ns",
         "time that interrupts stay off after an application has polled; longest pause for readers of full sockets"),
    _row("netstack.fast_path", 1, 0, 1, "",
         "1: plain packets take the compiled short cut; 0: all go through the Python layers"),
    # Socket buffers.
    _row("net.core.rmem_default", 212992, SOCK_MIN_RCVBUF, INT_MAX, "bytes",
         "SO_RCVBUF of a new socket"),
    _row("net.core.rmem_max", 4194304, SOCK_MIN_RCVBUF, INT_MAX, "bytes",
         "largest SO_RCVBUF that can be asked for (the socket gets twice as much)"),
    _row("net.core.wmem_default", 212992, SOCK_MIN_SNDBUF, INT_MAX, "bytes",
         "SO_SNDBUF of a new socket"),
    _row("net.core.wmem_max", 4194304, SOCK_MIN_SNDBUF, INT_MAX, "bytes",
         "largest SO_SNDBUF that can be asked for (the socket gets twice as much)"),
    Tunable("net.ipv4.udp_mem",
            (sysctl.udp_mem_min, sysctl.udp_mem_pressure, sysctl.udp_mem_max),
            (0, 0, 0), 0, LONG_MAX // PAGE_SIZE, "pages",
            "memory of all UDP sockets: no limit below, pressure, never more", PAGE_SIZE),
    _row("net.ipv4.udp_rmem_min", 4096, 1, INT_MAX, "bytes",
         "receive memory that a UDP socket keeps under pressure"),
    # IP.
    _row("net.ipv4.ip_default_ttl", 64, 1, 255, "", "time to live of what we send"),
    _row("net.ipv4.ip_forward", 0, 0, 1, "", "1: pass on what is for others"),
    Tunable("net.ipv4.ip_local_port_range",
            (sysctl.ip_local_port_range_min, sysctl.ip_local_port_range_max),
            (32768, 60999), 1024, 65535, "",
            "first and last port given to a socket without one"),
    _row("net.ipv4.ip_forward_use_pmtu", 0, 0, 1, "",
         "1: heed a path MTU that was learned for what is passed on, too"),
    _row("net.ipv4.conf.all.drop_unicast_in_l2_multicast", 0, 0, 1, "",
         "1: drop unicast addresses that come in broadcast or multicast frames"),
    # Groups.
    _row("net.ipv4.igmp_max_memberships", 20, 0, INT_MAX, "groups",
         "groups that one socket may be a member of"),
    _row("net.ipv4.igmp_max_msf", 10, 0, INT_MAX, "sources",
         "sources in a socket's filter of one group"),
    _row("net.ipv4.igmp_qrv", 2, 1, INT_MAX, "reports",
         "how often a change of membership is reported (robustness variable)"),
    _row("net.ipv4.igmp_link_local_mcast_reports", 1, 0, 1, "",
         "1: report groups of 224.0.0.0/24 too, but never 224.0.0.1"),
    # Fragments.
    _row("net.ipv4.ipfrag_high_thresh", 4194304, 0, LONG_MAX, "bytes",
         "memory of all fragments; beyond it new ones are dropped"),
    _row("net.ipv4.ipfrag_low_thresh", 3145728, 0, LONG_MAX, "bytes",
         "kept for tools that set it; Linux no longer uses it either"),
    _row("net.ipv4.ipfrag_time", 30, 0, INT_MAX // 1000, "s",
         "time that the fragments of a datagram may take"),
    _row("net.ipv4.ipfrag_max_dist", 64, 0, INT_MAX, "fragments",
         "fragments of other datagrams between two of one; 0 for any number"),
    # ICMP.
    _row("net.ipv4.icmp_ratelimit", 1000, 0, INT_MAX, "ms",
         "time between two errors to one address; 0 for no limit"),
    _row("net.ipv4.icmp_ratemask", 0x1818, 0, INT_MAX, "",
         "bit n set: ICMP type n is rate-limited"),
    _row("net.ipv4.icmp_msgs_per_sec", 1000, 0, INT_MAX, "messages/s",
         "rate-limited messages of the whole host"),
    _row("net.ipv4.icmp_msgs_burst", 50, 0, INT_MAX, "messages",
         "rate-limited messages that may go at once"),
    _row("net.ipv4.icmp_echo_ignore_all", 0, 0, 1, "", "1: answer no ping"),
    _row("net.ipv4.icmp_echo_ignore_broadcasts", 1, 0, 1, "",
         "1: answer no ping to a broadcast or multicast address"),
    _row("net.ipv4.route.min_pmtu", 552, 68, INT_MAX, "bytes",
         "smallest path MTU that is believed; below it packets are fragmented", "route_min_pmtu"),
    _row("net.ipv4.route.mtu_expires", 600, 0, INT_MAX, "s",
         "time after which a path MTU that was learned is forgotten", "route_mtu_expires"),
    _row("net.ipv4.route.gc_timeout", 300, 0, INT_MAX // 1000, "s",
         "time after which a redirect that was followed is forgotten", "route_gc_timeout"),
    _row("net.ipv4.route.redirect_load", 5, 0, INT_MAX, "ticks of 4 ms",
         "wait before a second redirect to a sender; it doubles with each", "route_redirect_load"),
    _row("net.ipv4.route.redirect_number", 9, 0, 31, "redirects",
         "that a sender may ignore before it gets no more", "route_redirect_number"),
    _row("net.ipv4.route.redirect_silence", 5120, 0, INT_MAX, "ticks of 4 ms",
         "without redirects after which counting begins anew", "route_redirect_silence"),
    _row("net.ipv4.route.error_cost", 250, 0, INT_MAX, "ticks of 4 ms",
         "credit that an answer to a packet without a route takes", "route_error_cost"),
    _row("net.ipv4.route.error_burst", 1250, 0, INT_MAX, "ticks of 4 ms",
         "credit that a sender can have", "route_error_burst"),
    Tunable("net.ipv4.ping_group_range",
            (sysctl.ping_group_range_min, sysctl.ping_group_range_max),
            (1, 0), 0, INT_MAX, "",
            "first and last group whose processes may have ping sockets; '1 0' for none"),
    # Neighbours (ARP).
    _neigh("base_reachable_time_ms", 30000, 1, "ms",
           "how long an answer is trusted, on average: 0.5 to 1.5 times this"),
    _neigh("retrans_time_ms", 1000, 1, "ms", "time between two requests"),
    _neigh("delay_first_probe_time", 5, 0, "s", "wait before a stale neighbour is asked again"),
    _neigh("gc_stale_time", 60, 0, "s", "age from which an unused neighbour may be forgotten"),
    _neigh("ucast_solicit", 3, 0, "requests", "requests to the address known so far"),
    _neigh("mcast_solicit", 3, 0, "requests", "requests to all before it has failed"),
    _neigh("gc_thresh1", 128, 0, "entries", "up to here no neighbour is forgotten"),
    _neigh("gc_thresh2", 512, 0, "entries", "above it, those unused for 5 s are forgotten"),
    _neigh("gc_thresh3", 1024, 0, "entries", "size of the table"),
    _neigh("unres_qlen_bytes", 212992, 0, "bytes",
           "packets that may wait for one neighbour's answer"),
)  # fmt: skip

for _name, _of in config_devices.ROWS.items():
    TUNABLES += tuple(
        Tunable(f"{config_devices.PREFIX}{place}.{_name}",
                (config_devices.number(None, _of, default=place == "default"),),
                (_of.default,), 0, _of.high, "",
                f"{_of.text}; with all's counts {_of.joined}")
        for place in ("all", "default")
    )  # fmt: skip

# Two names of one: it is set for every device.
FORWARDING = ("net.ipv4.ip_forward", "net.ipv4.conf.all.forwarding")

# Pairs that must not cross, whichever of the two is set.
_ORDERED = (("net.ipv4.ipfrag_low_thresh", "net.ipv4.ipfrag_high_thresh"),)


def _spellings(rows: tuple[Tunable, ...]) -> dict[str, Tunable]:
    """Map the full key, its last part, and each member's name to the row."""
    table = {}
    for row in rows:
        table[row.key] = row
        table.setdefault(row.name, row)
        if len(row.fields) == 1 and isinstance(row.fields[0], sysctl):
            table[row.fields[0].name] = row
    return table


_BY_NAME = _spellings(TUNABLES)


def find(name: str) -> Tunable:
    """Return the row of a key, written with dots or as a path, or of the last part of a key.

    A file of one device (``/sys/class/net/tap0/gro_flush_timeout``) is the same for all here.
    """
    key = name.strip().removeprefix("/proc/sys/").removeprefix("/sys/").replace("/", ".")
    if key.startswith("class.net."):
        key = "class.net." + key.rpartition(".")[2]
    try:
        return _BY_NAME[key]
    except KeyError:
        raise _unknown(name, key, _BY_NAME) from None


def _unknown(name: str, key: str, known: Mapping[str, Tunable]) -> UsageError:
    """Make the error that names what is nearest to a key."""
    near = get_close_matches(key, known, n=3, cutoff=0.5)
    near += [k for k in known if key and key in k and k not in near]
    best = list(dict.fromkeys(known[k].key for k in near))[:3]
    ways = "\n".join(f"netstack sysctl {k}" for k in best) or "netstack sysctl -a"
    return UsageError(f"there is no tunable {name!r}", hint=ways)


class Config(Mapping[str, Value]):
    """The tunables of one host: a mapping by sysctl name, and an attribute each.

    A sysctl of several values is a tuple. As attributes, each of those is there by itself too,
    in the unit of ``struct net``: ``config.udp_mem_max`` is in bytes.
    """

    __slots__ = ("_actions", "_devices", "_net")

    def __init__(self, net: Numbers, *, udp_memory: int = UDP_MEMORY) -> None:
        """Set every default. ``udp_memory``: bytes of packets that UDP sockets may hold."""
        object.__setattr__(self, "_net", net)
        object.__setattr__(self, "_devices", {})
        object.__setattr__(self, "_actions", {})
        for row in TUNABLES:
            self._store(row, row.default)
        limit = max(udp_memory // PAGE_SIZE, 1)
        # The kernel's proportions: pressure at 2/3 of the limit, free below 1/2. [udp_init()]
        self["net.ipv4.udp_mem"] = limit // 2, limit * 2 // 3, limit

    _net: Numbers
    _actions: dict[str, Callable[[int], int]]
    _devices: dict[str, Tunable]

    def add_device(self, name: str, ifindex: int) -> None:
        """Know a device's own settings: net.ipv4.conf.NAME.*."""
        for last, of in config_devices.ROWS.items():
            key = f"{config_devices.PREFIX}{name}.{last}"
            fields = (config_devices.number(ifindex, of),)
            self._devices[key] = Tunable(key, fields, (of.default,), 0, of.high, "", of.text)

    def find(self, name: str) -> Tunable:
        """Return the row of a name, as ``find``, or of a device's own setting."""
        key = name.strip().removeprefix("/proc/sys/")
        row = self._devices.get(key) or self._devices.get(key.replace("/", "."))
        if row is None and key.startswith(config_devices.PREFIX) and key not in _BY_NAME:
            raise _unknown(name, key, self._devices | _BY_NAME)
        return row or find(name)

    def rows(self) -> list[Tunable]:
        """Give all tunables of this host, those of its devices last."""
        return [*TUNABLES, *self._devices.values()]

    def on_set(self, key: str, action: Callable[[int], int]) -> None:
        """Have ``action`` called with a new value of one number before it holds; gives what is stored."""
        self._actions[key] = action

    def __getitem__(self, name: str) -> Value:
        """Return the value, or the tuple of values, in the sysctl's unit."""
        row = self.find(name)
        values = tuple(self._net.get(which) // row.scale for which in row.fields)
        return values if len(values) > 1 else values[0]

    def __setitem__(self, name: str, value: Value | str) -> None:
        """Check and set; text is read as by ``sysctl -w``. Nothing changes on an error."""
        row = self.find(name)
        if row.form == "cpumask" and isinstance(value, str):
            value = cpumask.parse(
                value, self._net.cpus, row.key, f"netstack sysctl {row.key}=1"
            )
        values = self._check(row, self._parse(row, value))
        if row.key in self._actions:
            values = (self._actions[row.key](values[0]),)
        self._store(row, values)

    def __contains__(self, name: object) -> bool:
        """Tell whether there is such a tunable, by key or last part."""
        return name in _BY_NAME or name in self._devices

    def __iter__(self) -> Iterator[str]:
        """Iterate over the sysctl names."""
        return (row.key for row in self.rows())

    def __len__(self) -> int:
        """Count the sysctls."""
        return len(self.rows())

    def __getattr__(self, name: str) -> Any:
        """Return a tunable by the last part of its name, or by its name in ``struct net``."""
        if name in sysctl.__members__:
            return self._net.get(sysctl[name])
        try:
            return self[name]
        except UsageError as error:
            raise AttributeError(f"{error}; it is one of list(config)", name=name) from None

    def __setattr__(self, name: str, value: Value | str) -> None:
        """Set a tunable by the same names."""
        row = find(name) if name in _BY_NAME else None
        if row is None and name in sysctl.__members__:
            key = next(row.key for row in TUNABLES if sysctl[name] in row.fields)
            raise UsageError(f"{name} is set with its others", hint=f"config[{key!r}] = ...")
        self[row.key if row else name] = value

    def text(self, name: str) -> str:
        """Return the value as the file of the kernel has it: several are separated by tabs."""
        value = self[name]
        if self.find(name).form == "cpumask" and isinstance(value, int):
            return cpumask.text(value, self._net.cpus)
        return "\t".join(map(str, value)) if isinstance(value, tuple) else str(value)

    def _check(self, row: Tunable, values: tuple[int, ...]) -> tuple[int, ...]:
        most = (1 << self._net.cpus) - 1 if row.form == "cpumask" else row.high
        inside = all(row.low <= value <= most for value in values)
        if row.form == "power of 2" and values[0] & (values[0] - 1):
            inside = False
        if not inside or (list(values) != sorted(values) and values != row.default):
            raise self._refused(row, values)
        for low, high in _ORDERED:
            now = {low: self._first(low), high: self._first(high)}
            then = now | {row.key: values[0]}
            if then[low] > then[high]:
                raise UsageError(
                    f"{row.key} = {values[0]} would put {low} above {high}",
                    hint=f"netstack sysctl {row.key}={now[low if row.key == high else high]}",
                )
        return values

    def _parse(self, row: Tunable, value: object) -> tuple[int, ...]:
        parts = value.split() if isinstance(value, str) else value
        if not isinstance(parts, (list, tuple)):
            parts = (parts,)
        if len(parts) != len(row.fields):
            raise self._refused(row, value)
        try:
            return tuple(int(p, 0) if isinstance(p, str) else _whole(p) for p in parts)
        except ValueError:
            raise self._refused(row, value) from None

    def _refused(self, row: Tunable, value: object) -> UsageError:
        if isinstance(value, (list, tuple)):
            value = " ".join(map(str, value))
        values = [f"{d or row.low}" for d in row.default]
        if len(values) > 1 and not any(row.default):  # it depends on the size of the host
            values = self.text(row.key).split()
        example = values[0] if len(values) == 1 else f"'{' '.join(values)}'"
        return UsageError(
            f"{row.key} = {value} is refused; allowed: {row.range}",
            hint=f"netstack sysctl {row.key}={example}",
        )

    def _first(self, key: str) -> int:
        row = _BY_NAME[key]
        return self._net.get(row.fields[0]) // row.scale

    def _store(self, row: Tunable, values: tuple[int, ...]) -> None:
        if row.key in FORWARDING:
            if self._net.get(row.fields[0]) != values[0]:
                self._net.set_forwarding(bool(values[0]))
            return
        for which, value in zip(row.fields, values, strict=True):
            self._net.set(which, value * row.scale)


def _whole(value: object) -> int:
    if isinstance(value, int):  # a bool as well
        return int(value)
    raise ValueError
