"""Follow a listing from page to page, requesting the next pages ahead: the waiting of paging."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator

import trio
from msgspec import Struct, field

from satfs.api.pagination import PageChain, PageKey, page_key, predictions
from satfs.api.wire import Page
from satfs.errors import SatfsError

GetPage = Callable[[str], Awaitable[Page]]
#: Takes a page, in its turn; returns how many of its entries were new.
Keep = Callable[[Page], int]


#: How often expectations are made again, before pages are simply requested one after the other.
MAX_NEW_EXPECTATIONS = 4


class _Expected(Struct, eq=False):
    """A page requested ahead. Its failure counts only if the chain comes to it."""

    request_scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    arrived: trio.Event = field(default_factory=trio.Event)
    page: Page | None = None
    failure: SatfsError | None = None


async def follow(chain: PageChain, get_page: GetPage, keep: Keep, *, n_ahead: int) -> None:
    """Hand every page of *chain* to *keep*, in order; at most *n_ahead* are requested ahead.

    Requests for pages that turn out not to be in the chain are cancelled.

    Raises what *get_page* raises for a page that is needed, and `Garbled` for a broken pager.
    """
    failure: SatfsError | None = None
    async with trio.open_nursery() as nursery:
        ahead = _Ahead(nursery, get_page, n_ahead)
        try:
            while chain.next_url is not None:
                try:
                    page = await ahead.get(chain.next_url)
                except SatfsError as absence:
                    if chain.skips(absence):
                        continue
                    raise
                chain.take(page, keep(page))
        except SatfsError as raised:
            # Raised below, where no nursery wraps it into a group.
            failure = raised
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


class _Ahead:
    """The window of pages that are requested before their turn.

    A page that was requested early shows an early state of the listing. As long as `count` stays
    the same, so, we trust, does the listing. When a page has another count, entries may have moved
    across the border between two pages, and what was requested ahead is thrown away: the pages
    after it must be requested after it, as they are when `next` is followed one by one.
    """

    def __init__(self, nursery: trio.Nursery, get_page: GetPage, n_ahead: int) -> None:
        self._nursery = nursery
        self._get_page = get_page
        self._n_ahead = n_ahead
        self._urls: Iterator[str] = iter(())
        self._expected: OrderedDict[PageKey, _Expected] = OrderedDict()
        self._count: int | None = None
        self._n_expectations = 0

    async def get(self, url: str) -> Page:
        """Return the page at *url*, which may be on its way already."""
        expected = self._expected.pop(page_key(url), None)
        self._top_up()
        if expected is None:
            page = await self._get_page(url)
        else:
            await expected.arrived.wait()
            if expected.failure is not None:
                raise expected.failure
            page = expected.page or await self._get_page(url)
        if expected is None or page.count != self._count:
            self._expect(url, page)
        self._top_up()
        return page

    def _expect(self, url: str, page: Page) -> None:
        """Forget what was expected; expect what *page* lets us expect."""
        for expected in self._expected.values():
            expected.request_scope.cancel()
        self._expected.clear()
        self._count = page.count
        self._n_expectations += 1
        wanted = self._n_expectations <= MAX_NEW_EXPECTATIONS
        self._urls = predictions(url, page) if wanted else iter(())

    def _top_up(self) -> None:
        while len(self._expected) < self._n_ahead:
            url = next(self._urls, None)
            if url is None:
                return
            expected = self._expected[page_key(url)] = _Expected()
            self._nursery.start_soon(self._fetch, url, expected)

    async def _fetch(self, url: str, expected: _Expected) -> None:
        with expected.request_scope:
            try:
                expected.page = await self._get_page(url)
            except SatfsError as failure:
                expected.failure = failure
        expected.arrived.set()
