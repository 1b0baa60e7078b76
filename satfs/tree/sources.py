"""The interfaces of what a tree shows: of the layers below it, and of additions to every scene.

Entries of a scene besides records and attachments (`contents/`, `item.json`, thumbnails) are added
where the tree is built: the scene directory knows `Extra` and `ExtraFile` alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

from satfs.model import (
    Attachment,
    AttachmentName,
    Capture,
    CaptureId,
    Reader,
    Scene,
    SceneId,
    Task,
    TaskId,
    Version,
)

if TYPE_CHECKING:
    from satfs.tree.nodes import Directory
    from satfs.tree.rendered import Rendering
    from satfs.tree.scenes import SceneDirectory

R = TypeVar("R", covariant=True)


class Records(Protocol[R]):
    """The records of a listing, in its order, each id once (`api.record_list.RecordList`).

    A record may be made at each access.
    """

    def __len__(self) -> int:
        """Return how many there are."""
        ...

    def __iter__(self) -> Iterator[R]:
        """Yield each of them."""
        ...

    def __getitem__(self, index: int, /) -> R:
        """Return the one at a position."""
        ...

    def ids(self) -> Iterator[str]:
        """Yield the ids in order, without making a record."""
        ...

    def id_at(self, index: int) -> str:
        """Return the id of the record at a position, without making it."""
        ...

    def find(self, id: str) -> R | None:
        """Return the record with that *id*; None when no record has it."""
        ...


class Catalogue(Protocol):
    """The vendor's records, requested or from memory (`api.listings.Listings`).

    A listing from memory is the same object as before, so that nodes made of it can be kept as long
    as the listing.
    """

    async def tasks(self) -> Records[Task]:
        """Return all tasks."""
        ...

    async def task(self, task_id: TaskId) -> Task:
        """Return one task; raise NotThere when the vendor has no task of that id."""
        ...

    async def captures(self, task_id: TaskId) -> Records[Capture]:
        """Return all captures of a task, of every status."""
        ...

    async def capture(self, capture_id: CaptureId) -> Capture:
        """Return one capture, of an unknown one at least that it is there; raise NotThere."""
        ...

    async def scenes(self, capture_id: CaptureId) -> Records[Scene]:
        """Return the scenes of a capture; none for an unknown capture."""
        ...

    async def scene(self, scene_id: SceneId) -> Scene:
        """Return one scene; raise NotThere when the vendor has no scene of that id."""
        ...

    def known_captures(self) -> Records[Capture]:
        """Return the captures that were seen in a listing. Never waits."""
        ...

    def known_scenes(self) -> Records[Scene]:
        """Return the scenes that were seen in a listing or looked up. Never waits."""
        ...


class Objects(Protocol):
    """The bytes behind the attachments (`content.attachments.Attachments`)."""

    async def version(self, scene: SceneId, attachment: AttachmentName, revision: str) -> Version:
        """Return which version the object has now; raise NotThere when there is no object."""
        ...

    def learn_ahead(self, scene: SceneId, attachment: AttachmentName, revision: str) -> None:
        """Learn in the background which version the object has; waits for nothing, never fails."""
        ...

    async def is_held(self, scene: SceneId, attachment: AttachmentName, version: Version) -> bool:
        """Return whether all of that version is in the cache. Waits for a disk at most."""
        ...

    async def open(self, scene: SceneId, attachment: AttachmentName, version: Version) -> Reader:
        """Return a reader of that version; raise Changed when it has been replaced."""
        ...


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
