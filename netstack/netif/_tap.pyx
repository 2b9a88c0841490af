"""tap: copy frames for those who watch, through a filter, into a bounded ring.

Stage 5 of 8:  device driver irq napi [netif] nf proto sock
In       every packet, both directions    netif/_core.pyx
Out      records that Python reads        capture/
Context  softirq, or a sender's thread; no GIL; never allocates, never raises
Kernel   packet_rcv(), net/packet/af_packet.c; bpf_prog_run() for classic BPF
"""

cimport cython
import errno
import os

from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memmove
from posix.unistd cimport close, write

from netstack._abi cimport (
    exchange32, fence, fetch_add32, load_acquire32, load_acquire_ptr, load_seq32, put_be16, spin_lock, spin_unlock,
    store_release_ptr, store_seq32, u8, u32, u64, uintptr_t,
)
from netstack._net cimport Net
from netstack._gso cimport frame_checksum, skb_gso_frame, skb_gso_frames, skb_is_whole_gso
from netstack._skb cimport (
    CHECKSUM_PARTIAL, PACKET_OUTGOING, SKB_GSO_NONE, skb_copy_bits, skb_mac_header,
)


cdef extern from "<sched.h>" nogil:
    int sched_yield()

cdef extern from "<sys/eventfd.h>" nogil:
    int eventfd(unsigned initial, int flags)
    int EFD_CLOEXEC, EFD_NONBLOCK

# libpcap's bpf_filter(): the number of bytes to keep, 0 for no match.
ctypedef u32 (*bpf_fn)(const void *program, const u8 *packet, u32 wire_len, u32 buf_len) noexcept nogil

cdef struct tap_record:
    u64 tstamp
    u64 id
    u32 wire_len
    u32 cap_len
    u32 ifindex
    u32 outgoing

cdef struct tap:
    tap *next
    u32 lock
    u32 sleeping
    bpf_fn run
    void *program                  # NULL: everything
    u32 snaplen
    u32 size                       # of ring
    u32 head                       # where the next record goes
    u32 used
    u8 *ring
    u8 *scratch                    # one frame, put together
    u64 matched
    u64 dropped
    int wake_fd

cdef enum:
    MAX_FRAME = 65536 + 32


cdef u32 gather(const sk_buff *skb, u8 *to, u32 most) noexcept nogil:
    """Put a frame together as it stands in its buffers. Gives the whole length."""
    cdef u8 *mac = skb_mac_header(skb)
    cdef u32 pulled = <u32>(skb.data - mac)
    cdef u32 total = pulled + skb.len
    cdef u32 part = min(pulled, most)
    memcpy(to, mac, part)
    if part < most:
        skb_copy_bits(skb, 0, to + part, min(skb.len, most - part))
    return total


cdef u32 insert_tag(const sk_buff *skb, u8 *to, u32 total) noexcept nogil:
    """Put the VLAN tag back where it was on the wire. Gives the length."""
    if skb.vlan_present and MAX_FRAME >= total + 4 and total >= 14:
        memmove(to + 16, to + 12, total - 12)
        put_be16(to + 12, 0x8100)
        put_be16(to + 14, skb.vlan_tci)
        total += 4
    return total


cdef void ring_put(tap *t, const void *data, u32 size) noexcept nogil:
    cdef u32 first = min(size, t.size - t.head)
    memcpy(t.ring + t.head, data, first)
    memcpy(t.ring, <const u8 *>data + first, size - first)
    t.head = (t.head + size) % t.size
    t.used += size


cdef u32 tap_frame(const sk_buff *skb, u32 nr, u8 *to) noexcept nogil:
    """Put frame ``nr`` of a packet together; a checksum that was left to a device is made."""
    cdef u32 size
    if skb_is_whole_gso(skb):
        size = skb_gso_frame(skb, nr, to)
    else:
        size = gather(skb, to, MAX_FRAME)
        if skb.ip_summed == CHECKSUM_PARTIAL and skb.gso_type == SKB_GSO_NONE and size <= MAX_FRAME:
            frame_checksum(to, size, (skb.csum >> 16) - skb.mac_header, skb.csum & 0xFFFF)
    return insert_tag(skb, to, size)


cdef void tap_copy(tap *t, sk_buff *skb, u32 nr, u64 now) noexcept nogil:
    """Filter one frame for one tap and keep a copy, or count what did not fit."""
    cdef tap_record rec
    cdef u64 one = 1
    cdef u32 keep
    spin_lock(&t.lock)
    rec.wire_len = tap_frame(skb, nr, t.scratch)
    keep = t.run(t.program, t.scratch, rec.wire_len, min(rec.wire_len, MAX_FRAME)) if t.program != NULL else t.snaplen
    if keep == 0:
        spin_unlock(&t.lock)
        return
    t.matched += 1
    rec.cap_len = min(min(keep, t.snaplen), min(rec.wire_len, MAX_FRAME))
    if t.used + sizeof(tap_record) + rec.cap_len > t.size:
        t.dropped += 1
        spin_unlock(&t.lock)
        return
    rec.tstamp = now
    rec.id = skb.id + nr if skb.id else 0
    rec.ifindex = skb.dev.ifindex if skb.dev != NULL else 0
    rec.outgoing = skb.pkt_type == PACKET_OUTGOING
    ring_put(t, &rec, sizeof(tap_record))
    ring_put(t, t.scratch, rec.cap_len)
    spin_unlock(&t.lock)
    fence()
    if load_seq32(&t.sleeping) and exchange32(&t.sleeping, 0):
        write(t.wake_fd, &one, 8)


