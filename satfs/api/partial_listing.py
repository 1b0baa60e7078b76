"""One listing while it is being gathered: what has come, where to go on, and whether to begin anew.

*Pure*. A listing that takes longer than one call may is gone on with by the next one. One that
becomes shorter while its pages are asked for loses entries that stay: they move across the border
between two pages, to the side that was asked for already. `count` tells, so it is read once more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from satfs.api.paging import Chain
from satfs.api.wire import Page

R = TypeVar("R")

#: How often one listing is read from its beginning, at most, when it shrinks each time.
MAX_READINGS: Final = 3


@dataclass(slots=True)
class PartialListing(Generic[R]):
    """The records of the listing at *first_url*, each key once: the first that came."""

    first_url: str
    max_entries: int
    key: Callable[[R], str]
    chain: Chain = field(init=False)
    found: dict[str, R] = field(init=False, default_factory=dict)
    n_unusable: int = field(init=False, default=0)
    is_shrunk: bool = field(init=False, default=False)
    _n_sent: int = field(init=False, default=0)
    _count: int | None = field(init=False, default=None)
    _n_readings: int = field(init=False, default=1)

    def __post_init__(self) -> None:
        self.chain = Chain(self.first_url, self.max_entries)

    def keep(self, page: Page) -> int:
        """Take in the next page; return how many of its records are new."""
        self.n_unusable += page.n_unusable
        self._n_sent += page.n_sent
        if page.count is not None:
            self.is_shrunk = self.is_shrunk or page.count < (self._count or 0)
            self._count = page.count
        n_before = len(self.found)
        for record in page.entries:
            self.found.setdefault(self.key(record), record)
        return len(self.found) - n_before

    @property
    def must_begin_anew(self) -> bool:
        """Tell whether entries may be missing that another reading would bring."""
        return self.is_shrunk and self._n_readings < MAX_READINGS

    @property
    def is_short(self) -> bool:
        """Tell whether fewer entries were sent than the last page counted."""
        return self._count is not None and self._n_sent < self._count

    def begin_anew(self) -> None:
        """Forget what has come, and start from the first page."""
        self.chain = Chain(self.first_url, self.max_entries)
        self.found = {}
        self.n_unusable = self._n_sent = 0
        self.is_shrunk, self._count = False, None
        self._n_readings += 1
