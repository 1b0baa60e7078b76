"""Retry until success, a permanent failure, or the deadline: the waiting around `net/retry.py`."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, Protocol, TypeVar

import structlog
import trio

from satfs.errors import DeadlineReached, Garbled, Throttled, Unreachable
from satfs.net import retry
from satfs.net.processor_waits import ProcessorWaits, waited_s
from satfs.net.reachability import Admission, Reachability

T = TypeVar("T")
log = structlog.get_logger(__name__)

#: How often a task that waits for the result of a probe tests for it, in seconds.
LOOK_S: Final = 0.05


def is_silence(failure: BaseException) -> bool:
    """Return whether there was a connection, and no response."""
    return isinstance(failure, DeadlineReached) and failure.is_silence


@asynccontextmanager
async def admitted(
    reachability: Reachability, origin: str, about: str, *, refusal: str
) -> AsyncIterator[Admission]:
    """Yield permission to send a request in the body (`Reachability.admit`).

    Waits while a probe finds out whether a host that was silent is: at most for one probe's time.

    Raises:
        Unreachable: *origin* is offline, in the words of *refusal*. It is permanent for a caller
            whose own attempt contains this one.
    """
    while (admission := reachability.admit(origin, trio.current_time(), about)) is None:
        if not reachability.is_deciding(origin, about):
            raise Unreachable(refusal, is_permanent=True)
        await trio.sleep(LOOK_S)
    try:
        yield admission
    finally:
        if admission.is_probe:
            reachability.probe_ended(origin, trio.current_time(), about)


class Pauses(Protocol):
    """The waits that hosts have required of this process and of others. Never waits itself."""

    def left_s(self, origin: str) -> float:
        """Return for how many seconds no request is to be sent to *origin*; 0.0 when it may be."""
        ...

    def note(self, origin: str, wait_s: float) -> None:
        """Note that *origin* requires a wait of *wait_s* seconds from now."""
        ...


class NoPauses:
    """No shared pauses: each operation observes the waits that its own responses require."""

    def left_s(self, origin: str) -> float:
        """Return 0.0."""
        return 0.0

    def note(self, origin: str, wait_s: float) -> None:
        """Do nothing."""


class Retries:
    """Runs attempts against hosts of which *reachability* keeps the record.

    The sender of the requests reports each response to *reachability* (`net/http.py` does).
    *draw* returns random numbers in [0, 1). No attempt is made during one of the *pauses*. An
    operation that had no processor for most of its time (*processor_waits_s*) finds no host silent.
    """

    def __init__(
        self,
        reachability: Reachability,
        *,
        draw: Callable[[], float] = random.random,
        pauses: Pauses | None = None,
        processor_waits_s: Callable[[], float] = waited_s,
    ) -> None:
        self._reachability = reachability
        self._draw = draw
        self._processor_waits_s = processor_waits_s
        self._pauses = pauses or NoPauses()

    async def run(
        self,
        attempt: Callable[[], Awaitable[T]],
        *,
        origin: str,
        deadline_at: float,
        what: str,
        about: str | None = None,
        since_s: float | None = None,
    ) -> T:
        """Return the result of *attempt*, trying again while a retry may succeed.

        *deadline_at* and *since_s* are moments on trio's clock. The attempt is cancelled at the
        deadline; a wait that would pass it is not begun. *since_s* is when the operation began
        that this call is a part of (default: now): a host that stayed silent from there to the
        end counts as offline afterwards. *what* names the request in messages, *about* (default:
        the same) to *reachability*.

        Raises:
            Unreachable: the host counts as offline, or all tries have failed; this is the last
            failure. Throttled: the other side requires a wait longer than the time that is left.
            DeadlineReached: time ran out in the middle of a try. Any other exception of *attempt*,
            at once.
        """
        started_s = trio.current_time()
        since_s = started_s if since_s is None else since_s
        about = what if about is None else about
        refusal = f"{what}: {origin} is offline"
        waits = ProcessorWaits(self._processor_waits_s)
        async with admitted(self._reachability, origin, about, refusal=refusal) as admission:
            if admission.patience_s is not None:
                deadline_at = min(deadline_at, trio.current_time() + admission.patience_s)
            try:
                return await self._until(
                    attempt, deadline_at, what, origin, is_single=admission.is_probe
                )
            except Unreachable as failure:
                spent_s = trio.current_time() - since_s
                if not (failure.is_permanent or waits.explain(spent_s)):
                    silent_about = about if is_silence(failure) else None
                    self._note_failure(origin, since_s, str(failure), silent_about)
                raise
            except trio.Cancelled:
                # Our caller's own deadline may come a moment before ours: that is silence, too.
                spent_s = trio.current_time() - since_s
                if spent_s >= 0.9 * (deadline_at - since_s) and not waits.explain(spent_s):
                    reason = f"{what}: no response in time"
                    self._note_failure(origin, since_s, reason, about)
                raise

    async def _pause(self, origin: str, what: str, deadline_at: float) -> None:
        """Wait as long as *origin* has required it of any process of this node.

        Raises:
            Throttled: that is longer than the time that is left.
        """
        while (left_s := self._pauses.left_s(origin)) > 0:
            if trio.current_time() + left_s >= deadline_at:
                sentence = f"{what}: {origin} requires a wait of {left_s:.3g} s"
                # Permanent, since no request was sent: the host is not known to be away.
                raise Throttled(sentence, retry_after_s=left_s, is_permanent=True)
            # So that not all tasks continue at the same moment.
            await trio.sleep(left_s + self._draw() * retry.BASE_S)

    def _note_failure(
        self, origin: str, since_s: float, reason: str, silent_about: str | None
    ) -> None:
        if self._reachability.gave_up(
            origin,
            since_s=since_s,
            now_s=trio.current_time(),
            reason=reason,
            silent_about=silent_about,
        ):
            log.warning("host counts as offline", origin=origin)

    async def _until(
        self,
        attempt: Callable[[], Awaitable[T]],
        deadline_at: float,
        what: str,
        origin: str,
        *,
        is_single: bool,
    ) -> T:
        started_s = trio.current_time()
        n_failed = n_garbled = 0
        last: Exception | None = None
        with trio.CancelScope(deadline=deadline_at):
            while True:
                await self._pause(origin, what, deadline_at)
                try:
                    return await attempt()
                except Exception as failure:
                    if isinstance(failure, Throttled) and failure.retry_after_s is not None:
                        self._pauses.note(origin, failure.retry_after_s)
                    last = failure
                    n_failed += 1
                    n_garbled += isinstance(failure, Garbled)
                    if is_single or not retry.is_worth_another_try(failure, n_garbled=n_garbled):
                        raise
                    wait_s = retry.wait_before_next_s(n_failed, failure, self._draw())
                    if trio.current_time() + wait_s >= deadline_at:
                        raise
                log.debug(
                    "trying again",
                    what=what,
                    n_failed=n_failed,
                    wait_s=round(wait_s, 3),
                    reason=type(last).__name__,
                )
                await trio.sleep(wait_s)
        spent_s = trio.current_time() - started_s
        before = "" if last is None else f"; the try before it: {last}"
        # When the last try was cut off, the failure before it is the better reason.
        raise DeadlineReached(
            f"{what}: no response from {origin} within {spent_s:.3g} s{before}",
            is_silence=last is None or is_silence(last),
        ) from last
