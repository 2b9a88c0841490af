"""Masks of CPUs as text: hexadecimal digits, 32 bits at most between two commas.

What is refused is what Linux 6.18 refuses, and what is printed is as wide as it prints it: a digit for
each four CPUs. [bitmap_parse(), %*pb of vsprintf()]
"""

from __future__ import annotations

import errno
import re

from netstack.errors import oserror

WORD = 32  # bits between two commas
ALLOWED = "a mask of the host's CPUs in hexadecimal: bit 0 is CPU 0"


def text(mask: int, cpus: int) -> str:
    """Print a mask: ``3`` for the first two of up to four CPUs, ``0003`` of sixteen."""
    words = []
    for low in range(0, cpus, WORD):
        width = -(-min(cpus - low, WORD) // 4)
        words.append(f"{mask >> low & 0xFFFFFFFF:0{width}x}")
    return ",".join(reversed(words))


def parse(given: str, cpus: int, what: str, hint: str) -> int:
    """Read a mask. ``what`` it is for, and the ``hint`` what to type, are of the error's text.

    Raises OSError: EINVAL for what is no hexadecimal digit, EOVERFLOW for CPUs that the host does not have.
    """
    highest = f"{(1 << cpus) - 1:x}"
    allowed = f"allowed: hexadecimal digits, 0 to {highest} ({cpus} CPU{'s' * (cpus > 1)})"
    words = [word for word in re.split(r"[\s,]+", given.strip(" \t\n")) if word]
    if not re.fullmatch(r"[0-9a-fA-F,\s]*", given):
        raise oserror(errno.EINVAL, f"{what} = {given!r} is refused; {allowed}", hint=hint)
    mask = int("".join(f"{int(word, 16):08x}" for word in words) or "0", 16)
    long = any(len(word) > WORD // 4 for word in words) or len(words) > -(-cpus // WORD)
    if long or mask >> cpus:
        raise oserror(errno.EOVERFLOW, f"{what} = {given!r} is refused; {allowed}", hint=hint)
    return mask
