"""When a login that a proxy has refused is sent again."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from satfs.net import retry
from satfs.net.login_refusals import (
    MAX_REFUSED_S,
    PROVEN_WAITS_S,
    REFUSED_S,
    LoginForgotten,
    LoginRefusals,
)

#: Failures within this time, in seconds, after which directory services lock an account.
WINDOW_S, MAX_FAILURES = 1800.0, 5
STEPS = st.lists(st.tuples(st.floats(0, 700), st.sampled_from(["refuse", "accept"])), max_size=60)


@given(st.booleans(), st.lists(st.floats(0, 2000), max_size=80))
def test_a_login_is_never_refused_often_enough_to_lock_an_account(
    is_accepted: bool, steps_s: list[float]
) -> None:
    """However often callers try: fewer than five refusals in any half hour."""
    login = LoginRefusals()
    if is_accepted:
        login.accepted()
    now_s, refused_at_s = 0.0, list[float]()
    for step_s in steps_s:
        now_s += step_s
        if not login.wait_s(now_s):
            login.refused(now_s, now_s)
            refused_at_s.append(now_s)
    for at_s in refused_at_s:
        n_near = sum(at_s <= each < at_s + WINDOW_S for each in refused_at_s)
        assert n_near < MAX_FAILURES
    if not is_accepted:
        assert all(b - a >= REFUSED_S - 1e-6 for a, b in pairwise(refused_at_s))


@given(st.floats(0, sum(PROVEN_WAITS_S[:2])), st.floats(0, 1, exclude_max=True))
def test_a_moment_of_refusals_is_over_within_the_deadline_of_a_name(
    lasts_s: float, draw: float
) -> None:
    """A login that was right is accepted within 7 s, where the proxy forgets it for up to 6 s."""
    login = LoginRefusals()
    login.accepted()
    now_s, n_failed = 0.0, 0
    while now_s < lasts_s:
        assert not login.wait_s(now_s)
        login.refused(now_s, now_s)
        assert login.is_forgiven
        n_failed += 1
        failure = LoginForgotten("forgotten", wait_s=login.wait_s(now_s))
        now_s += retry.wait_before_next_s(n_failed, failure, draw)
    login.accepted()
    assert now_s <= sum(PROVEN_WAITS_S[:2]) + 2 * retry.BASE_S
    assert login.is_certain


@given(STEPS)
def test_waits_grow_until_the_login_is_accepted(steps: list[tuple[float, str]]) -> None:
    """In whatever order: a wait is never longer than an hour, and an acceptance ends it."""
    login, now_s = LoginRefusals(), 0.0
    for step_s, what in steps:
        now_s += step_s
        before_s = login.wait_s(now_s)
        if what == "accept":
            login.accepted()
            assert login.is_certain
            assert not login.wait_s(now_s)
        else:
            login.refused(now_s, now_s)
            assert before_s <= login.wait_s(now_s) <= MAX_REFUSED_S + 1e-6
            assert not login.is_certain
        assert login.is_forgiven <= login.is_accepted


@given(st.integers(2, 40), st.floats(0, 0.9))
def test_refusals_side_by_side_count_once(n_requests: int, took_s: float) -> None:
    """Requests that were under way when the first of them was refused say nothing new."""
    login = LoginRefusals()
    login.accepted()
    for number in range(n_requests):
        login.refused(sent_at_s=10.0, now_s=10.0 + took_s * (number + 1) / n_requests)
    assert login.n_refused == 1
    assert login.is_forgiven
    assert login.wait_s(10.0 + took_s) <= PROVEN_WAITS_S[0]
