"""The receive path on one page: how the stages are wired, and what a CPU does in one pass. Start reading here.

    1 device   igb_rx_step          frames off the wire into posted descriptors     device/_igb_rx.pyx
    3 irq      handle_irqs          the vector's handler, in hard IRQ context       irq/_softirq.pyx
    2 driver     igb_msix_ring        acknowledge, mask, napi_schedule              driver/_igb.pyx
    3 irq      do_softirq           what the handlers raised                        irq/_softirq.pyx
                 net_rx_action        NAPIs in turn, within budget and time
    2 driver       igb_poll             clean transmit, then receive                driver/_igb.pyx
                     igb_clean_rx_irq     finished descriptors become sk_buffs      driver/_igb_rx.pyx
    4 napi             napi_gro_receive     merge, hold or pass on                  napi/_gro.pyx
    5 netif  netif_receive_skb_list   a batch, oldest first                         netif/_core.pyx
               __netif_receive_skb_core taps, then the handler of the EtherType
    7 proto      ip_rcv_fast          plain packets for us; the rest goes to        proto/_ip.pyx
                                      netif/_backlog.pyx and from there to proto/ip.py
                   udp_rcv              look up, check, queue                       proto/_udp.pyx
    8 sock           sock_queue_rcv       charge the socket, append                 sock/_sock.pyx
                 sock_wake_all        at the end of a batch: wake who sleeps

Data flows down this list. Calls against it go through function pointers in ``struct net``, ``net_device_ops`` and
``napi_struct``, and this file is where those of a host are set.
"""

from netstack._abi cimport load_acquire32, uintptr_t
from netstack._net cimport Net, net_now
from netstack.irq._busy cimport busy_loop, busy_poll_once, busy_wake
from netstack.irq._softirq cimport do_softirq, handle_irqs, hw_busy, hw_run
from netstack.napi._napi cimport napi_timers, softnet_data
from netstack.netif._backlog import backlog_init
from netstack.netif._core cimport ETH_P_ARP, ETH_P_IP, dev_add_fast
from netstack.netif._core import core_init
from netstack.proto._arp cimport arp_rcv_fast
from netstack.proto._ip cimport ip_rcv_fast
from netstack.sock._wake cimport sock_wake_all


cdef bint receive(softnet_data *sd) noexcept nogil:
    """One pass of a CPU. True when there is more to do.

    In hardware the first line runs beside the others, the second interrupts the third, and a timer is an interrupt too.
    """
    cdef bint left = False
    sd.now = net_now(sd.n)
    hw_run(sd, sd.now)
    napi_timers(sd, sd.now)
    handle_irqs(sd)
    if load_acquire32(&sd.softirq_pending):
        left = do_softirq(sd)
    if sd.wake_list != NULL:
        sd.wake_all(sd)
    return left or load_acquire32(&sd.irq_pending) != 0 or load_acquire32(&sd.ipi_pending) != 0 or hw_busy(sd)


def connect(Net n, cpus):
    """Wire the stages of one host: ``cpus`` are the addresses of its softnet_data."""
    cdef uintptr_t cpu
    core_init(n)
    n.ptr.busy_loop = busy_loop
    n.ptr.busy_poll_once = busy_poll_once
    n.ptr.busy_wake = busy_wake
    dev_add_fast(n.ptr, ETH_P_IP, ip_rcv_fast)
    dev_add_fast(n.ptr, ETH_P_ARP, arp_rcv_fast)
    for cpu in cpus:
        (<softnet_data *>cpu).wake_all = sock_wake_all
        (<softnet_data *>cpu).receive = receive
        backlog_init(n, cpu)
