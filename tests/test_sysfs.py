"""Files below /sys/class/net: what they show, what is refused, and that a refused value changes nothing."""

from __future__ import annotations

import errno
import subprocess

import pytest

from netstack import commands, sysfs
from netstack.errors import UsageError, hint_of
from tests.memory_host import memory_host

QUEUE = "class/net/tap0/queues/rx-0/"
CPUS, FLOWS = QUEUE + "rps_cpus", QUEUE + "rps_flow_cnt"


@pytest.fixture
def host():
    with memory_host(cpus=2) as it:
        yield it.host


def test_every_file_can_be_read(host):
    files = {path: sysfs.read(host, path) for path in sysfs.names(host)}
    assert files[CPUS] == "0\n"
    assert files[FLOWS] == "0\n"
    assert files["class/net/lo/queues/rx-0/rps_cpus"] == "0\n"
    assert files["class/net/tap0/address"] == "02:00:00:00:00:02\n"
    assert files["class/net/tap0/mtu"] == "1500\n"
    assert files["class/net/tap0/statistics/rx_packets"] == "0\n"


def test_masks_and_tables_are_written_and_read_back(host):
    sysfs.write(host, "/sys/" + CPUS, "3\n")
    assert sysfs.read(host, CPUS) == "3\n"
    sysfs.write(host, FLOWS, "100")
    assert sysfs.read(host, FLOWS) == "128\n"
    sysfs.write(host, FLOWS, "0")
    sysfs.write(host, CPUS, "0")
    assert sysfs.read(host, FLOWS) + sysfs.read(host, CPUS) == "0\n0\n"


@pytest.mark.parametrize("text", ["-1", "x", "7 8", "99999999999", ""])
def test_a_table_of_no_size_is_refused(host, text):
    sysfs.write(host, FLOWS, "16")
    with pytest.raises(OSError, match="allowed: 0 to 1048576 flows") as info:
        sysfs.write(host, FLOWS, text)
    assert info.value.errno == errno.EINVAL
    assert sysfs.read(host, FLOWS) == "16\n"


def test_of_several_values_all_are_written_or_none(host):
    it = commands.Running(host, "tap0")
    with pytest.raises(OSError, match="rps_cpus = '4' is refused"):
        commands.set_sys(it, {FLOWS: "64", CPUS: "4"})
    assert sysfs.read(host, FLOWS) == "0\n"
    assert commands.set_sys(it, {FLOWS: "64", CPUS: "2"}) == {FLOWS: "64\n", CPUS: "2\n"}


def test_what_can_only_be_read_and_what_is_not_there_say_so(host):
    with pytest.raises(PermissionError, match="can only be read"):
        sysfs.write(host, "class/net/tap0/address", "1")
    with pytest.raises(UsageError, match="there is no file") as info:
        sysfs.read(host, "class/net/tap0/queues/rx-0/rps_cpu")
    assert f"netstack sys {CPUS}" in hint_of(info.value)
    with pytest.raises(UsageError, match="there is no file"):
        sysfs.read(host, "class/net/tap0/queues/rx-9/rps_cpus")


def test_sysctls_of_rps_round_and_refuse_as_linux_does(host):
    config = host.config
    config["net.core.rps_sock_flow_entries"] = "1000"
    assert config["net.core.rps_sock_flow_entries"] == 1024
    config["net.core.rps_sock_flow_entries"] = 0
    config["net.core.flow_limit_table_len"] = 8192
    for name, wrong in (("rps_sock_flow_entries", "-1"), ("flow_limit_table_len", "100"),
                        ("flow_limit_table_len", "0"), ("dev_weight_rx_bias", "0")):  # fmt: skip
        with pytest.raises(UsageError, match="is refused; allowed: "):
            config["net.core." + name] = wrong
    assert config["net.core.flow_limit_table_len"] == 8192
    config["net.core.flow_limit_cpu_bitmap"] = "2"
    assert config.text("net.core.flow_limit_cpu_bitmap") == "2"
    with pytest.raises(OSError, match="flow_limit_cpu_bitmap = 'f' is refused") as info:
        config["net.core.flow_limit_cpu_bitmap"] = "f"
    assert info.value.errno == errno.EOVERFLOW
    with pytest.raises(UsageError):
        config["net.core.flow_limit_cpu_bitmap"] = 4
    assert config["net.core.flow_limit_cpu_bitmap"] == 2


LINUX = """
mount -t sysfs none /mnt && cd /mnt/class/net/lo/queues/rx-0 || exit 9
for v in $0; do printf %s $v > rps_cpus && cat rps_cpus; done
for v in 1 3 100 4096 0; do printf %s $v > rps_flow_cnt && cat rps_flow_cnt; done
"""


def digits(text: str) -> list[str]:
    """Give the lines without the digits of CPUs that only one side has."""
    return [line.replace(",", "").lstrip("0") or "0" for line in text.splitlines()]


@pytest.mark.tap
def test_texts_are_those_of_this_kernel():
    with open("/sys/devices/system/cpu/possible") as file:
        cpus = int(file.read().strip().rpartition("-")[2]) + 1
    masks = "1302" if cpus > 1 else "10"
    ran = subprocess.run(
        ["unshare", "-n", "-m", "sh", "-c", LINUX, " ".join(masks)],
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode == 9:
        pytest.skip("no sysfs can be mounted here")
    ours = []
    most = 16  # CPUs of a host
    with memory_host(cpus=min(cpus, most)) as it:
        for path, values in ((CPUS, masks), (FLOWS, ("1", "3", "100", "4096", "0"))):
            for value in values:
                sysfs.write(it.host, path, value)
                ours.append(sysfs.read(it.host, path))
    show = digits if cpus > most else str.splitlines
    assert show("".join(ours)) == show(ran.stdout)
