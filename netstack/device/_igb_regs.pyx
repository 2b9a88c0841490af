"""igb: the register map for Python, and a check of the descriptors' sizes.

Stage 1 of 8:  [device] driver irq napi netif nf proto sock
In       the datasheet                    device/_igb_regs.pxd
Out      ``e1000_reg`` as ``IntEnum``     driver/_igb.pyx
Context  import
Kernel   none; Intel 82576EB datasheet 8 (programming interface)
"""

if sizeof(e1000_adv_rx_desc) != 16 or sizeof(e1000_adv_tx_desc) != 16:
    raise ImportError("an advanced descriptor is not 16 bytes")
if sizeof(e1000_adv_tx_context_desc) != 16:
    raise ImportError("a context descriptor is not 16 bytes")
