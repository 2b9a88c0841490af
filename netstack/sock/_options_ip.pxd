"""Options of level SOL_IP; see ``_options_ip.pyx``."""

from netstack.sock._sock cimport sock

cdef object get_ip_option(sock *sk, int name, int size, bytes buffer)
cdef int set_ip_option(sock *sk, int name, const char *value, Py_ssize_t size) except -1
