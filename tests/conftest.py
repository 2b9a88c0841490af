"""What holds for every test: modules as new as their sources, one hypothesis profile."""

import importlib.util
import signal
import sysconfig
from pathlib import Path

import pytest
from hypothesis import settings

pytest_plugins = (
    "tests.sent_frames",
    "tests.peer_errors",
    "tests.netns",
    "tests.left_behind",
)

ROOT = Path(__file__).resolve().parent.parent

# The same examples in every run: a red run can be repeated. `./dev.sh fuzz` looks for new ones.
settings.register_profile("default", derandomize=True, deadline=None, database=None)
settings.register_profile("fuzz", deadline=None, print_blob=True, max_examples=5000)
settings.load_profile("default")


def pytest_configure(config: pytest.Config) -> None:
    """Stop before old compiled code is tested, and hear Ctrl-C."""
    # A shell starts what is in its background with SIGINT ignored, nohup what it runs with SIGHUP; so would the
    # programs be that the tests end with them.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    spec = importlib.util.find_spec("netstack")
    if spec and spec.origin and Path(spec.origin).parent != ROOT / "netstack":
        return  # another build, such as that of `./dev.sh sanitize`
    if reason := stale(ROOT):
        pytest.exit(f"{reason}. Type: ./dev.sh build", returncode=pytest.ExitCode.USAGE_ERROR)


def stale(root: Path) -> str | None:
    """Return why the modules built in place are out of date, or None."""
    soabi = sysconfig.get_config_var("SOABI")
    stamp = root / "build" / f"inplace.{soabi}"
    sources = [*(root / "netstack").rglob("*.p[yx][xd]"), root / "setup.py"]
    modules = [path for path in sources if path.suffix == ".pyx"]
    if not modules:
        return None
    if not stamp.exists():
        return f"the compiled modules were not built for {soabi}"
    built = stamp.stat().st_mtime
    for source in sources:
        if source.stat().st_mtime > built:
            return f"{source.relative_to(root)} is newer than the compiled modules"
    for source in modules:
        if not source.with_suffix(f".{soabi}.so").exists():
            return f"{source.relative_to(root)} has no compiled module"
    return None
