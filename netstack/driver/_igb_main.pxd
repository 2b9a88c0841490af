"""The device from probe to remove; see ``_igb_main.pyx``."""

from netstack._abi cimport u32
from netstack._net cimport Net
from netstack.device._wire cimport wire
from netstack.driver._igb cimport igb_adapter, igb_q_vector, igb_rx_ring, igb_tx_ring
from netstack.napi._napi cimport softnet_data

cdef igb_adapter *igb_probe(Net n, softnet_data *sd, wire *w, bytes name, bytes mac, u32 queues) except NULL
cdef void igb_remove(igb_adapter *adapter) noexcept
cdef int igb_set_offload(igb_adapter *adapter) except -1
cdef int igb_open(igb_adapter *adapter, int fail_at) except -1
cdef int igb_setup_rx_resources(igb_rx_ring *ring) except -1
cdef int igb_setup_tx_resources(igb_tx_ring *ring) except -1
cdef void igb_free_rx_resources(igb_rx_ring *ring) noexcept
cdef void igb_free_tx_resources(igb_tx_ring *ring) noexcept
cdef void igb_watchdog_task(igb_adapter *adapter) noexcept nogil
cdef void igb_close(igb_adapter *adapter) noexcept
cdef int igb_fill_rx(igb_rx_ring *ring) except -1
cdef int igb_request_ring_irq(igb_q_vector *q) except -1
