"""igb: choose how often the NIC may interrupt.

Stage 2 of 8:  device [driver] irq napi netif nf proto sock
In       packets and bytes since the last choice  driver/_igb_rx.pyx
Out      register EITR                    device/_igb_csr.pyx
Context  end of a poll, and hard IRQ for the write; no GIL
Kernel   igb_set_itr(), igb_update_itr(), drivers/net/ethernet/intel/igb/igb_main.c

Bulk transfers get 4000 interrupts a second, others 20000, and a trickle of small packets 70000, if
rx-usecs is 1; its default of 3 never goes above 20000. From a low rate the throttle approaches a
higher one in steps. Units of EITR: a quarter of a microsecond.
"""

from netstack._abi cimport load_relaxed64, u32, u64
from netstack.device._igb_csr cimport wr32
from netstack.device._igb_regs cimport E1000_EITR, E1000_EITR_CNT_IGNR, E1000_EITR_INTERVAL, IGB_MAX_QUEUES
from netstack.driver._igb cimport (
    IGB_4K_ITR, IGB_20K_ITR, IGB_70K_ITR, IGB_START_ITR, bulk_latency, igb_adapter, igb_q_vector,
    low_latency, lowest_latency,
)
from netstack.irq._cpu cimport cpus_release, cpus_take


cdef u32 igb_update_itr(u32 itr, u64 packets, u64 bytes) noexcept nogil:
    """Give the next latency class of a ring from the one it is in and what it moved."""
    cdef u64 size
    if packets == 0:
        return itr
    size = bytes // packets
    if itr == lowest_latency:
        if size > 8000:
            return bulk_latency
        return low_latency if packets < 5 and bytes > 512 else lowest_latency
    if itr == low_latency:
        if bytes > 10000:
            if size > 8000 or packets < 10 or size > 1200:
                return bulk_latency
            return lowest_latency if packets > 35 else low_latency
        if size > 2000:
            return bulk_latency
        return lowest_latency if packets <= 2 and bytes < 512 else low_latency
    if bytes > 25000:
        return low_latency if packets > 35 else bulk_latency
    return low_latency if bytes < 1500 else bulk_latency


cdef void igb_set_itr(igb_q_vector *q) noexcept nogil:
    """Work out the throttle after a poll; it is written at the next interrupt. [igb_set_itr()]"""
    cdef u64 tx_packets = load_relaxed64(&q.tx.packets)     # senders count, in any thread
    cdef u64 tx_bytes = load_relaxed64(&q.tx.bytes)
    cdef u32 itr, current
    q.rx.itr = igb_update_itr(q.rx.itr, q.rx.total_packets, q.rx.total_bytes)
    q.tx.itr = igb_update_itr(q.tx.itr, tx_packets - q.tx.itr_packets, tx_bytes - q.tx.itr_bytes)
    q.rx.total_packets = q.rx.total_bytes = 0
    q.tx.itr_packets, q.tx.itr_bytes = tx_packets, tx_bytes
    current = max(q.rx.itr, q.tx.itr)
    if current == lowest_latency and q.adapter.rx_itr_setting == 3:
        current = low_latency
    if current == lowest_latency:
        itr = IGB_70K_ITR
    elif current == low_latency:
        itr = IGB_20K_ITR
    else:
        itr = IGB_4K_ITR
    if itr == q.itr_val:
        return
    if itr > q.itr_val:
        # Fewer interrupts: go there at once, or later if the mean of the two says so.
        itr = max(itr * q.itr_val // (itr + (q.itr_val >> 2)), itr)
    q.itr_val = itr
    q.set_itr = 1


cdef void igb_write_itr(igb_q_vector *q) noexcept nogil:
    """Write the throttle that the last poll chose, leaving the running interval alone."""
    cdef u32 value = q.itr_val & E1000_EITR_INTERVAL
    if not q.set_itr:
        return
    if value == 0:
        value = 4
    wr32(q.adapter.nic, E1000_EITR + 4 * q.vector, value | <u32>E1000_EITR_CNT_IGNR)
    q.set_itr = 0


cdef void igb_set_coalesce(igb_adapter *adapter, u32 setting) noexcept nogil:
    """Set rx-usecs: 0 to 3 are ways to choose, more are microseconds. Takes the CPUs' roles. [igb_set_coalesce()]"""
    cdef u32 i
    cpus_take(adapter.n)
    adapter.rx_itr_setting = setting if setting <= 3 else setting << 2
    for i in range(IGB_MAX_QUEUES):
        adapter.q_vector[i].itr_val = IGB_START_ITR if 0 < setting <= 3 else adapter.rx_itr_setting
        adapter.q_vector[i].set_itr = 1
    cpus_release(adapter.n)
