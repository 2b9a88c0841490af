"""Causes, masks, the throttle, and what reading and writing their registers does."""

from __future__ import annotations

from netstack._net import Net
from netstack.device._testing import BareNic, Source
from tests.igb import MAC_BYTES, udp

MICROSECOND = 1000
GPIE_EIAME = 0x40000000
CNT_IGNR = 0x80000000


def receiving(frames: int = 0) -> tuple[BareNic, Source]:
    """Make a NIC whose receive queue has vector 1."""
    source = Source(udp(), frames)
    nic = BareNic(Net(1), source.address, MAC_BYTES)
    nic.write("CTRL", 0x40)
    nic.write("RCTL", 2 | 0x8000)
    nic.write("IVAR0", 0x8181)
    nic.write("IVAR_MISC", 0x8000)
    nic.post(63)
    return nic, source


def test_a_frame_latches_the_cause_of_its_queue():
    nic, _ = receiving(1)
    nic.step()
    assert nic.read("EICR") == 2
    assert nic.fires == [0] * 10


def test_a_masked_cause_waits_until_it_is_unmasked():
    nic, _ = receiving(1)
    nic.step()
    nic.write("EIMS", 2)
    assert nic.busy
    nic.run()
    assert nic.fires[1] == 1


def test_a_vector_fires_once_for_many_frames():
    nic, _ = receiving(20)
    nic.write("EIMS", 2)
    nic.write("EIAC", 2)
    nic.step()
    nic.run()
    assert nic.fires[1] == 1


def test_eiac_clears_the_cause_when_the_vector_fires():
    nic, _ = receiving(1)
    nic.write("EIMS", 2)
    nic.write("EIAC", 2)
    nic.step()
    assert nic.read("EICR") == 0
    assert nic.read("EIMS") == 2


def test_eiam_masks_the_vector_when_it_fires_if_eiame_is_set():
    for gpie, mask in ((0, 2), (GPIE_EIAME, 0)):
        nic, _ = receiving(1)
        nic.write("GPIE", gpie)
        nic.write("EIAM", 2)
        nic.write("EIMS", 2)
        nic.step()
        assert nic.read("EIMS") == mask


def test_masks_are_set_and_cleared_bit_by_bit():
    nic, _ = receiving()
    nic.write("EIMS", 3)
    nic.write("EIMS", 4)
    nic.write("EIMC", 1)
    assert nic.read("EIMS") == 6
    nic.write("IMS", 4)
    nic.write("IMS", 1)
    nic.write("IMC", 4)
    assert nic.read("IMS") == 1


def test_eicr_is_cleared_by_reading_and_by_writing_ones():
    nic, _ = receiving()
    nic.write("EICS", 7)
    nic.write("EICR", 2)
    assert nic.read("EICR") == 5
    assert nic.read("EICR") == 0


def test_icr_is_cleared_by_reading_and_iam_masks():
    nic, _ = receiving()
    nic.read("ICR")
    nic.write("IMS", 5)
    nic.write("IAM", 4)
    nic.write("ICS", 4)
    assert nic.read("ICR") == 0x80000004
    assert nic.read("ICR") == 0
    assert nic.read("IMS") == 5  # IAM counts only with CTRL_EXT.IAME
    nic.write("CTRL_EXT", 0x08000000)
    nic.write("ICS", 4)
    nic.read("ICR")
    assert nic.read("IMS") == 1


def test_a_cause_that_is_masked_in_ims_does_not_reach_its_vector():
    nic, _ = receiving()
    nic.read("ICR")
    nic.write("EIMS", 1)
    nic.write("EIAC", 1)
    nic.write("ICS", 4)
    nic.run()
    assert nic.fires[0] == 0
    nic.write("IMS", 4)
    nic.run()
    assert nic.fires[0] == 1


def test_eics_fires_a_vector_from_software():
    nic, _ = receiving()
    nic.write("EIMS", 2)
    nic.write("EIAC", 2)
    nic.write("EICS", 2)
    nic.run()
    assert nic.fires[1] == 1


