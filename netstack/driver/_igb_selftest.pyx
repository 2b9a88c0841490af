"""igb: try the NIC's registers, its interrupts, and the way from transmit to receive unit.

Stage 2 of 8:  device [driver] irq napi netif nf proto sock
In       a closed device                  driver/_igb.pyx
Out      0 for passed, by test            cli/ethtool.py
Context  process context, as the CPU; the NIC is off the bus
Kernel   igb_diag_test(), drivers/net/ethernet/intel/igb/igb_ethtool.c
"""

from libc.string cimport memcmp, memset

from netstack._abi cimport spin_lock, spin_unlock, u8, u32
from netstack._counters cimport SKB_CONSUMED
from netstack._net cimport fate_add, net_now
from netstack._skb cimport SKB_LARGE, sk_buff, skb_alloc
from netstack.device._device cimport hw_device
from netstack.device._igb_csr cimport igb_reset, rd32, wr32
from netstack.device._igb_nic cimport igb_nic
from netstack.device._igb_regs cimport (
    E1000_EIAC, E1000_EIAM, E1000_EICS, E1000_EIMC, E1000_EIMS, E1000_EITR, E1000_GPIE, E1000_GPIE_EIAME,
    E1000_GPIE_MSIX_MODE, E1000_MTA, E1000_RAL, E1000_RCTL, E1000_RCTL_LBM_MAC, E1000_RCTL_UPE,
    E1000_RDBAH, E1000_RDBAL, E1000_RDLEN, E1000_RETA, E1000_RLPML, E1000_RSSRK, E1000_STATUS, E1000_TCTL,
    E1000_TDBAH, E1000_TDBAL, E1000_TDLEN, E1000_VET, E1000_VFTA, IGB_RETA_WORDS, IGB_RSSRK_WORDS,
)
from netstack.driver._igb cimport IGB_NR_VECTORS, igb_q_vector, igb_rx_unused
from netstack.driver._igb_hw cimport igb_configure
from netstack.driver._igb_main cimport (
    igb_free_rx_resources, igb_free_tx_resources, igb_setup_rx_resources, igb_setup_tx_resources,
)
from netstack.driver._igb_rx cimport igb_alloc_rx_buffers, igb_clean_rx_ring, igb_rx_data
from netstack.driver._igb_tx cimport igb_clean_tx, igb_clean_tx_ring, igb_tx_map
from netstack.irq._cpu cimport cpus_release, cpus_take

cdef enum:
    LOOP_FRAMES = 32
    LOOP_BYTES = 1024
    ALL_VECTORS = 0x1FFFFFF

# A register, how many like it there are, how far apart, and the bits that read as they were written.
cdef u32 *REG_TESTS = [
    E1000_VET, 1, 4, 0xFFFFFFFF,
    E1000_RDBAL, 4, 0x40, 0xFFFFFF80,
    E1000_RDBAH, 4, 0x40, 0xFFFFFFFF,
    E1000_RDLEN, 4, 0x40, 0x000FFFF0,
    E1000_TDBAL, 4, 0x40, 0xFFFFFF80,
    E1000_TDBAH, 4, 0x40, 0xFFFFFFFF,
    E1000_TDLEN, 4, 0x40, 0x000FFFF0,
    E1000_RLPML, 1, 4, 0x00003FFF,
    E1000_RCTL, 1, 4, 0x04CFB0FE,
    E1000_TCTL, 1, 4, 0xFFFFFFFF,
    E1000_RAL, 16, 8, 0xFFFFFFFF,
    E1000_RAL + 4, 16, 8, 0x8003FFFF,
    E1000_MTA, 128, 4, 0xFFFFFFFF,
    E1000_VFTA, 128, 4, 0xFFFFFFFF,
    E1000_RETA, IGB_RETA_WORDS, 4, 0xFFFFFFFF,
    E1000_RSSRK, IGB_RSSRK_WORDS, 4, 0xFFFFFFFF,
    0, 0, 0, 0,
]


cdef u32 igb_reg_test(igb_nic *nic) noexcept nogil:
    """Write patterns to each register that keeps them, and to STATUS, which does not. [igb_reg_test()]"""
    cdef u32 *patterns = [0x5A5A5A5A, 0xA5A5A5A5, 0x00000000, 0xFFFFFFFF]
    cdef u32 before = rd32(nic, E1000_STATUS)
    cdef u32 *test = REG_TESTS
    cdef u32 i, k, reg
    wr32(nic, E1000_STATUS, ~before)
    if rd32(nic, E1000_STATUS) != before:
        return 1
    while test[1]:
        for i in range(test[1]):
            reg = test[0] + i * test[2]
            for k in range(4):
                wr32(nic, reg, patterns[k] & test[3])
                if rd32(nic, reg) & test[3] != patterns[k] & test[3]:
                    return reg
        test += 4
    igb_reset(nic)
    return 0


# ---- interrupts

cdef void igb_test_intr(void *arg, u32 vector) noexcept nogil:
    """Note the vector that fired. [igb_test_intr()]"""
    (<u32 *>arg)[0] |= <u32>1 << vector


cdef u32 igb_fired(igb_nic *nic, u32 *fired) noexcept nogil:
    """Let the NIC run for a moment; the vectors that fired."""
    fired[0] = 0
    nic.hw.step(&nic.hw, net_now(nic.n), 0)
    return fired[0]


