"""Say what this machine lacks for netstack, and the exact line that mends it.

Each check is a function of what it looks at, so that a test can show it a machine that is
broken in one way. A check that is not essential costs a feature or speed, not the program.
"""

from __future__ import annotations

import errno
import importlib
import importlib.metadata
import importlib.util
import os
import platform
import shlex
import shutil
import socket
import stat
import sys
import sysconfig
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from netstack import lab
from netstack.addresses import DEFAULT_ADDRESS, parse_addresses
from netstack.device import tap
from netstack.device.link import list_links
from netstack.device.tap_errors import IFF_TAP, MISC, open_error, own_tap, user_name
from netstack.errors import hint_of
from netstack.runtime import runtime_dir

PACKAGE = Path(__file__).parent
OLDEST_KERNEL = (5, 11)  # epoll_pwait2(), which a CPU sleeps in
# Where sudo looks for commands, whatever the user's PATH is (Debian's and Ubuntu's sudoers).
SUDO_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. If it is not ok, `fix` is what to type, line by line."""

    name: str
    ok: bool
    detail: str
    fix: str = ""
    essential: bool = True


def checks(*, device: Path = tap.TUN_DEVICE) -> list[Check]:
    """Look at everything, in about a second and without privilege."""
    found = [
        check_system(sys.platform, platform.release(), platform.machine()),
        check_modules(PACKAGE),
        check_package("pyroute2", essential=True),
        check_package("scapy", essential=False),
        check_libpcap(_libpcap_version),
        check_device(device),
    ]
    taps = own_taps(os.geteuid()) if found[2].ok else []
    privilege = check_privilege(lab.may_administer(), taps, lambda: lab.errno_of(lab.enter))
    found.append(privilege)
    if found[-2].ok and privilege.ok and not taps:
        found += check_tap(device)
    directory = check_runtime(runtime_dir)
    found.append(directory)
    if directory.ok:
        found.append(check_sockets(runtime_dir()))
    return [
        *found,
        check_sudo(SUDO_PATH),
        check_cpus(len(os.sched_getaffinity(0)), os.cpu_count() or 1),
    ]


def ready(found: Iterable[Check]) -> bool:
    """Tell whether netstack can run: every essential check is ok."""
    return all(check.ok or not check.essential for check in found)


def as_text(found: Iterable[Check]) -> str:
    """Return a line a check, and below a failed one what to type."""
    lines = []
    for check in found:
        state = "ok" if check.ok else "FAIL" if check.essential else "warn"
        lines.append(f"{state:<4}  {check.name:<12}  {check.detail}")
        lines += [f"{'':<20}type: {line}" for line in check.fix.splitlines()]
    return "\n".join(lines)


def as_dicts(found: Iterable[Check]) -> list[dict[str, Any]]:
    """Return the checks for JSON."""
    return [asdict(check) for check in found]


def check_system(system: str, release: str, machine: str) -> Check:
    """Look at the kernel. `release` is what uname -r prints."""
    if system != "linux":
        detail = f"{system}; a TAP is a thing of Linux. Hosts on memory wires work here"
        return Check("system", False, detail, "python -c 'import netstack.testing'")
    try:
        name = platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        name = ""
    numbers = tuple(
        int(part) for part in release.split("-")[0].split(".")[:2] if part.isdigit()
    )
    detail = ", ".join(filter(None, [f"Linux {release}", name, machine]))
    if numbers < OLDEST_KERNEL:
        detail += f"; {'.'.join(map(str, OLDEST_KERNEL))} is the oldest that is known to work"
        return Check("system", False, detail, "sudo apt-get dist-upgrade")
    return Check("system", True, detail)


def check_modules(package: Path, suffix: str | None = None) -> Check:
    """Import every compiled module below `package`; a stub tells of each."""
    here = suffix or str(sysconfig.get_config_var("EXT_SUFFIX"))
    source = package.parent / "setup.py"
    python = shlex.quote(sys.executable)
    fix = f"{python} -m pip install --force-reinstall --no-cache-dir netstack"
    if source.exists():
        fix = f"cd {shlex.quote(str(package.parent))} && ./dev.sh build"
    stubs = sorted(package.rglob("_*.pyi"))
    for stub in stubs:
        if not stub.with_name(stub.stem + here).exists():
            others = [path.name for path in stub.parent.glob(f"{stub.stem}.*.so")]
            built = f"only {', '.join(others)}" if others else "nothing"
            detail = f"{stub.stem} is not built for this Python ({here}): there is {built}"
            return Check("modules", False, detail, fix)
        name = ".".join([package.name, *stub.relative_to(package).with_suffix("").parts])
        try:
            importlib.import_module(name)
        except ImportError as error:
            return Check("modules", False, f"{name} cannot be imported: {error}", fix)
    detail = f"{len(stubs)} compiled modules for Python {platform.python_version()}"
    return Check("modules", bool(stubs), detail, "" if stubs else fix)


def check_package(name: str, *, essential: bool) -> Check:
    """Look for a Python package, without importing it."""
    if importlib.util.find_spec(name) is None:
        fix = f"{shlex.quote(sys.executable)} -m pip install {name}"
        return Check(name, False, f"not installed for {sys.executable}", fix, essential)
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        version = "version unknown"
    return Check(name, True, version, essential=essential)


def check_libpcap(version: Callable[[], str]) -> Check:
    """Load libpcap, which compiles the filters of `netstack capture`."""
    try:
        return Check("libpcap", True, version(), essential=False)
    except OSError as error:
        fix = hint_of(error) or "sudo apt-get install libpcap0.8"
        return Check("libpcap", False, error.strerror or str(error), fix, essential=False)


def check_device(path: Path, *, misc: Path = MISC, uid: int | None = None) -> Check:
    """Open the TUN device, as this user; `uid` is only named."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC))
        found = path.stat()
    except OSError as error:
        why = open_error(error.errno or errno.EIO, path, misc=misc, uid=uid)
        return Check("tun device", False, str(why.strerror), hint_of(why))
    if not stat.S_ISCHR(found.st_mode) or found.st_rdev != os.makedev(10, 200):
        fix = f"sudo rm {path} && sudo mknod -m 0666 {path} c 10 200"
        return Check(
            "tun device", False, f"{path} is not the TUN device (character 10, 200)", fix
        )
    return Check("tun device", True, f"{path} opens, mode {stat.S_IMODE(found.st_mode):04o}")


