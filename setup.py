"""Build every ``.pyx`` of the tree as a module of its own.

``NETSTACK_DEBUG=1`` builds with bounds checks and invariants, and ``NETSTACK_SANITIZE=address,undefined``
(or ``thread``) with the sanitizers of the C compiler.
"""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup

DEBUG = os.environ.get("NETSTACK_DEBUG") == "1"
SANITIZE = os.environ.get("NETSTACK_SANITIZE", "")

cflags = ["-fno-strict-aliasing", "-Wno-unused-function", "-fvisibility=hidden"]
ldflags = []
if SANITIZE:
    cflags += [f"-fsanitize={SANITIZE}", "-fno-omit-frame-pointer", "-g", "-O1"]
    ldflags += [f"-fsanitize={SANITIZE}"]
elif DEBUG:
    cflags += ["-O0", "-g"]
else:
    cflags += ["-O3", "-g1"]
if DEBUG or SANITIZE:
    cflags += ["-DNETSTACK_DEBUG=1"]

root = Path(__file__).resolve().parent
os.chdir(root)
extensions = [
    Extension(
        ".".join(path.with_suffix("").parts),
        [str(path)],
        extra_compile_args=cflags,
        extra_link_args=ldflags,
    )
    for path in sorted(Path("netstack").rglob("*.pyx"))
]

setup(
    ext_modules=cythonize(
        extensions,
        nthreads=0,
        build_dir="build/cython",
        compiler_directives={
            "language_level": 3,
            "boundscheck": DEBUG,
            "wraparound": False,
            "cdivision": True,
            "initializedcheck": DEBUG,
            "freethreading_compatible": True,
            "embedsignature": False,
        },
    ),
)
