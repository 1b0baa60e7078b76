"""A directory as it was when it was opened, in an order that survives change.

`readdir` answers in pieces, and a program may come back with the position of any entry it was given
(`seekdir`, NFS). Positions must stay right while entries come and go, and when the directory is
opened again: nothing may be told twice or skipped. So an entry's position, its cookie, is a hash
of its name, and entries are told in the order of their cookies, as ext4 does it. The cookie of an
entry that is gone still lies between its neighbours'.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import Final, Generic, TypeVar

import xxhash

#: The cookie of `.`, and the smallest; 0 is the kernel's word for the beginning.
DOT: Final = 1
DOT_DOT: Final = 2
_FIRST: Final = 3
#: Cookies are off_t: positive, 63 bits. One bit is left as room for names whose hashes are equal.
_LIMIT: Final = 2**62

T = TypeVar("T")


class Listing(Generic[T]):
    """Things by name, in the order of their cookies."""

    __slots__ = ("_cookies", "_things")

    def __init__(self, things: Iterable[tuple[bytes, T]]) -> None:
        unordered = list(things)
        # Compared as tuples, and never down to the things: names are different.
        order = sorted((_hash(name), name, index) for index, (name, _) in enumerate(unordered))
        self._things = [unordered[index] for _, _, index in order]
        self._cookies: list[int] = []
        last = DOT_DOT
        for cookie, _, _ in order:
            # Equal hashes: side by side, in the order of the names. Only such a pair's positions
            # depend on each other.
            last = cookie if cookie > last else last + 1
            self._cookies.append(last)

    def __len__(self) -> int:
        """Return how many things there are."""
        return len(self._things)

    def after(self, cookie: int) -> Iterator[tuple[int, bytes, T]]:
        """Return (cookie, name, thing) of everything behind *cookie*, whether or not it is here."""
        for index in range(bisect_right(self._cookies, cookie), len(self._cookies)):
            yield (self._cookies[index], *self._things[index])


def _hash(name: bytes) -> int:
    return _FIRST + xxhash.xxh3_64_intdigest(name) % (_LIMIT - _FIRST)
