"""Setting up the NIC's registers; see ``_igb_hw.pyx``."""

from netstack._abi cimport u8, u32
from netstack.driver._igb cimport igb_adapter, igb_q_vector

cdef void igb_configure(igb_adapter *adapter) noexcept nogil
cdef void igb_configure_msix(igb_adapter *adapter) noexcept nogil
cdef void igb_configure_rx(igb_q_vector *q) noexcept nogil
cdef void igb_configure_tx(igb_q_vector *q) noexcept nogil
cdef void igb_setup_srrctl(igb_q_vector *q) noexcept nogil
cdef void igb_rar_set(igb_adapter *adapter) noexcept nogil
cdef void igb_set_vlan_mode(igb_adapter *adapter) noexcept nogil
cdef void igb_write_mc_addr_list(igb_adapter *adapter, const u8 *addresses, size_t count) noexcept nogil
cdef void igb_set_rx_mode(igb_adapter *adapter) noexcept nogil
cdef void igb_setup_mrqc(igb_adapter *adapter) noexcept nogil
cdef void igb_irq_enable(igb_adapter *adapter) noexcept nogil
cdef void igb_irq_disable(igb_adapter *adapter) noexcept nogil
cdef void igb_ring_irq_enable(igb_q_vector *q) noexcept nogil
