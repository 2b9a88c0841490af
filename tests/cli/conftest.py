"""A control socket with a host behind it that is only its answers, and the command line on it."""

import json

import pytest

from netstack import runtime
from netstack.cli import main
from netstack.commands import COMMANDS, Running
from netstack.control import ControlServer
from tests.fakehost import FakeHost


@pytest.fixture
def directory(tmp_path, monkeypatch):
    """Give the runtime directory of this test alone."""
    path = tmp_path / "run"
    path.mkdir(mode=0o700)
    monkeypatch.setattr(runtime, "runtime_dir", lambda: path)
    return path


@pytest.fixture
def serve(directory):
    """Return a function that puts a host on the control socket NAME."""
    servers = []

    def start(host, name="tap0", **options):
        server = ControlServer(name, directory, Running(host, name, **options), COMMANDS)
        server.start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def host(serve):
    host = FakeHost()
    serve(host)
    return host


@pytest.fixture
def netstack(capsys):
    """Run one command line; give exit status, output and error output."""

    def run(*words):
        status = main([str(word) for word in words])
        out, err = capsys.readouterr()
        return status, out, err

    return run


@pytest.fixture
def good(netstack):
    """Run a command line that succeeds; give its output, as JSON if it asked for it."""

    def run(*words):
        status, out, err = netstack(*words)
        assert (status, err) == (0, "")
        return json.loads(out) if "--json" in words else out

    return run


@pytest.fixture
def refused(netstack):
    """Run a command line that is refused; give what it says, which ends with what to type."""

    def run(*words):
        status, out, err = netstack(*words)
        assert status == 2
        assert out == ""
        lines = err.splitlines()
        assert lines[0].startswith("netstack: ")
        assert len(lines) > 1
        assert all(line.startswith("  try: ") for line in lines[1:])
        return err

    return run
