"""``stop``: the host is asked, and gone when the command returns."""

import threading

from tests.fakehost import FakeHost


def test_stop_waits_until_the_host_is_gone(serve, good):
    server = None

    def end():
        threading.Thread(target=server.close).start()

    server = serve(FakeHost(), stop=end)
    assert good("stop") == "tap0 has ended\n"
    assert not server.path.exists()


def test_a_host_of_a_program_is_not_ended(host, refused):
    assert "belongs to a program" in refused("stop")
    assert "no host named tap7" in refused("stop", "tap7")