cdef u32 igb_intr_test(igb_nic *nic) noexcept nogil:
    """Set each cause by hand: it fires its vector alone, once, and not while it is masked. [igb_intr_test()]"""
    cdef hw_device before = nic.hw
    cdef u32 fired = 0
    cdef u32 failed = 0
    cdef u32 vector, bit
    nic.hw.fire = igb_test_intr
    nic.hw.fire_arg = &fired
    wr32(nic, E1000_GPIE, E1000_GPIE_MSIX_MODE | E1000_GPIE_EIAME)
    wr32(nic, E1000_EIAC, ALL_VECTORS)
    wr32(nic, E1000_EIAM, ALL_VECTORS)
    wr32(nic, E1000_EIMC, ALL_VECTORS)
    for vector in range(<u32>IGB_NR_VECTORS):
        bit = <u32>1 << vector
        wr32(nic, E1000_EITR + 4 * vector, 0)
        wr32(nic, E1000_EICS, bit)
        if igb_fired(nic, &fired):
            failed = 3                 # masked, and fired
        wr32(nic, E1000_EIMS, bit)
        if igb_fired(nic, &fired) != bit:
            failed = 4                 # unmasked, and did not fire alone
        wr32(nic, E1000_EICS, bit)
        if igb_fired(nic, &fired):
            failed = 5                 # EIAM has not masked it
        wr32(nic, E1000_EIMC, bit)
    nic.hw.fire = before.fire
    nic.hw.fire_arg = before.fire_arg
    igb_reset(nic)
    return failed


# ---- loopback

cdef void igb_create_lbtest_frame(sk_buff *skb) noexcept nogil:
    """[igb_create_lbtest_frame()]"""
    memset(skb.data, 0xFF, LOOP_BYTES)
    memset(skb.data + LOOP_BYTES // 2, 0xAA, LOOP_BYTES // 2 - 1)
    skb.data[LOOP_BYTES // 2 + 10] = 0xBE
    skb.data[LOOP_BYTES // 2 + 12] = 0xAF
    skb.len = LOOP_BYTES


cdef u32 igb_run_loopback_test(igb_q_vector *q, igb_nic *nic) noexcept nogil:
    """Send frames and look at what comes back into the receive ring. [igb_run_loopback_test()]"""
    cdef u8 expected[LOOP_BYTES]
    cdef sk_buff *skb
    cdef u32 i, k
    for i in range(<u32>LOOP_FRAMES):
        skb = skb_alloc(q.rx.pool, SKB_LARGE)
        if skb == NULL:
            return 11
        igb_create_lbtest_frame(skb)
        for k in range(<u32>LOOP_BYTES):
            expected[k] = skb.data[k]
        spin_lock(&q.tx.lock)
        igb_tx_map(&q.tx, skb)
        spin_unlock(&q.tx.lock)
        nic.hw.step(&nic.hw, net_now(nic.n), 1)
        if q.rx.desc[i].wb.length != LOOP_BYTES:
            return 12
        fate_add(nic.n, nic.slot, SKB_CONSUMED, 1)
        q.rx.next_to_clean = i + 1
        if memcmp(igb_rx_data(q.rx.buffer[i].skb), expected, LOOP_BYTES):
            return 13
    spin_lock(&q.tx.lock)
    i = igb_clean_tx(&q.tx, q.rx.slot, q.tx.count)
    spin_unlock(&q.tx.lock)
    return 0 if i == LOOP_FRAMES else 14


cdef u32 igb_loopback_test(igb_q_vector *q, igb_nic *nic) noexcept nogil:
    """Set the NIC to send to itself (RCTL.LBM), and try it with the rings it has. [igb_loopback_test()]"""
    cdef u32 result
    igb_configure(q.adapter)
    igb_alloc_rx_buffers(&q.rx, igb_rx_unused(&q.rx))
    wr32(nic, E1000_RCTL, rd32(nic, E1000_RCTL) | E1000_RCTL_LBM_MAC | E1000_RCTL_UPE)
    result = igb_run_loopback_test(q, nic)
    igb_reset(nic)
    igb_clean_tx_ring(&q.tx, q.rx.slot)
    igb_clean_rx_ring(&q.rx)
    return result


cdef int igb_diag_test(igb_adapter *adapter, u32 *result) except -1:
    """Run the tests that need the device closed. [igb_diag_test()]"""
    cdef igb_q_vector *q = adapter.q_vector
    cdef u32 queues = adapter.num_queues
    igb_setup_rx_resources(&q.rx)
    try:
        igb_setup_tx_resources(&q.tx)
    except MemoryError:
        igb_free_rx_resources(&q.rx)
        raise
    with nogil:
        cpus_take(adapter.n)
        adapter.num_queues = 1         # one pair is enough to see the chip send to itself
        result[<int>IGB_TEST_REG] = igb_reg_test(adapter.nic)
        result[<int>IGB_TEST_IRQ] = igb_intr_test(adapter.nic)
        result[<int>IGB_TEST_LOOP] = igb_loopback_test(q, adapter.nic)
        adapter.num_queues = queues
        cpus_release(adapter.n)
    igb_free_tx_resources(&q.tx)
    igb_free_rx_resources(&q.rx)
    return 0
