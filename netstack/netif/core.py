"""core: the Python half of the device core: handlers by EtherType.

Stage 5 of 8:  device driver irq napi [netif] nf proto sock
In       packets from the seam            netif/_backlog.pyx
Out      one handler, or a drop           proto/ip.py, proto/arp.py
Context  process: the host's thread kworker
Kernel   dev_add_pack(), __netif_receive_skb_core(), net/core/dev.c
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from netstack._counters import skb_drop_reason
from netstack.netif._core import set_python_handler

if TYPE_CHECKING:
    from netstack._skb import SkBuff
    from netstack.host import Host

ETH_P_ALL = 0x0003
ETH_P_IP = 0x0800
ETH_P_ARP = 0x0806

Handler = Callable[["Host", "SkBuff"], object]


class PacketTypes:
    """The handlers of one host: ``ptype_base`` by EtherType, ``ptype_all`` for those who watch everything."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.ptype_base: dict[int, Handler] = {}
        self.ptype_all: list[tuple[Handler, int | None]] = []

    def dev_add_pack(
        self, ethertype: int, handler: Handler, ifindex: int | None = None
    ) -> None:
        """Register ``handler(host, skb)`` for an EtherType; it owns the packet. [dev_add_pack()]

        ETH_P_ALL registers a tap: it sees a copy of every packet, or of those of one device. Raises ValueError when
        the EtherType has a handler already.
        """
        if ethertype == ETH_P_ALL:
            self.ptype_all.append((handler, ifindex))
        elif not 0x0600 <= ethertype <= 0xFFFF:
            raise ValueError(f"EtherType {ethertype:#06x}: give 0x0600 to 0xffff, or ETH_P_ALL")
        elif ethertype in self.ptype_base:
            raise ValueError(
                f"EtherType {ethertype:#06x} has a handler; dev_remove_pack({ethertype:#06x}) first"
            )
        else:
            self.ptype_base[ethertype] = handler
        set_python_handler(self.host.net, ethertype, True)

    def dev_remove_pack(self, ethertype: int, handler: Handler | None = None) -> None:
        """Take a handler out again; for ETH_P_ALL say which. [dev_remove_pack()]"""
        if ethertype == ETH_P_ALL:
            rows = [row for row in self.ptype_all if row[0] == handler]
            if not rows:
                raise ValueError("this handler is not registered for ETH_P_ALL")
            self.ptype_all.remove(rows[0])
        elif self.ptype_base.pop(ethertype, None) is None:
            raise ValueError(f"EtherType {ethertype:#06x} has no handler")
        set_python_handler(self.host.net, ethertype, False)

    def netif_receive_skb(self, skb: SkBuff) -> None:
        """Hand one packet from the seam to its handler. Consumes skb."""
        if skb.for_taps:
            for handler, ifindex in tuple(self.ptype_all):
                if ifindex is not None and ifindex != skb.ifindex:
                    continue
                if (copy := skb.clone()) is not None:  # None: no memory; a tap misses a packet
                    handler(self.host, copy)
            skb.forget()
            return
        handler_ = self.ptype_base.get(skb.protocol)
        if handler_ is None:
            skb.drop(skb_drop_reason.SKB_DROP_REASON_UNHANDLED_PROTO)
            return
        handler_(self.host, skb)
