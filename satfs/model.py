"""The types that every layer shares: ids, records, links, versions and byte ranges."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final, NewType, Protocol, TypeAlias, runtime_checkable

from msgspec import Struct, field

#: Bytes of the binary units (IEC 80000-13).
KIB: Final = 1024
MIB: Final = 1024 * 1024

#: A value of JSON. Values come from a vendor, so nothing about them is promised.
Json: TypeAlias = Any

TaskId = NewType("TaskId", str)
CaptureId = NewType("CaptureId", str)
SceneId = NewType("SceneId", str)
ContractId = NewType("ContractId", str)
#: The attachment's key in the API (`delivery_zip`, `preview`), not its file name.
AttachmentName = NewType("AttachmentName", str)

#: The one capture status whose scenes are to be fetched (documented in the delivery API).
PUBLISHED = "published"
#: The attachment that holds the delivered product.
DELIVERY_ZIP = AttachmentName("delivery_zip")


def names_in(path: str, directory: Iterable[str] = ()) -> list[str]:
    """Return the names that *path*, seen from *directory*, leads through from the top of the tree.

    It stays inside the tree: as at the root of a filesystem, nothing is above the top.
    """
    names = [] if path.startswith("/") else list(directory)
    for name in path.split("/"):
        if name == "..":
            del names[-1:]
        elif name not in ("", "."):
            names.append(name)
    return names


class ByteRange(Struct, frozen=True, order=True):
    """Bytes [start, stop) of one file, counted from its first byte. May be empty."""

    start: int
    stop: int

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.stop:
            raise ValueError(f"not a byte range: [{self.start}, {self.stop})")

    def __len__(self) -> int:
        return self.stop - self.start

    def __bool__(self) -> bool:
        return self.stop > self.start

    def clip(self, size_bytes: int) -> ByteRange:
        """Return the part that lies in a file of *size_bytes*; empty when none does."""
        return ByteRange(min(self.start, size_bytes), min(self.stop, size_bytes))

    def overlaps(self, other: ByteRange) -> bool:
        """Return whether both hold at least one common byte."""
        return max(self.start, other.start) < min(self.stop, other.stop)


class Contract(Struct, frozen=True):
    """A contract of the account: its id, and the name people know it by."""

    contract_id: ContractId
    name: str


class Task(Struct, frozen=True):
    """A tasking order. `record` is the API's object as sent, unknown fields kept.

    With a *problem* only the id could be read, and *problem* is the reason. The same holds for a
    `Capture` and a `Scene`.
    """

    task_id: TaskId
    name: str | None = None
    status: str | None = None
    created_at: datetime | None = None
    record: Mapping[str, Json] = field(default_factory=dict)
    problem: str = ""


def is_published(status: Json) -> bool:
    """Return whether a capture of that status has scenes; None: its record has no status."""
    return status is None or (isinstance(status, str) and status.strip().lower() == PUBLISHED)


class Capture(Struct, frozen=True):
    """One acquisition of a task. Only a published one has scenes.

    One without a status may have: its listing of scenes shows that.
    """

    capture_id: CaptureId
    status: str | None = None
    record: Mapping[str, Json] = field(default_factory=dict)
    problem: str = ""

    @property
    def is_published(self) -> bool:
        """Return whether the API has scenes of it, as far as the record shows."""
        return is_published(self.status)


class Attachment(Struct, frozen=True):
    """A file of a scene, by its key in the API and the name it is stored under."""

    name: AttachmentName
    file_name: str


class Scene(Struct, frozen=True):
    """One deliverable of a capture.

    `record` is the API's object as sent, *without any link*: links expire, and are secrets.
    `revision` changes with the record, by its `last_modified`; empty where the API has none.
    """

    scene_id: SceneId
    capture_id: CaptureId | None = None
    product_name: str | None = None
    timestamp: datetime | None = None
    revision: str = ""
    attachments: tuple[Attachment, ...] = ()
    record: Mapping[str, Json] = field(default_factory=dict)
    problem: str = ""

    @property
    def footprint(self) -> Mapping[str, Json] | None:
        """Return the footprint in the record; None without one that is an object."""
        return footprint_in(dict(self.record.items()))


def footprint_in(record: Mapping[str, Json]) -> Mapping[str, Json] | None:
    """Return the footprint in the *record* of a scene; None without one that is an object."""
    found = record.get("footprint") or record.get("geometry")
    return found if isinstance(found, Mapping) else None


@dataclasses.dataclass(frozen=True, slots=True)
class Link:
    """A presigned URL: it is enough to read the object, so it is shown nowhere.

    `expires_at_s` is wall-clock seconds since the epoch, by the URL itself; None when it
    does not.
    """

    url: str = dataclasses.field(repr=False)
    expires_at_s: float | None = None


class Version(Struct, frozen=True):
    """Which bytes an object holds: two equal versions hold equal bytes.

    `etag` is the store's ETag with its quotes, or, where a store sends none, a name made from
    `Last-Modified`; `is_strong`: it may be used in `If-Match` (RFC 9110 §8.8.3).
    """

    etag: str
    size_bytes: int

    @property
    def is_strong(self) -> bool:
        """Return whether `If-Match` may carry the ETag."""
        return self.etag.startswith('"')


class Reader(Protocol):
    """An open file."""

    @property
    def size_bytes(self) -> int:
        """Return its size now; only that of a live file changes (`tree.nodes.Node.is_live`)."""
        ...

    async def read(self, span: ByteRange) -> bytes | memoryview:
        """Return the bytes of *span*; fewer only at the end of the file.

        A memoryview is good until the next checkpoint: copy it before waiting for anything.

        Raises:
            Changed: the object is not the opened version any more.
            SatfsError: the bytes cannot be fetched.
        """
        ...

    def is_near(self, span: ByteRange) -> bool:
        """Return whether the bytes of *span* are held here, so that reading sends no request."""
        ...

    def expected_part(self, span: ByteRange) -> ByteRange | None:
        """Return what a program needs of *span*, as far as the layout of the file shows.

        That is *span*, or an empty one; or a longer one, where the kernel requests a block page by
        page: up to the end of the block. None when the layout does not show it. After an empty one
        the same bytes are expected when they are requested again.
        """
        ...

    def close(self) -> None:
        """Release what the reader holds. Called once, when no read is running."""
        ...


class MadeReader:
    """The base of readers of files that are made here: without a layout, and without a request."""

    def is_near(self, span: ByteRange) -> bool:
        """Return True: all is in memory."""
        return True

    def expected_part(self, span: ByteRange) -> ByteRange | None:
        """Return None: text has no layout."""
        return None

    def close(self) -> None:
        """Do nothing: there is nothing to close."""


class RemoteReader(Reader, Protocol):
    """An open object of the store, parts of which may be files as they are: a zip."""

    def locate_file(self, place: ByteRange | None, beginning: bytes | memoryview = b"") -> None:
        """Note that the file that is read now lies, as it is, at *place* of the object.

        None: what is read is no such file. *beginning* are its first bytes, where they were read
        before its place was known.
        """
        ...


@runtime_checkable
class LimitsReadAhead(Protocol):
    """A reader that reads ahead, up to a limit that can be set."""

    def limit_read_ahead(self, span: ByteRange) -> None:
        """Read nothing ahead beyond *span* of the file."""
        ...


@runtime_checkable
class FetchesAround(Protocol):
    """A reader of an object that can be given more to fetch than is read with it."""

    def fetch_around(self, position: int, span: ByteRange) -> None:
        """Fetch the part of *span* around *position* that is not there, in one range.

        It ends where bytes are cached, and is empty where that of *position* is. Never waits.
        """
        ...
