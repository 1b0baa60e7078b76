"""A directory as it was when it was opened, in an order that survives changes.

`readdir` returns entries in pieces, and a program may continue at the position of any entry that it
was given (`seekdir`, NFS). Positions must stay valid while entries are added and removed, and when
the directory is opened again: no entry may be listed twice or skipped. So an entry's position, its
cookie, is a hash of its name, and entries are listed in the order of their cookies, as in ext4. The
cookie of an entry that is gone is still between those of its neighbours.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Final

from satfs.tree.names import MAX_ORDER, order_of

#: The cookie of `.`, and the smallest; 0 means the beginning for the kernel.
DOT: Final = 1
DOT_DOT: Final = 2
_FIRST: Final = 3
#: Cookies are off_t: positive, 63 bits. One bit is left as room for names whose hashes are equal.
_LIMIT: Final = _FIRST + MAX_ORDER

#: Names in one call of `sorted`, well under a millisecond: a sort lets no other thread run.
_NAMES_A_SORT: Final = 1000


class Listing:
    """The order in which *n* entries are listed; *name* returns the name at an index; all differ.

    Takes twelve bytes for each entry. Names are not held in a list: Python's garbage collector
    would look at each of them whenever it looks at the list, and no other code runs meanwhile.
    """

    __slots__ = ("_cookies", "_indexes")

    def __init__(self, n: int, name: Callable[[int], bytes]) -> None:
        hashes = array("Q", (_hash(name(index)) for index in range(n)))
        n_heaps = n // _NAMES_A_SORT + 1
        # Hashes are spread evenly, so their first digits make heaps of about the same size.
        heaps = [array("I") for _ in range(n_heaps)]
        for index, cookie in enumerate(hashes):
            heaps[cookie * n_heaps // _LIMIT].append(index)
        self._cookies = array("Q")
        self._indexes = array("I")
        last = DOT_DOT
        for heap in heaps:
            order = sorted(heap, key=hashes.__getitem__)
            for cookie, alike in groupby(order, hashes.__getitem__):
                # Equal hashes: neighbours, in the order of the names. Only their positions depend
                # on each other.
                for index in sorted(alike, key=name):
                    last = max(cookie, last + 1)
                    self._cookies.append(last)
                    self._indexes.append(index)

    def __len__(self) -> int:
        """Return how many names there are."""
        return len(self._cookies)

    def after(self, cookie: int) -> Iterator[tuple[int, int]]:
        """Return (cookie, index) of each entry behind *cookie*, whose own entry may be gone."""
        for position in range(bisect_right(self._cookies, cookie), len(self._cookies)):
            yield self._cookies[position], self._indexes[position]


def _hash(name: bytes) -> int:
    return _FIRST + order_of(name)
