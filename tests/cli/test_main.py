"""The front door: help, options before the command, mistakes, how fast it answers."""

import os
import re
import subprocess
import sys

import pytest

from netstack.cli import COMMANDS, EXIT_SIGPIPE, help_text
from netstack.cli.command import table


def test_help_names_every_command(good):
    text = good("--help")
    assert text == help_text() == good("help")
    for name in COMMANDS:
        assert re.search(rf"^  {name} ", text, re.MULTILINE)


def test_no_command_is_answered_with_help_and_status_2(netstack):
    assert netstack() == (2, help_text(), "")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_commands_help_has_an_example(name, capsys, netstack):
    try:
        status, out, _ = netstack(name, "--help")
    except SystemExit as end:  # argparse's own way out
        status, out = end.code, capsys.readouterr().out
    assert status == 0
    assert out.startswith("usage: netstack ")
    _, _, examples = out.partition("examples\n")
    assert f"netstack {name}" in examples
    assert max(map(len, out.splitlines())) <= 100


def test_help_imports_nothing_heavy_and_no_compiled_module():
    code = (
        "import sys; from netstack.cli import main; main(['--help']);"
        "print(*[m for m in sys.modules if m.startswith('netstack') or "
        "m in ('argparse', 'pyroute2', 'scapy', 'json', 'socket')], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert sorted(done.stderr.split()) == ["netstack", "netstack.cli", "netstack.errors"]


def test_version_is_the_packages(good):
    assert re.fullmatch(r"netstack \d+\.\d+\.\d+\n", good("--version"))


def test_an_unknown_command_gets_the_nearest(refused):
    assert "try: netstack nstat" in refused("nsat")
    assert "try: netstack --help" in refused("frobnicate")


def test_options_before_the_command_are_checked(refused):
    assert "unknown option --frob" in refused("--frob", "ss")
    assert "try: netstack ss --json" in refused("--json", "ss")
    for words in (("-i",), ("-i", ""), ("--name=", "ss"), ("--name",)):
        assert "wants the name" in refused(*words)


def test_help_in_front_of_a_command_is_help_on_it(good, capsys):
    for words in (("-h", "drops"), ("help", "drops"), ("-i", "tap1", "--help", "drops")):
        with pytest.raises(SystemExit):
            good(*words)
        assert capsys.readouterr().out.startswith("usage: netstack drops")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_closed_standard_stream_is_as_good_as_dev_null(closed):
    command = f'"{sys.executable}" -m netstack --version {closed}; echo $?'
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0"
    assert not done.stderr


def test_who_reads_the_errors_may_have_left_before_they_come():
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "netstack", "frob"], stderr=writer, stdout=subprocess.PIPE
    )
    os.close(writer)
    assert (done.returncode, done.stdout) == (EXIT_SIGPIPE, b"")


def test_an_unknown_option_of_a_command_gets_an_example(refused):
    assert "try: netstack ss -uan" in refused("ss", "-q")


def test_without_a_host_the_way_to_one_is_shown(directory, refused):
    for words in (("ss",), ("nstat",), ("drops",), ("ethtool", "-S", "tap0"), ("capture",)):
        error = refused(*words)
        assert "no host of yours is running" in error
        assert "try: netstack up tap0" in error


def test_a_host_is_found_by_name_before_and_after_the_command(host, serve, good, refused):
    serve(host, "tap1")
    assert "2 hosts are running" in refused("ledger")
    assert "balanced" in good("-i", "tap1", "ledger")
    assert "balanced" in good("--name=tap1", "ledger")
    assert "balanced" in good("ledger", "--name", "tap0")
    assert "no host named tap9" in refused("-i", "tap9", "ledger")


def test_a_reader_that_leaves_is_no_error():
    done = subprocess.run(
        f"set -o pipefail; {sys.executable} -m netstack --help | true",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    assert done.returncode in (0, 141)  # it may have been quicker than the reader


def test_python_m_netstack_is_the_same_command():
    done = subprocess.run(
        [sys.executable, "-m", "netstack", "nsat"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr.startswith("netstack: there is no command 'nsat'")


def test_a_table_lines_up():
    assert table(["cpu", "0"], [["processed", 1234567], ["dropped", 0]]) == (
        "cpu                0\nprocessed  1,234,567\ndropped            0"
    )


def test_a_tree_that_is_not_built_says_how_to_build_it(netstack, monkeypatch):
    monkeypatch.setitem(sys.modules, "netstack.cli.ss", None)
    status, out, err = netstack("ss")
    assert (status, out) == (1, "")
    assert err == "netstack: netstack.cli.ss is not built\n  try: ./dev.sh build\n"
