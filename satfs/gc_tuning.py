"""Collect cyclic garbage in small steps, so that no request waits long for it.

Python's collector looks at every container alive when it collects its oldest generation, and no
request is served during that time: 0.8 µs for each, a second with the half million files of one
directory in the kernel's memory, and again and again while a directory of that size is listed. But
long-lived containers are hardly ever garbage later: nodes are freed by their reference counts.

The younger generations grow out of bounds, too: Python counts the containers made less those freed,
and when a directory is listed again it frees as many as it makes.

So the oldest generation is collected here, and never by Python. While it is small, it is collected
as always. When it is large, all containers are set aside (`gc.freeze`), and the collector does not
look at them; it does once most of them have gone. Cyclic garbage among them stays until then: a
share of all containers, which does not grow.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import trio

#: How often is looked, in seconds. A listing makes some 50,000 containers in that time.
_LOOK_S: Final = 0.5
#: Containers whose collection takes 25 to 40 ms, and twice as many take less than a user notices.
_MUCH: Final = 35_000
#: Looks between two collections while there is little to collect: half a minute.
_LOOKS: Final = 60
#: Never: more collections of the younger generations than a mount lives for.
_NEVER: Final = 2**31 - 1


class Collector:
    """Collects the oldest generation when that is quick. One per process, while `run` runs."""

    def __init__(self) -> None:
        self._looks_left = _LOOKS
        self._most_frozen = 0
        self._has_set_aside = False

    async def run(self) -> None:
        """Look after the garbage until cancelled, then leave it to Python again."""
        with self.by_hand():
            while True:
                await trio.sleep(_LOOK_S)
                self.look()

    @contextmanager
    def by_hand(self) -> Iterator[None]:
        """Have Python leave the oldest generation alone; what there is now stays for good."""
        before = gc.get_threshold()
        gc.set_threshold(before[0], before[1], _NEVER)
        try:
            # Not collected before: what has been imported is no garbage, and the first program
            # that uses the mount would wait for 40 ms.
            gc.freeze()
            self._most_frozen = gc.get_freeze_count() + _MUCH
            yield
        finally:
            gc.set_threshold(*before)
            gc.unfreeze()

    def look(self) -> None:
        """Collect, or set aside, or do nothing. Waits for nothing, and takes tens of ms at most."""
        # As many pointers are copied for this as there are containers: a millisecond or two.
        n_containers = sum(len(gc.get_objects(generation)) for generation in range(3))
        if n_containers >= _MUCH:
            if n_containers < 2 * _MUCH:
                self._collect()
            gc.freeze()
            self._has_set_aside = True
            return
        self._looks_left -= 1
        if self._looks_left > 0:
            return
        if self._has_set_aside and gc.get_freeze_count() < self._most_frozen:
            self._has_set_aside = False
            gc.unfreeze()
            self._collect()
            gc.freeze()
        self._collect()

    def _collect(self) -> None:
        gc.collect()
        self._looks_left = _LOOKS
