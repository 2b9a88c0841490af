"""filter: which datagrams a socket wants, as a program of classic BPF.

Stage 8 of 8:  device driver irq napi netif nf proto [sock]
In       a datagram before it is queued   proto/_udp.pyx
Out      how many of its bytes are wanted, 0 for none
Context  attach: process context; run: softirq or process context; no GIL; never raises
Kernel   bpf_check_classic(), sk_attach_filter(), __sk_filter_trim_cap(), net/core/filter.c

A program sees the datagram from its UDP header on. It is checked when it is attached: every jump goes
forward and stays inside, so it ends; every load is checked when it runs, and one that is out of bounds
refuses the datagram.
"""

from libc.errno cimport EFAULT, EINVAL, ENOENT, ENOMEM, EPERM
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from netstack._abi cimport add_relaxed32, get_be16, get_be32, i32, load_acquire_ptr, store_release_ptr
from netstack._net cimport SLOT_CPU0
from netstack._skb cimport skb_copy_bits, skb_headlen, skb_mac_header, skb_network_header
from netstack.sock._calls cimport fail
from netstack.sock._sock cimport SOCKO_FILTER_LOCKED
from netstack.sock._table cimport table_wait

cdef extern from "<sys/uio.h>":
    struct iovec:
        void *iov_base
        size_t iov_len
    Py_ssize_t process_vm_readv(int pid, const iovec *local, unsigned long n, const iovec *remote,
                                unsigned long m, unsigned long flags) nogil
cdef extern from "<unistd.h>":
    int getpid() nogil

cdef enum:
    BPF_MAXINSNS = 4096
    BPF_MEMWORDS = 16

cdef enum classes:                 # <linux/bpf_common.h>: the low three bits of a code
    BPF_LD = 0
    BPF_LDX = 1
    BPF_ST = 2
    BPF_STX = 3
    BPF_ALU = 4
    BPF_JMP = 5
    BPF_RET = 6
    BPF_MISC = 7

cdef enum parts:                   # the others
    BPF_H = 8
    BPF_B = 0x10
    BPF_ABS = 0x20
    BPF_IND = 0x40
    BPF_MEM = 0x60
    BPF_LEN = 0x80
    BPF_MSH = 0xA0
    BPF_X = 8
    BPF_A = 0x10
    BPF_TXA = 0x80

cdef enum operations:              # of BPF_ALU and BPF_JMP
    BPF_ADD = 0
    BPF_SUB = 0x10
    BPF_MUL = 0x20
    BPF_DIV = 0x30
    BPF_OR = 0x40
    BPF_AND = 0x50
    BPF_LSH = 0x60
    BPF_RSH = 0x70
    BPF_NEG = 0x80
    BPF_MOD = 0x90
    BPF_XOR = 0xA0
    BPF_JA = 0
    BPF_JEQ = 0x10
    BPF_JGT = 0x20
    BPF_JGE = 0x30
    BPF_JSET = 0x40

cdef enum offsets:                 # <linux/filter.h>: negative offsets of loads mean something else
    SKF_AD_OFF = -0x1000
    SKF_NET_OFF = -0x100000
    SKF_LL_OFF = -0x200000
    SKF_AD_PROTOCOL = 0
    SKF_AD_PKTTYPE = 4
    SKF_AD_IFINDEX = 8
    SKF_AD_MARK = 20
    SKF_AD_QUEUE = 24
    SKF_AD_RXHASH = 32
    SKF_AD_CPU = 36

cdef struct sock_fprog:            # <linux/filter.h>
    u16 len
    sock_filter *filter


# ---- attach

cdef bint load_is_valid(const sock_filter *insn) noexcept:
    """Check a code of class BPF_LD or BPF_LDX."""
    cdef u32 mode = insn.code & 0xE0
    cdef u32 size = insn.code & 0x18
    cdef i32 aux = <i32>insn.k - SKF_AD_OFF
    if mode == BPF_MEM:
        return size == 0 and insn.k < BPF_MEMWORDS
    if insn.code & 7 == BPF_LDX:
        return (size == 0 and mode in (0, BPF_LEN)) or (size == BPF_B and mode == BPF_MSH)
    if mode == 0 or mode == BPF_LEN:
        return size == 0
    if mode == BPF_ABS and <i32>insn.k < 0 and aux >= 0:
        return aux in (SKF_AD_PROTOCOL, SKF_AD_PKTTYPE, SKF_AD_IFINDEX, SKF_AD_MARK, SKF_AD_QUEUE,
                       SKF_AD_RXHASH, SKF_AD_CPU)
    return (mode == BPF_ABS or mode == BPF_IND) and size != 0x18


