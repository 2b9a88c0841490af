"""The Python side of ``_counters.pxd``: the enums as ``IntEnum``, nothing else."""
