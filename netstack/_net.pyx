"""One host's shared state, and the only place where it is allocated."""

cimport cython
from libc.stdlib cimport calloc, free

from netstack._abi cimport (
    load_relaxed32, load_relaxed64, monotonic_ns, store_relaxed32, store_relaxed64, u32, u64, uintptr_t,
)
from netstack._counters cimport MIB_NR, SKB_FATE_NR


cdef u64 clock_monotonic(void *arg) noexcept nogil:
    return monotonic_ns()

cdef u64 clock_manual(void *arg) noexcept nogil:
    return load_relaxed64(<u64 *>arg)


@cython.final
cdef class ManualClock:
    """A clock that stands until it is moved: the same frames give the same result, to the byte.

    Nanoseconds. Give it to ``Host(clock=...)``; tests that need a timer to run out call ``advance``.
    """
    cdef u64 now

    def __cinit__(self, u64 start=1_000_000_000):
        self.now = start

    def advance(self, seconds):
        """Move the clock forward by ``seconds`` (a float or an int)."""
        if seconds < 0:
            raise ValueError(f"a clock can't go back: advance({seconds}); give a time of 0 or more")
        store_relaxed64(&self.now, self.now + <u64>round(seconds * 1_000_000_000))

    @property
    def address(self):
        """Where the time is kept, for tests whose compiled half moves it."""
        return <uintptr_t>&self.now

    @property
    def ns(self):
        """The time, in nanoseconds."""
        return self.now


