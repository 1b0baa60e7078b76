"""Trying again within a deadline."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing

from satfs.errors import DeadlineReached, Garbled, NotThere, Throttled, Unreachable
from satfs.net.reachability import DOUBT_PATIENCE_S, Reachability
from satfs.net.retry_loop import Retries

HOST = "https://a:443"


class Attempts:
    """Fails as planned, then succeeds; counts, and takes some time."""

    def __init__(self, *failures: Exception, takes_s: float = 0.1) -> None:
        self.failures = list(failures)
        self.takes_s = takes_s
        self.moments: list[float] = []

    async def __call__(self) -> str:
        self.moments.append(trio.current_time())
        await trio.sleep(self.takes_s)
        if self.failures:
            raise self.failures.pop(0)
        return "done"


async def run(
    attempt: Callable[[], Awaitable[str]],
    hosts: Reachability | None = None,
    within_s: float = 15,
    what: str = "ask",
) -> str:
    retries = Retries(hosts or Reachability(), draw=lambda: 0.5)
    return await retries.run(
        attempt, origin=HOST, deadline_at=trio.current_time() + within_s, what=what
    )


async def test_it_works_in_the_end(autojump_clock: Any) -> None:
    """Failures that pass are waited out, longer each time."""
    attempts = Attempts(
        Unreachable("a"), DeadlineReached("b"), Throttled("c"), Garbled(), takes_s=0
    )
    began = trio.current_time()
    assert await run(attempts) == "done"
    gaps = [moment - began for moment in attempts.moments]
    assert gaps == pytest.approx([0, 0.125, 0.375, 0.875, 1.875])


@pytest.mark.parametrize("failure", [NotThere("no"), ValueError("bug")])
async def test_other_failures_are_final(autojump_clock: Any, failure: Exception) -> None:
    """A failure that cannot change is raised at once, as it is."""
    attempts = Attempts(failure)
    with pytest.raises(type(failure)) as raised:
        await run(attempts)
    assert raised.value is failure
    assert len(attempts.moments) == 1


async def test_a_permanent_failure_is_final(autojump_clock: Any) -> None:
    """A certificate does not get better within seconds."""
    failure = Unreachable("certificate", is_permanent=True)
    attempts = Attempts(failure)
    with pytest.raises(Unreachable):
        await run(attempts)
    assert len(attempts.moments) == 1


async def test_no_wait_passes_the_deadline(autojump_clock: Any, expect_log: Any) -> None:
    """When the next wait would be in vain the last failure is raised, early."""
    expect_log("host counts as offline")
    attempts = Attempts(*[Unreachable(str(n)) for n in range(100)])
    began = trio.current_time()
    with pytest.raises(Unreachable) as raised:
        await run(attempts, within_s=5)
    assert trio.current_time() - began <= 5
    assert str(raised.value) == str(len(attempts.moments) - 1)


async def test_an_attempt_is_cut_off_at_the_deadline(autojump_clock: Any, expect_log: Any) -> None:
    """A try that hangs does not hang the caller."""
    expect_log("host counts as offline", origin=HOST)
    attempts = Attempts(takes_s=1000)
    began = trio.current_time()
    with pytest.raises(DeadlineReached, match=f"ask: no response from {HOST} within 15 s$"):
        await run(attempts)
    assert trio.current_time() - began == pytest.approx(15)


async def test_a_try_cut_off_does_not_hide_what_the_one_before_met(
    autojump_clock: Any, expect_log: Any
) -> None:
    """That the last try was on its way when time was up is chance; the refusal is the reason."""
    expect_log("host counts as offline", origin=HOST)
    tries = iter([Unreachable("connection refused")])

    async def attempt() -> None:
        for failure in tries:
            raise failure
        await trio.sleep_forever()

    with pytest.raises(DeadlineReached, match=f"from {HOST} .*: connection refused$") as raised:
        await Retries(Reachability(), draw=lambda: 0.5).run(
            attempt, origin=HOST, deadline_at=trio.current_time() + 5, what="ask"
        )
    assert isinstance(raised.value.__cause__, Unreachable)


async def test_offline_hosts_are_not_asked(autojump_clock: Any, expect_log: Any) -> None:
    """After the first deadline every call fails at once, until a probe is due."""
    expect_log("host counts as offline")
    hosts = Reachability()
    attempts = Attempts(takes_s=1000)
    with pytest.raises(DeadlineReached):
        await run(attempts, hosts)
    began = trio.current_time()
    for _ in range(50):
        with pytest.raises(Unreachable, match="offline"):
            await run(attempts, hosts)
    assert trio.current_time() == began
    assert len(attempts.moments) == 1


async def test_silence_is_looked_into_once(autojump_clock: Any, expect_log: Any) -> None:
    """The next call finds out, shortly, whether a silent host is; those after it fail at once."""
    expect_log("host counts as offline")
    hosts = Reachability()
    attempts = Attempts(takes_s=1000)
    with pytest.raises(DeadlineReached):
        await run(attempts, hosts, what="one")
    began = trio.current_time()
    with pytest.raises(Unreachable, match="offline"):
        await run(attempts, hosts, what="one")
    assert trio.current_time() == began
    with pytest.raises(DeadlineReached):
        await run(attempts, hosts, what="two")
    assert trio.current_time() - began == pytest.approx(DOUBT_PATIENCE_S)
    began = trio.current_time()
    for n in range(50):
        with pytest.raises(Unreachable, match="offline"):
            await run(attempts, hosts, what=str(n))
    assert trio.current_time() == began


async def test_one_question_that_hangs_does_not_take_the_others_with_it(
    autojump_clock: Any, expect_log: Any
) -> None:
    """After one that never got a response, those that come next get one, one by one or together.

    Also when the one that hangs is requested again, just before them.
    """
    expect_log("host counts as offline")
    hosts = Reachability()

    async def healthy() -> str:
        await trio.sleep(0.1)
        hosts.responded(HOST, trio.current_time())
        return "done"

    async def ask(attempt: Any) -> None:
        origin_s = trio.current_time() + 15
        retries = Retries(hosts)
        assert await retries.run(attempt, origin=HOST, deadline_at=origin_s, what="else") == "done"

    for is_asked_again in (False, True):
        await trio.sleep(1)
        with pytest.raises(DeadlineReached):
            await run(Attempts(takes_s=1000), hosts)
        assert hosts.offline_since(HOST) is not None
        async with trio.open_nursery() as nursery:
            if is_asked_again:

                async def again() -> None:
                    with pytest.raises(DeadlineReached):
                        await run(Attempts(takes_s=1000), hosts, what="another that hangs")

                nursery.start_soon(again)
                await trio.testing.wait_all_tasks_blocked()
            for _ in range(8):
                nursery.start_soon(ask, healthy)
        assert hosts.offline_since(HOST) is None


async def test_a_probe_has_one_try_and_little_time(autojump_clock: Any, expect_log: Any) -> None:
    """The caller who probes for the others does not pay the whole deadline for it."""
    expect_log("host counts as offline")
    hosts = Reachability()
    with pytest.raises(DeadlineReached):
        await run(Attempts(takes_s=1000), hosts)
    await trio.sleep(3)
    began = trio.current_time()
    with pytest.raises(DeadlineReached):
        await run(Attempts(takes_s=1000), hosts)
    assert trio.current_time() - began == pytest.approx(4)
    await trio.sleep(3)
    refused = Attempts(Unreachable("refused"), Unreachable("refused"), takes_s=0)
    with pytest.raises(Unreachable, match="refused"):
        await run(refused, hosts)
    assert len(refused.moments) == 1


async def test_a_cancelled_probe_frees_the_way(autojump_clock: Any, expect_log: Any) -> None:
    """A caller who gives up while probing does not lock the host out."""
    expect_log("host counts as offline")
    hosts = Reachability()
    with pytest.raises(DeadlineReached):
        await run(Attempts(takes_s=1000), hosts)
    await trio.sleep(3)
    with trio.move_on_after(0.5):
        await run(Attempts(takes_s=1000), hosts)
    await trio.sleep(3)
    assert await run(Attempts(), hosts) == "done"


async def test_our_callers_deadline_counts_as_silence(autojump_clock: Any, expect_log: Any) -> None:
    """A caller whose own deadline comes a moment before ours has waited in vain as well."""
    expect_log("host counts as offline")
    hosts = Reachability()
    with trio.move_on_after(14.9):
        await run(Attempts(takes_s=1000), hosts)
    assert hosts.offline_since(HOST) is not None


async def test_a_short_cancellation_says_nothing_of_the_host(autojump_clock: Any) -> None:
    """Somebody who changed his mind after a second proves nothing."""
    hosts = Reachability()
    with trio.move_on_after(1):
        await run(Attempts(takes_s=1000), hosts)
    assert hosts.offline_since(HOST) is None


@pytest.mark.parametrize("is_cancelled", [False, True])
@pytest.mark.parametrize("starved_s", [0.0, 9.0])
async def test_a_process_without_a_processor_finds_no_host_silent(
    autojump_clock: Any, expect_log: Any, starved_s: float, is_cancelled: bool
) -> None:
    """Ten seconds without a response, of which the loop could have read one in the last only."""
    if not starved_s:
        expect_log("host counts as offline")
    hosts = Reachability()
    waits_s = iter([1.0, 1.0 + starved_s])
    retries = Retries(hosts, draw=lambda: 0.5, processor_waits_s=lambda: next(waits_s))
    deadline_at = trio.current_time() + 10
    # The caller's own deadline may come a moment before.
    with (
        trio.move_on_at(deadline_at - (0.1 if is_cancelled else -1)),
        contextlib.suppress(DeadlineReached),
    ):
        await retries.run(trio.sleep_forever, origin=HOST, deadline_at=deadline_at, what="ask")
    assert hosts.offline_origins() == (() if starved_s else (HOST,))
