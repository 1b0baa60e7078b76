"""The top of the mount: the tasks, the two direct doors, and a note to the reader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from satfs.tree.captures import Captures
from satfs.tree.nodes import Directory, Entry, MadeFile, Node, not_there
from satfs.tree.scenes import Scenes, Sources
from satfs.tree.tasks import Tasks

README: Final = """\
Satellite imagery deliveries, mounted read-only by satfs.

tasks/<task>/<capture>/<scene>/   what was ordered, taken and delivered, with a JSON record of each
captures/<capture>/               a capture by its id alone; lists those seen so far
scenes/<scene>/                   a scene by its id alone; lists those seen so far

What a listing, a read and an error mean here is written in docs/SEMANTICS.md of satfs.
`satfs --help` has the commands; `satfs umount` takes this directory away again.
"""


class Root(Directory):
    """The top directory: always the same, and asks nobody."""

    __slots__ = ("_hidden", "_listed")

    def __init__(self, sources: Sources) -> None:
        super().__init__(None, b"")
        self._listed: dict[bytes, Node] = {
            b"README.txt": MadeFile(self, b"README.txt", README.encode(), _readme),
            b"tasks": Tasks(self, b"tasks", sources),
            b"captures": Captures(self, b"captures", sources),
            b"scenes": Scenes(self, b"scenes", sources),
        }
        self._hidden: dict[bytes, Node] = {}

    def hide(self, nodes: Mapping[bytes, Node]) -> None:
        """Add *nodes* that are reachable by name and listed nowhere."""
        self._hidden.update(nodes)

    def may_hold(self, polled: str) -> bool:
        """Tell whether *polled* was hidden here."""
        return polled.encode() in self._hidden

    async def lookup(self, name: bytes) -> Node:
        """Return what *name* leads to; waits for nothing."""
        node = self._listed.get(name) or self._hidden.get(name)
        if node is None:
            raise not_there(self, name)
        return node

    async def children(self) -> Sequence[Entry]:
        """Return what is to be listed; waits for nothing."""
        return [Entry(name, node) for name, node in self._listed.items()]


async def _readme() -> bytes:
    return README.encode()
