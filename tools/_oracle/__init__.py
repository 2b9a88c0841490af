"""The machinery that asks the kernel: the same frames to it and to netstack, and the answers compared.

kernel.py is the kernel as a host on a TAP, trace.py its drop reasons, ours.py netstack on a wire in
memory, compare.py the two side by side, gro.py the kernel's GRO beside ours. The frames come from
tests/proto and tests/napi. tools/kernel_oracle.py runs it all, and the tests run a part.
"""