cdef bint insn_is_valid(const sock_filter *insn, u32 pc, u32 count) noexcept:
    """Check one instruction by itself: a known code, and operands that can't lead astray."""
    cdef u32 kind = insn.code & 7
    cdef u32 op = insn.code & 0xF0
    cdef bint by_x = insn.code & BPF_X != 0
    if insn.code & 0xFF00:
        return False
    if kind == BPF_LD or kind == BPF_LDX:
        return load_is_valid(insn)
    if kind == BPF_ST or kind == BPF_STX:
        return insn.code == kind and insn.k < BPF_MEMWORDS
    if kind == BPF_ALU:
        if op == BPF_DIV or op == BPF_MOD:
            return by_x or insn.k != 0
        if op == BPF_LSH or op == BPF_RSH:
            return by_x or insn.k < 32
        return op <= BPF_XOR and not (op == BPF_NEG and by_x)
    if kind == BPF_JMP:
        if op == BPF_JA:
            return not by_x and insn.k < count - pc - 1
        return op <= BPF_JSET and pc + insn.jt + 1 < count and pc + insn.jf + 1 < count
    if kind == BPF_RET:
        return insn.code == BPF_RET or insn.code == BPF_RET | BPF_A
    return insn.code == BPF_MISC or insn.code == BPF_MISC | BPF_TXA


cdef bint prog_is_valid(const sk_filter *prog) noexcept:
    """Check a program; it must end with a return. [bpf_check_classic()]"""
    cdef u32 pc
    for pc in range(prog.len):
        if not insn_is_valid(&prog.insns[pc], pc, prog.len):
            return False
    return prog.insns[prog.len - 1].code & 7 == BPF_RET and loads_what_was_stored(prog)


cdef bint loads_what_was_stored(const sk_filter *prog) noexcept:
    """Check that no way through a valid program loads a word that it has not stored. [check_load_and_stores()]"""
    cdef u16 missing[BPF_MAXINSNS]     # bit n: on some way to here word n has not been stored
    cdef u16 now = 0xFFFF
    cdef const sock_filter *insn
    cdef u32 pc
    memset(missing, 0, sizeof(missing))
    for pc in range(prog.len):
        insn = &prog.insns[pc]
        now |= missing[pc]
        if insn.code == BPF_ST or insn.code == BPF_STX:
            now &= <u16>~(<u32>1 << insn.k)
        elif (insn.code == BPF_LD | BPF_MEM or insn.code == BPF_LDX | BPF_MEM) and now >> insn.k & 1:
            return False
        elif insn.code & 7 == BPF_JMP:
            if insn.code == BPF_JMP:   # BPF_JA
                missing[pc + 1 + insn.k] |= now
            else:
                missing[pc + 1 + insn.jt] |= now
                missing[pc + 1 + insn.jf] |= now
            now = 0                # what follows is reached by a jump only
    return True


cdef int copy_from_user(void *to, const void *address, size_t size) noexcept:
    """Read memory that a number in an option's value points to: the caller's number may be wrong."""
    cdef iovec here = iovec(iov_base=to, iov_len=size)
    cdef iovec there = iovec(iov_base=<void *>address, iov_len=size)
    return 0 if process_vm_readv(getpid(), &here, 1, &there, 1, 0) == <Py_ssize_t>size else -1


cdef int sk_attach_filter(sock *sk, const char *fprog, Py_ssize_t size) except -1:
    """Give the socket the program that a struct sock_fprog points to, instead of the one it has."""
    cdef sock_fprog given
    cdef sk_filter *prog
    if sk.opts & SOCKO_FILTER_LOCKED:
        return fail(EPERM)
    if size != <Py_ssize_t>sizeof(sock_fprog):
        return fail(EINVAL)
    memcpy(&given, fprog, sizeof(sock_fprog))
    if given.filter == NULL or not 1 <= given.len <= BPF_MAXINSNS:
        return fail(EINVAL)
    prog = <sk_filter *>malloc(sizeof(sk_filter) + given.len * sizeof(sock_filter))
    if prog == NULL:
        return fail(ENOMEM)
    prog.len = given.len
    if copy_from_user(prog.insns, given.filter, given.len * sizeof(sock_filter)) < 0:
        free(prog)
        return fail(EFAULT)
    if not prog_is_valid(prog):
        free(prog)
        return fail(EINVAL)
    replace(sk, prog)
    return 0


cdef int sk_detach_filter(sock *sk) except -1:
    """Take the socket's program away; ENOENT when it has none."""
    if sk.opts & SOCKO_FILTER_LOCKED:
        return fail(EPERM)
    if sk.filter == NULL:
        return fail(ENOENT)
    replace(sk, NULL)
    return 0


cdef void replace(sock *sk, sk_filter *prog) noexcept:
    cdef void *old = sk.filter
    store_release_ptr(&sk.filter, prog)
    if old != NULL:
        with nogil:
            table_wait(sk)
        free(old)


# ---- run

cdef bint load(sk_buff *skb, i32 offset, u32 size, u32 *value) noexcept nogil:
    """Read 1, 2 or 4 bytes in network order; False out of bounds."""
    cdef u8 word[4]
    cdef const u8 *at
    if offset >= 0:
        if skb_copy_bits(skb, <u32>offset, word, size) != size:
            return False
        at = word
    else:
        if offset >= SKF_NET_OFF:
            at = skb_network_header(skb) + (offset - SKF_NET_OFF)
        elif offset >= SKF_LL_OFF:
            at = skb_mac_header(skb) + (offset - SKF_LL_OFF)
        else:
            return False
        if at + size > skb.data + skb_headlen(skb):
            return False
    value[0] = at[0] if size == 1 else get_be16(at) if size == 2 else get_be32(at)
    return True


