"""A listing that is being read page by page: its records so far, and whether some may be missing.

*Pure*. All listings that are being read have one limit for their memory: a broken service that
sends many large ones at the same time gets no more of it than with one. The pages of a listing
whose deadline was reached are kept for a while, and the next try goes on with them.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

from satfs.api.pagination import PageChain
from satfs.api.record_list import RecordList, RecordPage, new_records, page_bytes
from satfs.api.record_parsers import RecordParser
from satfs.api.wire import Page
from satfs.errors import Garbled

R = TypeVar("R")

#: How often one listing is read from its beginning, at most, when it shrinks each time.
MAX_READINGS: Final = 3
#: How long what has come of a listing waits for the next try to go on with it, in seconds: longer
#: than a person takes to try again, and not so long that its first pages are of another time. And
#: how many such listings wait.
UNFINISHED_S: Final = 60.0
MAX_UNFINISHED: Final = 64


@dataclass(slots=True, eq=False)
class PartialListing(Generic[R]):
    """The records of the listing at *first_url*, each id once: the first that came."""

    first_url: str
    max_entries: int
    parser: RecordParser[R]
    progress: ListingsInProgress
    chain: PageChain = field(init=False)
    n_unusable: int = field(init=False, default=0)
    n_unreadable: int = field(init=False, default=0)
    #: About what the records take in memory.
    n_bytes: int = field(init=False, default=0)
    #: Pages taken in so far, in all readings.
    n_pages: int = field(init=False, default=0)
    is_shrunk: bool = field(init=False, default=False)
    _pages: list[RecordPage] = field(init=False, default_factory=list)
    _index: dict[str, int] = field(init=False, default_factory=dict)
    _n_sent: int = field(init=False, default=0)
    _count: int | None = field(init=False, default=None)
    _n_readings: int = field(init=False, default=1)

    def __post_init__(self) -> None:
        self.chain = PageChain(self.first_url, self.max_entries)

    def keep(self, page: Page) -> int:
        """Take in the next page, of a `RecordList`; return how many of its records are new.

        Raises:
            Garbled: all that is being listed takes more memory than it may.
        """
        self.n_pages += 1
        self.n_unusable += page.n_unusable
        self.n_unreadable += page.n_unreadable
        self._n_sent += page.n_sent
        if page.count is not None:
            self.is_shrunk = self.is_shrunk or page.count < (self._count or 0)
            self._count = page.count
        n_before = len(self._index)
        for one in page.entries.pages if isinstance(page.entries, RecordList) else ():
            new = new_records(one, self._index)
            if new is not None:
                n_bytes = page_bytes(new)
                try:
                    self.progress.take(n_bytes)
                except Garbled:
                    self.let_go()  # at once: others that fit now would fail as well
                    raise
                self.n_bytes += n_bytes
                self._pages.append(new)
        return len(self._index) - n_before

    @property
    def is_begun(self) -> bool:
        """Return whether any record has come."""
        return bool(self._pages)

    @property
    def must_restart(self) -> bool:
        """Return whether entries may be missing that another reading would bring."""
        return self.is_shrunk and self._n_readings < MAX_READINGS

    @property
    def is_short(self) -> bool:
        """Return whether fewer entries were sent than the last page counted."""
        return self._count is not None and self._n_sent < self._count

    def note_lost_page(self) -> None:
        """Note that a page is not there to which another one leads: entries before it have gone.

        Some services number their pages, and respond so once there are fewer.

        Raises:
            Garbled: it was so each time the listing was read.
        """
        self.is_shrunk = True
        if not self.must_restart:
            raise Garbled("a page is not there to which another one leads")

    def records(self) -> RecordList[R]:
        """Return what has come."""
        return RecordList(self.parser, self._pages, self._index)

    def restart(self) -> None:
        """Forget what has come, and start from the first page."""
        self.let_go()
        self.chain = PageChain(self.first_url, self.max_entries)
        self.n_unusable = self.n_unreadable = self._n_sent = 0
        self.is_shrunk, self._count = False, None
        self._n_readings += 1

    def let_go(self) -> None:
        """Forget what has come, and give its memory back."""
        self.progress.give_back(self.n_bytes)
        self.n_bytes = 0
        self._pages, self._index = [], {}


class ListingsInProgress:
    """The listings that are being read, and those that wait for the next try.

    *max_bytes* is what all of them may take in memory. Where that is too little, those that wait
    are forgotten first, the oldest of them first of all.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.n_bytes = 0
        self._waiting: OrderedDict[str, tuple[PartialListing[Any], float]] = OrderedDict()

    def __len__(self) -> int:
        """Return how many listings wait for the next try."""
        return len(self._waiting)

    def take(self, n_bytes: int) -> None:
        """Count *n_bytes* more.

        Raises:
            Garbled: they are too many. Then they are not counted.
        """
        while self._waiting and self.n_bytes + n_bytes > self.max_bytes:
            self._forget_oldest()
        if self.n_bytes + n_bytes > self.max_bytes:
            raise Garbled(f"what is being listed takes more than {self.max_bytes} bytes of memory")
        self.n_bytes += n_bytes

    def give_back(self, n_bytes: int) -> None:
        """Count *n_bytes* less."""
        self.n_bytes -= n_bytes

    def put_by(self, partial: PartialListing[Any], now_s: float) -> None:
        """Keep *partial* for the next try."""
        before = self.go_on_with(partial.first_url, now_s)
        if before is not None:  # the same listing, read twice at the same time
            before.let_go()
        self._waiting[partial.first_url] = (partial, now_s + UNFINISHED_S)
        while len(self._waiting) > MAX_UNFINISHED:
            self._forget_oldest()

    def go_on_with(self, first_url: str, now_s: float) -> PartialListing[Any] | None:
        """Return what has come of the listing at *first_url*; None when nothing is kept of it."""
        self._expire(now_s)
        found = self._waiting.pop(first_url, None)
        return None if found is None else found[0]

    def _expire(self, now_s: float) -> None:
        while self._waiting and next(iter(self._waiting.values()))[1] <= now_s:
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        _, (partial, _) = self._waiting.popitem(last=False)
        partial.let_go()
