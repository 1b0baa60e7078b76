"""`contents/`: the members of a scene's zip, as the kernel sees them."""

from __future__ import annotations

import errno
import io
import stat
import zipfile
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import pytest
import trio
from archive.opening import resources
from archive.zips import Entry, Layout, build, extra_field, honest
from pyfuse3 import FUSEError
from story.kernel import Kernel
from story.shelves import (
    TAKEN,
    FakeCatalogue,
    FakeObjects,
    make_capture,
    make_scene,
    make_task,
    sources_of,
)

from satfs.archive.archive import Archives
from satfs.errors import Unreachable
from satfs.fuse.attributes import Limits, Owner
from satfs.fuse.inodes import Inodes, keyed_numbering
from satfs.fuse.operations import Operations
from satfs.model import AttachmentName, ByteRange, RemoteReader, SceneId, Version
from satfs.settings import ContentsView
from satfs.tree.archives import contents_of_zips
from satfs.tree.nodes import Node
from satfs.tree.root import Root

SCENE = "scenes/scene-a"
CONTENTS = f"{SCENE}/contents"
TAKEN_NS = int(TAKEN.timestamp()) * 10**9 + TAKEN.microsecond * 1000


@dataclass
class Zips:
    """The objects, opened with bounds."""

    objects: FakeObjects

    async def open(
        self,
        scene: SceneId,
        attachment: AttachmentName,
        version: Version,
        *,
        bounds: ByteRange | None = None,
    ) -> RemoteReader:
        """Return a reader; bounds are only advice."""
        return await self.objects.open(scene, attachment, version)


@dataclass
class Mounted:
    kernel: Kernel
    objects: FakeObjects
    catalogue: FakeCatalogue

    def put(self, data: bytes, etag: str = "1") -> None:
        self.objects.put("scene-a", data, etag=etag)

    async def ls(self, path: str = "") -> set[str]:
        return set(await self.kernel.ls(f"{CONTENTS}/{path}".rstrip("/")))

    async def read(self, path: str) -> bytes:
        return await self.kernel.read(f"{CONTENTS}/{path}")

    async def stat(self, path: str) -> Any:
        return await self.kernel.walk(f"{CONTENTS}/{path}")

    async def errno_of(self, path: str) -> int | None:
        try:
            await self.read(path)
        except FileNotFoundError:
            return errno.ENOENT
        except FUSEError as failure:
            return int(failure.errno)
        return None


@pytest.fixture
def mount(nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Mounted]:
    def make(data: bytes | None = None, view: ContentsView = ContentsView.VISIBLE) -> Mounted:
        catalogue, objects = FakeCatalogue(), FakeObjects()
        catalogue.put(make_task("1"), make_capture("cap-1"))
        catalogue.put_scenes("cap-1", make_scene("scene-a", "cap-1"))
        archives = Archives(resources(nursery, unpack_bytes=1 << 20))
        extras = contents_of_zips(view, archives, Zips(objects))  # type: ignore[arg-type]
        root: Node = Root(sources_of(catalogue, objects, extras))
        inodes = Inodes(root, keyed_numbering(b"account"))
        operations = Operations(inodes, owner=Owner(0, 0, 0), limits=Limits())
        mounted = Mounted(Kernel(operations, inodes, monkeypatch), objects, catalogue)
        if data is not None:
            mounted.put(data)
        return mounted

    return make


CONTENT = {
    "metadata.json": b"{}",
    "rasters/a.tif": bytes(range(256)) * 300,
    "rasters/b.tif": b"b" * 70_000,
    "rasters/deep/er/c.txt": b"",
}


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
async def test_contents_are_what_unzip_makes(mount: Callable[..., Mounted], method: int) -> None:
    """`contents/` holds the members of the zip, byte for byte, under their own names."""
    it = mount(honest(CONTENT, method=method))
    assert await it.ls() == {"metadata.json", "rasters"}
    assert await it.ls("rasters") == {"a.tif", "b.tif", "deep"}
    assert await it.ls("rasters/deep") == {"er"}
    for path, content in CONTENT.items():
        assert await it.read(path) == content
        assert (await it.stat(path)).st_size == len(content)
    assert it.objects.n_open == 0
    await it.kernel.forget_all()


async def test_nothing_of_the_zip_is_read_until_somebody_looks_in(
    mount: Callable[..., Mounted],
) -> None:
    """Listing a scene, and `stat` of contents/ itself, read nothing of the zip."""
    it = mount(honest(CONTENT))
    assert "contents" in await it.kernel.ls(SCENE)
    assert stat.S_ISDIR((await it.kernel.walk(CONTENTS)).st_mode)
    assert it.objects.calls["read"] == 0
    await it.ls()
    assert it.objects.calls["read"] == 1
    await it.ls("rasters")
    await it.stat("rasters/a.tif")
    assert it.objects.calls["read"] == 1


