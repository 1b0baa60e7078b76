"""Thumbnails beside the files, and the volume's name: for desktops, and hidden from everybody."""

from __future__ import annotations

import errno
import struct
import zlib
from collections.abc import Callable
from datetime import timedelta
from hashlib import md5

import pytest
from hypothesis import given
from hypothesis import strategies as st
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

from satfs.fuse.attributes import Limits, Owner
from satfs.fuse.inodes import Inodes, keyed_numbering
from satfs.fuse.operations import Operations
from satfs.model import Attachment, AttachmentName
from satfs.tree.nodes import Node
from satfs.tree.root import Root, volume_files
from satfs.tree.thumbnails import Thumbnails, picture_of, text_chunks, thumbnail_names

SCENE = "scenes/scene-a"
HEAD = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBB", 13, b"IHDR", 1, 1, 8, 0, 0, 0, 0) + b"CRC4"
PNG = HEAD + b"the rest of the picture" * 100


@pytest.fixture
def shelves() -> tuple[FakeCatalogue, FakeObjects]:
    catalogue, objects = FakeCatalogue(), FakeObjects()
    catalogue.put(make_task("1"), make_capture("cap-1"))
    catalogue.put_scenes("cap-1", make_scene("scene-a", "cap-1"))
    objects.put("scene-a", b"PK", etag="z")
    objects.put("scene-a", PNG, "preview")
    return catalogue, objects


@pytest.fixture
def kernel(shelves: tuple[FakeCatalogue, FakeObjects], monkeypatch: pytest.MonkeyPatch) -> Kernel:
    root = Root(sources_of(*shelves, (Thumbnails(),)))
    root.hide(volume_files(root, "satfs:coast"))
    inodes: Inodes[Node] = Inodes(root, keyed_numbering(b"account"))
    return Kernel(Operations(inodes, owner=Owner(0, 0), limits=Limits()), inodes, monkeypatch)


def chunks_of(png: bytes) -> list[tuple[bytes, bytes]]:
    """Return the (type, body) of the first chunks that carry a right checksum."""
    found, at = [], 8
    while at + 12 <= len(png):
        (length,) = struct.unpack_from(">I", png, at)
        body = png[at + 4 : at + 8 + length]
        found.append((body[:4], body[4:]))
        at += 12 + length
        if png[at - 4 : at] != zlib.crc32(body).to_bytes(4, "big") and body[:4] != b"IHDR":
            break
    return found


async def test_a_zip_has_the_scenes_picture(kernel: Kernel) -> None:
    """The picture of a scene is the thumbnail of each attachment, with file and time in it."""
    plain, dotted = thumbnail_names(b"scene-a.zip")
    assert plain == md5(b"scene-a.zip", usedforsecurity=False).hexdigest().encode() + b".png"
    assert dotted == md5(b"./scene-a.zip", usedforsecurity=False).hexdigest().encode() + b".png"
    for size in ("normal", "large", "x-large", "xx-large"):
        for name in (plain, dotted):
            path = f"{SCENE}/.sh_thumbnails/{size}/{name.decode()}"
            for step in (7, 40, 128 * 1024):
                content = await kernel.read(path, step)
            assert (await kernel.walk(path)).st_size == len(content)
            assert content.startswith(HEAD)
            assert content.endswith(PNG[len(HEAD) :])
            texts = [body for kind, body in chunks_of(content) if kind == b"tEXt"]
            assert b"Thumb::URI\0scene-a.zip" in texts
            assert f"Thumb::MTime\0{int(TAKEN.timestamp())}".encode() in texts
            assert int((await kernel.walk(f"{SCENE}/scene-a.zip")).st_mtime_ns) // 10**9 == int(
                TAKEN.timestamp()
            )


async def test_a_thumbnail_of_another_time_is_another_file(
    kernel: Kernel, shelves: tuple[FakeCatalogue, FakeObjects]
) -> None:
    """The kernel keeps the bytes of an inode, and a file manager looks for the time in them."""
    path = f"{SCENE}/.sh_thumbnails/normal/{thumbnail_names(b'scene-a.zip')[0].decode()}"
    before = (await kernel.walk(path)).st_ino
    scene = make_scene("scene-a", "cap-1", taken=TAKEN + timedelta(seconds=1))
    shelves[0].put_scenes("cap-1", scene)
    assert (await kernel.walk(path)).st_ino != before
    await kernel.forget_all()


