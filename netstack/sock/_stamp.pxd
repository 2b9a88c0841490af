"""Options that ask for time stamps; see ``_stamp.pyx``."""

from netstack.sock._sock cimport sock

cdef int set_timestamps(sock *sk, bint on, bint is_new, bint ns) except -1
cdef int get_timestamps(const sock *sk, bint is_new, bint ns) noexcept
cdef int set_timestamping(sock *sk, const char *value, Py_ssize_t size, bint is_new) except -1
cdef bytes get_timestamping(const sock *sk, bint is_new)
