"""Which connection a range request gets: one of the event loop, or one of a worker process.

Short ranges go over the loop's connections. Long ones go over those of the workers, whose
processors are not the loop's. `net.permits` limits the connections to each host.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import trio

from satfs.content.fetch.connection_controller import ConnectionController
from satfs.content.fetch.failures import AttemptCounts
from satfs.content.fetch.range_request import RangeRequest
from satfs.content.fetch.soon_idle import SoonIdle
from satfs.content.transfer.interface import BulkMover
from satfs.model import Link
from satfs.net.addresses import origin_of
from satfs.net.host_connections import Holder, Permit
from satfs.net.permits import AWAITED, READ_AHEAD, Permits
from satfs.net.recalls import Rank

#: From this length on, a sequential range is moved by a worker process, if there are any.
BULK_BYTES: Final = 1024 * 1024
#: Number of silent connections from which one range is moved away before it waits for a slow
#: response.
MAX_MOVES: Final = 2


class ConnectionChoice:
    """The permissions of range requests to use a connection of the loop or of *bulk*'s workers.

    *loop_holder* holds the connections of the loop. *bulk* is None without worker processes.
    """

    def __init__(
        self,
        permits: Permits,
        loop_holder: Holder,
        bulk: BulkMover | None,
        controller: ConnectionController,
    ) -> None:
        self.permits = permits
        self.loop_holder = loop_holder
        self.bulk = bulk
        self.soon_idle = SoonIdle(loop_holder, controller)
        self._controller = controller
        #: The range requests that wait for a connection, and the calls that let each choose a
        #: holder again.
        self._waiting: dict[RangeRequest, Callable[[], None]] = {}
        #: Those that have been started, and have not come to `take`.
        self._coming: set[RangeRequest] = set()
        if bulk is not None:
            bulk.on_ready = self._choose_holders_again

    def expect(self, range_request: RangeRequest) -> None:
        """Note that *range_request* is started: it comes to `take` in the next turn, or now."""
        self._coming.add(range_request)

    def expect_no_more(self, range_request: RangeRequest) -> None:
        """Note that *range_request* has come, or never will."""
        self._coming.discard(range_request)

    async def take(
        self, range_request: RangeRequest, link: Link, counts: AttemptCounts, *, is_probe: bool
    ) -> Permit:
        """Wait until *range_request* may use a connection, and return the permission to.

        The time of the wait is entered in *counts*. With *is_probe* the connection is the loop's.

        Raises:
            Crowded: another connection is to be tried, or it is the turn of other requests.
        """
        origin = origin_of(link.url)
        holders: list[Holder] = []

        def choose_holders() -> None:
            holders[:] = self._holders(range_request, link, is_probe=is_probe)

        def rank() -> Rank:
            return (AWAITED if range_request.is_urgent else READ_AHEAD, range_request.order)

        began_s = trio.current_time()
        await self.soon_idle.wait(range_request, origin)
        counts.waited(trio.current_time() - began_s)
        began_s = trio.current_time()
        choose_holders()
        self.expect_no_more(range_request)
        self._waiting[range_request] = choose_holders
        try:
            permit = await self.permits.take(
                origin,
                holders,
                rank,
                is_patient=counts.n_crowded >= MAX_MOVES,
                is_moved=counts.n_crowded > 0 or counts.was_taken_back,
                is_alone=not self._coming,
            )
        finally:
            del self._waiting[range_request]
        counts.waited(trio.current_time() - began_s)
        self._controller.note_limit(trio.current_time(), self.permits.limit(origin))
        return permit

    def _holders(self, range_request: RangeRequest, link: Link, *, is_probe: bool) -> list[Holder]:
        """Return the holders whose connections *range_request* may use now, the best first."""
        bulk = self.bulk
        holders: list[Holder] = [self.loop_holder]
        is_long = len(range_request.missing) >= BULK_BYTES
        if (
            bulk is not None
            and range_request.is_bulk
            and not is_probe
            # No process is started for a short range.
            and (is_long or bulk.is_ready)
            and bulk.is_at_hand(link, range_request)
        ):
            holders.insert(0 if is_long else 1, bulk)
        return holders

    def _choose_holders_again(self) -> None:
        """Let the requests that wait for a connection use those of a worker, too."""
        for choose_holders in self._waiting.values():
            choose_holders()
