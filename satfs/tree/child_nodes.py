"""The child nodes of one listing, made once for as long as the listing is the same."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import trio
from cachetools import LRUCache

from satfs.tree.nodes import Directory, Node

R = TypeVar("R")
N = TypeVar("N", bound=Node)

#: Nodes made between two checkpoints: about three milliseconds' worth.
_BATCH: Final = 1000
#: Nodes remembered for all directories together, those used least recently forgotten first. A node
#: takes some 500 bytes, and the listing it was made of, which is remembered with it, far more.
_MAX_NODES: Final = 20_000


@dataclass(slots=True)
class ChildCache:
    """The nodes of the last listing of one directory."""

    listing: Iterable[Any] | None = None
    nodes: Mapping[bytes, Any] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """How many nodes there are, and one for the family itself."""
        return 1 + len(self.nodes)

    async def of(
        self,
        listing: Iterable[R],
        make: Callable[[bytes, R], N],
        name_of: Callable[[R], bytes],
    ) -> Mapping[bytes, N]:
        """Return the nodes that *make* makes of the records of *listing*, by name.

        A listing that is still believed is the same object (`sources.Catalogue`), and then so are
        the nodes. Of records with equal names the first counts. Yields every now and then; waits
        for nothing.
        """
        if listing is not self.listing:
            nodes: dict[bytes, N] = {}
            for count, record in enumerate(listing, start=1):
                name = name_of(record)
                if name not in nodes:
                    nodes[name] = make(name, record)
                if count % _BATCH == 0:
                    await trio.lowlevel.checkpoint()
            # Together, with no await between. Another task may have made the same by now, and
            # either result is right.
            self.listing, self.nodes = listing, nodes
        return self.nodes


class ChildCaches:
    """The families of all directories, as many as may be remembered."""

    def __init__(self) -> None:
        self._families: LRUCache[Directory, ChildCache] = LRUCache(
            _MAX_NODES, getsizeof=lambda family: min(family.size, _MAX_NODES)
        )

    async def of(
        self,
        parent: Directory,
        listing: Iterable[R],
        make: Callable[[bytes, R], N],
        name_of: Callable[[R], bytes],
    ) -> Mapping[bytes, N]:
        """Return the nodes of *listing* in the directory *parent*; see `ChildCache.of`."""
        family = self._families.get(parent) or ChildCache()
        nodes = await family.of(listing, make, name_of)
        self._families[parent] = family  # weighed again
        return nodes
