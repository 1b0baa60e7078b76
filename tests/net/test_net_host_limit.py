"""How many connections a host lets through: properties, without a clock and without a network."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from satfs.net.host_limit import (
    CLOSING_WAIT_S,
    FAILING_S,
    MAX_RAISE_AFTER_S,
    MIN_ALLOWED,
    MIN_SILENCE_S,
    N_RESPONSES,
    N_WAKE_UPS,
    RAISE_AFTER_S,
    RAISE_AFTER_SILENCE_S,
    SLOWER_SHARE,
    HostLimit,
)


def opened_all(limit: HostLimit, n_let_through: int, n_wanted: int, now_s: float) -> int:
    """Open as many as may be to a host that lets so many through; return how many it refused."""
    n_open = n_refused = 0
    while True:
        n_new = min(limit.allowed(now_s), n_wanted) - n_open
        if n_new <= 0:
            return n_refused
        n_responding = min(n_open + n_new, n_let_through)
        limit.note_responding(now_s, n_responding)
        for n_left in range(n_open + n_new - 1, n_responding - 1, -1):
            n_refused += 1
            assert limit.note_refused(now_s, n_others=n_left, n_responding=n_responding) is not None
        n_open = n_responding


@given(n_let_through=st.integers(1, 64), n_wanted=st.integers(1, 96))
def test_at_most_two_refusals_for_each_connection(n_let_through: int, n_wanted: int) -> None:
    """The limit is found, all of it is used, and what is refused on the way is bounded."""
    limit = HostLimit()
    n_refused = opened_all(limit, n_let_through, n_wanted, 0.0)
    assert n_refused <= 2 * n_let_through
    assert limit.allowed(1.0) >= min(n_let_through, n_wanted)
    if n_wanted > n_let_through:
        assert limit.limit == n_let_through
        assert limit.allowed(RAISE_AFTER_S - 1) == n_let_through


class _Host:
    """A host that lets so many connections through, and a client that keeps to a `HostLimit`.

    Each connection reaches the host some time after it was opened, and its response or its refusal
    comes back some time later: in any order, as long as requests do not hang.
    """

    def __init__(self, n_let_through: int) -> None:
        self.limit = HostLimit()
        self.n_let_through = n_let_through
        self.now_s = 0.0
        self.n_on_the_way = self.n_let_in = self.n_turned_away = self.n_responding = 0
        self.n_refused = 0

    def n_open(self) -> int:
        return self.n_on_the_way + self.n_let_in + self.n_turned_away + self.n_responding

    def step(self, what: str) -> None:
        limit = self.limit
        self.now_s += 0.001
        if what == "open":
            if self.n_open() < limit.allowed(self.now_s):
                self.n_on_the_way += 1
            else:
                limit.note_wanted(self.now_s, carried_at_s=self.now_s)
        elif what == "arrive" and self.n_on_the_way:
            self.n_on_the_way -= 1
            if self.n_let_in + self.n_responding < self.n_let_through:
                self.n_let_in += 1
            else:
                self.n_turned_away += 1
                self.n_refused += 1
        elif what == "respond" and self.n_let_in:
            self.n_let_in -= 1
            self.n_responding += 1
            limit.note_responding(self.now_s, self.n_responding)
        elif what in ("refuse", "be silent") and self.n_turned_away:
            self.n_turned_away -= 1
            limit.note_refused(
                self.now_s,
                n_others=self.n_open(),
                n_responding=self.n_responding,
                is_silence=what == "be silent",
            )
        elif what == "close" and self.n_responding:
            self.n_responding -= 1


_STEPS = st.sampled_from(
    ["open", "open", "open", "arrive", "arrive", "respond", "refuse", "be silent", "close"]
)


@given(n_let_through=st.integers(1, 16), steps=st.lists(_STEPS, max_size=400))
def test_whatever_comes_first_few_connections_are_refused(
    n_let_through: int, steps: list[str]
) -> None:
    """Two for each that is let through, at most, until the first trial of one more."""
    host = _Host(n_let_through)
    for step in steps:
        host.step(step)
        assert host.n_refused <= 2 * n_let_through
        assert host.limit.allowed(host.now_s) >= 1
    for step in ["open", "arrive", "respond", "refuse"] * 200:
        host.step(step)
    assert host.n_refused <= 2 * n_let_through
    assert host.n_responding == n_let_through, "all of them are used in the end"


@given(n_let_through=st.integers(1, 20))
def test_what_is_let_through_again_is_used_again(n_let_through: int) -> None:
    """A limit that is gone is left behind in few steps, each twice as long as the one before."""
    limit = HostLimit()
    opened_all(limit, n_let_through, 64, 0.0)
    assert limit.limit == n_let_through
    now_s, n_steps = RAISE_AFTER_S, 0
    while limit.allowed(now_s) < 64:
        limit.note_responding(now_s, limit.allowed(now_s))
        n_steps += 1
    assert n_steps <= 7


def test_a_limit_that_stays_is_tried_ever_more_seldom() -> None:
    """Each trial that is refused doubles the time to the next."""
    limit = HostLimit()
    opened_all(limit, 4, 64, 0.0)
    now_s, waits_s = 0.0, []
    for _ in range(6):
        began_s = now_s
        while limit.allowed(now_s) == 4:
            now_s += 1.0
        waits_s.append(now_s - began_s)
        limit.note_refused(now_s, n_others=4, n_responding=4)
        assert limit.limit == 4
    assert waits_s == sorted(waits_s)
    assert waits_s[0] == RAISE_AFTER_S
    assert waits_s[-1] == MAX_RAISE_AFTER_S


def test_a_host_that_answers_nobody_has_no_limit() -> None:
    """A refusal is a limit only beside connections that respond; else only while others open."""
    limit = HostLimit()
    assert limit.note_refused(0.0, n_others=1, n_responding=0) is None
    assert limit.limit is None
    assert limit.allowed(0.0) == 1
    assert limit.note_refused(0.1, n_others=0, n_responding=0) is None
    assert limit.allowed(0.0) == MIN_ALLOWED


def test_a_host_that_fails_has_no_limit() -> None:
    """Connections that broke a moment ago show why others are refused."""
    limit = HostLimit()
    limit.note_broken(10.0)
    assert limit.note_refused(11.0, n_others=3, n_responding=3) is None
    assert limit.note_refused(10.0 + FAILING_S, n_others=3, n_responding=3) is not None
    assert limit.limit == 3


def test_a_connection_closed_a_moment_ago_may_still_be_counted() -> None:
    """The host may refuse in the moment between our closing one and its noticing."""
    limit = HostLimit()
    limit.note_closed(10.0)
    assert limit.note_refused(10.1, n_others=3, n_responding=3) == CLOSING_WAIT_S
    assert limit.limit == 4
    assert limit.note_refused(20.0, n_others=3, n_responding=3) == 0.0
    assert limit.limit == 3


@given(
    events=st.lists(
        st.tuples(st.sampled_from("arcb"), st.integers(0, 70), st.floats(0, 100)), max_size=40
    )
)
def test_one_connection_is_always_allowed(events: list[tuple[str, int, float]]) -> None:
    """For any events in any order."""
    limit, now_s = HostLimit(), 0.0
    for kind, n, after_s in events:
        now_s += after_s
        match kind:
            case "a":
                limit.note_responding(now_s, n)
            case "r":
                limit.note_refused(now_s, n_others=n, n_responding=n)
            case "c":
                limit.note_closed(now_s)
            case "b":
                limit.note_broken(now_s)
        assert limit.allowed(now_s) >= 1
        assert limit.limit is None or limit.limit >= 1


@given(n_opened=st.integers(1, 64))
def test_connections_that_have_not_answered_allow_no_others(n_opened: int) -> None:
    """A host may complete every handshake, and refuse the request after it."""
    limit = HostLimit()
    limit.note_responding(0.0, n_opened)
    limit.note_wanted(0.0, carried_at_s=0.0)
    assert limit.allowed(0.0) <= max(MIN_ALLOWED, 3 * n_opened)


def test_a_host_without_a_limit_has_64_connections_after_four_answers() -> None:
    """Each response takes three round trips on a new connection over TLS."""
    limit = HostLimit()
    n_answers = 0
    while limit.allowed(0.0) < 64:
        limit.note_responding(0.0, max(1, limit.allowed(0.0)) if n_answers else 1)
        n_answers += 1
    assert n_answers <= 4


def test_no_step_is_taken_after_a_refusal() -> None:
    """A refusal ends the opening of connections for requests that hang, too."""
    limit = HostLimit()
    limit.note_opened(0.1)
    limit.note_responding(0.0, 1)
    limit.note_wanted(0.0, carried_at_s=0.0)
    limit.note_wanted(1.0, carried_at_s=0.0)
    assert limit.allowed(1.0) == 12
    limit.note_refused(1.0, n_others=2, n_responding=1)
    limit.note_wanted(2.0, carried_at_s=0.0)
    assert limit.allowed(2.0) == 2


def test_none_is_opened_in_place_of_a_refused_one_before_the_others_have_answered() -> None:
    """Those opened together with it may be refused as well."""
    limit = HostLimit()
    limit.note_responding(0.0, 4)
    assert limit.allowed(0.0) == 12
    for n_left in range(11, 3, -1):
        limit.note_refused(0.0, n_others=n_left, n_responding=4)
        assert limit.allowed(0.0) == n_left


def test_requests_wait_for_those_whose_bytes_come() -> None:
    """No more is opened beside them, however long they take; a limit would refuse it."""
    limit = HostLimit()
    limit.note_responding(0.0, 4)
    for now_s in range(100):
        limit.note_wanted(now_s, carried_at_s=now_s - 0.1)
    assert limit.allowed(100.0) == 12


def test_more_is_opened_beside_requests_that_hang() -> None:
    """But not before silence would have been found, if it were that of a limit."""
    limit = HostLimit()
    limit.note_opened(0.01)
    limit.note_responding(0.0, 1)
    limit.note_wanted(0.0, carried_at_s=0.0)
    limit.note_wanted(MIN_SILENCE_S, carried_at_s=0.0)
    assert limit.allowed(MIN_SILENCE_S) == 3
    limit.note_wanted(3 * MIN_SILENCE_S, carried_at_s=0.0)
    assert limit.allowed(3 * MIN_SILENCE_S) == 12


def test_a_host_that_responds_slowly_is_not_silent() -> None:
    """Silence is longer than the host's usual responses take; a few stalls change nothing."""
    limit = HostLimit()
    limit.note_opened(0.05)
    for took_s in (0.8, 0.7, 0.9, 0.8):
        limit.note_response(took_s)
    assert limit.silence_s() > 2
    for took_s in (0.01,) * N_RESPONSES + (20.0,) * int(SLOWER_SHARE * N_RESPONSES):
        limit.note_response(took_s)
    assert limit.silence_s() == MIN_SILENCE_S


def test_silence_is_longer_where_tasks_wait_for_a_processor() -> None:
    limit = HostLimit()
    limit.note_opened(0.01)
    assert limit.silence_s() == MIN_SILENCE_S
    limit.wake_up_s = 0.03
    assert limit.silence_s() == MIN_SILENCE_S + N_WAKE_UPS * 0.03
    limit.wake_up_s = 0.0
    assert limit.silence_s() == MIN_SILENCE_S


def test_silence_is_tried_again_sooner_than_a_refusal() -> None:
    """Silence may have been one slow response."""
    limit = HostLimit()
    limit.note_responding(0.0, 4)
    limit.note_refused(0.0, n_others=4, n_responding=4, is_silence=True)
    assert limit.allowed(0.0) == 4
    assert limit.allowed(RAISE_AFTER_SILENCE_S) == 5


def test_what_waited_for_another_connection_does_not_prolong_silence() -> None:
    """A host that keeps further connections waiting serves each when another one closes."""
    host = HostLimit()
    host.note_opened(0.3)
    before_s = host.silence_s()
    for _ in range(20):
        host.note_opened(5.0)
    assert host.silence_s() == before_s
    for _ in range(20):
        host.note_opened(0.5)
    assert host.silence_s() > before_s
