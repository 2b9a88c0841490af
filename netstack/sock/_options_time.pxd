"""Options that are spans of time; see ``_options_time.pyx``."""

from netstack.sock._sock cimport sock

cdef int set_timeout(sock *sk, bint receive, const char *value, Py_ssize_t size) except -1
cdef bytes get_timeout(sock *sk, bint receive)
cdef int set_linger(sock *sk, const char *value, Py_ssize_t size) except -1
cdef bytes get_linger(sock *sk)
