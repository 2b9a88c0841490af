"""Addresses and options of AF_PACKET sockets as Python has them; see ``_packet_addr.pyx``."""

from netstack.sock._sock cimport sock

cdef tuple packet_peer(sock *sk)
cdef tuple packet_name(sock *sk)
cdef int packet_bind_to(sock *sk, object address) except -1
cdef int packet_destination(sock *sk, object address, str caller) except -1
cdef int packet_set(sock *sk, int name, const char *value, Py_ssize_t size) except -1
cdef object packet_get(sock *sk, int name, int size)
