"""Masks of CPUs as text: what Linux 6.18 said to each of these on a machine with two CPUs."""

import errno

import pytest

from netstack import cpumask


@pytest.mark.parametrize(
    ("given", "mask"),
    [
        ("1", 1),
        ("3", 3),
        ("0", 0),
        (" 2 ", 2),
        ("3\n", 3),
        (",1", 1),
        ("1,", 1),
        ("00000003", 3),
    ],
)
def test_what_the_kernel_takes(given, mask):
    assert cpumask.parse(given, 2, "rps_cpus", "") == mask


@pytest.mark.parametrize(
    ("given", "number"),
    [
        *((each, errno.EOVERFLOW) for each in ("f", "10", "3,00000000", "1,2", "1 2")),
        *((each, errno.EOVERFLOW) for each in ("000000003", "100000000", "00000000,00000003")),
        *((each, errno.EINVAL) for each in ("0x3", "g", "-1")),
    ],
)
def test_what_the_kernel_refuses(given, number):
    with pytest.raises(
        OSError, match=r"allowed: hexadecimal digits, 0 to 3 \(2 CPUs\)"
    ) as info:
        cpumask.parse(given, 2, "rps_cpus", "")
    assert info.value.errno == number


def test_a_mask_is_as_wide_as_the_cpus():
    assert [cpumask.text(3, cpus) for cpus in (2, 4, 5, 16)] == ["3", "3", "03", "0003"]
    assert cpumask.text(1 << 40 | 3, 64) == "00000100,00000003"
    assert cpumask.text(3, 36) == "0,00000003"
