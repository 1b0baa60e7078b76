"""Fetch every file below a path once, so that it can be read without a network.

Blocks that are in the cache are checked, not fetched: so this goes on where it was ended. On the
way each directory is listed, which keeps the listings and the records that sidecars are made of.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import aclosing
from functools import partial
from typing import Final

import trio
from msgspec import Struct

from satfs.content.cache.pins import StoredObject
from satfs.control.mount_components import MountComponents
from satfs.control.progress import CommandProgress
from satfs.control.server import Given, Result, SendNotice
from satfs.control.walk import Selection, Target, conditions_of, paths_of, starts, targets
from satfs.errors import BadCache, BadSettings, Changed, Misuse, SatfsError, Unreachable
from satfs.facts.scene import RASTER_KINDS, MemberKind
from satfs.humanize import format_bytes
from satfs.model import ByteRange, Json, Reader
from satfs.request_slots import concurrent_map
from satfs.settings import ContentsView
from satfs.tree.archives import contents_of_zips
from satfs.tree.nodes import File
from satfs.tree.scenes import AttachmentFile

#: Files at once by default: one file read from its beginning fills a line; more help
#: where files are small.
JOBS: Final = 4
MAX_JOBS: Final = 64
#: Times that files which left the cache are fetched again. Once is another program's reading; more
#: is a cache that is too small.
_ROUNDS: Final = 2


async def prefetch(mount: MountComponents, given: Given, send: SendNotice) -> Result:
    """Fetch the files that *given* selects; return how many, their bytes, and the failures.

    *given* may have `paths`, `where`, `bands`, `jobs` and `pin`.
    With `pin` it is kept against eviction as well, from before it is fetched, and with
    `is_for_later` it is not fetched.

    Raises:
        BadSettings: a condition is not valid, or no path was given.
        BadCache: it would not fit, or nothing is kept on disk. Nothing is fetched then.
    """
    progress, jobs = CommandProgress(send), jobs_of(given)
    found = await collect(mount, given, progress)
    paths = [*paths_of(given.get("paths")), *(tuple(each.path.split("/")) for each in found)]
    if any(path_names[:1] == ("tasks",) for path_names in paths):
        # `ls tasks` without network needs the list; looking up one task does not fetch it.
        try:
            await mount.listings.tasks()
        except SatfsError as failure:
            found.append(Target("tasks", failure))
    sound = [each for each in found if not isinstance(each.node, SatfsError)]
    await progress.planned([each.size_bytes for each in found])
    for each in found:
        if isinstance(each.node, SatfsError):
            await progress.ended(each.path, 0, each.node)
    needed = sum(each.size_bytes for each in sound)
    await require_room(mount, needed, [each.name for each in stored(mount, sound).values()])
    if given.get("pin"):
        await mount.pins.pin(stored(mount, sound).values())
        if given.get("is_for_later"):
            return progress.result()
    left: Sequence[Target] = sound
    for _ in range(_ROUNDS):
        instead: dict[str, Target] = {}
        await Fetching(progress, jobs, partial(_read_newest, instead)).run(left)
        if instead and given.get("pin"):
            await mount.pins.pin(stored(mount, list(instead.values())).values())
        left = [instead.get(each.path, each) for each in left]
        left = await _lost(mount, left, progress)
        if not left:
            break
    for each in left:
        await progress.ended(each.path, each.size_bytes, BadCache(_TOO_SMALL))
    return progress.result()


_TOO_SMALL: Final = (
    "left the cache again while the rest was fetched: the cache is too small for all that is read"
)


async def collect(mount: MountComponents, given: Given, progress: CommandProgress) -> list[Target]:
    """Return the files that *given* (`paths`, `where`, `bands`) selects, each once, in order."""
    (members,) = contents_of_zips(ContentsView.HIDDEN, mount.archives, mount.contents)
    kinds = _kinds(given.get("bands"))
    conditions = conditions_of(given)
    wanted = Selection(mount.listings, mount.items.facts, conditions, kinds, members)
    found: dict[tuple[str, ...], Target] = {}
    n_bytes = 0
    for node, known in await starts(mount.root, given, wanted):
        async with aclosing(targets(node, known)) as below:
            async for target in below:
                key = _identity(target)
                if key not in found:
                    found[key] = target
                    n_bytes += target.size_bytes
                    await progress.found(len(found), n_bytes)
    return list(found.values())


def _kinds(given: Json) -> frozenset[MemberKind]:
    """Return the kinds of rasters that a request gives; none: every file of a scene."""
    names = [str(each) for each in given] if isinstance(given, list) else []
    unknown = set(names) - set(RASTER_KINDS)
    if unknown:
        raise BadSettings(f"--bands is one of {', '.join(RASTER_KINDS)}")
    return frozenset(MemberKind(name) for name in names)


def _identity(target: Target) -> tuple[str, ...]:
    node = target.node
    if not isinstance(node, AttachmentFile):
        return ("", target.path)
    return (*node.key, node.version.etag, str(node.version.size_bytes))


def stored(mount: MountComponents, found: Sequence[Target]) -> dict[str, StoredObject]:
    """Return what the cache knows the attachments among *found* as, by path."""
    return {
        target.path: mount.contents.stored(*target.node.key, target.node.version)
        for target in found
        if isinstance(target.node, AttachmentFile)
    }


async def require_room(mount: MountComponents, needed: int, names: Collection[str] = ()) -> None:
    """Return if the cache can keep *needed* bytes, of which those of *names* may be there already.

    Raises:
        BadCache: it cannot, or nothing is kept on disk.
    """
    room = await mount.pins.capacity_bytes(set(names))
    if needed > room:
        raise BadCache(
            f"{format_bytes(needed)} do not fit: the cache can keep {format_bytes(room)} of them at"
            " once. Mount with a larger --cache-size, fetch less, or unpin something"
        )


async def _lost(
    mount: MountComponents, left: Sequence[Target], progress: CommandProgress
) -> list[Target]:
    """Return those of *left* that were fetched, and are not there any more."""
    failed = {each["path"] for each in progress.failures}
    names = stored(mount, left)
    kept = await mount.pins.kept()
    lost = []
    for each in left:
        name = names.get(each.path)
        if name is None or each.path in failed or not name.size_bytes:
            continue
        held = kept.get(name.name)
        if held is None or held.held_bytes < name.size_bytes:
            lost.append(each)
            progress.n_bytes_done -= name.size_bytes
    return lost


def jobs_of(given: Given) -> int:
    """Return how many files a request wants to be fetched at once.

    Raises:
        BadSettings: `jobs` is no number from 1 to `MAX_JOBS`.
    """
    jobs = given.get("jobs")
    if jobs is None:
        return JOBS
    if not isinstance(jobs, int) or not 1 <= jobs <= MAX_JOBS:
        raise BadSettings(f"--jobs must be a number from 1 to {MAX_JOBS}")
    return jobs


#: Called with each piece, and the offset up to which the file is read. The piece is good until the
#: next checkpoint.
Take = Callable[[bytes | memoryview, int], Awaitable[None]]
#: Reads what is wanted of a file, and returns how many bytes that were.
ReadFile = Callable[[Target, File, Take], Awaitable[int]]


class Fetching(Struct):
    """One round over the files. When no host can be reached any more, the rest is given up."""

    progress: CommandProgress
    jobs: int
    read: ReadFile
    gone: Unreachable | None = None
    n_gone: int = 0

    async def run(self, wanted: Sequence[Target]) -> None:
        """Fetch all of *wanted*, some at once."""
        await concurrent_map(self._fetch, wanted, self.jobs)

    async def _fetch(self, target: Target) -> None:
        node = target.node
        if isinstance(node, SatfsError):
            return
        await self.progress.begun(target.path, target.size_bytes)
        if self.gone is not None and self.n_gone > self.jobs:
            await self.progress.ended(target.path, 0, self.gone)
            return
        n_bytes = 0

        async def take(_data: bytes | memoryview, position: int) -> None:
            nonlocal n_bytes
            n_bytes = position
            self.n_gone = 0
            await self.progress.moved(target.path, position)

        try:
            n_bytes = await self.read(target, node, take)
        except SatfsError as failure:
            if isinstance(failure, Unreachable):
                self.gone = failure
                self.n_gone += 1
            await self.progress.ended(target.path, n_bytes, failure)
        else:
            await self.progress.ended(target.path, n_bytes)


async def _read_newest(instead: dict[str, Target], target: Target, node: File, take: Take) -> int:
    """Read all of a file; of one that was replaced since it was listed, the new one.

    That one is put into *instead*, by its path.
    """
    try:
        return await read_whole(node, take)
    except Changed:
        if not isinstance(node, AttachmentFile):
            raise
        looked_up = await node.scene.attachment(node.attachment.name)
        instead[target.path] = Target(target.path, looked_up)
        return await read_whole(looked_up, take)


#: Bytes read at once: the largest read that the kernel sends.
PIECE_BYTES: Final = 1024 * 1024
#: Pauses before a read that failed is tried again, in seconds. Each try goes on for nearly the
#: deadline of a read by itself, or fails at once where the host did not respond a moment ago.
PAUSES_S: Final = (2.0, 8.0)


async def read_whole(file: File, take: Take) -> int:
    """Read *file*, hand each piece to *take*, and return the length.

    Where the network fails the piece is tried again after each of `PAUSES_S`, which begin again
    after a success.

    Raises:
        SatfsError: a part cannot be read.
    """
    reader = await file.open()
    try:
        position = 0
        while position < reader.size_bytes:
            span = ByteRange(position, min(position + PIECE_BYTES, reader.size_bytes))
            data = await read_piece(reader, span)
            position = span.stop
            await take(data, position)
            await trio.lowlevel.checkpoint()  # what is held comes without waiting
        return reader.size_bytes
    finally:
        reader.close()


async def read_piece(reader: Reader, span: ByteRange) -> bytes | memoryview:
    """Return the bytes of *span*; where the network fails, try again after each of `PAUSES_S`.

    A memoryview is good until the next checkpoint.

    Raises:
        SatfsError: they cannot be read.
    """
    for n_tries in range(len(PAUSES_S) + 1):
        try:
            data = await reader.read(span)
        except Unreachable as failure:
            if n_tries == len(PAUSES_S) or failure.is_permanent:
                raise
            await trio.sleep(PAUSES_S[n_tries])
            continue
        if len(data) != len(span):
            raise Misuse(f"{len(data)} bytes read for [{span.start}, {span.stop})")
        return data
    raise AssertionError("the last try returns or raises")
