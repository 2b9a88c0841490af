"""batch: many datagrams between the queue, or the protocol, and one call of Python.

Stage 8 of 8:  device driver irq napi netif nf proto [sock]
In       the oldest datagrams; lists and buffers of Python  sock/_queue.pyx, sock/_socket.pyx
Out      lists, filled buffers; sock_msgs for the protocol  the application, proto/_udp_out.pyx
Context  process context; holds the GIL to receive, lets it go once a batch to send
Kernel   __sys_recvmmsg(), __sys_sendmmsg(), net/socket.c

Under the reader's lock nothing may run that could call Python: bytes are made there, tuples and lists, whose
making may start a garbage collection, afterwards. What was read goes back to its pool by the batch.

A packet that GRO merged (UDP_GRO) gives each of its datagrams. If a batch ends within one, the rest of it stays the
first of the queue.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.number cimport PyNumber_Index
from cpython.object cimport PyObject
from cpython.ref cimport Py_XDECREF
from libc.errno cimport EOPNOTSUPP
from libc.stdlib cimport free, malloc

from netstack._abi cimport load_acquire32, load_relaxed32, monotonic_ns, u8, u64, unlikely
from netstack._net cimport SLOT_PROCESS, mib_add
from netstack._skb cimport SKB_GSO_UDP_L4, skb_pull
from netstack.sock._address cimport peer_of, peer_parse
from netstack.sock._calls cimport fail
from netstack.sock._queue cimport (
    sock_first, sock_flush, sock_flush_due, sock_next, sock_peek_bwd, sock_read_end, sock_taken,
)
from netstack.sock._recv cimport (
    MSG_ERRQUEUE, MSG_PEEK, MSG_TRUNC, PyBytes_AS_STRING, PyBytes_FromStringAndSize, copy_bits, data_left,
    peer_key,
)
from netstack.sock._send cimport MSG_MORE, MSG_OOB, empty_message
from netstack.sock._sock cimport (
    AF_INET, SOCK_CB, SOCKF_PEEK_OFF, sock_iov, sock_msg, sock_readable, sock_rps_record_flow,
)

cdef enum:
    CHUNK = 64                     # datagrams between two looks at the lock

cdef struct received:
    PyObject *data
    u64 peer

if sizeof(packet) != 16:
    raise ImportError(f"a record of a batch is {sizeof(packet)} bytes, not 16")


cdef sock *batch_of(sock *sk) except NULL:
    """Refuse batches where addresses are not those of IPv4."""
    if sk.prot.family != AF_INET:
        fail(EOPNOTSUPP)
    return sk


cdef bint has_something(void *sk) noexcept nogil:
    return sock_readable(<sock *>sk)


cdef bint poll_as_cpu(sock *sk) noexcept:
    """Be the CPU for a moment; True when something can be received."""
    cdef bint got = False
    cdef u64 now
    if sk.n.busy_loop != NULL:
        with nogil:
            now = monotonic_ns()
            got = sk.n.busy_loop(sk.n, load_relaxed32(&sk.napi_cpu), sk, has_something, &sk.idle, now, now) == 0
    return got


cdef int check_batch(Py_ssize_t n, str caller, int flags) except -1:
    """Refuse what a batch can't do: no datagrams at all, and looking without taking."""
    if n <= 0:
        raise ValueError(f"{caller}() with room for {n} datagrams: at least 1")
    if flags & (MSG_PEEK | MSG_ERRQUEUE | MSG_OOB):
        fail(EOPNOTSUPP)
    return 0


cdef int get_records(object packets, Py_buffer *view, bint writable, str caller) except -1:
    """Take hold of a buffer of records; its ``len`` is the number of them afterwards."""
    PyObject_GetBuffer(packets, view, PyBUF_WRITABLE if writable else PyBUF_SIMPLE)
    if <size_t>view.buf & 3:
        PyBuffer_Release(view)
        raise ValueError(f"{caller}(): packets has to begin at an address that is a multiple of 4")
    view.len //= <Py_ssize_t>sizeof(packet)
    return 0


# ---- receiving; reader_lock is held

cdef inline u32 segment(const sk_buff *skb) noexcept nogil:
    """Bytes of the next datagram: all, but of a merged packet only one of its segments."""
    cdef u32 left = data_left(skb)
    return skb.gso_size if skb.gso_type & SKB_GSO_UDP_L4 and 0 < skb.gso_size < left else left


