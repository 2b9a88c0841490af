"""local_out: what a program sends, past the hooks of Python, in the program's own thread.

Stage 7 of 8:  device driver irq napi netif nf [proto] sock
In       a packet with its header         proto/_ip_output.pyx
Out      the Python layer                 proto/ip.py
Context  process context, called without the GIL and without a lock; takes the GIL
Kernel   ip_local_out(), net/ipv4/ip_output.c

The one place where compiled code takes the GIL, and it may: whoever sends is a thread of Python that let it go
a moment ago, and no CPU. Only so can sendto() say that a hook has dropped the datagram.
"""

cimport cython
import logging

from libc.errno cimport EPERM

from netstack._net cimport Net
from netstack._skb cimport sk_buff, skb_wrap
from netstack.proto._ip_output cimport ip_state

log = logging.getLogger("netstack")


cdef int local_out(void *arg, sk_buff *skb) noexcept with gil:
    """Let the layer ask the hooks and send the packet: 0 or a negative errno. Consumes skb."""
    cdef LocalOut it = <LocalOut>arg
    try:
        return -<int>it.layer(skb_wrap(skb, it.net_object))
    except Exception:
        log.exception("netstack: a hook failed")
        return -EPERM


@cython.final
@cython.no_gc_clear
cdef class LocalOut:
    """The way of a program's packets to ``layer(skb)``, which sends them: 0 or an errno.

    Keep it as long as packets move. The host's IPOutput comes before it.
    """
    cdef Net net_object
    cdef object layer

    def __cinit__(self, Net n not None, layer):
        cdef ip_state *state = <ip_state *>n.ptr.ip
        self.net_object = n
        self.layer = layer
        state.local_out = local_out
        state.local_out_arg = <void *>self
