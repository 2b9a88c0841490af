"""fib_exception: what ICMP messages have said of the way to one destination, router and MTU.

Stage 7 of 8:  device driver irq napi netif nf [proto] sock
In       a redirect, or the MTU of a path proto/redirect.py, proto/_icmp_err.pyx
Out      what rt_use_exceptions() finds   proto/_route.pyx
Context  process context, under the GIL; never raises
Kernel   update_or_create_fnhe(), __ip_rt_update_pmtu(), net/ipv4/route.c

A destination whose place another takes is forgotten: memory is bounded.
"""

from netstack._abi cimport (
    fetch_add32, load_relaxed64, store_relaxed64, store_release32, u32, u64,
)
from netstack._net cimport net, net_device, net_now, route_min_pmtu, route_mtu_expires, sysctl_get
from netstack.proto._inet cimport RTN_UNICAST
from netstack.proto._route cimport (
    fib, fib_nh_exception, fib_redirect, ip_route_output, pmtu_of, redirect_of, rt_cache_flush, rtable,
)


cdef u64 rt_exception_ends(net *n, u32 daddr, u64 seconds) noexcept nogil:
    """Let all that still holds of what was learned for ``daddr`` end in ``seconds``; gives when, ns. Under the GIL.

    Router and MTU are one entry in Linux: news of one is the end of both. [update_or_create_fnhe()]
    """
    cdef fib *table = <fib *>n.fib
    cdef fib_nh_exception *path = pmtu_of(table, daddr)
    cdef fib_redirect *said = redirect_of(table, daddr)
    cdef u64 now = net_now(n)
    cdef u64 ends = now + seconds * <u64>1_000_000_000
    if <u32>(load_relaxed64(&path.key) >> 32) == daddr and now < load_relaxed64(&path.expires):
        store_relaxed64(&path.expires, ends)
    if said.daddr == daddr and now < said.expires:
        fetch_add32(&said.seq, 1)
        said.expires = ends
        fetch_add32(&said.seq, 1)
    return ends


cdef void ip_rt_learn_redirect(net *n, u32 daddr, u32 old_gw, u32 new_gw, net_device *dev, u64 seconds) noexcept nogil:
    """Remember that packets to ``daddr`` go to ``new_gw``."""
    cdef fib *table = <fib *>n.fib
    cdef fib_redirect *said = redirect_of(table, daddr)
    cdef u64 ends = rt_exception_ends(n, daddr, seconds)
    fetch_add32(&said.seq, 1)
    said.daddr = daddr
    said.old_gw = old_gw
    said.new_gw = new_gw
    said.ifindex = dev.ifindex
    said.expires = ends
    fetch_add32(&said.seq, 1)
    store_release32(&table.nr_exceptions, 1)
    rt_cache_flush(n)


cdef void ip_rt_update_pmtu(net *n, u32 daddr, u32 saddr, u32 mtu) noexcept nogil:
    """Learn that the path to ``daddr`` takes no more than ``mtu`` bytes. It is never believed to be larger.

    That was said of a packet from ``saddr``, which must be ours. What is known already is no news before half of its
    time is over, and what is locked none at all. [__ip_rt_update_pmtu()]
    """
    cdef fib *table = <fib *>n.fib
    cdef fib_nh_exception *path = pmtu_of(table, daddr)
    cdef u32 low = <u32>sysctl_get(n, route_min_pmtu)
    cdef u64 seconds = sysctl_get(n, route_mtu_expires)
    cdef rtable rt
    if ip_route_output(n, daddr, saddr, &rt) or rt.type != RTN_UNICAST or rt.mtu_locked or rt.mtu < mtu:
        return
    rt.mtu_locked = mtu < low
    if rt.mtu_locked:
        mtu = min(rt.mtu, low)
    elif (load_relaxed64(&path.key) == (<u64>daddr << 32 | mtu)
            and net_now(n) + seconds * 500_000_000 < load_relaxed64(&path.expires)):
        return
    store_relaxed64(&path.expires, rt_exception_ends(n, daddr, seconds))
    store_relaxed64(&path.key, <u64>daddr << 32 | <u64>rt.mtu_locked << 31 | mtu)
    store_release32(&table.nr_exceptions, 1)
