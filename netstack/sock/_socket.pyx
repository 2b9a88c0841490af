"""socket: what an application calls.

Stage 8 of 8:  device driver irq napi netif nf proto [sock]
In       datagrams in the receive queue   sock/_sock.pyx
Out      bytes and addresses; datagrams to send  the application, proto/_udp_out.pyx
Context  process context, any thread; holds the GIL except while it waits or sends
Kernel   inet_dgram_ops: inet_bind(), inet_recvmsg(), inet_sendmsg(), net/ipv4/af_inet.c

A datagram that waits is read without a system call: one lock, one copy, one tuple that is kept for
as long as the peer stays the same. Names, results and errors are those of the standard library's
socket module; ``netstack/socket.py`` adds what that module writes in Python.
"""

cimport cython
import warnings

from cpython.buffer cimport PyBuffer_Release
from cpython.number cimport PyNumber_Index
from libc.errno cimport EBADF, ENOTCONN, EOPNOTSUPP

from netstack._abi cimport load_acquire32, unlikely, u16, u32, u64
from netstack._net cimport Net
from netstack._skb cimport sk_buff
from netstack.sock._address cimport make_sockaddr, parse_sockaddr, peer_of, peers_clear
from netstack.sock._batch cimport (
    batch_of, check_batch, get_records, poll_as_cpu, recv_list, recv_packets, send_list, send_packets,
)
from netstack.sock._calls cimport (
    SOCK_NONBLOCK, fail, inet_bind, inet_connect, inet_create, inet_shutdown, parse_timeout, sock_info,
)
from netstack.sock._mcast cimport mc_publish, mcast_drop
from netstack.sock._options cimport get_option, set_option_value
from netstack.sock._packet cimport AF_PACKET
from netstack.sock._packet_addr cimport packet_destination, packet_name, packet_peer
from netstack.sock._queue cimport sock_first, sock_frames
from netstack.sock._recv cimport (
    MSG_ERRQUEUE, MSG_PEEK, MSG_TRUNC, copy_out, data_left, get_writable, peer_key, recv_end, recv_message, recv_wait,
    take_bytes,
)
from netstack.sock._send cimport FEW_VIEWS, buffers_of, empty_message, send_buffer, send_buffers
from netstack.sock._sock cimport AF_INET, SOCK_CB, SOCKF_CLOSED, sk_close, sk_free, sock, sock_msg
from netstack.sock._wake cimport sock_poll_fd

cdef object missing = object()