@pytest.mark.parametrize(
    ("view", "is_listed", "is_there"),
    [
        (ContentsView.VISIBLE, True, True),
        (ContentsView.HIDDEN, False, True),
        (ContentsView.OFF, False, False),
    ],
)
async def test_contents_can_be_visible_hidden_or_off(
    mount: Callable[..., Mounted], view: ContentsView, is_listed: bool, is_there: bool
) -> None:
    """Hidden, contents/ is reached by name and not listed: `cp -r` copies nothing twice."""
    it = mount(honest(CONTENT), view)
    assert ("contents" in await it.kernel.ls(SCENE)) is is_listed
    if is_there:
        assert await it.read("metadata.json") == b"{}"
    else:
        assert await it.errno_of("metadata.json") == errno.ENOENT


async def test_times_and_modes_come_from_the_archive(mount: Callable[..., Mounted]) -> None:
    """A member has the archive's time, UTC where it states one, else the scene's."""
    stamped = extra_field(0x5455, b"\1" + (1_700_000_001).to_bytes(4, "little"))
    it = mount(
        build(
            [
                Entry(b"d/", extra=stamped),
                Entry(b"d/dos"),
                Entry(b"d/stamped", extra=stamped, mode=0o100755),
                Entry(b"e/timeless", date=0, time=0),
            ]
        )
    )
    assert (await it.stat("d")).st_mtime_ns == 1_700_000_001 * 10**9
    assert (await it.stat("d/dos")).st_mtime_ns == 1_706_933_106 * 10**9
    assert (await it.stat("d/stamped")).st_mtime_ns == 1_700_000_001 * 10**9
    assert (await it.stat("d/stamped")).st_mode == stat.S_IFREG | 0o644
    assert (await it.stat("d/dos")).st_mode == stat.S_IFREG | 0o644
    assert (await it.stat("d")).st_mode == stat.S_IFDIR | 0o755
    assert (await it.stat("e")).st_mtime_ns == TAKEN_NS
    assert (await it.stat("e/timeless")).st_mtime_ns == TAKEN_NS
    assert (await it.kernel.walk(CONTENTS)).st_mtime_ns == TAKEN_NS


async def test_listed_and_looked_up_are_the_same(mount: Callable[..., Mounted]) -> None:
    """Inode, size and times agree, whichever way the kernel learnt of a member."""
    it = mount(honest(CONTENT))
    for directory in ("", "rasters"):
        listed = await it.kernel.ls(f"{CONTENTS}/{directory}".rstrip("/"))
        for name, entry in listed.items():
            found = await it.stat(f"{directory}/{name}" if directory else name)
            for field in ("st_ino", "st_mode", "st_size", "st_mtime_ns", "st_ctime_ns"):
                assert getattr(found, field) == getattr(entry, field)


async def test_a_replaced_zip_is_another_set_of_files(
    mount: Callable[..., Mounted], expect_log: Callable[..., None]
) -> None:
    """Directories show what there is now; a member of the zip before is ESTALE when opened."""
    expect_log("call failed", errno="ESTALE")
    it = mount(honest({"d/a": b"old", "d/gone": b"x"}))
    before = await it.stat("d/a")
    directory = (await it.stat("d")).st_ino
    handle = await it.kernel.open(f"{CONTENTS}/d/a")
    it.put(honest({"d/a": b"newer", "d/new": b"y"}), etag="2")
    context: Any = None
    with pytest.raises(FUSEError) as caught:
        await it.kernel.operations.open(before.st_ino, 0, context)
    assert caught.value.errno == errno.ESTALE
    found = await it.kernel.operations.lookup(directory, b"new", context)
    assert found.st_size == 1
    it.kernel.references[found.st_ino] += 1
    assert await it.ls("d") == {"a", "new"}
    after = await it.stat("d/a")
    assert after.st_ino != before.st_ino
    assert (await it.stat("d")).st_ino == directory
    assert await it.read("d/a") == b"newer"
    await it.kernel.operations.release(handle)


