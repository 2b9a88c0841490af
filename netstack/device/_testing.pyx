"""device: a wire that never runs dry, and a NIC without a driver, for tests.

Stage 1 of 8:  [device] driver irq napi netif nf proto sock
In       one frame, again and again
Out      what the NIC makes of it
Context  tests only
Kernel   none
"""

cimport cython

from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from netstack._abi cimport u8, u32, u64, uintptr_t
from netstack._net cimport SLOT_CPU0, Net
from netstack.device._igb_csr cimport rd32, wr32
from netstack.device._igb_nic cimport igb_nic, igb_nic_create, igb_nic_destroy, igb_set_missed
from netstack.device._igb_regs cimport (
    E1000_RDBAH, E1000_RDBAL, E1000_RDLEN, E1000_RDT, E1000_RXDCTL, E1000_SRRCTL, E1000_TDBAH, E1000_TDBAL,
    E1000_TDLEN, E1000_TDT, E1000_TXDCTL, E1000_XDCTL_ENABLE, e1000_adv_rx_desc, e1000_adv_tx_desc,
)
from netstack.device._wire cimport wire

from netstack.device._igb_regs import e1000_reg


cdef struct source:
    wire w
    u64 left
    u32 size
    int error                      # what rx and tx give, if negative
    u64 sent
    u8 frame[2048]


cdef int source_rx(wire *w, u8 *buf, u32 size) noexcept nogil:
    cdef source *s = <source *>w
    if s.error < 0:
        return s.error
    if s.left == 0:
        return 0
    s.left -= 1
    memcpy(buf, s.frame, min(size, s.size))
    return <int>s.size


cdef int source_tx(wire *w, const u8 *buf, u32 size) noexcept nogil:
    cdef source *s = <source *>w
    if s.error < 0:
        return s.error
    s.sent += 1
    return 0


@cython.final
cdef class Source:
    """A wire that gives ``frame`` so many times, and swallows what is sent. Used for tests only."""
    cdef source s

    def __cinit__(self, bytes frame, u64 count=0):
        self.s.w.rx = source_rx
        self.s.w.tx = source_tx
        self.s.w.fd = -1
        self.s.left = count
        self.s.size = <u32>len(frame)
        memcpy(self.s.frame, <const u8 *>frame, len(frame))

    @property
    def address(self):
        return <uintptr_t>&self.s.w

    def more(self, u64 count):
        """Give the frame ``count`` more times."""
        self.s.left += count

    def fail(self, int error):
        """From now on give this error, a negative errno; 0 mends the wire."""
        self.s.error = error

    def set_fd(self, int fd):
        """Pretend to have a file descriptor."""
        self.s.w.fd = fd

    @property
    def left(self):
        return self.s.left

    @property
    def sent(self):
        return self.s.sent


cdef void note_fire(void *arg, u32 vector) noexcept nogil:
    (<u32 *>arg)[vector] += 1


