"""tap: copy frames for those who watch, at the device or at a stage, through a filter, into a bounded ring.

Stage 5 of 8:  device driver irq napi [netif] nf proto sock
In       every packet, both directions    netif/_core.pyx, and the stages that call n.tap_stage
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
    exchange32, fence, fetch_add32, load_acquire32, load_acquire_ptr, load_seq32, put_be16, spin_lock,
    spin_unlock, store_relaxed32, store_release_ptr, store_seq32, u8, u32, u64, uintptr_t,
)
from netstack._net cimport (
    ETH_HLEN, NF_TAP_SHIFT, STAGE_GRO, STAGE_NIC, STAGE_NR, STAGE_OUTPUT, STAGE_POSTROUTING,
    STAGE_PREROUTING, STAGE_SOCKET, STAGE_WIRE, Net, net_now,
)
from netstack._gso cimport frame_checksum, skb_gso_frame, skb_gso_frames, skb_is_whole_gso
from netstack._skb cimport (
    CHECKSUM_PARTIAL, PACKET_OUTGOING, SKB_GSO_FRAGLIST, SKB_GSO_NONE, skb_copy_bits, skb_mac_header,
    skb_network_header,
)
from netstack.proto._udp cimport udp_rcv_fast, udp_rcv_tapped


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
    u32 frames                     # off the wire that the packet carries, `id` the first of them
    u32 reason                     # of a drop
    u8 ifindex                     # up to MAX_DEVICES
    u8 outgoing
    u8 stage                       # STAGE_*
    u8 raw                         # it begins with its IP header

cdef struct tap:
    tap *next
    u32 lock
    u32 sleeping
    bpf_fn run
    void *program                  # for packets with an Ethernet header; NULL: everything
    void *raw_program              # for those that begin with their IP header; NULL: everything
    u32 devices[STAGE_NR]          # by stage: bit ifindex - 1; all bits: of no device as well
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
    IPPROTO_UDP = 17


cdef u32 gather(const sk_buff *skb, const u8 *start, u8 *to, u32 most) noexcept nogil:
    """Put a frame together from ``start`` on as it stands in its buffers. Gives the whole length."""
    cdef u32 pulled, part
    if start > skb.data:               # data stands at an earlier header
        pulled = <u32>(start - skb.data)
        if pulled >= skb.len:
            return 0
        skb_copy_bits(skb, pulled, to, min(skb.len - pulled, most))
        return skb.len - pulled
    pulled = <u32>(skb.data - start)
    part = min(pulled, most)
    memcpy(to, start, part)
    if part < most:
        skb_copy_bits(skb, 0, to + part, min(skb.len, most - part))
    return pulled + skb.len


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
        size = gather(skb, skb_mac_header(skb), to, MAX_FRAME)
        if skb.ip_summed == CHECKSUM_PARTIAL and skb.gso_type == SKB_GSO_NONE and size <= MAX_FRAME:
            frame_checksum(to, size, (skb.csum >> 16) - skb.mac_header, skb.csum & 0xFFFF)
    return insert_tag(skb, to, size)


cdef inline bint has_mac_header(const sk_buff *skb, u32 stage) noexcept nogil:
    """Tell whether the Ethernet header of a frame off a wire stands in front of what this stage sees."""
    if stage == <u32>STAGE_NIC or stage == <u32>STAGE_GRO:
        return True
    if stage == <u32>STAGE_OUTPUT or stage == <u32>STAGE_POSTROUTING or skb.id == 0:
        return False
    return skb.network_header >= skb.mac_header + ETH_HLEN or skb.data == skb_mac_header(skb)


cdef u32 stage_frame(const sk_buff *skb, u32 stage, u8 *to, u8 *raw) noexcept nogil:
    """Put a packet together whole, as it is at a stage: an unfinished checksum is left so."""
    raw[0] = not has_mac_header(skb, stage)
    if not raw[0]:
        return insert_tag(skb, to, gather(skb, skb_mac_header(skb), to, MAX_FRAME))
    return gather(skb, skb_network_header(skb) if skb.network_header else skb.data, to, MAX_FRAME)


cdef void tap_copy(tap *t, sk_buff *skb, u32 nr, u32 stage, u32 reason, u64 now) noexcept nogil:
    """Filter one frame for one tap and keep a copy, or count what did not fit."""
    cdef tap_record rec
    cdef u64 one = 1
    cdef void *program
    cdef u32 keep
    spin_lock(&t.lock)
    rec.raw = 0
    if stage == <u32>STAGE_WIRE:
        rec.wire_len = tap_frame(skb, nr, t.scratch)
    else:
        rec.wire_len = stage_frame(skb, stage, t.scratch, &rec.raw)
    program = t.raw_program if rec.raw else t.program
    keep = t.run(program, t.scratch, rec.wire_len, min(rec.wire_len, MAX_FRAME)) if program != NULL else t.snaplen
    if keep == 0 or rec.wire_len == 0:
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
    rec.ifindex = <u8>skb.dev.ifindex if skb.dev != NULL else 0
    rec.outgoing = (skb.pkt_type == PACKET_OUTGOING or stage == <u32>STAGE_OUTPUT or stage == <u32>STAGE_POSTROUTING)
    rec.stage = <u8>stage
    rec.reason = reason
    rec.frames = 1
    if stage != <u32>STAGE_WIRE and not skb.gso_type & <u32>SKB_GSO_FRAGLIST:
        rec.frames = max(skb.frames, max(<u32>skb.gso_segs, <u32>1))
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
        if tap_wants(t, skb, STAGE_WIRE):
            for nr in range(frames):
                tap_copy(t, skb, nr, STAGE_WIRE, 0, now)
        t = <tap *>load_acquire_ptr(<void **>&t.next)
    fetch_add32(&n.tap_users, <u32>-1)


cdef inline bint tap_wants(const tap *t, const sk_buff *skb, u32 stage) noexcept nogil:
    """Tell whether a tap is for this stage, and for the packet's device."""
    if skb.dev == NULL:
        return t.devices[stage] == <u32>0xFFFFFFFF
    return t.devices[stage] >> (skb.dev.ifindex - 1) & 1


