"""What GRO costs a frame, beside the same loop without GRO."""

import pytest

from netstack._net import Net
from netstack.napi._testing import GroBench
from tests.napi.frames import Ip, Tcp, Udp, datagrams, stream

pytestmark = pytest.mark.bench


@pytest.mark.parametrize(
    ("frames", "limit_ns"),
    [(datagrams(Udp(), [18] * 64), 40), (stream(Tcp(), [18] * 64), 120)],
    ids=["UDP that nobody wants merged", "TCP that merges"],
)
def test_gro_is_a_small_part_of_the_60_ns_of_a_frame(frames: list[Ip], limit_ns: int) -> None:
    """The limits are five times what was measured; a clock read or a lock would break them."""
    with_gro, without = GroBench(Net()).cost([frame.bytes() for frame in frames], rounds=5000)
    assert with_gro - without < limit_ns