cdef inline sk_buff *after(sock *sk, sk_buff *skb, u32 size) noexcept nogil:
    """Go on to the next datagram, of the same packet or of another; NULL when there is none."""
    if unlikely(load_acquire32(&sk.flags) & SOCKF_PEEK_OFF):
        sock_peek_bwd(sk, size)
    if size < data_left(skb):
        if skb.data_len == 0:
            skb_pull(skb, size)
        else:
            SOCK_CB(skb).taken += size
        return skb
    sock_taken(sk, skb)
    if sock_flush_due(sk):
        sock_flush(sk)
    return sock_next(sk)


cdef u32 take(sock *sk, sk_buff *skb, received *got, u32 most, Py_ssize_t bufsize) noexcept:
    """Make bytes of up to ``most`` datagrams. Fewer when the queue or the memory is used up. Unlocks."""
    cdef u32 count = 0
    cdef u32 size
    cdef Py_ssize_t part
    cdef PyObject *data
    while skb != NULL and count < most:
        size = segment(skb)
        part = min(<Py_ssize_t>size, bufsize)
        if skb.data_len == 0:
            data = PyBytes_FromStringAndSize(<char *>skb.data, part)
        else:
            data = PyBytes_FromStringAndSize(NULL, part)
            if data != NULL:
                copy_bits(skb, 0, PyBytes_AS_STRING(data), <u32>part)
        if data == NULL:
            PyErr_Clear()
            break
        got[count].data = data
        got[count].peer = peer_key(SOCK_CB(skb))
        count += 1
        skb = after(sk, skb, size)
    mib_add(sk.n, SLOT_PROCESS, sk.prot.in_datagrams, count)
    sock_read_end(sk)
    return count


cdef extern from "Python.h":
    void PyErr_Clear() noexcept


cdef list recv_list(sock *sk, sk_buff *skb, Py_ssize_t most, Py_ssize_t bufsize, peer_cache *peers):
    """Make the list of recv_batch(), from what sock_first() gave on."""
    cdef received got[CHUNK]
    cdef list out = []
    cdef u32 count, i, want
    try:
        while skb != NULL:
            want = <u32>min(<Py_ssize_t>CHUNK, most)
            count = take(sk, skb, got, want, bufsize)
            most -= count
            i = 0
            try:
                while i < count:
                    out.append((<bytes>got[i].data, peer_of(peers, got[i].peer)))
                    Py_XDECREF(got[i].data)
                    i += 1
            except MemoryError:
                while i < count:
                    Py_XDECREF(got[i].data)
                    i += 1
                raise
            if count == 0 and not out:
                raise MemoryError
            skb = sock_first(sk) if most and count == want else NULL
    except MemoryError:
        if not out:
            raise
    return out


cdef Py_ssize_t recv_packets(sock *sk, sk_buff *skb, Py_buffer *data, Py_buffer *records) noexcept:
    """Fill the buffers of recv_batch_into(), from what sock_first() gave on; how many. Unlocks."""
    cdef packet *to = <packet *>records.buf
    cdef Py_ssize_t most = records.len
    cdef Py_ssize_t room = min(data.len, <Py_ssize_t>0xFFFFFFFF)
    cdef Py_ssize_t count = 0
    cdef u32 offset = 0
    cdef u32 size, part
    while skb != NULL and count < most:
        size = segment(skb)
        part = size
        if size > room - offset:
            if count:
                break
            part = <u32>room       # not even an empty buffer has the room: cut it, as recvfrom_into() does
        copy_bits(skb, 0, <char *>data.buf + offset, part)
        to[count].offset = offset
        to[count].length = part
        to[count].addr = SOCK_CB(skb).saddr
        to[count].port = SOCK_CB(skb).sport
        to[count].flags = MSG_TRUNC if part < size else 0
        offset += part
        count += 1
        skb = after(sk, skb, size)
    mib_add(sk.n, SLOT_PROCESS, sk.prot.in_datagrams, <u64>count)
    sock_read_end(sk)
    return count


# ---- sending

cdef Py_ssize_t send_messages(sock *sk, sock_msg *msgs, u32 count, int *err) noexcept:
    """Hand messages to the protocol; how many it sent."""
    cdef u32 sent = 0
    err[0] = 0
    sock_rps_record_flow(sk)
    with nogil:
        if sk.prot.sendmmsg != NULL:
            sent = sk.prot.sendmmsg(sk, msgs, count, err)
        else:
            while sent < count:
                err[0] = sk.prot.sendmsg(sk, &msgs[sent])
                if err[0]:
                    break
                sent += 1
    return sent


