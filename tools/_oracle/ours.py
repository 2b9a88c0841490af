"""netstack as a host on a wire in memory: the whole of it, NIC and sockets too, with a clock that stands."""

from __future__ import annotations

import contextlib
from collections import Counter

from netstack._counters import mib, skb_drop_reason
from netstack.proto._neigh import nud
from netstack.stats import NOT_DROPS, reason_name
from tests.memory_host import MemoryHost, balance
from tests.proto.stack import ADDR, ETH0, MAC, PEER, PEER_MAC, number

ICMP_MSG = (
    (int(mib.IcmpMsgInType), "IcmpMsgInType"),
    (int(mib.IcmpMsgOutType), "IcmpMsgOutType"),
)
NAMES = {int(row): name for name, row in mib.__members__.items() if row < mib.IcmpMsgInType}
NAMES |= {first + n: f"{name}{n}" for first, name in ICMP_MSG for n in range(256)}
REASONS = {
    int(row): reason_name(name)
    for name, row in skb_drop_reason.__members__.items()
    if name not in NOT_DROPS and name != "SKB_FATE_NR"
}


class Ours:
    """A netstack host at the same address, MAC and neighbour as `Kernel`."""

    def __init__(self, fast: bool = True) -> None:
        self.it = MemoryHost(fast_path=fast)
        device = self.it.device
        assert (device.mac, str(device.addresses[0].ip)) == (MAC, ADDR)
        # A TAP has no address filter: there IP finds out that a frame is another host's.
        device.nic.set_rx_mode(promisc=True)
        self.it.host.inet.neigh.update(
            ETH0,
            number(PEER),
            bytes.fromhex(PEER_MAC.replace(":", "")),
            nud.NUD_PERMANENT,
            override=True,
            admin=True,
            create=True,
        )
        self.it.host.config["net.ipv4.icmp_ratemask"] = 0
        self.net = self.it.host.net
        self.index = device.ifindex
        self.fates: dict[int, int] = {}

    def put(self, frame: bytes) -> list[bytes]:
        """Receive one frame; give what was sent."""
        return self.it.put(frame) if frame else []

    def reported(self) -> None:
        """Let the host report its groups."""
        for _ in range(3):
            self.it.advance(1.1)

    def counters(self) -> dict[str, int]:
        """Give every SNMP and netstat counter that is not 0, under nstat's names."""
        mibs, self.fates_now = self.net.counted()
        return {NAMES[which]: value for which, value in mibs.items()}

    def reasons(self) -> Counter[str]:
        """Give the reasons of what was dropped since the last call; counters() comes first."""
        before, self.fates = self.fates, self.fates_now
        return Counter(
            {
                REASONS[which]: count - before.get(which, 0)
                for which, count in self.fates.items()
                if which in REASONS and count != before.get(which, 0)
            }
        )

    def close(self) -> None:
        """Close the host; every frame must be accounted for."""
        with contextlib.ExitStack() as stack:
            stack.callback(self.it.close)
            balance(self.it.host)
        balance(self.it.host)
