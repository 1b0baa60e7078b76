"""Whether programs of this mount read the beginning of a file right after they looked it up.

Decides, and never waits. The first look-up of a file needs its size, which is one request, and a
read is another one. Where a program is going to read the beginning anyway, both can be sent at the
same time. The kernel does not announce reads: it looks a name up in the same way for `stat` and for
`cat`. So a read is expected if one followed the last look-up. For the first look-up of a mount a
read is expected, unless a program has listed a directory by then: a program that opens a path
without a listing mostly reads it.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Final

#: Length of the beginning of a file, in bytes: the kernel reads this much first. Two blocks of the
#: cache.
BEGINNING_BYTES: Final = 32 * 1024
#: A read within this time after the look-up belongs to it, in seconds.
SOON_S: Final = 2.0


class FirstReads:
    """The reads that follow look-ups of files whose size was not known.

    Invariants:
        While it is not known what follows one look-up, no beginning is expected for another: a walk
        without reads costs one request in vain, not one for each file.
    """

    def __init__(self) -> None:
        self._waiting: OrderedDict[Hashable, float] = OrderedDict()
        self._is_usual = False
        self._is_first = True
        self._has_walked = False

    def expect(self) -> None:
        """Expect that the first file which is looked up is read."""
        self._is_usual = self._is_first

    def listed(self) -> None:
        """Note that a program lists a directory: the first look-up may come from a walk."""
        if self._is_first:
            self._is_usual = False

    def walked(self) -> bool:
        """Note that a program walks to a scene; return whether it is expected to read there.

        That is so for the first walk of a mount, and for no other.
        """
        is_expected = self._is_first and self._is_usual and not self._has_walked
        self._has_walked = True
        return is_expected

    def looked_up(self, key: Hashable, now_s: float) -> bool:
        """Note that the size of *key* is requested; return whether its beginning is expected."""
        self._forget_old(now_s)
        is_expected = self._is_usual and not self._waiting
        self._is_first = False
        self._waiting[key] = now_s
        return is_expected

    def read(self, key: Hashable, start: int, now_s: float) -> None:
        """Note that the first read of *key* begins at the offset *start*."""
        self._forget_old(now_s)
        if self._waiting.pop(key, None) is not None:
            self._is_usual = start < BEGINNING_BYTES

    def _forget_old(self, now_s: float) -> None:
        while self._waiting and now_s - next(iter(self._waiting.values())) > SOON_S:
            self._waiting.popitem(last=False)
            self._is_usual = False