cdef void tap_stage(net *n, void *p, u32 stage, u32 reason) noexcept nogil:
    """Show a packet to the taps of a stage; a list of whole packets is shown one by one."""
    cdef sk_buff *skb = <sk_buff *>p
    cdef sk_buff *part
    cdef u64 now = net_now(n)
    cdef tap *t
    fetch_add32(&n.tap_users, 1)
    fence()
    t = <tap *>load_acquire_ptr(&n.taps)
    while t != NULL:
        if tap_wants(t, skb, stage):
            tap_copy(t, skb, 0, stage, reason, now)
            part = skb.frag_list if skb.gso_type & <u32>SKB_GSO_FRAGLIST else NULL
            while part != NULL:
                tap_copy(t, part, 0, stage, reason, now)
                part = part.next
        t = <tap *>load_acquire_ptr(<void **>&t.next)
    fetch_add32(&n.tap_users, <u32>-1)


cdef void tap_refresh(net *n) noexcept:
    """Say to the stages which of them somebody watches: in flags that they look at anyhow. Needs the GIL."""
    cdef tap *t = <tap *>n.taps
    cdef u32 stages = 0
    cdef u32 s
    while t != NULL:
        for s in range(STAGE_NR):
            if t.devices[s]:
                stages |= <u32>1 << s
        t = t.next
    store_relaxed32(&n.tap_stages, stages)
    store_relaxed32(&n.nf_rules, n.nf_rules & ((<u32>1 << NF_TAP_SHIFT) - 1)
                    | (stages >> <u32>STAGE_PREROUTING & 31) << NF_TAP_SHIFT)
    # The way to a UDP socket has no flag to spare: its function is replaced.
    if n.inet_fast[IPPROTO_UDP].rcv != NULL:
        store_release_ptr(<void **>&n.inet_fast[IPPROTO_UDP].rcv,
                          <void *>udp_rcv_tapped if stages >> <u32>STAGE_SOCKET & 1 else <void *>udp_rcv_fast)


@cython.final
@cython.no_gc_clear
cdef class PacketTap:
    """A watcher of frames, behind a classic BPF program: of all that pass the devices, or of what ``devices`` says.

    ``run``, ``program`` and ``raw`` are addresses from ``netstack.capture.bpf`` (0 for no filter): the interpreter, a
    program for frames, one for packets without an Ethernet header. They must live as long as this object (``keep``).
    ``devices`` has a mask for each stage, bit ifindex - 1. Copies stand in a ring of ``size`` bytes; what does not fit
    is counted in ``dropped``.
    """
    cdef tap *t
    cdef object net_object
    cdef object keep

    def __cinit__(self, Net n, uintptr_t run=0, uintptr_t program=0, u32 snaplen=262144, u32 size=4 << 20, keep=None,
                  uintptr_t raw=0, devices=None):
        cdef u32 masks[STAGE_NR]
        cdef u32 s
        if devices is None:
            devices = [0xFFFFFFFF]
        if len(devices) > STAGE_NR:
            raise ValueError(f"{len(devices)} masks of devices: there are {STAGE_NR} stages")
        for s in range(STAGE_NR):
            masks[s] = devices[s] if s < <u32>len(devices) else 0
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
        self.t.raw_program = <void *>raw
        for s in range(STAGE_NR):
            self.t.devices[s] = masks[s]
        self.t.next = <tap *>n.ptr.taps
        store_release_ptr(&n.ptr.taps, self.t)
        tap_refresh(n.ptr)

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
        tap_refresh(n)
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
        """Take up to ``most`` records; ``fileno`` says when there are some.

        Each is (ns, frame id, ifindex, outgoing, wire length, bytes, stage, begins with its IP header, frames that the
        packet carries, drop reason).
        """
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
            out.append((rec.tstamp, rec.id, rec.ifindex, bool(rec.outgoing), rec.wire_len, data, rec.stage,
                        bool(rec.raw), rec.frames, rec.reason))
        return out

    cdef void get(self, u8 *to, u32 size) noexcept:
        cdef u32 start = (self.t.head + self.t.size - self.t.used) % self.t.size
        cdef u32 first = min(size, self.t.size - start)
        memcpy(to, self.t.ring + start, first)
        memcpy(to + first, self.t.ring, size - first)
        self.t.used -= size
