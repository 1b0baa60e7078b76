"""One range request's way through failures: retried, moved to the loop, or given up.

`store_responses` decides the meaning of a response, `net.retry` the wait before the next attempt,
and `dispatch` which requests are in flight at once.
"""

from __future__ import annotations

import random
from collections import Counter
from contextlib import nullcontext
from typing import Final

import structlog
import trio

from satfs.content.cache.blocks import BlockCache
from satfs.content.cache.claims import Claim
from satfs.content.cache.objects import Spilled
from satfs.content.fetch.claiming import Claiming
from satfs.content.fetch.connection_choice import ConnectionChoice
from satfs.content.fetch.connection_controller import ConnectionController
from satfs.content.fetch.failures import AttemptCounts, error_for, refused
from satfs.content.fetch.links import LASTING_CODES
from satfs.content.fetch.range_request import RangeRequest
from satfs.content.transfer.interface import Attempt, Mover, UnusableResponse, WorkerDied
from satfs.content.transfer.store_responses import (
    CONDITION_REFUSED,
    MAX_SKIPPED_AGAIN_BYTES,
    MAX_SKIPPED_BYTES,
    NOT_IMPLEMENTED,
    ResponseKind,
)
from satfs.errors import (
    Changed,
    DeadlineReached,
    NotThere,
    SatfsError,
    Throttled,
    Unreachable,
)
from satfs.model import Link
from satfs.net.addresses import origin_of
from satfs.net.host_connections import Crowded, Permit, TakenBack
from satfs.net.reachability import Admission, Reachability
from satfs.net.retry import MAX_GARBLED
from satfs.net.retry_loop import NoPauses, Pauses, admitted, is_silence
from satfs.read_trace import BYTES, TracedRequest

log = structlog.get_logger(__name__)

#: Number of worker processes that may die during one range, without a byte, before the loop moves
#: it.
MAX_DEATHS: Final = 2
#: Further tries for an object that is not there any more, each with a new link, and the wait before
#: the first of them in seconds, the later ones' multiples of it.
MAX_GONE: Final = 2
GONE_WAIT_S: Final = 0.2


