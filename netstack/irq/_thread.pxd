"""What a CPU's thread asks of the system: to start, to sleep until an event, to be served first."""

from netstack._abi cimport u32, u64


cdef extern from *:
    """
    #include <errno.h>
    #include <linux/futex.h>
    #include <poll.h>
    #include <pthread.h>
    #include <sched.h>
    #include <signal.h>
    #include <sys/epoll.h>
    #include <sys/eventfd.h>
    #include <sys/prctl.h>
    #include <sys/resource.h>
    #include <sys/syscall.h>
    #include <sys/timerfd.h>
    #include <unistd.h>

    static inline void ns_futex_wait(uint32_t *p, uint32_t v) {
        syscall(SYS_futex, p, FUTEX_WAIT_PRIVATE, v, NULL, NULL, 0);
    }
    static inline void ns_futex_wake(uint32_t *p) { syscall(SYS_futex, p, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0); }
    static inline int ns_gettid(void) { return (int)syscall(SYS_gettid); }

    /* Python threads handle the signals: a CPU thread blocks them all. */
    static inline int ns_thread_start(pthread_t *t, void *(*fn)(void *), void *arg) {
        sigset_t all, old;
        int r;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &old);
        r = pthread_create(t, NULL, fn, arg);
        pthread_sigmask(SIG_SETMASK, &old, NULL);
        return r;
    }
    #define NS_IRQ_NICE (-10)
    static inline void ns_thread_setup(unsigned cpu) {
        char name[16];
        snprintf(name, sizeof name, "ksoftirqd/%u", cpu);
        pthread_setname_np(pthread_self(), name);
        prctl(PR_SET_TIMERSLACK, 1UL);     /* the default of 50 us would blur the throttle's timers */
        /* An interrupt does not wait for the program that runs. The nearest to that a thread can come: a slice
           of 0.1 ms, so that a wake-up is served before those who compute (Linux 6.12 and newer; no privilege
           needed), and a better nice value where that is allowed. Both may be refused. */
        {
            struct {
                uint32_t size, policy; uint64_t flags; int32_t nice; uint32_t priority;
                uint64_t runtime, deadline, period;
            } attr = {sizeof attr, SCHED_OTHER, 0, NS_IRQ_NICE, 0, 100000, 0, 0};
            if (syscall(SYS_sched_setattr, 0, &attr, 0) < 0) {
                attr.nice = 0;
                syscall(SYS_sched_setattr, 0, &attr, 0);
            }
        }
    }
    /* Of this thread. Refused as it was at the start: it stays 0 then. */
    static inline void ns_thread_nice(int nice) { setpriority(PRIO_PROCESS, 0, nice); }
    /* ns < 0: no limit. */
    static inline int ns_epoll_wait(int epfd, struct epoll_event *ev, int max, int64_t ns) {
        struct timespec ts;
        ts.tv_sec = ns / 1000000000; ts.tv_nsec = ns % 1000000000;
        return (int)syscall(SYS_epoll_pwait2, epfd, ev, max, ns < 0 ? NULL : &ts, NULL, 0);
    }
    /* Sleep until somebody writes into an eventfd. */
    static inline int ns_eventfd_wait(int fd, uint64_t ns) {
        struct pollfd p = {fd, POLLIN, 0};
        struct timespec ts = {(time_t)(ns / 1000000000), (long)(ns % 1000000000)};
        return (int)syscall(SYS_ppoll, &p, 1, &ts, NULL, 0);
    }
    static inline int ns_timer_arm(int fd, uint64_t ns) {
        struct itimerspec t = {{0, 0}, {(time_t)(ns / 1000000000), (long)(ns % 1000000000)}};
        return timerfd_settime(fd, 0, &t, NULL);
    }
    """
    ctypedef unsigned long pthread_t
    int pthread_join(pthread_t t, void **result) nogil
    int sched_yield() noexcept nogil
    void futex_wait "ns_futex_wait"(u32 *p, u32 v) noexcept nogil
    void futex_wake "ns_futex_wake"(u32 *p) noexcept nogil
    int gettid "ns_gettid"() noexcept nogil
    int thread_start "ns_thread_start"(pthread_t *t, void *(*fn)(void *) noexcept nogil, void *arg) noexcept
    void thread_setup "ns_thread_setup"(u32 cpu) noexcept nogil
    void thread_nice "ns_thread_nice"(int nice) noexcept nogil
    int IRQ_NICE "NS_IRQ_NICE"
    int epoll_wait_ns "ns_epoll_wait"(int epfd, epoll_event *ev, int max, long long ns) noexcept nogil
    int eventfd_wait "ns_eventfd_wait"(int fd, u64 ns) noexcept nogil
    int timer_arm "ns_timer_arm"(int fd, u64 ns) noexcept nogil
    int EPOLL_CTL_ADD, EPOLL_CTL_DEL, EPOLL_CLOEXEC, EFD_CLOEXEC, EFD_NONBLOCK, EFD_SEMAPHORE, TFD_CLOEXEC, TFD_NONBLOCK
    int CLOCK_MONOTONIC
    unsigned EPOLLIN, EPOLLET
    ctypedef union epoll_data_t:
        void *ptr
    struct epoll_event:
        unsigned events
        epoll_data_t data
    int epoll_create1(int flags) nogil
    int epoll_ctl(int epfd, int op, int fd, epoll_event *event) nogil
    int eventfd(unsigned initial, int flags) nogil
    int timerfd_create(int clock, int flags) nogil
