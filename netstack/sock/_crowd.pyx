"""crowd: the reader of a full queue gets the core to itself for a while.

Stage 8 of 8:  device driver irq napi netif nf proto [sock]
In       sockets without room             proto/_udp.pyx, sock/_wake.pyx
Out      how long the CPU's thread pauses irq/_cpu.pyx
Context  softirq; no GIL
Kernel   none: Linux goes on, and ksoftirqd and the reader get half of the core each. irq-suspend-timeout comes near.

Receiving a frame only to drop it takes the time in which the reader could have made room. So the CPU's thread pauses
while a reader that is at work reads half of what its queue holds; what comes meanwhile waits on the wire, and is lost
there, which costs nothing. The longest pause is irq_suspend_timeout, but never more than 10 ms; with that at 0 there is
none. A reader that does not read is not waited for: its frames are dropped, as in Linux.
[Mogul and Ramakrishnan, Eliminating Receive Livelock in an Interrupt-driven Kernel, 1996: feedback from full queues]
"""

from netstack._abi cimport load_relaxed64, store_relaxed64, u64
from netstack._net cimport irq_suspend_timeout, sysctl_get

cdef enum:
    CROWD_NS = 10_000_000          # that a socket counts as crowded after it had no room, and the longest pause


cdef void sock_crowd(sock *sk, softnet_data *sd) noexcept nogil:
    """Ask for a pause if the reader has made progress lately: as long as it took for half of SO_RCVBUF."""
    cdef u64 most = min(sysctl_get(sk.n, irq_suspend_timeout), <u64>CROWD_NS)
    cdef u64 since = sd.now - load_relaxed64(&sk.crowd_at)
    cdef u64 out = load_relaxed64(&sk.rmem_out)
    cdef u64 read = out - load_relaxed64(&sk.crowd_out)
    cdef u64 pause = load_relaxed64(&sk.crowd_ns)
    if read:
        pause = (sk.rcvbuf >> 1) * since // read if since < <u64>CROWD_NS else 0
        store_relaxed64(&sk.crowd_at, sd.now)
        store_relaxed64(&sk.crowd_out, out)
        store_relaxed64(&sk.crowd_ns, pause)
    elif since >= most:
        pause = 0                  # it gives back what it has read by the batch, but not that late
    pause = min(pause, most)
    if sd.crowd_ns == 0 or pause < sd.crowd_ns:
        sd.crowd_ns = pause


cdef void sock_crowd_drop(sock *sk, softnet_data *sd) noexcept nogil:
    """A packet found no room in the queue. As the CPU."""
    if load_relaxed64(&sk.crowd_last):
        sock_crowd(sk, sd)
    else:
        store_relaxed64(&sk.crowd_at, sd.now)
        store_relaxed64(&sk.crowd_out, load_relaxed64(&sk.rmem_out))
        store_relaxed64(&sk.crowd_ns, 0)
    store_relaxed64(&sk.crowd_last, max(sd.now, <u64>1))


cdef void sock_crowd_look(sock *sk, softnet_data *sd) noexcept nogil:
    """After a batch for a socket that had no room lately: the next would find none if three quarters are in use."""
    if sd.now - load_relaxed64(&sk.crowd_last) > <u64>CROWD_NS:
        store_relaxed64(&sk.crowd_last, 0)
    elif load_relaxed64(&sk.rmem_in) - load_relaxed64(&sk.rmem_out) > sk.rcvbuf - (sk.rcvbuf >> 2):
        sock_crowd(sk, sd)
