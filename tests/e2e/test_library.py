"""A host in a program: commands of another terminal find it, unless the program says no."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

import netstack
from netstack import runtime
from netstack.control_client import hosts
from tests.e2e.conftest import HOST
from tests.netns import fresh_netns

pytestmark = pytest.mark.tap

NAME = f"t{os.getpid() % 1_000_000}"


def ask(*words: str) -> subprocess.CompletedProcess[str]:
    """Type a command in another terminal."""
    command = [sys.executable, "-m", "netstack", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_the_commands_answer_about_the_host_of_a_program():
    with fresh_netns(), netstack.up(NAME, addr=f"{HOST}/24") as host, host.socket() as sock:
        sock.bind((HOST, 4242))
        (row,) = json.loads(ask("--name", NAME, "ss", "-a", "--json").stdout)
        assert row["pid"] == os.getpid()
        refused = ask("--name", NAME, "stop")
        assert refused.returncode == 2
        assert "belongs to a program" in refused.stderr
    assert NAME not in hosts(runtime.runtime_dir())


def test_a_second_host_of_the_name_has_the_pid_behind_it():
    with (
        fresh_netns(),
        netstack.up(NAME, addr=f"{HOST}/24"),
        fresh_netns(),
        netstack.up(NAME, addr=f"{HOST}/24"),
    ):
        running = hosts(runtime.runtime_dir())
        assert {NAME, f"{NAME}-{os.getpid()}"} <= set(running)


def test_a_program_can_keep_its_host_to_itself():
    with fresh_netns(), netstack.up(NAME, addr=f"{HOST}/24", control=False):
        assert NAME not in hosts(runtime.runtime_dir())


def test_a_host_comes_up_where_no_control_socket_can_be(monkeypatch):
    def refuse():
        raise PermissionError("not here")

    monkeypatch.setattr("netstack.live.runtime_dir", refuse)
    with fresh_netns(), netstack.up(NAME, addr=f"{HOST}/24") as host:
        assert host.devices[1].name == NAME
