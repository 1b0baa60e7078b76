"""Follow a listing from page to page, asking for the expected ones ahead: the waiting of paging."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field

import trio

from satfs.api.paging import Chain, PageKey, page_key, predictions
from satfs.api.wire import Page
from satfs.errors import SatfsError
from satfs.model import Json

GetPage = Callable[[str], Awaitable[Page]]
#: Takes the entries of a page, in order; returns how many of them were new.
Keep = Callable[[tuple[Json, ...]], int]


@dataclass(slots=True, eq=False)
class _Expected:
    """A page asked for ahead. Its failure counts only if the chain comes by."""

    arrived: trio.Event = field(default_factory=trio.Event)
    page: Page | None = None
    failure: SatfsError | None = None


async def follow(chain: Chain, get_page: GetPage, keep: Keep, *, n_ahead: int) -> None:
    """Hand every page of *chain* to *keep*, in order; at most *n_ahead* are asked for ahead.

    What the chain turns out not to need is cancelled.

    Raises what *get_page* raises for a page that is needed, and `Garbled` for a broken pager.
    """
    url = chain.next_url
    if url is None:
        return
    first = await get_page(url)
    chain.take(first, keep(first.entries))
    if chain.next_url is None:
        return
    failure: SatfsError | None = None
    async with trio.open_nursery() as nursery:
        ahead = _Ahead(nursery, get_page, predictions(url, first), n_ahead)
        try:
            while chain.next_url is not None:
                page = await ahead.get(chain.next_url)
                chain.take(page, keep(page.entries))
        except SatfsError as raised:
            # Raised below, where no nursery wraps it into a group.
            failure = raised
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


class _Ahead:
    """The window of pages that were asked for before their turn."""

    def __init__(
        self, nursery: trio.Nursery, get_page: GetPage, urls: Iterator[str], n_ahead: int
    ) -> None:
        self._nursery = nursery
        self._get_page = get_page
        self._urls = urls
        self._n_ahead = n_ahead
        self._expected: OrderedDict[PageKey, _Expected] = OrderedDict()

    async def get(self, url: str) -> Page:
        """Return the page at *url*, which may be on its way already."""
        self._top_up()
        key = page_key(url)
        expected = self._expected.pop(key, None)
        if expected is None:
            # The chain has left what was expected: no use in asking for more of that.
            self._urls = iter(())
            return await self._get_page(url)
        self._top_up()
        await expected.arrived.wait()
        if expected.failure is not None:
            raise expected.failure
        if expected.page is None:
            return await self._get_page(url)
        return expected.page

    def _top_up(self) -> None:
        while len(self._expected) < self._n_ahead:
            url = next(self._urls, None)
            if url is None:
                return
            expected = self._expected[page_key(url)] = _Expected()
            self._nursery.start_soon(self._fetch, url, expected)

    async def _fetch(self, url: str, expected: _Expected) -> None:
        try:
            expected.page = await self._get_page(url)
        except SatfsError as failure:
            expected.failure = failure
        finally:
            expected.arrived.set()
