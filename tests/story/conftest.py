"""The whole stack above the vendor, without a kernel: a catalogue, a tree, FUSE operations."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from story.kernel import Kernel
from story.shelves import (
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
from satfs.tree.nodes import Node
from satfs.tree.root import Root
from satfs.tree.scenes import Extra

ZIP = bytes(range(256)) * 40
PNG = b"\x89PNG" + bytes(100)


@pytest.fixture
def catalogue() -> FakeCatalogue:
    catalogue = FakeCatalogue()
    catalogue.put(make_task("341271"), make_capture("cap-1"), make_capture("cap-2", "planned"))
    catalogue.put_scenes("cap-1", make_scene("scene-a", "cap-1"), make_scene("scene-b", "cap-1"))
    return catalogue


@pytest.fixture
def objects() -> FakeObjects:
    objects = FakeObjects()
    for scene in ("scene-a", "scene-b"):
        objects.put(scene, ZIP)
        objects.put(scene, PNG, "preview")
    return objects


MountIt = Callable[..., Kernel]


@pytest.fixture
def mount_it(
    catalogue: FakeCatalogue, objects: FakeObjects, monkeypatch: pytest.MonkeyPatch
) -> MountIt:
    """Return a function that "mounts": builds a tree and the FUSE operations on the two shelves."""

    def mount(
        *, limits: Limits | None = None, umask: int = 0, extras: tuple[Extra, ...] = ()
    ) -> Kernel:
        root: Node = Root(sources_of(catalogue, objects, extras))
        inodes = Inodes(root, keyed_numbering(b"account"))
        owner = Owner(1000, 100, umask)
        operations = Operations(inodes, owner=owner, limits=limits or Limits())
        return Kernel(operations, inodes, monkeypatch)

    return mount


@pytest.fixture
async def kernel(mount_it: MountIt) -> Kernel:
    return mount_it()