class RangeRetry:
    """Downloads range requests, each until all of it is there or a failure is final."""

    def __init__(
        self,
        cache: BlockCache,
        controller: ConnectionController,
        in_loop: Mover,
        connections: ConnectionChoice,
        *,
        reachability: Reachability,
        give_up_s: float,
        pauses: Pauses | None = None,
    ) -> None:
        self._cache = cache
        self._controller = controller
        self._in_loop = in_loop
        self._reachability = reachability
        self._connections = connections
        self._give_up_s = give_up_s
        self.counters: Counter[str] = Counter()
        self.claiming = Claiming(cache)
        self._pauses = pauses or NoPauses()
        self._draw = random.random

    async def download(self, range_request: RangeRequest) -> SatfsError | None:
        """Download a range; return None when it is complete or cancelled, else the failure."""
        counts = AttemptCounts(range_request.received_until, self._give_up_s)
        while range_request.is_wanted():
            failure: SatfsError | None = None
            range_request.attempt = Attempt(
                range_request.held_until,
                range_request.source.replacement.is_conditional,
                MAX_SKIPPED_AGAIN_BYTES if counts.n_garbled else MAX_SKIPPED_BYTES,
            )
            with range_request.attempt.scope:
                began_s = trio.current_time()
                await self.claiming.wait_for_others(range_request)
                counts.waited(trio.current_time() - began_s)
                if range_request.is_wanted():
                    failure = await self._try_once(range_request, counts)
                if counts.wait_s and failure is None and range_request.is_wanted():
                    self.counters["retries"] += 1
                    await trio.sleep(counts.wait_s)
            if failure is not None and range_request.is_wanted():
                return failure
        return None

    async def _try_once(
        self, range_request: RangeRequest, counts: AttemptCounts
    ) -> SatfsError | None:
        """Make one attempt; None when another one may succeed (or none is needed any more)."""
        counts.wait_s = 0.0
        link: Link | None = None
        try:
            believed = range_request.source.links.believed_refusal
            if believed is not None:
                return refused(range_request.source.label, believed)
            links = range_request.source.links
            # The first attempt is made without a turn of other tasks: its connection may be idle.
            link = links.peek() if counts.is_first else None
            counts.is_first = False
            if link is None:
                link = await links.get()
            pause_s = self._pauses.left_s(origin_of(link.url))
            if pause_s > 0:
                return counts.paused(pause_s, range_request.source.label)
            try:
                await self._attempt(range_request, link, counts)
            finally:
                if range_request.is_wanted():
                    counts.look(range_request.received_until)
        except Spilled:
            self.counters["restarts"] += 1
        except WorkerDied as death:
            self.counters["restarts"] += 1
            # This range may be what kills workers, so the loop moves it after a few deaths. If the
            # disk is the cause, the loop gets the same error and handles it.
            counts.n_deaths += 1
            range_request.is_bulk = counts.n_deaths < MAX_DEATHS and not death.is_of_file
        except TakenBack:
            self.counters["taken_back"] += 1
            counts.was_taken_back = True
        except Crowded as crowded:
            # No failure: other connections receive bytes, and this request waits for its turn.
            self.counters["crowded"] += 1
            counts.n_crowded += 1
            counts.wait_s = crowded.wait_s
        except UnusableResponse as refusal:
            return self._after_refusal(range_request, refusal, link, counts)
        except Unreachable as failure:
            # A request for a link was retried already, and an offline store gets no further try.
            if link is None or failure.is_permanent or isinstance(failure, Throttled):
                return failure
            counts.failed(failure, self._draw())
            if counts.is_over:
                decisive = counts.last or failure
                if not counts.is_starved:
                    self._reachability.gave_up(
                        origin_of(link.url),
                        since_s=counts.since_s,
                        now_s=trio.current_time(),
                        reason=str(decisive),
                        silent_about=range_request.source.label if is_silence(decisive) else None,
                    )
                return decisive
        except NotThere as gone:
            # The API signs no link for it any more. For a read of an open file the errno of a
            # missing name would make no sense to the program.
            changed = Changed(f"{range_request.source.label} was removed while it was open")
            changed.__cause__ = gone
            return changed
        except SatfsError as failure:
            return failure
        return None

    async def _attempt(
        self, range_request: RangeRequest, link: Link, counts: AttemptCounts
    ) -> None:
        origin, label = origin_of(link.url), range_request.source.label
        refusal = f"{label}: the object store is offline"
        async with admitted(self._reachability, origin, label, refusal=refusal) as admission:
            await self._admitted(range_request, link, counts, admission)

    async def _admitted(
        self, range_request: RangeRequest, link: Link, counts: AttemptCounts, admission: Admission
    ) -> None:
        attempt, origin = range_request.attempt, origin_of(link.url)
        connections = self._connections
        attempt.permit = permit = await connections.take(
            range_request, link, counts, is_probe=admission.is_probe
        )
        bulk = connections.bulk
        mover = bulk if bulk is not None and permit.holder is bulk else self._in_loop
        started_at = range_request.held_until
        claim: Claim | None = None
        try:
            if not range_request.is_wanted():
                return  # cancelled, or made part of another range, while it waited for the permit
            n_expected, is_limit = connections.permits.n_expected(origin)
            if is_limit or n_expected < self._controller.target:
                range_request.requester.fit(range_request, n_expected, may_cut=is_limit)
            attempt.claim = claim = await self.claiming.claim(range_request)
            if claim is None:
                return  # another process fetches these blocks, or has
            started_at = range_request.held_until
            await self._cache.reserve(range_request.cached, range_request.missing)
            range_request.begin()
            attempt.start = range_request.held_until
            requested_at_s = trio.current_time()
            # Bytes that come lift the limit (note_progress): a slow store is not a silent one.
            limit_s = counts.left_s
            if admission.patience_s is not None:
                limit_s = min(limit_s, admission.patience_s)
            self.counters["requests"] += 1
            with range_request.source.trace.request(BYTES, range_request.missing) as request:
                await self._move(
                    mover, link, range_request, permit, requested_at_s + limit_s, request
                )
        except UnusableResponse:
            self._reachability.responded(origin, trio.current_time())
            raise
        finally:
            attempt.silence = None
            attempt.permit = None
            permit.end()
            attempt.claim = None
            if claim is not None:
                self._cache.claims.end(claim)
            began_at_s = attempt.first_byte_at_s
            if began_at_s is not None:
                range_request.source.replacement.matched()
                range_request.source.links.accepted(link)
                self._reachability.responded(origin, trio.current_time())
                took_s = trio.current_time() - began_at_s
                self._controller.note_range(
                    trio.current_time(),
                    range_request.held_until - started_at,
                    took_s,
                    attempt.later_rate(trio.current_time(), range_request.held_until),
                )
                log.debug(
                    "range moved",
                    label=range_request.source.label,
                    start=started_at,
                    stop=range_request.held_until,
                    first_byte_s=round(began_at_s - requested_at_s, 4),
                    took_s=round(took_s, 4),
                )

    async def _move(
        self,
        mover: Mover,
        link: Link,
        range_request: RangeRequest,
        permit: Permit,
        deadline_at: float,
        request: TracedRequest,
    ) -> None:
        """Let *mover* make one request, and note its outcome."""
        attempt, requested_at_s = range_request.attempt, trio.current_time()
        is_in_loop = mover is self._in_loop
        moving = (
            self._connections.soon_idle.moving(range_request, permit.origin) if is_in_loop else None
        )
        try:
            with trio.CancelScope(deadline=deadline_at) as attempt.silence:
                with permit.scope, moving or nullcontext():
                    await mover.move(link, range_request, range_request.source.version)
                permit.raise_if_silent()
            if attempt.silence.cancelled_caught:
                raise DeadlineReached(f"{range_request.source.label}: the object store is silent")
        except UnusableResponse as refusal:
            request.outcome = f"refused: {refusal.response_class.code}"
            raise
        finally:
            request.received_bytes = range_request.held_until - attempt.start
            if attempt.first_byte_at_s is not None:
                request.first_byte_s = attempt.first_byte_at_s - requested_at_s

    def _after_refusal(
        self,
        range_request: RangeRequest,
        refusal: UnusableResponse,
        link: Link | None,
        counts: AttemptCounts,
    ) -> SatfsError | None:
        """Return the error to raise for a refusal; None when another attempt may succeed."""
        response_class, label = refusal.response_class, range_request.source.label
        replacement = range_request.source.replacement
        match response_class.kind:
            case ResponseKind.RENEW:
                links = range_request.source.links
                if link is not None and response_class.code not in LASTING_CODES:
                    wait_s = links.wait_after_refusal_s(
                        link, counts.refusals, is_over=response_class.is_over
                    )
                    if wait_s is not None and wait_s < counts.left_s:
                        counts.wait_s = wait_s
                        return None
                links.refused(response_class.code, is_over=response_class.is_over)
                return error_for(response_class, label)
            case ResponseKind.RETRY | ResponseKind.SLOW_DOWN:
                failure = error_for(response_class, label, refusal.retry_after_s)
                wait_s = failure.retry_after_s if isinstance(failure, Throttled) else None
                if response_class.kind is ResponseKind.SLOW_DOWN or wait_s is not None:
                    self._controller.note_throttled(trio.current_time())
                if wait_s is not None and link is not None:
                    self._pauses.note(origin_of(link.url), wait_s)
                counts.failed(failure, self._draw())
                return failure if counts.is_over else None
            case ResponseKind.CHANGED:
                if response_class.code == CONDITION_REFUSED and replacement.is_conditional:
                    replacement.is_conditional = False
                    return None
                counts.n_other_version += 1
                wait_s = replacement.differed(counts.n_other_version)
                if wait_s is not None and wait_s < counts.left_s:
                    counts.wait_s = wait_s
                    return None
                if replacement.is_alternating:
                    return Changed(f"the object store shows {label} under several ETags in turn")
                return Changed(f"{label} was replaced while it was open")
            case ResponseKind.GONE:
                # It was there before: a replica may not have it yet, or the link may be refused in
                # this way.
                counts.n_gone += 1
                wait_s = GONE_WAIT_S * counts.n_gone
                if counts.n_gone <= MAX_GONE and wait_s < counts.left_s:
                    if link is not None:
                        range_request.source.links.spent(link)
                    counts.wait_s = wait_s
                    return None
                return Changed(f"{label} was removed while it was open")
            case _:
                if response_class.code == NOT_IMPLEMENTED and replacement.is_conditional:
                    replacement.is_conditional = False
                    return None
                # As in net.retry: a balancer's error page is gone a moment later, and so is a
                # status of its own that no store has.
                counts.n_garbled += 1
                if counts.n_garbled <= MAX_GARBLED:
                    counts.failed(None, self._draw())
                    return None
                is_refusal = response_class.kind is ResponseKind.REFUSED
                if is_refusal and replacement.may_be_refused_for_condition():
                    return None
                return error_for(response_class, label)