async def test_thumbnails_are_hidden_and_cost_nothing_to_look_for(
    kernel: Kernel, shelves: tuple[FakeCatalogue, FakeObjects]
) -> None:
    """A thumbnail repository is not listed; nothing is requested before a thumbnail is opened."""
    catalogue, objects = shelves
    assert set(await kernel.ls(SCENE)) == {
        "scene.json",
        "footprint.geojson",
        "scene-a.zip",
        "scene-a_preview.png",
    }
    before = objects.calls.copy()
    assert len(await kernel.ls(f"{SCENE}/.sh_thumbnails")) == 4
    for name in thumbnail_names(b"scene.json") + thumbnail_names(b"nothing"):
        with pytest.raises(FileNotFoundError):
            await kernel.walk(f"{SCENE}/.sh_thumbnails/normal/{name.decode()}")
    assert len(await kernel.ls(f"{SCENE}/.sh_thumbnails/normal")) == 4
    assert objects.calls["open"] == before["open"]
    # Elsewhere there is no thumbnail, and no request is sent.
    calls = catalogue.calls.copy()
    with pytest.raises(FileNotFoundError):
        await kernel.walk(".sh_thumbnails")
    with pytest.raises(FileNotFoundError):
        await kernel.walk("tasks/.sh_thumbnails")
    assert catalogue.calls == calls
    await kernel.forget_all()


async def test_a_picture_that_is_none_is_no_thumbnail(
    kernel: Kernel,
    shelves: tuple[FakeCatalogue, FakeObjects],
    expect_log: Callable[..., None],
) -> None:
    """A file that is called a PNG and is not one is refused, and closed."""
    expect_log("call failed", reason="the scene's picture is no PNG")
    shelves[1].put("scene-a", b"GIF89a" * 50, "preview")
    name = thumbnail_names(b"scene-a.zip")[0].decode()
    with pytest.raises(FUSEError) as refused:
        await kernel.read(f"{SCENE}/.sh_thumbnails/normal/{name}")
    assert refused.value.errno == errno.EOPNOTSUPP
    assert shelves[1].n_open == 0


async def test_a_scene_without_a_picture_has_no_thumbnails(
    kernel: Kernel, shelves: tuple[FakeCatalogue, FakeObjects]
) -> None:
    """Without a picture there is no repository."""
    files = [("delivery_zip", "b.zip"), ("preview", "b.jp2")]
    shelves[0].put_scenes("cap-1", make_scene("scene-b", "cap-1", files))
    with pytest.raises(FileNotFoundError):
        await kernel.walk("scenes/scene-b/.sh_thumbnails")


def attachment(name: str, file_name: str) -> Attachment:
    return Attachment(AttachmentName(name), file_name)


def test_the_smallest_picture_is_taken() -> None:
    """A thumbnail is preferred to a preview, and a PNG is needed."""
    thumbnail, preview = attachment("thumbnail", "t.PNG"), attachment("preview", "p.png")
    assert picture_of([preview, thumbnail]) is thumbnail
    assert picture_of([preview, attachment("thumbnail", "t.jpg")]) is preview
    assert picture_of([attachment("delivery_zip", "z.png")]) is None


@given(st.binary(min_size=1, max_size=255).filter(lambda name: b"/" not in name))
def test_any_name_has_thumbnail_names(name: bytes) -> None:
    """Thumbnail names are those of the URI-escaped file name, for any name."""
    plain, dotted = thumbnail_names(name)
    assert plain != dotted
    assert len(plain) == len(dotted) == 36


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
def test_text_chunks_are_chunks(text: str) -> None:
    """Text chunks have a length, a type, and a checksum that readers accept."""
    content = text_chunks(Thumb__URI=text)
    ((kind, body),) = chunks_of(HEAD[:8] + content)
    assert kind == b"tEXt"
    assert body == b"Thumb::URI\0" + text.encode()


async def test_the_volume_tells_its_name(
    kernel: Kernel, shelves: tuple[FakeCatalogue, FakeObjects]
) -> None:
    """A desktop finds a name and an icon at the top, unlisted, without a request."""
    info = (await kernel.read(".xdg-volume-info")).decode()
    assert info.splitlines() == [
        "[Volume Info]",
        "Name=Satellite imagery (coast)",
        "IconFile=.volume-icon.svg",
    ]
    assert (await kernel.read(".volume-icon.svg")).startswith(b"<svg ")
    assert not any(name.startswith(".") for name in await kernel.ls())
    assert not shelves[0].calls
