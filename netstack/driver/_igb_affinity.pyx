"""igb: let a queue be polled by the CPU that its vector goes to.

Stage 2 of 8:  device [driver] irq napi netif nf proto sock
In       a line that moves                irq/_irq.pyx
Out      a queue with another CPU         driver/_igb_rx.pyx
Context  process context, as every CPU; no GIL; never allocates, never raises
Kernel   igb has nothing like it: a NAPI is polled where its interrupt was, and pages belong to nobody
"""

from netstack._abi cimport store_relaxed32, u32
from netstack._net cimport net_now
from netstack._skb cimport skb_set_slot
from netstack.device._igb_regs cimport IGB_MAX_QUEUES
from netstack.driver._igb cimport igb_adapter
from netstack.driver._igb_rx cimport igb_clean_rx_irq, igb_free_posted
from netstack.irq._irq cimport irq_resume
from netstack.napi._gro cimport gro_normal_list, napi_gro_flush
from netstack.napi._napi cimport NAPI_POLL_WEIGHT, napi_move, napi_schedule


cdef void igb_set_cpu(igb_q_vector *q) noexcept nogil:
    """Take buffers from the pool of the CPU that polls, and count as that."""
    cdef softnet_data *sd = q.napi.sd
    q.rx.pool = sd.pool
    q.rx.slot = sd.slot
    q.rx.remote = q.adapter.sd if sd != q.adapter.sd else NULL


cdef void igb_count_away(igb_q_vector *q) noexcept nogil:
    """Count anew the queues that other CPUs poll: this CPU must see to the wire for them, whatever programs do."""
    cdef igb_adapter *adapter = q.adapter
    cdef u32 away = 0
    cdef u32 i
    for i in range(IGB_MAX_QUEUES):
        if adapter.q_vector[i].irq.irq and adapter.q_vector[i].rx.remote != NULL:
            away += 1
    store_relaxed32(&adapter.sd.shared, adapter.sd.shared + away - adapter.away)
    adapter.away = away
    if away:
        irq_resume(adapter.sd)


cdef void igb_moved(void *dev_id, softnet_data *to) noexcept nogil:
    """The vector goes to another CPU, and the queue with it. What the NIC has finished goes up first, in its order."""
    cdef igb_q_vector *q = <igb_q_vector *>dev_id
    igb_drain(q)
    napi_move(&q.napi, to)
    igb_set_cpu(q)
    igb_free_posted(q.adapter.nic)
    if q.rx.skb != NULL:
        skb_set_slot(q.rx.skb, to.slot)
    igb_count_away(q)
    napi_schedule(&q.napi)


cdef void igb_drain(igb_q_vector *q) noexcept nogil:
    """Clean every frame of a queue that the NIC has finished, and pass it up with what GRO holds. As every CPU."""
    q.napi.sd.now = net_now(q.adapter.n)
    while igb_clean_rx_irq(q, NAPI_POLL_WEIGHT):
        pass
    napi_gro_flush(&q.napi, False)
    gro_normal_list(&q.napi)