cdef void tap_deliver(net *n, sk_buff *skb, u64 now) noexcept nogil:
    """Show a packet to every tap, of coalesced frames one after the other. The packet stays the caller's."""
    cdef u32 frames = skb_gso_frames(skb) if skb_is_whole_gso(skb) else 1
    cdef u32 nr
    cdef tap *t
    fetch_add32(&n.tap_users, 1)       # before the list is read: PacketTap.close waits for it
    fence()
    t = <tap *>load_acquire_ptr(&n.taps)
    while t != NULL:
        for nr in range(frames):
            tap_copy(t, skb, nr, now)
        t = <tap *>load_acquire_ptr(<void **>&t.next)
    fetch_add32(&n.tap_users, <u32>-1)


@cython.final
@cython.no_gc_clear
cdef class PacketTap:
    """A watcher of all frames of a host, both ways, behind a classic BPF program.

    ``run`` and ``program`` are addresses from ``netstack.capture.bpf`` (0 for no filter), and must live as long as
    this object. Copies stand in a ring of ``size`` bytes; what does not fit is counted in ``dropped``.
    """
    cdef tap *t
    cdef object net_object
    cdef object keep

    def __cinit__(self, Net n, uintptr_t run=0, uintptr_t program=0, u32 snaplen=262144, u32 size=4 << 20, keep=None):
        self.net_object = n
        self.keep = keep
        self.t = <tap *>calloc(1, sizeof(tap))
        if self.t == NULL:
            raise MemoryError
        self.t.ring = <u8 *>malloc(size)
        self.t.scratch = <u8 *>malloc(MAX_FRAME + 4)
        self.t.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)
        if self.t.ring == NULL or self.t.scratch == NULL:
            raise MemoryError
        if self.t.wake_fd < 0:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE) + "; see ulimit -n")
        self.t.size = size
        self.t.snaplen = snaplen
        self.t.run = <bpf_fn>run
        self.t.program = <void *>program
        self.t.next = <tap *>n.ptr.taps
        store_release_ptr(&n.ptr.taps, self.t)

    def close(self):
        """Stop watching. Idempotent."""
        cdef tap **link
        cdef net *n = (<Net>self.net_object).ptr
        cdef tap *t = self.t
        if t == NULL:
            return
        self.t = NULL                  # before the GIL is let go: another thread may close too
        link = <tap **>&n.taps
        while link[0] != t:
            link = &link[0].next
        store_release_ptr(<void **>link, t.next)
        with nogil:
            fence()
            while load_acquire32(&n.tap_users):
                sched_yield()
        close(t.wake_fd)
        free(t.ring)
        free(t.scratch)
        free(t)

    def __dealloc__(self):
        if self.t != NULL:
            self.close()

    def fileno(self):
        """An fd that becomes readable when records come after ``drain`` gave none."""
        return self.t.wake_fd if self.t != NULL else -1

    @property
    def stats(self):
        """Frames that matched, and of these the number that found no room."""
        cdef u64 matched, dropped
        if self.t == NULL:
            return 0, 0
        spin_lock(&self.t.lock)
        matched, dropped = self.t.matched, self.t.dropped
        spin_unlock(&self.t.lock)
        return matched, dropped

    def drain(self, most=256):
        """Take up to ``most`` records: (ns, frame id, ifindex, outgoing, wire length, bytes). ``fileno`` says when."""
        cdef tap_record rec
        cdef bytes data
        cdef bint armed = False
        out = []
        while len(out) < most and self.t != NULL:
            spin_lock(&self.t.lock)
            if self.t.used == 0:
                spin_unlock(&self.t.lock)
                if out or armed:
                    break
                store_seq32(&self.t.sleeping, 1)
                fence()
                armed = True           # look once more: a record that came before `sleeping` wakes nobody
                continue
            self.get(<u8 *>&rec, sizeof(tap_record))
            spin_unlock(&self.t.lock)
            data = bytes(rec.cap_len)
            spin_lock(&self.t.lock)
            self.get(<u8 *><char *>data, rec.cap_len)
            spin_unlock(&self.t.lock)
            out.append((rec.tstamp, rec.id, rec.ifindex, bool(rec.outgoing), rec.wire_len, data))
        return out

    cdef void get(self, u8 *to, u32 size) noexcept:
        cdef u32 start = (self.t.head + self.t.size - self.t.used) % self.t.size
        cdef u32 first = min(size, self.t.size - start)
        memcpy(to, self.t.ring + start, first)
        memcpy(to + first, self.t.ring, size - first)
        self.t.used -= size
