"""Hosts that respond once on each connection: what is remembered of them."""

from __future__ import annotations

import trio
from fakes.origin import serving

from satfs.net.http import Http
from satfs.net.reuse import REMEMBERED_S, SHARE_OF_TIMEOUT, SILENCE_S, ReuseWatch

HOST = "https://a.example:443"


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self, now_s: float = 0.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


def test_two_silent_connections_show_it_for_a_while() -> None:
    """One after the other; a response on a connection that was used before shows the contrary."""
    clock = Clock()
    watch = ReuseWatch(clock)
    assert watch.patience_s(HOST) == SILENCE_S
    assert not watch.note_moved(HOST, 0.0, 0.0)
    clock.now_s = 5.0
    assert watch.note_moved(HOST, 3.0, 5.0)
    assert watch.responds_once(HOST)
    assert not watch.responds_once("https://b.example:443")
    clock.now_s += REMEMBERED_S
    assert not watch.responds_once(HOST)
    clock.now_s += 5.0
    assert not watch.note_moved(HOST, clock.now_s - 2, clock.now_s)
    watch.note_reused(HOST)
    clock.now_s += 5.0
    assert not watch.note_moved(HOST, clock.now_s - 2, clock.now_s)


def test_a_pause_of_the_host_counts_once() -> None:
    """Requests that met it together show nothing about connections."""
    watch = ReuseWatch(Clock(2.0))
    for _ in range(5):
        assert not watch.note_moved(HOST, 0.0, 2.0)


def test_a_host_that_is_slow_on_new_connections_is_waited_for() -> None:
    clock = Clock(SILENCE_S)
    watch = ReuseWatch(clock)
    assert not watch.note_moved(HOST, 0.0, 0.0)
    assert watch.patience_s(HOST) is None
    clock.now_s += REMEMBERED_S
    assert watch.patience_s(HOST, 1.0) == SHARE_OF_TIMEOUT


async def test_requests_leave_connections_that_respond_once() -> None:
    """After a moment for the first two, then at once; and no response is lost."""
    timeout_s = 1.0
    async with (
        serving() as origin,
        Http(connect_timeout_s=5, progress_timeout_s=timeout_s, max_connections=8) as http,
    ):
        origin.n_responses = 1
        took_s = []
        for _ in range(6):
            begun_s = trio.current_time()
            found = await http.request("GET", origin.url("/ramp/100"), headers={})
            took_s.append(trio.current_time() - begun_s)
            assert len(found.body) == 100
    assert [each > SHARE_OF_TIMEOUT * timeout_s for each in took_s] == [
        False,
        True,
        True,
        *3 * [False],
    ]
