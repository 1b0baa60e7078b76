"""Which flights are in the air: starts them, tries again, gives up, one nursery for all.

Every flight is a task here. Its way through failures is `_fly`; what a failure means is decided in
`verdicts` and `net.retry`.
"""

from __future__ import annotations

import math
import random
import statistics
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Final, TypeVarTuple

import structlog
import trio

from satfs.content.blocks import BlockCache
from satfs.content.controller import ConnectionController
from satfs.content.flight import Flight, Source, Transfer, choose
from satfs.content.objects import Spilled
from satfs.content.transfer.interface import BulkMover, Mover, Refusal, WorkerDied
from satfs.content.trial import Trial
from satfs.content.verdicts import Meaning
from satfs.errors import (
    Changed,
    DeadlineReached,
    Garbled,
    Misuse,
    NotAllowed,
    NotThere,
    SatfsError,
    Throttled,
    Unreachable,
)
from satfs.model import Link
from satfs.net.addresses import origin_of
from satfs.net.reachability import Reachability
from satfs.net.retry import parse_retry_after
from satfs.trail import BYTES, Request

log = structlog.get_logger(__name__)
Ts = TypeVarTuple("Ts")

#: Flights that somebody waits for may exceed the controller's number by this many: a random read
#: does not queue behind a bulk transfer.
URGENT_EXTRA: Final = 32
#: From this length on, a sequential range is moved by a worker process, if there are any.
BULK_BYTES: Final = 1024 * 1024
#: A range should not take longer than this on its connection, so that a reader is not kept waiting
#: for its end; the lower limit keeps requests worth their round trip.
RANGE_TIME_S: Final = 1.5
SHORTEST_RANGE_BYTES: Final = 1024 * 1024
#: A flight that somebody waits for is begun again elsewhere when it carries less than this share of
#: what the others carry, after this time, and so many times.
SLOW_SHARE: Final = 0.1
SLOW_AFTER_S: Final = 3.0
MOST_REISSUES: Final = 1
#: Connections opened ahead of need are not trusted for longer: stores close idle ones.
STAYS_READY_S: Final = 10.0
#: Deaths of worker processes under one range, without a byte, after which the loop moves it.
MOST_DEATHS: Final = 2
#: How often slow flights are looked for, while any is in the air.
WATCH_INTERVAL_S: Final = 0.5


