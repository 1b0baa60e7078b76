"""The kernel forgets files and names that are gone, never a directory that is there."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest
import trio
from story.shelves import (
    FakeCatalogue,
    FakeObjects,
    make_capture,
    make_scene,
    make_task,
    sources_of,
)

from satfs.control import name_invalidation
from satfs.control.name_invalidation import NameInvalidation
from satfs.control.walk import find
from satfs.fuse.inodes import Inodes, keyed_numbering
from satfs.tree.nodes import Node
from satfs.tree.root import Root

SCENE = ("tasks", "341271", "cap-a", "scene-a")


class Tree:
    """A tree; the kernel knows the nodes that were walked to, less those that it has forgotten."""

    def __init__(self) -> None:
        catalogue, objects = FakeCatalogue(), FakeObjects()
        catalogue.put(make_task(), make_capture("cap-a"), make_capture("cap-b"))
        catalogue.put_scenes("cap-a", make_scene("scene-a", "cap-a", []))
        self.root = Root(sources_of(catalogue, objects))
        self.inodes: Inodes[Node] = Inodes(self.root, keyed_numbering(b"key"))
        self.forgotten: list[tuple[str, ...]] = []
        self.renewed: list[tuple[str, ...]] = []
        self.memory = NameInvalidation(self.inodes, self.forget_entry, self.forget_attributes)

    def forget_entry(self, directory: int, name: bytes) -> None:
        self.forgotten.append((*self.inodes.node(directory).path, name.decode()))
        raise FileNotFoundError  # what the kernel says of a name that it does not know

    def forget_attributes(self, inode: int) -> None:
        self.renewed.append(self.inodes.node(inode).path)

    async def walk(self, *paths: Sequence[str]) -> None:
        for path in paths:
            for length in range(1, len(path) + 1):
                self.inodes.remember(await find(self.root, path[:length]))


async def test_files_below_are_forgotten_and_directories_are_not() -> None:
    """A shell that stands in a directory goes on standing there."""
    tree = Tree()
    await tree.walk((*SCENE, "scene.json"), ("tasks", "341271", "task.json"), ("README.txt",))
    await tree.memory.forget_below(("tasks", "341271"), [b"task.json", b"cap-a"])
    assert sorted(tree.forgotten) == [
        (*SCENE, "scene.json"),
        ("tasks", "341271", "task.json"),
    ]
    assert ("tasks", "341271") in tree.renewed
    assert SCENE in tree.renewed


async def test_a_directory_that_is_gone_is_forgotten() -> None:
    tree = Tree()
    await tree.walk(SCENE)
    await tree.memory.forget_below(("tasks", "341271"), [])
    assert tree.forgotten == [("tasks", "341271", "cap-a")]


async def test_that_a_name_was_not_there_is_forgotten() -> None:
    """The kernel remembers absence, too, and does not report for which names."""
    tree = Tree()
    await tree.walk(("tasks", "341271"))
    await tree.memory.forget_below(("tasks", "341271"), [b"new"])
    assert tree.forgotten == [("tasks", "341271", "new")]


async def test_a_file_by_itself_is_forgotten() -> None:
    tree = Tree()
    await tree.walk((*SCENE, "scene.json"), (*SCENE, "footprint.geojson"))
    await tree.memory.forget_below((*SCENE, "scene.json"), None)
    assert tree.forgotten == [(*SCENE, "scene.json")]


async def test_what_the_kernel_does_not_know_of_is_no_work() -> None:
    tree = Tree()
    assert await tree.memory.forget_below(("tasks", "341271"), [b"cap-a"]) == 0


async def test_the_loop_goes_on_while_the_kernel_takes_its_time() -> None:
    """The kernel may wait for an answer of ours before it forgets: here it does."""
    tree = Tree()
    await tree.walk((*SCENE, "scene.json"))
    responded = threading.Event()

    def wait(_directory: int, _name: bytes) -> None:
        assert responded.wait(5)

    tree.memory = NameInvalidation(tree.inodes, wait, lambda inode: None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(tree.memory.forget_below, SCENE, None)
        await trio.sleep(0.05)
        responded.set()  # what an answer to the kernel would do


async def test_a_call_that_hangs_does_not_hold_up_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Cancelled, it is left behind; the end waits a moment for it, and begins no other."""
    monkeypatch.setattr(name_invalidation, "_ENDING_S", 0.1)
    tree = Tree()
    await tree.walk((*SCENE, "scene.json"), (*SCENE, "footprint.geojson"))
    hanging, calls = threading.Event(), list[bytes]()

    def hang(_directory: int, name: bytes) -> None:
        calls.append(name)
        hanging.wait(10)

    memory = NameInvalidation(tree.inodes, hang, lambda inode: None)
    with trio.move_on_after(0.1):
        await memory.forget_below(SCENE, [])
    with trio.fail_after(2):
        await memory.end()
    hanging.set()
    await trio.sleep(0.05)
    assert len(calls) == 1