cdef u32 ancillary(const sk_buff *skb, i32 which) noexcept nogil:
    """What is known of a packet beside its bytes."""
    if which == SKF_AD_PROTOCOL:
        return skb.protocol
    if which == SKF_AD_PKTTYPE:
        return skb.pkt_type
    if which == SKF_AD_IFINDEX:
        return skb.dev.ifindex if skb.dev != NULL else 0
    if which == SKF_AD_MARK:
        return <u32>skb.mark
    if which == SKF_AD_QUEUE:
        return skb.queue_mapping
    if which == SKF_AD_RXHASH:
        return skb.hash
    return skb.slot - SLOT_CPU0 if skb.slot >= SLOT_CPU0 else 0


cdef u32 compute(u32 op, u32 a, u32 b) noexcept nogil:
    """One arithmetic operation; division by zero is the caller's to prevent."""
    if op == BPF_ADD:
        return a + b
    if op == BPF_SUB:
        return a - b
    if op == BPF_MUL:
        return a * b
    if op == BPF_DIV:
        return a // b
    if op == BPF_MOD:
        return a % b
    if op == BPF_OR:
        return a | b
    if op == BPF_AND:
        return a & b
    if op == BPF_XOR:
        return a ^ b
    if op == BPF_LSH:
        return a << (b & 31)
    if op == BPF_RSH:
        return a >> (b & 31)
    return -a                      # BPF_NEG


cdef bint sk_filter_trim(sock *sk, sk_buff *skb, u32 least) noexcept nogil:
    """Ask the socket's filter, and cut to what it wants to keep, at least ``least`` bytes. False: refused, and counted.

    Of a packet that is shared only the lengths are changed. [sk_filter_trim_cap()]
    """
    cdef sk_filter *prog = <sk_filter *>load_acquire_ptr(&sk.filter)
    cdef u32 keep, head
    if prog == NULL:
        return True
    keep = bpf_run(prog, skb)
    if keep == 0:
        add_relaxed32(&sk.drops, 1)
        return False
    if max(keep, least) < skb.len:
        head = skb_headlen(skb)
        skb.len = max(keep, least)
        skb.data_len = skb.len - head if skb.len > head else 0
    return True


cdef bint compare(u32 op, u32 a, u32 b) noexcept nogil:
    if op == BPF_JEQ:
        return a == b
    if op == BPF_JGT:
        return a > b
    if op == BPF_JGE:
        return a >= b
    return a & b != 0              # BPF_JSET


cdef bint fetch(const sock_filter *insn, sk_buff *skb, u32 x, const u32 *mem, u32 *value) noexcept nogil:
    """Do a load, for A or for X; False when it is out of bounds."""
    cdef u32 mode = insn.code & 0xE0
    cdef u32 size = 1 if insn.code & BPF_B else 2 if insn.code & BPF_H else 4
    if mode == BPF_MEM:
        value[0] = mem[insn.k]
    elif mode == BPF_LEN:
        value[0] = skb.len
    elif mode == BPF_IND:
        return load(skb, <i32>(x + insn.k), size, value)
    elif mode == BPF_ABS and SKF_AD_OFF <= <i32>insn.k < 0:
        value[0] = ancillary(skb, <i32>insn.k - SKF_AD_OFF)
    elif mode == BPF_ABS:
        return load(skb, <i32>insn.k, size, value)
    elif mode == BPF_MSH:
        if not load(skb, <i32>insn.k, 1, value):
            return False
        value[0] = (value[0] & 15) << 2
    else:
        value[0] = insn.k
    return True


cdef u32 bpf_run(const sk_filter *prog, sk_buff *skb) noexcept nogil:
    """Run a program over a datagram: how many bytes to keep, 0 to refuse it."""
    cdef u32 mem[BPF_MEMWORDS]
    cdef u32 a = 0
    cdef u32 x = 0
    cdef u32 pc = 0
    cdef u32 kind, op, operand
    cdef const sock_filter *insn
    memset(mem, 0, sizeof(mem))
    while True:
        insn = &prog.insns[pc]
        pc += 1
        kind = insn.code & 7
        op = insn.code & 0xF0
        operand = x if insn.code & BPF_X else insn.k
        if kind == BPF_LD or kind == BPF_LDX:
            if not fetch(insn, skb, x, mem, &a if kind == BPF_LD else &x):
                return 0
        elif kind == BPF_ALU:
            if operand == 0 and (op == BPF_DIV or op == BPF_MOD):
                return 0
            a = compute(op, a, operand)
        elif kind == BPF_JMP:
            pc += insn.k if op == BPF_JA else insn.jt if compare(op, a, operand) else insn.jf
        elif kind == BPF_RET:
            return a if insn.code & BPF_A else insn.k
        elif kind == BPF_MISC:
            if insn.code & BPF_TXA:
                a = x
            else:
                x = a
        else:
            mem[insn.k] = a if kind == BPF_ST else x