@cython.no_gc_clear
cdef class Socket:
    """A socket of one host. ``netstack.socket.socket`` is the class to use."""

    def __cinit__(self, *args, **kwargs):
        self.timeout_ns = -1

    def __init__(self, Net net not None, int family=2, int type=2, int proto=0):
        if self.memory != NULL:
            raise RuntimeError("a socket can't be made twice")
        self.net_object = net
        self.asked_proto = 0 if proto == -1 else proto     # the standard library's default
        self.memory = self.sk = inet_create(net, family, type, self.asked_proto, <void *>self)
        if type & SOCK_NONBLOCK:
            self.timeout_ns = 0

    def __del__(self):
        if self.sk != NULL:
            try:
                warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self)
            finally:
                self.close()

    def __dealloc__(self):
        peers_clear(&self.peers)
        if self.memory != NULL:
            sk_free(self.memory)

    cdef sock *open(self) except NULL:
        """Give the sock, or raise EBADF when the socket, or its host, is closed."""
        if self.sk == NULL or load_acquire32(&self.sk.flags) & SOCKF_CLOSED:
            fail(EBADF)
        return self.sk

    # ---- addresses

    def bind(self, address, /):
        """Take a local address. Port 0 asks for a free one. Ports below 1024 need no privilege here."""
        inet_bind(self.open(), address)

    def connect(self, address, /):
        """Choose the peer: send() goes to it, and only its datagrams are received."""
        cdef int rc = inet_connect(self.open(), address, "connect")
        if rc < 0:
            fail(-rc)

    def connect_ex(self, address, /):
        """Like connect(), but give the errno instead of raising it."""
        cdef u32 addr
        cdef u16 port
        if self.closed:
            if self.memory != NULL and self.memory.prot.family != AF_PACKET:
                parse_sockaddr(address, "connect_ex", &addr, &port)
            return EBADF
        return -inet_connect(self.sk, address, "connect_ex")

    def getsockname(self):
        """Give the local address."""
        cdef sock *sk = self.open()
        if sk.prot.family == AF_PACKET:
            return packet_name(sk)
        return make_sockaddr(sk.rcv_saddr if sk.rcv_saddr else sk.saddr, sk.num)

    def getpeername(self):
        """Give the peer's address."""
        cdef sock *sk = self.open()
        if sk.prot.family == AF_PACKET:
            fail(EOPNOTSUPP)
        if sk.dport == 0:
            fail(ENOTCONN)
        return make_sockaddr(sk.daddr, sk.dport)

    # ---- receiving

    cdef sk_buff *first(self, int flags) except? NULL:
        """Give the oldest datagram with the reader's lock held; NULL when no more will come.

        What follows until recv_end() must not let another thread run Python.
        """
        cdef sock *sk = self.sk
        cdef sk_buff *skb
        if sk != NULL and load_acquire32(&sk.err) == 0 and not flags & (MSG_ERRQUEUE | MSG_PEEK):
            skb = sock_first(sk)
            if skb != NULL:
                return skb
        return recv_wait(self.open(), self.timeout_ns, flags)

    cdef object peer_name(self, u64 peer):
        """Give a peer's address: (host, port), or what AF_PACKET has."""
        if unlikely(peer == 0) and self.memory.prot.family == AF_PACKET:
            return packet_peer(self.memory)
        return peer_of(&self.peers, peer)

    def recv(self, Py_ssize_t bufsize, int flags=0, /):
        """Receive a datagram, at most ``bufsize`` bytes of it."""
        cdef sk_buff *skb
        if bufsize < 0:
            raise ValueError("negative buffersize in recv")
        if bufsize == 0:
            return b""             # nothing was asked for: no datagram is taken, as in the standard library
        skb = self.first(flags)
        if skb == NULL:
            return b""
        return take_bytes(self.memory, skb, bufsize, flags)

    def recvfrom(self, Py_ssize_t bufsize, int flags=0, /):
        """Receive a datagram and the address it came from."""
        cdef sk_buff *skb
        cdef u64 peer
        if bufsize < 0:
            raise ValueError("negative buffersize in recvfrom")
        skb = self.first(flags)
        if skb == NULL:
            return b"", None
        peer = peer_key(SOCK_CB(skb))
        data = take_bytes(self.memory, skb, bufsize, flags)
        return data, self.peer_name(peer)

    def recv_into(self, buffer, Py_ssize_t nbytes=0, int flags=0):
        """Receive a datagram into a writable buffer; give its length."""
        cdef u64 peer = 0
        cdef bint came
        return self.read_into(buffer, nbytes, flags, "recv_into", &peer, &came)

    def recvfrom_into(self, buffer, Py_ssize_t nbytes=0, int flags=0):
        """Receive a datagram into a writable buffer; give its length and the address it came from."""
        cdef u64 peer = 0
        cdef bint came
        size = self.read_into(buffer, nbytes, flags, "recvfrom_into", &peer, &came)
        return size, self.peer_name(peer) if came else None

    cdef Py_ssize_t read_into(self, object buffer, Py_ssize_t nbytes, int flags, str name, u64 *peer,
                              bint *came) except -1:
        cdef Py_buffer view
        cdef sk_buff *skb
        cdef Py_ssize_t copied, size = 0
        get_writable(buffer, &view, name)
        try:
            if nbytes < 0:
                raise ValueError(f"negative buffersize in {name}")
            if nbytes > view.len:
                raise ValueError("nbytes is greater than the length of the buffer" if name == "recvfrom_into"
                                 else "buffer too small for requested bytes")
            came[0] = False
            if view.len == 0 and name == "recv_into":
                return 0
            skb = self.first(flags)
            came[0] = skb != NULL
            if skb != NULL:
                copied = size = copy_out(skb, <char *>view.buf, nbytes if nbytes else view.len)
                if flags & MSG_TRUNC:
                    size = data_left(skb)
                peer[0] = peer_key(SOCK_CB(skb))
                recv_end(self.memory, skb, flags, <u32>copied)
        finally:
            PyBuffer_Release(&view)
        return size

    def recvmsg(self, Py_ssize_t bufsize, Py_ssize_t ancbufsize=0, int flags=0, /):
        """Receive a datagram: (data, ancillary data, flags, address)."""
        cdef sk_buff *skb
        cdef u64 peer
        if bufsize < 0:
            raise ValueError("negative buffer size in recvmsg()")
        if ancbufsize < 0:
            raise ValueError("invalid ancillary data buffer length")
        skb = self.first(flags)
        if skb == NULL:
            return b"", [], 0, None
        peer = peer_key(SOCK_CB(skb))
        data, ancillary, msg_flags = recv_message(self.memory, skb, NULL, 0, bufsize, ancbufsize, flags)
        return data, ancillary, msg_flags, self.peer_name(peer)

    def recvmsg_into(self, buffers, Py_ssize_t ancbufsize=0, int flags=0, /):
        """Receive a datagram into several writable buffers: (bytes, ancillary data, flags, address)."""
        cdef tuple items = buffers_of(buffers, "recvmsg_into")
        cdef Py_buffer few[FEW_VIEWS]
        if len(items) <= FEW_VIEWS:
            return self.recv_items(items, few, ancbufsize, flags)
        views = bytearray(len(items) * sizeof(Py_buffer))
        return self.recv_items(items, <Py_buffer *><char *>views, ancbufsize, flags)

    cdef tuple recv_items(self, tuple items, Py_buffer *views, Py_ssize_t ancbufsize, int flags):
        cdef u64 peer
        cdef sk_buff *skb
        cdef Py_ssize_t room = 0
        cdef int n = 0
        try:
            for buffer in items:
                get_writable(buffer, &views[n], "recvmsg_into")
                room += views[n].len
                n += 1
            if ancbufsize < 0:
                raise ValueError("invalid ancillary data buffer length")
            skb = self.first(flags)
            if skb == NULL:
                return 0, [], 0, None
            peer = peer_key(SOCK_CB(skb))
            data, ancillary, msg_flags = recv_message(self.memory, skb, views, n, room, ancbufsize, flags)
            return data, ancillary, msg_flags, self.peer_name(peer)
        finally:
            while n:
                n -= 1
                PyBuffer_Release(&views[n])

    # ---- sending

    def send(self, data, int flags=0, /):
        """Send a datagram to the peer."""
        cdef sock_msg msg
        empty_message(&msg)
        return send_buffer(self.open(), data, flags, &msg)

    def sendall(self, data, int flags=0, /):
        """Send a datagram to the peer: for a datagram socket the same as send()."""
        self.send(data, flags)

    def sendto(self, data, flags=missing, address=missing, /):
        """Send a datagram to an address: sendto(data, address) or sendto(data, flags, address)."""
        cdef sock *sk = self.open()
        cdef sock_msg msg
        cdef int number = 0
        if flags is missing:
            raise TypeError("sendto() takes 2 or 3 arguments (1 given)")
        if address is missing:
            address = flags
        else:
            number = PyNumber_Index(flags)
        empty_message(&msg)
        if address is not self.sent_to or address is None:
            if sk.prot.family == AF_PACKET:
                packet_destination(sk, address, "sendto")
            else:
                parse_sockaddr(address, "sendto", &self.sent_addr, &self.sent_port)
                self.sent_to = address
        msg.has_addr = True
        msg.daddr = self.sent_addr
        msg.dport = self.sent_port
        return send_buffer(sk, data, number, &msg)

    def sendmsg(self, buffers, ancdata=(), int flags=0, address=None, /):
        """Send the bytes of several buffers as one datagram."""
        return send_buffers(self.open(), buffers, ancdata, flags, address)

    # ---- many at once

    def recv_batch(self, Py_ssize_t n, Py_ssize_t bufsize=65535, int flags=0):
        """Receive up to ``n`` datagrams: a list of (data, address), as recvfrom() gives them.

        Waits for the first as recvfrom() does, and takes with it what is queued. An empty list says that
        no more will come.
        """
        cdef sk_buff *skb
        batch_of(self.open())
        check_batch(n, "recv_batch", flags)
        if bufsize < 0:
            raise ValueError("negative buffersize in recv_batch")
        skb = self.first(flags)
        return [] if skb == NULL else recv_list(self.memory, skb, n, bufsize, &self.peers)

    def recv_batch_into(self, buffer, packets, int flags=0):
        """Receive datagrams one behind the other into ``buffer``; give how many.

        ``packets`` is a writable buffer too, and gets a record of 16 bytes for each: offset and length of
        the data, and address of the sender, three 32-bit numbers; its port, and MSG_TRUNC if the buffer
        was too small for it, two 16-bit numbers; all in the machine's byte order (struct format
        "=IIIHH"). Ends when either buffer is full. Waits for the first as recvfrom() does.
        """
        cdef Py_buffer data, records
        cdef sk_buff *skb
        batch_of(self.open())
        get_writable(buffer, &data, "recv_batch_into")
        try:
            get_records(packets, &records, True, "recv_batch_into")
            try:
                check_batch(records.len, "recv_batch_into", flags)
                skb = self.first(flags)
                return 0 if skb == NULL else recv_packets(self.memory, skb, &data, &records)
            finally:
                PyBuffer_Release(&records)
        finally:
            PyBuffer_Release(&data)

    def poll_cpu(self):
        """Be the CPU for a moment, and take what is on the wires; True when something can be received.

        Then the wires are left to this thread: it should receive, and poll again until this gives False.
        """
        return poll_as_cpu(self.open())

    def send_batch(self, messages, int flags=0):
        """Send a sequence of (data, address); None as address is the peer. Give how many were sent.

        The errors are those of sendto(), for the first message. One that fails later ends the batch, and
        shows when it is the first of another call.
        """
        return send_list(batch_of(self.open()), messages, flags, &self.peers)

    def send_batch_from(self, buffer, packets, n=None, int flags=0):
        """Send the datagrams in ``buffer`` that the first ``n`` records of ``packets`` say; all if None.

        The records are those of recv_batch_into(); address and port 0 are the peer. Give how many were
        sent; errors as with send_batch().
        """
        return send_packets(batch_of(self.open()), buffer, packets, n, flags)

    # ---- settings

    def settimeout(self, value, /):
        """Set the time that a call may wait: None for ever, 0 not at all, else seconds."""
        self.open()
        self.timeout_ns = parse_timeout(value)

    def gettimeout(self):
        """Give the timeout in seconds, None for none."""
        return None if self.timeout_ns < 0 else self.timeout_ns / 1e9

    def setblocking(self, bint flag, /):
        """setblocking(True) is settimeout(None), setblocking(False) is settimeout(0.0)."""
        self.open()
        self.timeout_ns = -1 if flag else 0

    def getblocking(self):
        """True when calls may wait."""
        return self.timeout_ns != 0

    def setsockopt(self, int level, int optname, value, optlen=None, /):
        """Set an option to a number or to bytes."""
        set_option_value(self.open(), level, optname, value, optlen)

    def getsockopt(self, int level, int optname, buflen=0, /):
        """Give an option as a number, or with ``buflen`` as that many bytes at most.

        Bytes instead of ``buflen`` are what IP_MSFILTER and MCAST_MSFILTER are asked with: a struct of the option.
        """
        cdef bytes buffer = b"" if isinstance(buflen, int) else bytes(buflen)
        cdef int size = buflen if isinstance(buflen, int) else <int>len(buffer)
        if isinstance(buflen, int) and not 0 <= size <= 1024:
            raise OSError("getsockopt buflen out of range")
        return get_option(self.open(), level, optname, size, buffer if buffer else bytes(size))

    # ---- the rest

    def fileno(self):
        """Give an fd that is readable whenever a receive would not wait; -1 once closed.

        It is an eventfd, made at the first call: for select, poll, epoll and event loops, not for
        read(2) or for passing to another process.
        """
        if self.sk == NULL or load_acquire32(&self.sk.flags) & SOCKF_CLOSED:
            return -1
        return sock_poll_fd(self.sk)

    def shutdown(self, int how, /):
        """Stop receiving (SHUT_RD), sending (SHUT_WR) or both."""
        inet_shutdown(self.open(), how)

    def close(self):
        """Close the socket. What nobody has read is dropped; who waits gets EBADF."""
        cdef sock *sk = self.sk
        if sk != NULL:
            self.sk = NULL
            mcast_drop(sk)
            with nogil:
                sk_close(sk)

    def set_memberships(self, rows):
        """Tell the data path what was joined: (group, ifindex, mode, sources) each. For proto/ip_sockglue.py."""
        mc_publish(self.memory, rows)

    @property
    def family(self):
        """AF_INET or AF_PACKET."""
        return self.memory.prot.family if self.memory != NULL else AF_INET

    @property
    def type(self):
        """SOCK_DGRAM."""
        return self.memory.prot.type if self.memory != NULL else 0

    @property
    def proto(self):
        """The IP protocol that was asked for, 0 for the type's default."""
        return self.asked_proto

    @property
    def closed(self):
        """True after close(), and after the host was closed."""
        return self.sk == NULL or load_acquire32(&self.sk.flags) & SOCKF_CLOSED != 0

    @property
    def frames(self):
        """Frames off the wire that stand in the queue; a part of 1 for one that other sockets have too."""
        return 0.0 if self.closed else sock_frames(self.sk)

    @property
    def info(self):
        """What ``ss`` shows of a socket, also of a closed one."""
        if self.memory == NULL:
            fail(EBADF)
        return sock_info(self.memory)