async def test_what_cannot_be_shown_is_said_in_unreadable_txt(
    mount: Callable[..., Mounted],
) -> None:
    """Each member that is not shown is named in contents/UNREADABLE.txt, with the reason."""
    it = mount(
        build(
            [
                Entry(b"../evil", b"x"),
                Entry(b"/../etc/passwd", b"x"),
                Entry(b"a\nb\x1b[2J", b"x"),
                Entry(b"l" * 300, b"x"),
                Entry(b"same", b"old"),
                Entry(b"same", b"new"),
                Entry(b"fine", b"content"),
            ]
        )
    )
    assert await it.ls() == {"same", "fine", "UNREADABLE.txt"}
    text = (await it.read("UNREADABLE.txt")).decode()
    lines = text.splitlines()
    assert "5 of its members" in lines[0]
    assert "../evil: its path leads out of the archive" in lines
    assert "/../etc/passwd: its path leads out of the archive" in lines
    assert "same: a later member has the same name" in lines
    assert any(line.startswith(r"a\nb\x1b[2J: ") for line in lines), "harmless on a terminal"
    assert any(line.startswith("l" * 300) for line in lines)
    assert await it.read("fine") == b"content"
    assert await it.read("same") == b"new"


async def test_the_notice_gives_way_to_a_member_of_its_name(
    mount: Callable[..., Mounted],
) -> None:
    """A delivery may hold an UNREADABLE.txt of its own: ours has a number, then."""
    it = mount(
        build(
            [
                Entry(b"UNREADABLE.txt", b"mine"),
                Entry(b"UNREADABLE-1.txt/x", b"x"),
                Entry(b"..", b"x"),
            ]
        )
    )
    assert await it.ls() == {"UNREADABLE.txt", "UNREADABLE-1.txt", "UNREADABLE-2.txt"}
    assert await it.read("UNREADABLE.txt") == b"mine"
    assert b"..: its path" in await it.read("UNREADABLE-2.txt")
    assert await it.errno_of("UNREADABLE-3.txt") == errno.ENOENT


@pytest.mark.parametrize(
    "data",
    [b"", b"<html>503</html>", honest(CONTENT)[:-30], build([Entry(b"a")], Layout(n_entries=9))],
)
async def test_a_zip_that_cannot_be_read_says_why(
    mount: Callable[..., Mounted], data: bytes, expect_log: Callable[..., None]
) -> None:
    """contents/ then holds UNREADABLE.txt alone, and the zip beside it stays readable."""
    expect_log("archive not readable")
    it = mount(data)
    assert await it.ls() == {"UNREADABLE.txt"}
    text = (await it.read("UNREADABLE.txt")).decode()
    assert "nothing of it can be shown" in text
    assert await it.errno_of("metadata.json") == errno.ENOENT
    assert await it.kernel.read(f"{SCENE}/scene-a.zip") == data


async def test_members_that_cannot_be_opened_have_an_errno(
    mount: Callable[..., Mounted], expect_log: Callable[..., None]
) -> None:
    """An encrypted member is EACCES, an unknown method EOPNOTSUPP, a damaged member EIO."""
    expect_log("call failed", errno="EACCES")
    expect_log("call failed", errno="EOPNOTSUPP", reason="member 'odd': PPMd is not supported")
    expect_log("call failed", errno="EIO")
    it = mount(
        build(
            [
                Entry(b"secret", b"x" * 5, packed=b"?" * 17, flags=1),
                Entry(b"odd", b"x", method=98, packed=b"?"),
                Entry(b"bad", b"content", crc=1),
            ]
        )
    )
    assert await it.ls() == {"secret", "odd", "bad", "UNREADABLE.txt"}
    assert await it.errno_of("secret") == errno.EACCES
    assert await it.errno_of("odd") == errno.EOPNOTSUPP
    assert await it.errno_of("bad") == errno.EIO


async def test_members_that_cannot_be_opened_are_named_in_unreadable_txt(
    mount: Callable[..., Mounted],
) -> None:
    """What is encrypted, or of another method, is named in UNREADABLE.txt, with the reason."""
    it = mount(
        build(
            [
                Entry(b"secret", b"x" * 5, packed=b"?" * 17, flags=1),
                Entry(b"old\x1b[2J", b"x"),
                Entry(b"large", b"x", method=9, packed=b"?"),
                Entry(b"odd", b"x", method=1234, packed=b"?"),
                Entry(b"fine", b"content"),
            ]
        )
    )
    assert await it.ls() == {"secret", "large", "odd", "fine", "UNREADABLE.txt"}
    lines = (await it.read("UNREADABLE.txt")).decode().splitlines()
    assert "1 of its members cannot be shown" in lines[0]
    assert "3 of its members are shown and cannot be opened" in lines[4]
    assert lines[6:] == [
        "secret: it is encrypted, and satfs has no password",
        "large: it is compressed in a way that satfs cannot undo (deflate64)",
        "odd: it is compressed in a way that satfs cannot undo (method 1234)",
    ]


