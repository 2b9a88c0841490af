"""What each device has of its own: net.ipv4.conf.DEVICE.*, one row each.

``all`` and ``default`` are no devices: what ``default`` says, a new device begins with; with ``all``
a device's own value is joined as its row says.
"""

from __future__ import annotations

from typing import NamedTuple

from netstack._net import devconf, devconf_numbers

DEVCONF_ALL = devconf_numbers.DEVCONF_ALL
PREFIX = "net.ipv4.conf."


class Row(NamedTuple):
    """One setting; ``joined`` says how all's value and the device's become one."""

    which: devconf
    default: int
    high: int
    text: str
    joined: str


ROWS = {
    "forwarding": Row(devconf.CNF_FORWARDING, 0, 1,
        "1: pass on what comes in for others; all's is ip_forward", "the device's"),
    "rp_filter": Row(devconf.CNF_RP_FILTER, 0, 2,
        "check that the way back exists: 0 off, 1 through the same device, 2 through any",
        "the larger"),
    "accept_local": Row(devconf.CNF_ACCEPT_LOCAL, 0, 1,
        "1: take packets whose source is one of our own addresses", "one of the two"),
    "accept_redirects": Row(devconf.CNF_ACCEPT_REDIRECTS, 1, 1,
        "1: follow ICMP redirects", "one of the two, and both where the device forwards"),
    "secure_redirects": Row(devconf.CNF_SECURE_REDIRECTS, 1, 1,
        "1: where shared_media is 0, follow redirects to a default router only",
        "one of the two"),
    "send_redirects": Row(devconf.CNF_SEND_REDIRECTS, 1, 1,
        "1: tell a sender when the next hop is in its own subnet", "one of the two"),
    "shared_media": Row(devconf.CNF_SHARED_MEDIA, 1, 1,
        "1: several subnets share this wire, so a redirect may cross them", "one of the two"),
    "force_igmp_version": Row(devconf.CNF_FORCE_IGMP_VERSION, 0, 3,
        "1, 2: speak this version of IGMP; else the queriers say which", "one of the two"),
    "igmpv2_unsolicited_report_interval": Row(
        devconf.CNF_IGMPV2_UNSOLICITED_REPORT_INTERVAL, 10000, 2**31 - 1,
        "ms, up to so long between the reports of a new membership, IGMPv1 and v2",
        "the device's"),
    "igmpv3_unsolicited_report_interval": Row(
        devconf.CNF_IGMPV3_UNSOLICITED_REPORT_INTERVAL, 1000, 2**31 - 1,
        "ms, the same with IGMPv3", "the device's"),
}  # fmt: skip


def number(ifindex: int | None, row: Row, *, default: bool = False) -> int:
    """Give what ``Net.get`` takes for a setting of a device; None is ``all``, or ``default``."""
    place = int(default) if ifindex is None else 1 + ifindex
    return int(DEVCONF_ALL) + (place << 8) + row.which


def split(key: str) -> tuple[str, Row] | None:
    """Take net.ipv4.conf.NAME.KEY apart; a device's name may have dots."""
    if not key.startswith(PREFIX):
        return None
    name, _, last = key.removeprefix(PREFIX).rpartition(".")
    return (name, ROWS[last]) if name and last in ROWS else None