@cython.final
@cython.no_gc_clear
cdef class Net:
    def __cinit__(self, u32 nr_cpus=1, clock=None):
        if not 1 <= nr_cpus <= MAX_CPUS:
            raise ValueError(f"cpus={nr_cpus}: a host has 1 to {MAX_CPUS} CPUs")
        self.ptr = <net *>calloc(1, sizeof(net))
        if self.ptr == NULL:
            raise MemoryError
        self.kept = []
        self.ptr.nr_slots = nr_cpus + 1
        self.ptr.nr_cpus = nr_cpus
        self.ptr.slots = <mib_slot *>calloc(self.ptr.nr_slots, sizeof(mib_slot))
        if self.ptr.slots == NULL:
            raise MemoryError
        self.ptr.clock = clock_monotonic
        if clock is not None:
            if not isinstance(clock, ManualClock):
                raise TypeError(f"clock must be a ManualClock or None, not {type(clock).__name__}")
            self.clock_object = clock
            self.ptr.clock_arg = &(<ManualClock>clock).now
            self.ptr.clock = clock_manual

    def __dealloc__(self):
        if self.ptr != NULL:
            if self.ptr.pools_destroy != NULL:
                self.ptr.pools_destroy(self.ptr)
            free(self.ptr.slots)
            free(self.ptr)

    def keep(self, owner):
        """Let ``owner`` live as long as this: what it owns may be in use until then."""
        self.kept.append(owner)

    @property
    def cpus(self):
        """How many CPUs the host has."""
        return self.ptr.nr_cpus

    def now(self):
        """Nanoseconds on the host's clock."""
        return net_now(self.ptr)

    def get(self, int which):
        """Give the tunable ``which``, a member of ``netstack._net.sysctl``, or ``DEVCONF...`` of a device."""
        if which >= DEVCONF_ALL:
            return load_relaxed32(self.devconf(which))
        if not 0 <= which < SYSCTL_NR:
            raise IndexError(which)
        return load_relaxed64(&self.ptr.sysctl[which])

    def set(self, int which, u64 value):
        """Set a tunable. The range is the business of ``config.py``, which alone calls this."""
        if which >= DEVCONF_ALL:
            store_relaxed32(self.devconf(which), <u32>value)
            if self.ptr.rt_cache_flush != NULL:
                self.ptr.rt_cache_flush(self.ptr)
            return
        if not 0 <= which < SYSCTL_NR:
            raise IndexError(which)
        store_relaxed64(&self.ptr.sysctl[which], value)

    cdef u32 *devconf(self, int which) except NULL:
        """Find where a device's setting is kept. [devinet_conf_proc()]"""
        cdef int place = (which - DEVCONF_ALL) >> 8
        cdef int cnf = which & 255
        if cnf >= CNF_NR or place > <int>self.ptr.nr_devices + 1:
            raise IndexError(which)
        if place < 2:
            return &self.ptr.devconf[place][cnf]
        if self.ptr.devices[place - 2] == NULL:
            raise IndexError(which)
        return &self.ptr.devices[place - 2].cnf[cnf]

    def devconf_init(self, u32 ifindex):
        """Give a new device what ``default`` says. [inetdev_init()]"""
        cdef int cnf
        for cnf in range(CNF_NR):
            self.set(DEVCONF_ALL + ((<int>ifindex + 1) << 8) + cnf, self.ptr.devconf[1][cnf])

    def set_forwarding(self, bint on):
        """Forward on all devices, or on none; who forwards believes no redirects. [inet_forward_change()]"""
        cdef u32 i
        store_relaxed64(&self.ptr.sysctl[<int>ip_forward], on)
        self.set(DEVCONF_ALL + CNF_ACCEPT_REDIRECTS, not on)
        self.set(DEVCONF_ALL + CNF_FORWARDING, on)
        self.set(DEVCONF_DEFAULT + CNF_FORWARDING, on)
        for i in range(self.ptr.nr_devices):
            if self.ptr.devices[i] != NULL:
                self.set(DEVCONF_ALL + ((<int>i + 2) << 8) + CNF_FORWARDING, on)

    def mib(self, int which):
        """Give the counter ``which``, a member of ``netstack._counters.mib``, summed over all CPUs."""
        cdef u64 total = 0
        cdef u32 slot
        if not 0 <= which < MIB_NR:
            raise IndexError(which)
        for slot in range(self.ptr.nr_slots):
            total += load_relaxed64(&self.ptr.slots[slot].mib[which])
        return total

    def count(self, int which, u64 by=1):
        """Count in process context: what the Python layers do where the compiled ones call ``mib_add``."""
        if not 0 <= which < MIB_NR:
            raise IndexError(which)
        mib_add(self.ptr, SLOT_PROCESS, which, by)

    def fate(self, int which):
        """Frames that ended as ``which``, a member of ``netstack._counters.skb_drop_reason``."""
        cdef u64 total = 0
        cdef u32 slot
        if not 0 <= which < SKB_FATE_NR:
            raise IndexError(which)
        for slot in range(self.ptr.nr_slots):
            total += load_relaxed64(&self.ptr.slots[slot].fate[which])
        return total

    def counted(self):
        """Give all that is not 0: counters by their number, and frames by how they ended."""
        cdef dict mibs = {}
        cdef dict fates = {}
        cdef u64 total
        cdef u32 which, slot
        for which in range(MIB_NR):
            total = 0
            for slot in range(self.ptr.nr_slots):
                total += load_relaxed64(&self.ptr.slots[slot].mib[which])
            if total:
                mibs[which] = total
        for which in range(SKB_FATE_NR):
            total = 0
            for slot in range(self.ptr.nr_slots):
                total += load_relaxed64(&self.ptr.slots[slot].fate[which])
            if total:
                fates[which] = total
        return mibs, fates

    def rx_frames(self):
        """Frames that came off the host's wires since it was made."""
        cdef u64 total = 0
        cdef u32 slot
        for slot in range(self.ptr.nr_slots):
            total += load_relaxed64(&self.ptr.slots[slot].rx_frames)
        return total

    @property
    def nf_hooks(self):
        """Bit h is set while a Python hook is registered at hook h; the fast path then leaves packets to Python."""
        return load_relaxed32(&self.ptr.nf_hooks)

    @nf_hooks.setter
    def nf_hooks(self, u32 bits):
        store_relaxed32(&self.ptr.nf_hooks, bits)

    @property
    def multicast(self):
        """What setsockopt() asks about groups: a ``netstack.proto.ip_sockglue.Multicast``; None for nobody."""
        return self.multicast_object

    @multicast.setter
    def multicast(self, it):
        self.multicast_object = it
        self.ptr.multicast = <void *>it

    @property
    def nf_rules(self):
        """Bit h is set while there are rules at hook h, bit 8 + h while somebody captures there."""
        return load_relaxed32(&self.ptr.nf_rules)

    def want_protocol(self, u32 protocol, bint wanted):
        """Say that Python wants every packet of an IP protocol, so that the fast path leaves them alone."""
        if protocol > 255:
            raise ValueError(f"protocol={protocol}: an IP protocol number is 0 to 255")
        if wanted:
            self.ptr.python_protocols[protocol >> 5] |= <u32>1 << (protocol & 31)
            self.ptr.raw_protocols[protocol >> 5] |= <u32>1 << (protocol & 31)
        else:
            self.ptr.python_protocols[protocol >> 5] &= ~(<u32>1 << (protocol & 31))
            self.ptr.raw_protocols[protocol >> 5] &= ~(<u32>1 << (protocol & 31))
