"""The requests to the vendor's API, and their responses as records.

Every operation as a whole, all its pages and retries and a new token included, ends within
`metadata_deadline_s`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, TypeVar, cast

import structlog
import trio

from satfs.api import endpoints, page_prefetch, pagination, presigned, record_parsers, wire
from satfs.api.credential import Credential
from satfs.api.endpoints import ApiRequest
from satfs.api.error_text import prefixed
from satfs.api.partial_listing import ListingsInProgress, PartialListing
from satfs.api.record_list import RecordList, joined
from satfs.api.record_parsers import RecordParser
from satfs.api.session import ApiSession, ParametersRefused
from satfs.errors import (
    Garbled,
    NeedsContract,
    NeedsLogin,
    NotAllowed,
    NotThere,
    SatfsError,
    Unfinished,
)
from satfs.model import (
    AttachmentName,
    Capture,
    CaptureId,
    Contract,
    Link,
    Scene,
    SceneId,
    Task,
    TaskId,
)
from satfs.net.addresses import LinkRule
from satfs.net.connecting import CheckPeer
from satfs.net.http import Http
from satfs.net.responses import Response
from satfs.net.retry_loop import Retries
from satfs.request_slots import Deadline, Slots
from satfs.settings import Settings

R = TypeVar("R")
log = structlog.get_logger(__name__)

#: The share of `metadata_deadline_s` that a listing leaves to the caller when it ends unfinished.
_LISTING_MARGIN: Final = 0.1


class Aleph:
    """The vendor's API.

    Every method waits for the network, and raises:

        NeedsLogin, NeedsContract: the credential, or the contract, is refused or missing.
        NotAllowed: the vendor refuses this one thing.
        Unreachable, DeadlineReached, Throttled: no (useful) response within the deadline.
        Garbled: a response that cannot be right, twice in a row.
    """

    def __init__(
        self,
        http: Http,
        settings: Settings,
        *,
        retries: Retries | None = None,
        shared_slots: Slots | None = None,
    ) -> None:
        self._settings = settings
        self._session = ApiSession(http, settings, retries, shared_slots)
        self._link_rule = LinkRule(settings.api_url, settings.allow_private_store)
        self._progress = ListingsInProgress(settings.listing_memory_bytes)
        self._is_short_reported = False
        self._is_limit_refused = False

    def on_refusal(self, work: Callable[[], Awaitable[None]]) -> None:
        """Have *work* done when the credential is refused, before the request is tried again."""
        self._session.on_refusal = work

    @property
    def credential(self) -> Credential:
        """The credential for the vendor."""
        return self._session.credential

    def refusal(self) -> str | None:
        """Return why the credential was refused at the last request; None: it was not."""
        return self._session.refusal()

    def counters(self) -> Mapping[str, int]:
        """Return how many requests were sent, and how many responses came, by status."""
        return self._session.counters

    # -- the requests ------------------------------------------------------------------------------

    async def tasks(self) -> RecordList[Task]:
        """Return every task that the contract shows, in the vendor's order, each id once."""
        return await self._list(endpoints.tasks(self._settings.page_limit), record_parsers.task)

    async def task(self, task_id: TaskId) -> Task:
        """Return one task; raises NotThere when no task has that id."""
        request = endpoints.task(task_id)
        return await self._one(
            request, record_parsers.task, lambda task: task.task_id == task_id, self._deadline()
        )

    async def captures(self, task_id: TaskId) -> RecordList[Capture]:
        """Return every capture of a task, of every status, each id once.

        Raises NotThere when there is no such task.
        """
        return await self._list(
            endpoints.captures(task_id, self._settings.page_limit), record_parsers.capture
        )

    async def scenes(self, capture_id: CaptureId) -> RecordList[Scene]:
        """Return every scene of a capture, each id once; none when there is no such capture."""
        return await self._list(
            endpoints.scenes(capture_id, self._settings.page_limit), record_parsers.scene
        )

    async def scene(self, scene_id: SceneId) -> Scene:
        """Return one scene; raises NotThere when no scene has that id.

        That a scene has a path of its own is inferred, so a refusal is no proof: then a filtered
        listing is requested, which is inferred as well. Only an exact id counts in either.
        """
        deadline = self._deadline()
        request = endpoints.scene(scene_id)
        try:
            return await self._one(
                request, record_parsers.scene, lambda scene: scene.scene_id == scene_id, deadline
            )
        except (NeedsLogin, NeedsContract):
            raise
        except (NotThere, NotAllowed, Garbled) as refusal:
            return await self._search_scene(scene_id, deadline, refusal)

    async def sign(self, scene_id: SceneId, attachment: AttachmentName) -> Link:
        """Return a new presigned link to an attachment; raises NotThere without that attachment.

        Raises NotAllowed also when the link leads where links may not lead
        (`satfs.net.addresses.LinkRule`).
        """
        request = endpoints.sign(scene_id, attachment)
        url = request.url(self._settings.api_url)

        def read(response: Response) -> Link:
            link = presigned.link(response.status, response.headers, response.body, request_url=url)
            self._link_rule.check(link.url)
            return link

        return await self._session.fetch(request, read, self._deadline())

    async def contracts(self) -> RecordList[Contract]:
        """Return the account's contracts. The one request that names no contract."""
        return await self._list(endpoints.contracts(), record_parsers.contract)

    async def check(self) -> RecordList[Task]:
        """Return the first page of tasks: the credential is accepted, and so is the contract."""
        tasks, _ = await self.first_tasks()
        return tasks

    async def first_tasks(self) -> tuple[RecordList[Task], bool]:
        """Return the first page of tasks, each id once, and whether it holds all tasks."""
        request = endpoints.tasks(self._settings.page_limit)
        page = await self._page(request, record_parsers.task, self._deadline())
        is_last = page.next is None and (page.has_next_field or page.n_sent >= (page.count or 0))
        is_last &= not pagination.may_go_on(request.url(self._settings.api_url), page)
        return joined(record_parsers.task, (cast(RecordList[Task], page.entries),)), is_last

    # -- the shapes of a request -------------------------------------------------------------------

    def _deadline(self) -> Deadline:
        return Deadline.within(self._settings.metadata_deadline_s, n_waiting=1)

    async def _list(self, request: ApiRequest, parser: RecordParser[R]) -> RecordList[R]:
        """Return the records of all pages, each id once: the first that came.

        When the deadline is reached, what has come is kept, and the next call goes on with it.

        Raises:
            Unfinished: the deadline is reached, and pages have come in this call.
        """
        deadline = self._deadline()
        first_url = request.url(self._settings.api_url)
        listing: PartialListing[R] = self._progress.go_on_with(
            first_url, trio.current_time()
        ) or PartialListing(first_url, self._settings.max_entries, parser, self._progress)
        #: Ends a listing of which pages have come before the kernel's call ends: so what has come
        #: is kept, and the caller learns that something has.
        scope = trio.CancelScope()

        async def get_page(url: str) -> wire.Page:
            return await self._page(request, parser, deadline, url)

        def keep(page: wire.Page) -> int:
            scope.deadline = deadline.at_s - _LISTING_MARGIN * self._settings.metadata_deadline_s
            return listing.keep(page)

        async def follow() -> None:
            n_ahead = self._settings.api_concurrency
            try:
                await page_prefetch.follow(listing.chain, get_page, keep, n_ahead=n_ahead)
            except NotThere:
                if listing.chain.next_url == first_url:
                    raise
                listing.note_lost_page()

        is_unfinished = True
        try:
            with scope:
                await follow()
                while listing.must_restart:
                    listing.restart()
                    await follow()
                is_unfinished = False
            if is_unfinished:
                raise Unfinished(
                    f"{request.what}: {listing.n_pages} pages have come, and there are more"
                )
            self._note(request, listing)
            return listing.records()
        except Garbled as failure:
            is_unfinished = False
            raise Garbled(prefixed(request.what, failure)) from failure
        finally:
            if is_unfinished and listing.is_begun:
                self._progress.put_by(listing, trio.current_time())
            else:
                listing.let_go()

    def _note(self, request: ApiRequest, listing: PartialListing[R]) -> None:
        """Log what is odd about a listing that has been read to its end."""
        if listing.n_unusable:
            log.warning("entries without id skipped", what=request.what, n=listing.n_unusable)
        if listing.n_unreadable:
            log.warning("records are unreadable", what=request.what, n=listing.n_unreadable)
        if listing.is_shrunk:
            log.info("listing shrank each time it was read", what=request.what)
        elif listing.is_short and not self._is_short_reported:
            # Once: a vendor that counts otherwise than we do does so in each listing.
            self._is_short_reported = True
            log.warning("listing ended before its count", what=request.what)

    async def _page(
        self,
        request: ApiRequest,
        parser: RecordParser[Any],
        deadline: Deadline,
        url: str | None = None,
    ) -> wire.Page:
        """Return the page at *url*, by default the first one, with the records of *parser*.

        Some services refuse a `limit` above their own, or any, where the vendor's cuts it: then
        they choose the length of pages.
        """
        page_url = url or request.url(self._settings.api_url)
        if self._is_limit_refused:
            page_url = pagination.without_limit(page_url)

        async def fetch(page_url: str) -> wire.Page:
            return await self._session.fetch(
                request,
                lambda response: wire.page_of(
                    response.body, parser, response.headers.get("link", "")
                ),
                deadline,
                page_url=page_url,
            )

        try:
            return await fetch(page_url)
        except ParametersRefused:
            shorter = pagination.without_limit(page_url)
            if shorter == page_url:
                raise
        page = await fetch(shorter)
        log.info("the API refuses the length of pages that was requested", what=request.what)
        self._is_limit_refused = True
        return page

    async def _one(
        self,
        request: ApiRequest,
        parser: RecordParser[R],
        is_it: Callable[[R], bool],
        deadline: Deadline,
    ) -> R:
        """Return the one record in the response."""

        def read(response: Response) -> R:
            for record in map(parser, wire.records_in(wire.one(response.body))):
                if record is not None and is_it(record):
                    return record
            raise Garbled("the response is about something else")

        return await self._session.fetch(request, read, deadline)

    async def _search_scene(
        self, scene_id: SceneId, deadline: Deadline, refusal: SatfsError
    ) -> Scene:
        """Return the scene by a filtered listing; only its first page is looked at."""
        request = endpoints.scene_search(scene_id)
        try:
            page = await self._page(request, record_parsers.scene, deadline)
        except (NeedsLogin, NeedsContract):
            raise
        except (NotThere, NotAllowed, Garbled):
            # A failure of an inferred request proves nothing: the first response stands.
            raise refusal from None
        found: Sequence[Scene] = page.entries
        for scene in found:
            if scene.scene_id == scene_id:
                return scene
        raise NotThere(f"{request.what}: there is none")


def http_for(
    settings: Settings,
    *,
    max_connections: int | None = None,
    check_peer: CheckPeer | None = None,
    shares_pool_of: Http | None = None,
) -> Http:
    """Return the HTTP client of one command: with the time limits and authorities of *settings*.

    *shares_pool_of* is another client of the same settings, as for `Http`.
    """
    return Http(
        connect_timeout_s=settings.connect_timeout_s,
        progress_timeout_s=settings.progress_timeout_s,
        body_timeout_s=settings.body_timeout_s,
        max_connections=max_connections or settings.api_concurrency,
        ca_file=settings.ca_file,
        tls_strict=settings.tls_strict,
        user_agent=settings.user_agent,
        check_peer=check_peer,
        shares_pool_of=shares_pool_of,
    )
