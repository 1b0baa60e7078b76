"""Compare delivered files with the store's checksums, and each archive with its own.

For every file: does the store still have this very version (ETag, length); are all its bytes to be
had; where the ETag is an MD5, as S3 makes it of objects that were sent in one piece, is it theirs.
For every zip also: does each member inflate to the bytes that its CRC and length promise.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

import trio
from msgspec import Struct, field
from msgspec.structs import asdict

from satfs.control.mount_components import MountComponents
from satfs.control.prefetching import collect, read_whole
from satfs.control.progress import CommandProgress
from satfs.control.server import Given, Result, SendNotice
from satfs.control.walk import Target
from satfs.errors import Damaged, Encrypted, NotThere, SatfsError, Unsupported
from satfs.model import DELIVERY_ZIP
from satfs.settings import ContentsView
from satfs.tree.archives import MemberFile, contents_of_zips
from satfs.tree.nodes import ContentFile, Directory, File
from satfs.tree.scenes import AttachmentFile, SceneDirectory

_MD5: Final = re.compile(r'"([0-9a-f]{32})"')


class _Facts(Struct):
    """The result for one file, as the notice carries it."""

    etag: str = ""
    is_md5: bool | None = None
    members: int | None = None
    #: Failures of members that could not be checked and may be right: encrypted, or packed in an
    #: unknown way.
    unchecked: list[str] = field(default_factory=list)
    was_replaced: bool = False


async def verify(mount: MountComponents, given: Given, send: SendNotice) -> Result:
    """Check every file at and below the `paths` (that `where` allows); return what came of it.

    Fetches what is not in the cache. Raises what `prefetching.collect` raises.
    """
    progress = CommandProgress(send)
    found = await collect(mount, given, progress)
    await progress.planned([each.size_bytes for each in found])
    for target in found:
        await progress.begun(target.path, target.size_bytes)
        facts = _Facts()
        try:
            if isinstance(target.node, SatfsError):
                raise target.node
            n_bytes = await _verify(mount, target, target.node, facts, progress)
        except SatfsError as failure:
            await progress.ended(target.path, 0, failure, asdict(facts))
        else:
            await progress.ended(target.path, n_bytes, None, asdict(facts))
    return progress.result()


async def _verify(
    mount: MountComponents, target: Target, file: File, facts: _Facts, progress: CommandProgress
) -> int:
    if not isinstance(file, AttachmentFile):
        return await _read(file, target, None, progress)
    scene, key = file.scene, file.attachment.name
    record = await scene.record()
    now = await mount.contents.renew(scene.scene_id, key, record.revision)
    if now != file.version:
        facts.was_replaced = True
        file = await scene.attachment(key)
    facts.etag = file.version.etag
    expected = _MD5.fullmatch(file.version.etag)
    digest = hashlib.md5(usedforsecurity=False) if expected else None
    n_bytes = await _read(file, target, digest, progress)
    if digest is not None and expected is not None:
        facts.is_md5 = digest.hexdigest() == expected.group(1)
    if key == DELIVERY_ZIP:
        await _verify_members(mount, scene, facts)
    return n_bytes


async def _read(
    file: File, target: Target, digest: hashlib._Hash | None, progress: CommandProgress
) -> int:
    async def take(data: bytes | memoryview, position: int) -> None:
        if digest is not None:
            piece = bytes(data)  # a view is good until we wait
            await trio.to_thread.run_sync(digest.update, piece)
        await progress.moved(target.path, position)

    return await read_whole(file, take)


async def _verify_members(mount: MountComponents, scene: SceneDirectory, facts: _Facts) -> None:
    (view,) = contents_of_zips(ContentsView.HIDDEN, mount.archives, mount.contents)
    contents = view.directory(scene, scene.attachments)
    if contents is None:
        raise NotThere(f"scene {scene.scene_id} has no zip any more")
    damaged: list[str] = []
    facts.members = 0

    async def ignore(_data: bytes | memoryview, _position: int) -> None:
        pass

    async with aclosing(_files(contents)) as members:
        async for member in members:
            name = "/".join(member.path[len(contents.path) :])
            if isinstance(member, ContentFile):  # UNREADABLE.txt: what is not shown, and why
                facts.unchecked.append(f"the members that contents/{name} names")
                continue
            facts.members += 1
            try:
                await read_whole(member, ignore)
            except Damaged as failure:
                damaged.append(str(failure))
            except (Encrypted, Unsupported) as failure:
                facts.unchecked.append(str(failure))
    if not facts.members and facts.unchecked:
        raise Damaged("the zip cannot be read: contents/UNREADABLE.txt has the reason")
    if damaged:
        more = f", and {len(damaged) - 1} more members" if len(damaged) > 1 else ""
        raise Damaged(f"{damaged[0]}{more}")


async def _files(directory: Directory) -> AsyncGenerator[MemberFile | ContentFile, None]:
    for entry in await directory.children():
        if isinstance(entry.target, SatfsError):
            raise entry.target
        if isinstance(entry.target, Directory):
            async with aclosing(_files(entry.target)) as below:
                async for member in below:
                    yield member
        elif isinstance(entry.target, MemberFile | ContentFile):
            yield entry.target