def own_taps(uid: int) -> list[str]:
    """Return the persistent TAPs here that this user may open without privilege."""
    return [
        link.name for link in list_links() if link.tun_type == IFF_TAP and link.owner == uid
    ]


def check_privilege(
    administrator: bool, taps: list[str], enter: Callable[[], int], *, proc: Path = lab.PROC
) -> Check:
    """Find the way to a TAP: `taps` are the user's, `enter` tries a lab and gives its errno."""
    if administrator:
        return Check("privilege", True, "CAP_NET_ADMIN: TAPs can be made here")
    if taps:
        return Check("privilege", True, f"persistent TAPs of this user: {', '.join(taps)}")
    number = enter()
    if number == 0:
        detail = f"user {user_name(os.geteuid())} can make a network of his own (a lab)"
        return Check("privilege", True, detail)
    why = lab.refusal(number, proc=proc)
    own = own_tap("tap0", os.geteuid(), parse_addresses(DEFAULT_ADDRESS)[1])
    return Check("privilege", False, str(why.strerror), f"{hint_of(why)}\n{own}")


def check_tap(device: Path) -> list[Check]:
    """Make TAPs, in a network namespace that ends with the child that makes them."""
    number = lab.errno_of(lambda: _make_tap(device, vnet_hdr=False, offload=0))
    if number:
        detail = f"a TAP cannot be made: {os.strerror(number)}"
        return [Check("tap", False, detail, "sudo netstack doctor")]
    found = [Check("tap", True, "a TAP can be made")]
    offload = tap.TUN_F_CSUM | tap.TUN_F_TSO4 | tap.TUN_F_USO4 | tap.TUN_F_USO6
    number = lab.errno_of(lambda: _make_tap(device, vnet_hdr=True, offload=offload))
    detail = "many datagrams cross the TAP in one read (VNET_HDR, USO)"
    if number:
        detail = f"no USO ({os.strerror(number)}); one frame a read, as before Linux 6.2"
    fix = "sudo apt-get dist-upgrade" if number else ""
    return [*found, Check("offloads", number == 0, detail, fix, essential=False)]


def check_runtime(directory: Callable[[], Path]) -> Check:
    """Look for the place of control sockets."""
    try:
        return Check("sockets", True, f"control sockets go to {directory()}")
    except OSError as error:
        return Check("sockets", False, error.strerror or str(error), hint_of(error))


def check_sockets(directory: Path) -> Check:
    """Look for control sockets that nobody listens to any more."""
    stale = [path for path in sorted(directory.glob("*.sock")) if not _answers(path)]
    if not stale:
        return Check("stale", True, "no control socket of a dead process", essential=False)
    names = " ".join(shlex.quote(str(path)) for path in stale)
    detail = f"control sockets of dead processes: {', '.join(path.stem for path in stale)}"
    return Check("stale", False, detail, f"rm {names}", essential=False)


def check_sudo(path: str, *, mine: Path | None = None) -> Check:
    """Look whether `sudo netstack` finds the program: sudo has a PATH of its own."""
    program = mine or Path(sys.executable).parent / "netstack"
    found = shutil.which("netstack", path=path)
    if found is not None:
        return Check("sudo", True, f"sudo netstack is {found}", essential=False)
    if not program.exists():
        detail = "the command netstack is not installed; `python -m netstack` is the same"
        fix = f"{shlex.quote(sys.executable)} -m pip install netstack"
        return Check("sudo", False, detail, fix, essential=False)
    fix = f"sudo ln -s {shlex.quote(str(program))} /usr/local/bin/netstack"
    detail = f"sudo does not look where {program} is"
    return Check("sudo", False, detail, fix, essential=False)


def check_cpus(usable: int, present: int) -> Check:
    """Count the CPUs that this process may use, and those of the machine."""
    if usable >= 2:
        return Check("cpus", True, f"{usable}", essential=False)
    detail = "1: sender, host and application share it, so rates and latencies are poor"
    fix = f"taskset -c 0-{present - 1} netstack up tap0" if present > 1 else ""
    return Check("cpus", False, detail, fix, essential=False)


def _libpcap_version() -> str:
    from netstack.capture.bpf import libpcap_version

    return libpcap_version()


def _make_tap(device: Path, *, vnet_hdr: bool, offload: int) -> None:
    """Make a TAP with these features; runs in a child, which is the lab's only process."""
    if not lab.may_administer():
        lab.enter()
    else:
        lab.own_network()
    with tap.open_tap("netstack0", vnet_hdr=vnet_hdr, device=device) as wire:
        wire.set_offload(offload)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True  # busy, or not ours to judge
    return True