class Dispatcher:
    """All transfers of one mount.

    Invariants:
        At most `controller.target` flights are active, and `URGENT_EXTRA` more that are urgent.
        A flight is in `_queue`, or in `_active`, or has ended; `ended` is called exactly once.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        cache: BlockCache,
        controller: ConnectionController,
        in_loop: Mover,
        bulk: BulkMover | None,
        *,
        reachability: Reachability,
        range_bytes: int,
        give_up_s: float,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._nursery = nursery
        self._cache = cache
        self.controller = controller
        self._in_loop = in_loop
        self._bulk = bulk
        self._range_bytes = range_bytes
        self._give_up_s = give_up_s
        self._queue: list[Flight] = []
        self._active: list[Flight] = []
        self._n_by_reader: Counter[object] = Counter()
        self._is_watching = False
        self._n_ready = 0
        self._ready_until_s = 0.0
        self._reachability = reachability
        self._draw = draw
        self.counters: Counter[str] = Counter()

    # -- what readers ask ------------------------------------------------------------------------

    def range_bytes(self, window_bytes: int) -> int:
        """Return how long ranges should be for a reader with this window."""
        longest = self._range_bytes
        rate = self.controller.rate_bytes_per_s
        if rate is not None:
            longest = min(longest, max(SHORTEST_RANGE_BYTES, int(rate * RANGE_TIME_S)))
        share = window_bytes // max(1, self.controller.target)
        return max(min(longest, SHORTEST_RANGE_BYTES), min(longest, share))

    def window_bytes(self) -> int:
        """Return how far ahead one sequential reader may go now, its fair share of the whole."""
        n_readers = len({reader for flight in self._all() for reader in flight.readers}) or 1
        whole = max(4, 3 * self.controller.target) * self._range_bytes
        return min(whole, self._cache.window_limit_bytes()) // n_readers

    def expect_bulk(self, source: Source) -> None:
        """Hear that much of one object will be wanted soon: processes and connections get ready."""
        bulk, target, now_s = self._bulk, self.controller.target, trio.current_time()
        if bulk is None or (target <= self._n_ready and now_s < self._ready_until_s):
            return
        self._n_ready, self._ready_until_s = target, now_s + STAYS_READY_S

        async def prepare() -> None:
            try:
                await bulk.prepare(await source.links.get(), target)
            except (SatfsError, WorkerDied):
                self._n_ready = 0  # whoever fetches will meet the reason

        self._nursery.start_soon(prepare)

    def submit(self, flights: list[Flight]) -> None:
        """Take flights to be started as soon as there is a connection for them."""
        self._queue.extend(flights)
        self.pump()

    def withdraw(self, flight: Flight) -> None:
        """Give a flight up that nobody wants any more."""
        if flight in self._queue:
            self._queue.remove(flight)
            flight.is_cancelled = True
            flight.ended(flight, None)
        else:
            flight.cancel()

    def statistics(self) -> dict[str, float]:
        """Return what is going on."""
        return {
            "active": len(self._active),
            "queued": len(self._queue),
            "target_connections": self.controller.target,
            **self.counters,
        }

    def transfers(self) -> tuple[Transfer, ...]:
        """Return what has a connection now, or waits for its next try."""
        now_s = trio.current_time()
        return tuple(flight.progress(now_s) for flight in self._active)

    def run_in_background(self, work: Callable[[*Ts], Awaitable[object]], *args: *Ts) -> None:
        """Start a task that nobody waits for; it must not raise."""
        self._nursery.start_soon(work, *args)

    def pump(self) -> None:
        """Start what can be started."""
        while self._queue:
            room = self.controller.target
            if any(flight.is_urgent for flight in self._queue):
                room += URGENT_EXTRA  # and an urgent one is what will be chosen
            if len(self._active) >= room:
                break
            flight = choose(self._queue, self._n_by_reader.__getitem__)
            self._queue.remove(flight)
            flight.is_active = True
            self._active.append(flight)
            self._n_by_reader.update(flight.readers)
            self._nursery.start_soon(self._run, flight, tuple(flight.readers))
        if self._active and not self._is_watching:
            self._is_watching = True
            self._nursery.start_soon(self._watch)

    def note_progress(self, flight: Flight, n_bytes: int) -> None:
        """Take in that bytes came, for the number of connections."""
        self.counters["received_bytes"] += n_bytes
        before, now_s = self.controller.target, trio.current_time()
        if flight.silence is not None and flight.silence.deadline < math.inf:
            flight.silence.deadline = math.inf
            if flight.answer_s is not None:
                self.controller.note_answer(now_s, flight.answer_s)
        n_active, is_wanting = len(self._active), bool(self._queue)
        if self.controller.note_progress(now_s, n_bytes, n_active, is_wanting=is_wanting) > before:
            self.pump()
            if now_s < self._ready_until_s:  # somebody is expected to want them all
                self.expect_bulk(flight.source)

    def _all(self) -> list[Flight]:
        return [*self._active, *self._queue]

    # -- the life of a flight --------------------------------------------------------------------

    async def _run(self, flight: Flight, readers: tuple[object, ...]) -> None:
        failure: SatfsError | None = None
        try:
            failure = await self._fly(flight)
        except Exception as bug:  # a flight's failure is its readers' matter, not the mount's end
            log.exception("transfer failed unexpectedly", label=flight.source.label)
            failure = Misuse("reading failed because of a fault inside satfs")
            failure.__cause__ = bug
        finally:
            self._active.remove(flight)
            self._n_by_reader.subtract(readers)
            self._n_by_reader += Counter()  # drops readers without flights
            flight.is_active = False
        flight.ended(flight, failure)
        self.pump()

    async def _fly(self, flight: Flight) -> SatfsError | None:
        """Bring a flight down: None when all is there or it was given up, else what to report."""
        trial = Trial(flight.held_until, self._give_up_s)
        while flight.is_wanted():
            failure: SatfsError | None = None
            flight.began_at_s = None
            with trio.CancelScope() as flight.attempt:
                failure = await self._try_once(flight, trial)
            flight.attempt = None
            if not flight.is_wanted():
                return None
            if failure is not None:
                return failure
            if trial.wait_s:
                self.counters["retries"] += 1
                with trio.CancelScope() as flight.attempt:
                    await trio.sleep(trial.wait_s)
                flight.attempt = None
        return None

    async def _try_once(self, flight: Flight, trial: Trial) -> SatfsError | None:
        """Make one attempt; None when another one makes sense (or none is needed any more)."""
        trial.wait_s = 0.0
        link: Link | None = None
        try:
            link = await flight.source.links.get()
            try:
                await self._attempt(flight, link, trial)
            finally:
                trial.look(flight.held_until)
        except Spilled:
            self.counters["restarts"] += 1
        except WorkerDied:
            self.counters["restarts"] += 1
            # Perhaps it dies of this very range: the loop can move it, too.
            trial.n_deaths += 1
            flight.is_bulk = trial.n_deaths < MOST_DEATHS
        except Refusal as refusal:
            return self._judge(flight, refusal, link, trial)
        except Unreachable as failure:
            # Signing has had its own tries; a store that is known to be away gets none.
            if link is None or failure.is_lasting or isinstance(failure, Throttled):
                return failure
            trial.failed(failure, self._draw())
            if trial.is_over:
                told = trial.last or failure
                self._reachability.gave_up(
                    origin_of(link.url),
                    since_s=trial.since_s,
                    now_s=trio.current_time(),
                    reason=str(told),
                )
                return told
        except NotThere as gone:
            # Nothing is signed for it any more. A read of an open file knows no names, so that
            # "no such file" would say nothing to whoever reads.
            changed = Changed(f"{flight.source.label} was removed while it was open")
            changed.__cause__ = gone
            return changed
        except SatfsError as failure:
            return failure
        return None

    async def _attempt(self, flight: Flight, link: Link, trial: Trial) -> None:
        origin = origin_of(link.url)
        admission = self._reachability.admit(origin, trio.current_time())
        if admission is None:
            offline = Unreachable(f"{flight.source.label}: the object store is offline")
            offline.is_lasting = True
            raise offline
        is_bulk = flight.is_bulk and len(flight.missing) >= BULK_BYTES and not admission.is_probe
        mover = self._bulk if is_bulk and self._bulk is not None else self._in_loop
        is_mapped = mover is not self._in_loop
        started_at = flight.held_until
        try:
            await self._cache.reserve(flight.cached, flight.missing, for_mapping=is_mapped)
            flight.begin()
            flight.began_at = flight.held_until
            asked_at_s = trio.current_time()
            # Bytes that come lift the limit (note_progress): a slow store is not a silent one.
            limit_s = trial.left_s
            if admission.patience_s is not None:
                limit_s = min(limit_s, admission.patience_s)
            self.counters["requests"] += 1
            with flight.source.trail.request(BYTES, flight.missing) as request:
                await self._move(mover, link, flight, asked_at_s + limit_s, request)
        except Refusal:
            self._reachability.answered(origin, trio.current_time())
            raise
        finally:
            flight.silence = None
            began_at_s = flight.began_at_s
            if began_at_s is not None:
                self._reachability.answered(origin, trio.current_time())
                took_s = trio.current_time() - began_at_s
                self.controller.note_range(
                    trio.current_time(),
                    flight.held_until - started_at,
                    took_s,
                )
                log.debug(
                    "range moved",
                    label=flight.source.label,
                    start=started_at,
                    stop=flight.held_until,
                    first_byte_s=round(began_at_s - asked_at_s, 4),
                    took_s=round(took_s, 4),
                )
            if admission.is_probe:
                self._reachability.probe_ended(origin, trio.current_time())

    async def _move(
        self, mover: Mover, link: Link, flight: Flight, deadline_at: float, request: Request
    ) -> None:
        """Have *mover* make one request, and note what came of it."""
        asked_at_s = trio.current_time()
        try:
            with trio.CancelScope(deadline=deadline_at) as flight.silence:
                await mover.move(link, flight, flight.source.version)
            if flight.silence.cancelled_caught:
                raise DeadlineReached(f"{flight.source.label}: the object store is silent")
        except Refusal as refusal:
            request.outcome = f"refused: {refusal.verdict.code}"
            raise
        finally:
            request.received_bytes = flight.held_until - flight.began_at
            if flight.began_at_s is not None:
                request.first_byte_s = flight.began_at_s - asked_at_s

    def _judge(
        self, flight: Flight, refusal: Refusal, link: Link | None, trial: Trial
    ) -> SatfsError | None:
        """Return what to report for a refusal; None when another attempt makes sense."""
        verdict, label = refusal.verdict, flight.source.label
        match verdict.meaning:
            case Meaning.RENEW:
                if link is not None:
                    flight.source.links.spent(link)
                    wait_s = trial.refusals.wait_s(link)
                    if wait_s is not None and wait_s < trial.left_s:
                        trial.wait_s = wait_s
                        return None
                return NotAllowed(f"the object store refuses {label}: {verdict.code}")
            case Meaning.RETRY | Meaning.SLOW_DOWN:
                asked_s = parse_retry_after(refusal.retry_after, now_s=time.time())
                if verdict.meaning is Meaning.SLOW_DOWN or asked_s is not None:
                    self.controller.note_throttled(trio.current_time())
                text = f"the object store is busy: {label}: {verdict.code}"
                failure = (
                    Unreachable(text) if asked_s is None else Throttled(text, retry_after_s=asked_s)
                )
                trial.failed(failure, self._draw())
                return failure if trial.is_over else None
            case Meaning.CHANGED:
                return Changed(f"{label} was replaced while it was open")
            case Meaning.GONE:
                return Changed(f"{label} was removed while it was open")
            case Meaning.REFUSED:
                return NotAllowed(f"the object store refuses {label}: {verdict.code}")
            case _:
                # Forgiven once, as in net.retry: a balancer's error page is gone a moment later.
                trial.n_garbled += 1
                if trial.n_garbled <= 1:
                    trial.failed(None, self._draw())
                    return None
                return Garbled(
                    f"the object store's answer for {label} makes no sense: {verdict.code}"
                )

    # -- slow connections ------------------------------------------------------------------------

    async def _watch(self) -> None:
        """Begin again, elsewhere, what somebody waits for on a connection much slower than others.

        One bad connection of sixteen would otherwise set the pace of a sequential reader.
        """
        try:
            while self._active:
                await trio.sleep(WATCH_INTERVAL_S)
                now = trio.current_time()
                rates = {
                    flight: (flight.held_until - flight.began_at) / (now - flight.began_at_s)
                    for flight in self._active
                    if flight.began_at_s is not None and now - flight.began_at_s > SLOW_AFTER_S
                }
                if len(rates) < 2:
                    continue
                usual = statistics.median(rates.values())
                for flight, rate in rates.items():
                    if (
                        flight.is_urgent
                        and rate < SLOW_SHARE * usual
                        and flight.n_reissued < MOST_REISSUES
                    ):
                        log.debug("slow range begun again", label=flight.source.label)
                        self.counters["reissued"] += 1
                        flight.reissue()
        finally:
            self._is_watching = False