@cython.final
cdef class BareNic:
    """The hardware alone, one pair of queues with buffers of its own. Used for tests only."""
    cdef igb_nic *nic
    cdef Net net
    cdef u32 fired[10]
    cdef u32 count
    cdef e1000_adv_rx_desc *rx
    cdef u64 *frame_id
    cdef e1000_adv_tx_desc *tx
    cdef u8 *buffers
    cdef u32 posted
    cdef u32 cleaned
    cdef u32 size
    cdef dict data                 # what transmit descriptors point to, by descriptor

    def __cinit__(self, Net n, uintptr_t w, bytes mac, u32 count=64, u32 size=1984):
        cdef u64 base
        self.net = n
        self.count = count
        self.size = size
        self.nic = igb_nic_create(n.ptr, SLOT_CPU0, <wire *>w, mac)
        self.rx = <e1000_adv_rx_desc *>calloc(count, 16)
        self.tx = <e1000_adv_tx_desc *>calloc(count, 16)
        self.frame_id = <u64 *>calloc(count, 8)
        self.buffers = <u8 *>calloc(count, size + 64)
        self.data = {}
        self.nic.hw.fire = note_fire
        self.nic.hw.fire_arg = self.fired
        self.nic.rx[0].frame_id = self.frame_id
        base = <u64>self.rx
        wr32(self.nic, E1000_RDBAL, <u32>base)
        wr32(self.nic, E1000_RDBAH, <u32>(base >> 32))
        wr32(self.nic, E1000_RDLEN, count * 16)
        wr32(self.nic, E1000_SRRCTL, size >> 6)
        wr32(self.nic, E1000_RXDCTL, E1000_XDCTL_ENABLE)
        base = <u64>self.tx
        wr32(self.nic, E1000_TDBAL, <u32>base)
        wr32(self.nic, E1000_TDBAH, <u32>(base >> 32))
        wr32(self.nic, E1000_TDLEN, count * 16)
        wr32(self.nic, E1000_TXDCTL, E1000_XDCTL_ENABLE)

    def __dealloc__(self):
        igb_nic_destroy(self.nic)
        free(self.rx)
        free(self.tx)
        free(self.frame_id)
        free(self.buffers)

    def read(self, str name, u32 index=0, u32 stride=4):
        return rd32(self.nic, e1000_reg["E1000_" + name] + index * stride)

    def write(self, str name, u32 value, u32 index=0, u32 stride=4):
        wr32(self.nic, e1000_reg["E1000_" + name] + index * stride, value)

    def post(self, u32 descriptors):
        """Give the hardware so many descriptors more."""
        cdef u32 i
        for _ in range(descriptors):
            i = self.posted % self.count
            self.rx[i].read.pkt_addr = <u64>(self.buffers + i * (self.size + 64))
            self.rx[i].read.hdr_addr = 0
            self.posted += 1
        wr32(self.nic, E1000_RDT, self.posted % self.count)

    def step(self, u64 now=0, u32 budget=64):
        """Say that the wire may have frames, and run the hardware once."""
        self.nic.hw.wire_ready(&self.nic.hw)
        return self.nic.hw.step(&self.nic.hw, now, budget)

    def run(self, u64 now=0):
        """Run the hardware once, without a word of the wire."""
        return self.nic.hw.step(&self.nic.hw, now, 64)

    def take(self):
        """Give (data, write-back fields) of each finished descriptor."""
        cdef e1000_adv_rx_desc *desc
        cdef u32 i
        out = []
        while self.cleaned != self.posted:
            i = self.cleaned % self.count
            desc = &self.rx[i]
            if not desc.wb.status_error & 1 or desc.wb.length == 0:
                break
            data = (self.buffers + i * (self.size + 64))[:desc.wb.length]
            out.append((data, {
                "status": desc.wb.status_error, "pkt_info": desc.wb.pkt_info, "rss": desc.wb.rss,
                "vlan": desc.wb.vlan, "id": self.frame_id[i],
            }))
            desc.wb.length = 0
            self.cleaned += 1
        return out

    def transmit(self, list descriptors):
        """Write descriptors of (bytes or context word 0 and 2, cmd_type_len, olinfo) and ring the doorbell.

        Gives whether each has DD set afterwards.
        """
        cdef u32 tail = self.nic.tx[0].tail
        cdef u32 i
        written = []
        for data, cmd, olinfo in descriptors:
            i = tail % self.count
            if isinstance(data, bytes):
                self.tx[i].read.buffer_addr = <u64><const u8 *>(<bytes>data)
                self.tx[i].read.cmd_type_len = <u32>cmd | <u32>len(data)
            else:
                self.tx[i].read.buffer_addr = <u64>data
                self.tx[i].read.cmd_type_len = cmd
            self.tx[i].read.olinfo_status = olinfo
            self.data[i] = data    # a frame without its end yet is read at a later doorbell
            written.append(i)
            tail = (tail + 1) % self.count
        wr32(self.nic, E1000_TDT, tail)
        return [bool(self.tx[<u32>k].wb.status & 1) for k in written]

    def missed(self, u64 total):
        igb_set_missed(self.nic, total)

    @property
    def busy(self):
        return self.nic.hw.busy(&self.nic.hw)

    @property
    def deadline(self):
        return self.nic.hw.deadline(&self.nic.hw)

    @property
    def fires(self):
        """How often each vector fired."""
        return [self.fired[i] for i in range(10)]
