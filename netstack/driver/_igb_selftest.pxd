"""The driver's self-test; see ``_igb_selftest.pyx``."""

from netstack._abi cimport u32
from netstack.driver._igb cimport igb_adapter

cdef enum:                         # in the order of igb_ethtool.TESTS
    IGB_TEST_REG
    IGB_TEST_IRQ
    IGB_TEST_LOOP
    IGB_TEST_LINK
    IGB_TEST_NR

cdef int igb_diag_test(igb_adapter *adapter, u32 *result) except -1
