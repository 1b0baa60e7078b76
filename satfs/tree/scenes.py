"""A scene directory: its record, its footprint, its attachments, and further entries."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Final, Protocol

import trio
from msgspec import Struct, field

from satfs.api import record_parsers
from satfs.errors import DeadlineReached, NotThere, SatfsError, Unsupported
from satfs.model import DELIVERY_ZIP, Attachment, AttachmentName, Reader, Scene, SceneId, Version
from satfs.request_slots import RequestSlots
from satfs.tree import names, sidecars
from satfs.tree.nodes import (
    Attributes,
    Directory,
    Entry,
    File,
    Kind,
    MadeFile,
    Node,
    not_there,
    xattr_values,
)
from satfs.tree.rendered import ListedFile, RenderedFiles
from satfs.tree.sizes_ahead import SizesAhead
from satfs.tree.times import FALLBACK_NS, time_ns

if TYPE_CHECKING:
    from satfs.api.listings import Listings
    from satfs.archive.archive import Archives
    from satfs.content.attachments import Attachments
    from satfs.tree.stac_files import ItemFile

SCENE_JSON: Final = "scene.json"
FOOTPRINT: Final = "footprint.geojson"
ITEM: Final = "item.json"
#: Names that no attachment is shown under, whether the file is shown in this mount or not.
RESERVED: Final = frozenset({SCENE_JSON, FOOTPRINT, ITEM})

#: Versions learnt at once while one scene is listed. A scene has two or three attachments; a
#: vendor's bug could give it thousands.
_VERSIONS_AT_ONCE: Final = 8
#: Versions learnt while one scene is listed: `ls` must not send thousands of requests to hosts
#: that the vendor names. The others are learnt when they are looked up.
MAX_VERSIONS_PER_LISTING: Final = 100
#: Versions learnt of a scene that will probably be listed soon. A scene has two or three.
MAX_AHEAD_PER_SCENE: Final = 4


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


class TreeSources(Struct, frozen=True):
    """Where a tree has what it shows from."""

    catalogue: Listings
    objects: Attachments
    extras: tuple[Extra, ...] = ()
    extra_files: tuple[ItemFile, ...] = ()
    #: Whether account, tasks and captures have a STAC catalogue.
    has_catalogs: bool = False
    #: Longest wait for the versions of one scene's attachments while it is listed, in seconds.
    #: Shorter than what the FUSE operations allow for the whole listing, so that one stuck object
    #: does not take the others' names with it.
    version_deadline_s: float = 10.0
    rendered: RenderedFiles = field(default_factory=RenderedFiles)
    ahead: SizesAhead = field(default_factory=SizesAhead)
    #: Open the zips, so that a reader of a whole zip knows the places of its members.
    archives: Archives | None = None

    async def open(self, scene: SceneId, attachment: AttachmentName, version: Version) -> Reader:
        """See `Attachments.open`."""
        if self.archives is None or attachment != DELIVERY_ZIP:
            return await self.objects.open(scene, attachment, version)
        return await self.archives.open_whole(self.objects, scene, version)


class SourcedDirectory(Directory):
    """A directory that shows what *sources* have."""

    __slots__ = ("sources",)

    def __init__(self, parent: Directory, name: bytes, sources: TreeSources) -> None:
        super().__init__(parent, name)
        self.sources = sources


class SceneHolder(SourcedDirectory):
    """A directory that scenes are found in, which has their present records."""

    __slots__ = ()

    @abstractmethod
    async def current_scene(self, scene_id: SceneId) -> Scene:
        """Return the record as the listing has it now; raise NotThere when it is gone."""

    @abstractmethod
    def scene_id_of(self, name: bytes) -> SceneId | None:
        """Return the id of the scene that *name* would be the name of, whether there is one or not.

        None where the id would be an unusual one: of other than letters, digits, `.`, `_` and `-`.
        """

    @abstractmethod
    async def scenes_after(self, scene_id: SceneId) -> Sequence[Scene]:
        """Return the scenes that will probably be listed after this one, which is listed now."""


class SceneDirectory(SourcedDirectory):
    """One scene. Each call uses the present record, from the directory that it was found in.

    It holds no more than the record that it was made of: a walk meets a hundred thousand scenes,
    and the kernel remembers them for as long as it likes.
    """

    __slots__ = ("_holder", "_record", "changed_ns", "mtime_ns", "scene_id")

    def __init__(
        self, parent: SceneHolder, name: bytes, scene: Scene, fallback_ns: int = FALLBACK_NS
    ) -> None:
        super().__init__(parent, name, parent.sources)
        self.scene_id = scene.scene_id
        if self.name == scene.scene_id:
            self.name = scene.scene_id  # one text in memory, that of the listing
        self._record = scene.record
        #: When the scene was taken, in nanoseconds since the epoch.
        self.mtime_ns = time_ns(scene.timestamp, fallback_ns)
        changed_ns = time_ns(record_parsers.moment(scene.revision), self.mtime_ns)
        # Never before it was made: some backup programs take that for a broken clock.
        self.changed_ns = max(self.mtime_ns, changed_ns)
        self._holder = parent

    @property
    def attachments(self) -> tuple[Attachment, ...]:
        """Return what the scene had when it was looked up, for callers that must not wait."""
        return self._as_found().attachments

    def _as_found(self) -> Scene:
        """Return the scene as it was when it was looked up, made once more of its record."""
        return record_parsers.scene.of(self.scene_id, self._record)

    def attributes(self) -> Attributes:
        """Return the attributes: made when the scene was taken, changed when its record was."""
        return Attributes(Kind.DIRECTORY, 0o755, 0, self.mtime_ns, self.changed_ns)

    def xattrs(self) -> Mapping[str, bytes]:
        """Return ids and product of the scene, over those of what it was found in."""
        scene = self._as_found()
        timestamp = scene.record.get("timestamp")
        return {
            **self._holder.xattrs(),
            **xattr_values(
                scene_id=self.scene_id,
                capture_id=scene.capture_id,
                product=scene.product_name,
                timestamp=timestamp if isinstance(timestamp, str) else None,
                revision=scene.revision or None,
            ),
        }

    def may_hold(self, polled: str) -> bool:
        """Return whether an `Extra` adds a directory of that name to the scene."""
        return any(extra.name == polled.encode() for extra in self.sources.extras)

    def attachment_names(self, scene: Scene | None = None) -> dict[Attachment, bytes]:
        """Return the file name of each attachment that *scene*, this scene's record, has, in order.

        None: that it had when it was looked up.
        """
        attachments = self.attachments if scene is None else scene.attachments
        reserved = {*RESERVED, *(extra.name.decode() for extra in self.sources.extras)}
        wanted = {each: (each.file_name or each.name, each.name) for each in attachments}
        found = names.file_names(wanted.values(), reserved)
        return {each: found[pair] for each, pair in wanted.items()}

    async def lookup(self, name: bytes) -> Node:
        """Return what *name* leads to; learns the version of at most that one attachment."""
        for extra in self.sources.extras:
            if extra.name == name:
                directory = extra.directory(self, self.attachments)
                if directory is None:  # its record may have got by now what was missing
                    directory = extra.directory(self, (await self.record()).attachments)
                if directory is None:
                    raise not_there(self, name)
                return directory
        for file in self.sources.extra_files:
            if file.name == name:
                return await file.rendering(self).node(self, name)
        scene = await self.record()
        for sidecar, render in _SIDECARS.items():
            if name == sidecar.encode():
                return self._sidecar(name, scene, render)
        for attachment, attachment_name in self.attachment_names(scene).items():
            if attachment_name == name:
                return await self._attachment(scene, attachment, name)
        raise not_there(self, name)

    async def children(self) -> Sequence[Entry]:
        """Return the scene's files; learns the versions of its attachments, all at once.

        An attachment that the store does not have (yet) is not listed. One whose version cannot be
        learnt in time, or may not be, is listed with the error.
        """
        scene = await self.record()
        for following in await self._holder.scenes_after(self.scene_id):
            for attachment in following.attachments[:MAX_AHEAD_PER_SCENE]:
                self.sources.objects.learn_ahead(
                    following.scene_id, attachment.name, following.revision
                )
        entries = self._beside_attachments(scene)
        attachments = self.attachment_names(scene)
        learnt = await self._learn(scene, attachments)
        for attachment, name in attachments.items():
            if not isinstance(learnt[attachment], NotThere):
                entries.append(Entry(name, learnt[attachment]))
        # A zip that is not known to be there would be looked for once more.
        is_known = all(isinstance(learnt[a], Node) for a in attachments if a.name == DELIVERY_ZIP)
        for file in self.sources.extra_files:
            entry = self._listed(file)
            if is_known:
                with suppress(SatfsError):  # the look-up will raise it
                    rendering = file.rendering(self)
                    entry = await rendering.entry(self, file.name)
            entries.append(entry)
        return entries

    def _listed(self, file: ItemFile) -> Entry:
        return Entry(file.name, ListedFile(self, file.name))

    async def children_beside_attachments(self) -> Sequence[Entry]:
        """Return what `children` does without the attachments; requests the record alone."""
        entries = self._beside_attachments(await self.record())
        return [*entries, *map(self._listed, self.sources.extra_files)]

    async def attachments_by_name(self) -> Mapping[bytes, AttachmentName]:
        """Return the attachments by file name; requests the record alone, and no object."""
        attachments = self.attachment_names(await self.record())
        return {name: attachment.name for attachment, name in attachments.items()}

    async def attachment(self, key: AttachmentName) -> AttachmentFile:
        """Return the file of the attachment that the API calls *key*, as it is now.

        Raises:
            NotThere: the scene has none, or the store does not have it yet.
            SatfsError: its version cannot be learnt now.
        """
        scene = await self.record()
        for attachment, name in self.attachment_names(scene).items():
            if attachment.name == key:
                return await self._attachment(scene, attachment, name)
        raise NotThere(f"scene {scene.scene_id} has no attachment {key}")

    def _beside_attachments(self, scene: Scene) -> list[Entry]:
        entries = []
        for sidecar, render in _SIDECARS.items():
            name = sidecar.encode()
            try:
                entries.append(Entry(name, self._sidecar(name, scene, render)))
            except SatfsError as error:
                entries.append(Entry(name, error))
        for extra in self.sources.extras:
            directory = extra.directory(self, scene.attachments) if extra.is_listed else None
            if directory is not None:
                entries.append(Entry(extra.name, directory))
        return entries

    async def _learn(
        self, scene: Scene, attachments: Mapping[Attachment, bytes]
    ) -> dict[Attachment, Node | SatfsError]:
        learnt: dict[Attachment, Node | SatfsError] = {}
        wanted = dict(islice(attachments.items(), MAX_VERSIONS_PER_LISTING))
        slots = RequestSlots(_VERSIONS_AT_ONCE)

        async def learn(attachment: Attachment, name: bytes) -> None:
            async with slots.held():
                try:
                    learnt[attachment] = await self._attachment(scene, attachment, name)
                except SatfsError as error:
                    learnt[attachment] = error

        with trio.move_on_after(self.sources.version_deadline_s):
            async with trio.open_nursery() as nursery:
                for attachment, name in wanted.items():
                    nursery.start_soon(learn, attachment, name)
        for attachment in attachments:
            if attachment not in wanted:
                learnt[attachment] = Unsupported(
                    f"a listing requests the sizes of {MAX_VERSIONS_PER_LISTING} attachments, and"
                    f" scene {scene.scene_id} has {len(attachments)}"
                )
            elif attachment not in learnt:
                learnt[attachment] = DeadlineReached(
                    f"the size of {attachment.name} of scene {scene.scene_id} was not learnt in"
                    f" {self.sources.version_deadline_s:g} s"
                )
        return learnt

    async def _attachment(
        self, scene: Scene, attachment: Attachment, name: bytes
    ) -> AttachmentFile:
        objects = self.sources.objects
        version = await objects.version(scene.scene_id, attachment.name, scene.revision)
        return AttachmentFile(self, name, attachment, version)

    def _sidecar(self, name: bytes, scene: Scene, render: Callable[[Scene], bytes]) -> MadeFile:
        async def make() -> bytes:
            return render(await self.record())

        return MadeFile(self, name, render(scene), make)

    async def record(self) -> Scene:
        """Return the record as the listing that the scene was found in has it now."""
        return await self._holder.current_scene(self.scene_id)


class AttachmentFile(File):
    """One version of one attachment."""

    __slots__ = ("attachment", "scene", "version")

    def __init__(
        self, parent: SceneDirectory, name: bytes, attachment: Attachment, version: Version
    ) -> None:
        super().__init__(parent, name)
        self.scene = parent
        self.attachment = attachment
        self.version = version

    @property
    def key(self) -> tuple[SceneId, AttachmentName]:
        """The scene and the name of the attachment, as the API identifies it."""
        return self.scene.scene_id, self.attachment.name

    @property
    def identity(self) -> tuple[str, ...]:
        """The identity of the node: its path and the version of the object."""
        return (*self.path, f"/{self.version.etag}", f"/{self.version.size_bytes}")

    def attributes(self) -> Attributes:
        """Return the attributes: exact size, the scene's time."""
        size_bytes = self.version.size_bytes
        return Attributes(Kind.FILE, 0o644, size_bytes, self.scene.mtime_ns, self.scene.changed_ns)

    def xattrs(self) -> Mapping[str, bytes]:
        """Return the scene's attributes, and which attachment and version this is."""
        own = xattr_values(attachment=self.attachment.name, etag=self.version.etag)
        return {**self.scene.xattrs(), **own}

    async def is_held(self) -> bool:
        """Return whether all of this version is in the cache."""
        return await self.scene.sources.objects.is_held(*self.key, self.version)

    async def open(self) -> Reader:
        """Return a reader of this version.

        Raises:
            Changed: the vendor has replaced it.
            SatfsError: it cannot be opened.
        """
        return await self.scene.sources.open(*self.key, self.version)


#: The files made from a scene's record, and how.
_SIDECARS: Final = {SCENE_JSON: sidecars.record_json, FOOTPRINT: sidecars.footprint_geojson}