async def test_a_zip_that_is_not_there_yet_has_no_contents(mount: Callable[..., Mounted]) -> None:
    """A scene may be published before its zip is: then contents/ is empty, and no error."""
    it = mount()
    assert await it.ls() == set()
    assert await it.errno_of("a") == errno.ENOENT


async def test_a_scene_without_a_zip_has_no_contents_directory(
    mount: Callable[..., Mounted],
) -> None:
    """There is nothing that it could be the contents of."""
    it = mount()
    it.catalogue.put_scenes("cap-1", make_scene("scene-a", "cap-1", [("preview", "p.png")]))
    assert "contents" not in await it.kernel.ls(SCENE)
    assert await it.errno_of("metadata.json") == errno.ENOENT


async def test_a_zip_that_the_record_gets_later_has_contents(
    mount: Callable[..., Mounted],
) -> None:
    """A scene directory that the kernel remembers shows what its record names today."""
    it = mount(honest(CONTENT))
    it.catalogue.put_scenes("cap-1", make_scene("scene-a", "cap-1", [("preview", "p.png")]))
    scene = await it.kernel.walk(SCENE)
    it.catalogue.put_scenes("cap-1", make_scene("scene-a", "cap-1"))
    assert (await it.kernel.lookup(scene.st_ino, "contents")).st_ino
    assert "contents" in await it.kernel.ls(SCENE)


async def test_an_unreachable_store_is_an_error_and_no_notice(
    mount: Callable[..., Mounted], expect_log: Callable[..., None]
) -> None:
    """A network that is down says nothing about the zip."""
    expect_log("call failed", errno="EIO")
    it = mount(honest(CONTENT))
    it.objects.read_failure = Unreachable("no network")
    with pytest.raises(FUSEError) as caught:
        await it.ls()
    assert caught.value.errno == errno.EIO
    it.objects.read_failure = None
    assert await it.ls() == {"metadata.json", "rasters"}


async def test_names_that_desktops_poll_are_there_when_they_are_members(
    mount: Callable[..., Mounted],
) -> None:
    """A member is shown under its own name, if that is none that programs obey."""
    it = mount(honest({".DS_Store": b"1", "__MACOSX/._a": b"2", "50%20.txt": b"4"}))
    assert await it.ls() == {".DS_Store", "__MACOSX", "50%20.txt"}
    assert await it.read(".DS_Store") == b"1"
    assert await it.read("__MACOSX/._a") == b"2"
    assert await it.read("50%20.txt") == b"4"
    assert await it.errno_of(".Trash") == errno.ENOENT


async def test_extended_attributes_tell_how_a_member_is_packed(
    mount: Callable[..., Mounted],
) -> None:
    """`user.satfs.compression`, `.compressed_bytes` and `.crc32`, beside those of the zip."""
    it = mount(build([Entry(b"a", b"content", method=8)]))
    found = await it.kernel.xattrs(f"{CONTENTS}/a")
    assert found["user.satfs.compression"] == b"deflate"
    assert int(found["user.satfs.compressed_bytes"]) == 9
    assert found["user.satfs.crc32"] == b"%08x" % crc32(b"content")
    assert found["user.satfs.scene_id"] == b"scene-a"
    assert "user.satfs.etag" in found


async def test_a_symbolic_link_is_shown_as_the_text_that_it_holds(
    mount: Callable[..., Mounted],
) -> None:
    """A symbolic link in an archive is a file with its target as text: no link leads anywhere."""
    it = mount(build([Entry(b"link", b"/etc/passwd", mode=0o120777)]))
    assert (await it.stat("link")).st_mode == stat.S_IFREG | 0o644
    assert await it.read("link") == b"/etc/passwd"


@pytest.fixture(autouse=True)
async def _no_handle_is_left(nursery: trio.Nursery) -> AsyncIterator[None]:
    """Let what runs behind readers end before the nursery does."""
    yield
    await trio.testing.wait_all_tasks_blocked()


async def test_twenty_thousand_members_are_listed(mount: Callable[..., Mounted]) -> None:
    """Each once, with its size, in one walk."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for number in range(20_000):
            archive.writestr(f"d{number % 7}/{number:05}.tif", b"")
    it = mount(buffer.getvalue())
    names = set()
    for directory in await it.ls():
        names |= await it.ls(directory)
    assert len(names) == 20_000
