"""The child nodes of one listing, made once for as long as the listing is the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Generic, TypeVar

import trio

from satfs.tree.nodes import Node

R = TypeVar("R")
N = TypeVar("N", bound=Node)

#: Nodes made without letting anybody else run: about three milliseconds' worth.
_BATCH: Final = 1000


class Offspring(Generic[R, N]):
    """Nodes for the records of a listing, by name.

    A listing that is still believed is the same object (`sources.Catalogue`); then the same nodes
    are returned, with whatever they have learnt. When it was renewed, the nodes of records that did
    not change are kept.

    `make` gets a name and a record and returns the node; `name_of` gets a record and returns its
    name. Of records with equal names the first counts.
    """

    def __init__(self, make: Callable[[bytes, R], N], name_of: Callable[[R], bytes]) -> None:
        self._make = make
        self._name_of = name_of
        self._listing: Sequence[R] | None = None
        self._made: dict[bytes, tuple[R, N]] = {}
        self._nodes: dict[bytes, N] = {}

    async def of(self, listing: Sequence[R]) -> Mapping[bytes, N]:
        """Return the node of each record of *listing*, by name.

        Yields to other tasks every now and then; waits for nothing.
        """
        if listing is self._listing:
            return self._nodes
        made: dict[bytes, tuple[R, N]] = {}
        for count, record in enumerate(listing, start=1):
            name = self._name_of(record)
            if name not in made:
                made[name] = (record, self.one(name, record))
            if count % _BATCH == 0:
                await trio.lowlevel.checkpoint()
        # Assigned together, with no await between: another task may have built the same meanwhile,
        # and either result is right.
        self._listing, self._made = listing, made
        self._nodes = {name: node for name, (_, node) in made.items()}
        return self._nodes

    def one(self, name: bytes, record: R) -> N:
        """Return the node of one *record* called *name*: the known one, unless it has changed."""
        before = self._made.get(name)
        if before is not None and (before[0] is record or before[0] == record):
            return before[1]
        return self._make(name, record)
