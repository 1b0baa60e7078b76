"""Additions of other modules to every scene directory: a directory, or a file that is rendered.

The scene directory knows these interfaces alone, so that entries besides records and attachments
(`contents/`, `item.json`, thumbnails) are added where the tree is built.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from satfs.model import Attachment
from satfs.tree.nodes import Directory
from satfs.tree.rendered import Rendering

if TYPE_CHECKING:
    from satfs.tree.scenes import SceneDirectory


class Extra(Protocol):
    """A directory that another module adds to every scene, as `contents/` is."""

    @property
    def name(self) -> bytes:
        """The name it has in each scene directory; no attachment is shown under it."""
        ...

    @property
    def is_listed(self) -> bool:
        """Whether listings show it; looked up by name it is there in any case."""
        ...

    def directory(
        self, scene: SceneDirectory, attachments: Sequence[Attachment]
    ) -> Directory | None:
        """Return the directory for *scene*, which has *attachments*; None when the scene has none.

        Never waits. The attachments come from a record that the caller has decoded: to decode the
        record again would cost a walk a tenth of its time.
        """
        ...


class ExtraFile(Protocol):
    """A file that another module adds to every scene, as `item.json` is."""

    @property
    def name(self) -> bytes:
        """The name it has in each scene directory; one of `RESERVED`."""
        ...

    def rendering(self, scene: SceneDirectory) -> Rendering:
        """Return how it is rendered for *scene*. Never waits."""
        ...
