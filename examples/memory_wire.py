"""Give a host one frame, on a wire in memory: no root, no TAP, and a clock that stands."""

import netstack

ours, theirs = netstack.MemoryWire.pair()
with netstack.Host(clock=netstack.ManualClock(), threads=False) as host:
    host.add_nic(ours, "tap0", addr="10.0.0.2/24")
    theirs.send(bytes(60))
    host.run()
    print(netstack.ledger(host).text())
