"""What a piece of hardware is to the machine: something to run, and an interrupt line a vector.

Hardware has no thread here. Whoever is CPU n runs the hardware on n's bus between two steps of its own, as if both
went on at once. The lines (MSI-X messages) go to whatever the machine connected: ``irq/`` does.
"""

from netstack._abi cimport u32, u64


cdef struct hw_device:
    # Run the hardware for a moment: move at most `budget` frames off the wire into posted descriptors, write back,
    # set causes, run timers, fire vectors. Gives the number of frames moved. Safe to call at any time.
    u32 (*step)(hw_device *hw, u64 now, u32 budget) noexcept nogil
    # When a timer of the hardware (the interrupt throttle) runs out, ns; 0 for none.
    u64 (*deadline)(hw_device *hw) noexcept nogil
    # The wire may have frames again (its fd became readable).
    void (*wire_ready)(hw_device *hw) noexcept nogil
    # True when a step would do something: frames on the wire and a descriptor free, or a latched cause.
    bint (*busy)(hw_device *hw) noexcept nogil
    # Message-signalled interrupt `vector`: set by who connects the lines.
    void (*fire)(void *arg, u32 vector) noexcept nogil
    void *fire_arg
    int fd                         # of the wire
    void *priv
    void *faults                   # netstack.testing.faults: what stands before these functions, or NULL
