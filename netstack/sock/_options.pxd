"""Socket options; see ``_options.pyx``."""

from netstack.sock._sock cimport sock

cdef object get_option(sock *sk, int level, int name, int size, bytes buffer)
cdef int set_option(sock *sk, int level, int name, const char *value, Py_ssize_t size) except -1
cdef int set_option_value(sock *sk, int level, int name, object value, object length) except -1
