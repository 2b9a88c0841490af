"""Build every ``.pyx`` of the tree as a module of its own.

Environment:

``NETSTACK_DEBUG=1``      bounds checks and invariants
``NETSTACK_SANITIZE=...`` ``address,undefined`` or ``thread``: the sanitizers of the C compiler
``NETSTACK_JOBS=n``       how many compilers may run at once; default: one for each CPU
"""

import multiprocessing
import os
import sysconfig
import time
from pathlib import Path

from Cython import __version__ as cython_version
from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

DEBUG = os.environ.get("NETSTACK_DEBUG") == "1"
SANITIZE = os.environ.get("NETSTACK_SANITIZE", "")
JOBS = int(os.environ.get("NETSTACK_JOBS") or len(os.sched_getaffinity(0)))
SOABI = sysconfig.get_config_var("SOABI")

os.chdir(Path(__file__).resolve().parent)

cflags = [
    "-fno-strict-aliasing",
    "-Wno-unused-function",
    "-Wno-sign-compare",
    "-fvisibility=hidden",
]
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

directives = {
    "language_level": 3,
    "boundscheck": DEBUG,
    "wraparound": False,
    "cdivision": True,
    "initializedcheck": DEBUG,
    "freethreading_compatible": True,
    "embedsignature": False,
}

extensions = [
    Extension(
        ".".join(path.with_suffix("").parts),
        [str(path)],
        extra_compile_args=cflags,
        extra_link_args=ldflags,
    )
    for path in sorted(Path("netstack").rglob("*.pyx"))
]


def translators():
    """How many processes may translate: none where they can't share a lock, as in a bare chroot."""
    try:
        multiprocessing.Lock()
    except OSError:  # no /dev/shm, or not ours to write
        return 0
    return JOBS


def translate(modules, build_dir, force=False):
    """Turn ``.pyx`` into C below ``build_dir``, where it is older than what it is made of."""
    return cythonize(
        modules,
        nthreads=translators(),
        force=force,
        build_dir=str(build_dir),
        compiler_directives=directives,
        emit_linenums=bool(SANITIZE),  # reports then name the line of the .pyx
    )


class BuildExt(build_ext):
    """Translate when extensions are built, and only then: metadata and sdist need no C.

    File times say which module is old. What no file time can say (other flags, another Cython)
    is in ``build/fingerprint``, and when that differs everything is built again.
    """

    def finalize_options(self):
        super().finalize_options()
        if self.parallel is None:
            self.parallel = JOBS

    def run(self):
        started = time.time()
        base = Path(self.get_finalized_command("build").build_base)
        fingerprint = repr((cflags, ldflags, directives, cython_version))
        recorded = base / "fingerprint"
        if not recorded.exists() or recorded.read_text() != fingerprint:
            self.force = True
            recorded.unlink(missing_ok=True)

        translated = translate(self.extensions, base / "cython", self.force)
        for extension, new in zip(self.extensions, translated, strict=True):
            extension.sources = new.sources
        # Modules are linked in one place, whatever they are for: a wheel and an editable
        # install take what `build_ext --inplace` has built already.
        wanted, self.build_lib = self.build_lib, str(base / f"lib.{SOABI}")
        self.build_temp = str(base / f"temp.{SOABI}")
        super().run()
        built, self.build_lib = self.build_lib, wanted
        if not self.inplace:
            for extension in self.extensions:
                self.copy(extension, Path(built), Path(wanted))

        base.mkdir(parents=True, exist_ok=True)
        recorded.write_text(fingerprint)
        if self.inplace:
            self.tidy()
            # tests/conftest.py and dev.sh compare sources with this file's time. A source saved
            # while the compiler ran must count as newer, hence the time of the start.
            stamp = base / f"inplace.{SOABI}"
            stamp.touch()
            os.utime(stamp, (started, started))

    def copy(self, extension, built, wanted):
        name = self.get_ext_filename(self.get_ext_fullname(extension.name))
        (wanted / name).parent.mkdir(parents=True, exist_ok=True)
        self.copy_file(str(built / name), str(wanted / name))

    def tidy(self):
        """Remove modules whose source has gone, so that no old code can be imported."""
        for module in Path("netstack").rglob("*.so"):
            if not module.with_name(module.name.split(".")[0] + ".pyx").exists():
                module.unlink()


if __name__ == "__main__":
    setup(cmdclass={"build_ext": BuildExt}, ext_modules=extensions)