def throttled() -> tuple[BareNic, Source]:
    nic, source = receiving()
    nic.write("EIMS", 2)
    nic.write("EIAC", 2)
    nic.write("EITR", 50 << 2, 1)  # 50 microseconds, in bits 14:2
    return nic, source


def test_the_first_interrupt_is_immediate_and_the_next_waits_for_the_throttle():
    nic, source = throttled()
    source.more(1)
    nic.step(now=1_000_000)
    assert nic.fires[1] == 1
    source.more(1)
    nic.step(now=1_010_000)
    assert nic.fires[1] == 1
    assert nic.deadline == 1_050_000
    assert not nic.busy
    nic.run(now=1_049_999)
    assert nic.fires[1] == 1
    nic.run(now=1_050_000)
    assert nic.fires[1] == 2


def test_there_is_no_deadline_without_a_cause():
    nic, source = throttled()
    source.more(1)
    nic.step(now=1_000_000)
    assert nic.deadline == 0


def test_a_new_throttle_leaves_the_running_interval_alone_or_ends_it():
    for flag, fires in ((CNT_IGNR, 1), (0, 2)):
        nic, source = throttled()
        source.more(1)
        nic.step(now=1_000_000)
        nic.write("EITR", 10 << 2 | flag, 1)
        source.more(1)
        nic.step(now=1_020_000)
        assert nic.fires[1] == fires
        assert nic.read("EITR", 1) == 10 << 2


def test_a_queue_without_a_valid_ivar_entry_has_no_cause():
    nic, source = receiving()
    nic.write("IVAR0", 0)
    source.more(1)
    nic.step()
    assert nic.read("EICR") == 0


def test_statistics_are_cleared_by_reading():
    nic, _ = receiving(3)
    nic.step()
    assert nic.read("GPRC") == 3
    assert nic.read("GPRC") == 0
    assert (nic.read("GORCL"), nic.read("GORCH")) == (180, 0)
    assert nic.read("GORCL") == 0


def test_what_the_wire_lost_is_the_missed_packets_register():
    nic, _ = receiving()
    nic.missed(7)
    assert nic.read("MPC") == 7
    nic.missed(9)
    assert nic.read("MPC") == 2
    nic.missed(9 + (1 << 33))
    assert nic.read("MPC") == 0xFFFFFFFF  # it sticks at its maximum


def test_a_register_keeps_what_was_written():
    nic, _ = receiving()
    for name in (
        "VET",
        "RCTL",
        "TCTL",
        "RXCSUM",
        "RLPML",
        "MRQC",
        "IAM",
        "EIAC",
        "EIAM",
        "GPIE",
    ):
        nic.write(name, 0x1234)
        assert nic.read(name) == 0x1234, name
    for name, count in (("MTA", 128), ("VFTA", 128), ("RETA", 32), ("RSSRK", 10), ("IVAR0", 8)):
        for index in range(count):
            nic.write(name, index + 1, index)
        assert [nic.read(name, index) for index in range(count)] == list(range(1, count + 1))


def test_status_is_read_only_and_an_unknown_register_reads_as_zero():
    nic, _ = receiving()
    before = nic.read("STATUS")
    nic.write("STATUS", 0)
    assert nic.read("STATUS") == before
    assert nic.read("CRCERRS", 50) == 0
    nic.write("CTRL", 99, 500)
    assert nic.read("CTRL", 500) == 0


def test_queues_that_are_not_run_keep_their_registers_too():
    nic, _ = receiving()
    for queue in range(1, 8):
        for name in ("RDBAL", "RDBAH", "TDBAL", "TDBAH", "RDH", "TDH"):
            nic.write(name, queue * 16, queue, 0x40)
            assert nic.read(name, queue, 0x40) == queue * 16
    nic.write("RDBAL", 5, 9, 0x40)
    assert nic.read("RDBAL", 9, 0x40) == 0