cdef int add_message(object item, sock_msg *msg, sock_iov *iov, Py_buffer *view, peer_cache *peers) except -1:
    """Make a message of a pair (data, address); ``view`` holds the data."""
    if not isinstance(item, (tuple, list)) or len(item) != 2:
        raise TypeError("send_batch(): each message must be a pair (data, address)")
    data, address = item
    empty_message(msg)
    if address is not None:
        peer_parse(peers, address, "send_batch", &msg.daddr, &msg.dport)
        msg.has_addr = True
    PyObject_GetBuffer(data, view, PyBUF_SIMPLE)
    iov.base = <const u8 *>view.buf
    msg.len = iov.len = view.len
    msg.iov = iov
    msg.nr_iov = 1
    return 0


cdef Py_ssize_t send_list(sock *sk, object messages, int flags, peer_cache *peers) except -1:
    """Send pairs of data and address, by the chunk."""
    cdef sock_msg msgs[CHUNK]
    cdef sock_iov iov[CHUNK]
    cdef Py_buffer views[CHUNK]
    cdef Py_ssize_t sent = 0
    cdef Py_ssize_t part
    cdef u32 count = 0
    cdef int err = 0
    cdef object wrong = None
    if flags & (MSG_OOB | MSG_MORE):
        fail(EOPNOTSUPP)
    left = iter(messages)
    while wrong is None:
        count = 0
        try:
            try:
                for item in left:
                    add_message(item, &msgs[count], &iov[count], &views[count], peers)
                    count += 1
                    if count == CHUNK:
                        break
            except Exception as error:
                wrong = error      # the messages before it are good
            if count == 0:
                break
            part = send_messages(sk, msgs, count, &err)
            sent += part
            if part < <Py_ssize_t>count:
                break
        finally:
            while count:
                count -= 1
                PyBuffer_Release(&views[count])
    if sent == 0 and err:
        fail(-err)
    if sent == 0 and wrong is not None:
        raise wrong
    return sent


cdef Py_ssize_t send_records(sock *sk, Py_buffer *data, const packet *records, Py_ssize_t n,
                             int *err) except -1:
    """Send the first ``n`` records, by the chunk."""
    cdef sock_msg msgs[CHUNK]
    cdef sock_iov iov[CHUNK]
    cdef Py_ssize_t sent = 0
    cdef Py_ssize_t part
    cdef const packet *record
    cdef u32 count, i
    while sent < n:
        count = <u32>min(n - sent, <Py_ssize_t>CHUNK)
        for i in range(count):
            record = &records[sent + i]
            empty_message(&msgs[i])
            msgs[i].has_addr = record.addr != 0 or record.port != 0
            msgs[i].daddr = record.addr
            msgs[i].dport = record.port
            iov[i].base = <const u8 *>data.buf + record.offset
            msgs[i].len = iov[i].len = record.length
            msgs[i].iov = &iov[i]
            msgs[i].nr_iov = 1
        part = send_messages(sk, msgs, count, err)
        sent += part
        if part < <Py_ssize_t>count:
            break
    return sent


cdef Py_ssize_t send_packets(sock *sk, object buffer, object packets, object n, int flags) except -1:
    """Send the datagrams that lie in a buffer."""
    cdef Py_buffer data, records
    cdef packet *copy = NULL
    cdef Py_ssize_t most = 0
    cdef Py_ssize_t i, sent
    cdef int err = 0
    if flags & (MSG_OOB | MSG_MORE):
        fail(EOPNOTSUPP)
    PyObject_GetBuffer(buffer, &data, PyBUF_SIMPLE)
    try:
        get_records(packets, &records, False, "send_batch_from")
        try:
            most = records.len if n is None else PyNumber_Index(n)
            if not 0 <= most <= records.len:
                raise ValueError(f"send_batch_from() with n={n}: 0 to {records.len}, the records there are")
            # Checked and used must be the same: another thread may write to the records meanwhile.
            copy = <packet *>malloc(max(most, 1) * sizeof(packet))
            if copy == NULL:
                raise MemoryError
            for i in range(most):
                copy[i] = (<packet *>records.buf)[i]
                if <Py_ssize_t>copy[i].offset + <Py_ssize_t>copy[i].length > data.len:
                    raise ValueError(
                        f"send_batch_from(): record {i} says {copy[i].length} bytes at {copy[i].offset}, "
                        f"the buffer has {data.len}")
            sent = send_records(sk, &data, copy, most, &err)
        finally:
            free(copy)
            PyBuffer_Release(&records)
    finally:
        PyBuffer_Release(&data)
    if sent == 0 and err:
        fail(-err)
    return sent
