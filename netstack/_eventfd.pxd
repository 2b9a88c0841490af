"""What eventfd(2) and poll(2) are called in C: a descriptor that one thread makes readable and another waits for."""

cdef extern from "<poll.h>" nogil:
    struct pollfd:
        int fd
        short events
        short revents
    int poll(pollfd *fds, unsigned long count, int timeout_ms)
    short POLLIN

cdef extern from "<sys/eventfd.h>" nogil:
    int eventfd(unsigned initial, int flags)
    int EFD_CLOEXEC, EFD_NONBLOCK, EFD_SEMAPHORE
