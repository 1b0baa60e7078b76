"""Forget what is cached about a path, request it again, and invalidate the kernel's names."""

from __future__ import annotations

from collections.abc import Sequence

from satfs.api import listings as kinds
from satfs.control.mount_components import MountComponents
from satfs.control.server import Given, Result, SendNotice
from satfs.control.walk import find, paths_of, scene_of
from satfs.errors import NotThere
from satfs.tree.captures import CaptureDirectory
from satfs.tree.nodes import Directory, Node
from satfs.tree.root import Root
from satfs.tree.scenes import SceneDirectory
from satfs.tree.tasks import TaskDirectory, Tasks


async def refresh(mount: MountComponents, given: Given, _send: SendNotice) -> Result:
    """Forget the listings at and below each of the `paths`, and list each path again.

    Entries further below are requested when a program looks. For a scene, the versions of its
    attachments are requested from the store as well. Returns for each path how many entries it has
    now, and whether they are those of before, because the vendor did not respond.

    Raises:
        NotThere: a path leads nowhere, also after a new request.
        SatfsError: that is not known now, and was not known before.
    """
    return {
        "refreshed": [
            await _refresh(mount, path_names) for path_names in paths_of(given.get("paths"))
        ]
    }


async def _refresh(mount: MountComponents, path_names: Sequence[str]) -> Result:
    node = await _found(mount, path_names)
    state = await _forget(mount, node)
    now: list[bytes] | None = None
    if isinstance(node, Directory):
        now = [entry.name for entry in await node.children()]
    n_names = await mount.kernel.forget_below(node.path, now)
    known = None if state is None else mount.listings.state(*state)
    return {
        "path": "/".join(node.path),
        "entries": None if now is None else len(now),
        "forgotten": n_names,
        "is_stale": known is not None and known.is_stale,
    }


async def _found(mount: MountComponents, path_names: Sequence[str]) -> Node:
    try:
        return await find(mount.root, path_names)
    except NotThere:
        # New since the directories above it were listed: those are requested again, from the top.
        node: Node = mount.root
        for length in range(len(path_names)):
            if not isinstance(node, Directory):
                break
            await _forget(mount, node)
            names = [entry.name for entry in await node.children()]
            await mount.kernel.forget_below(node.path, names)
            node = await find(mount.root, path_names[: length + 1])
        return node


async def _forget(mount: MountComponents, node: Node) -> tuple[str, str] | None:
    """Forget what *node* shows; return kind and id of the listing that is requested next."""
    listings = mount.listings
    match node:
        case Root():
            listings.forget()
            return (kinds.TASKS, "")
        case Tasks():
            listings.forget_tasks()
            return (kinds.TASKS, "")
        case TaskDirectory():
            listings.forget_task(node.task_id)
            listings.forget_captures(node.task_id)
            for capture in await listings.captures(node.task_id):
                listings.forget_scenes(capture.capture_id)
            return (kinds.CAPTURES, node.task_id)
        case CaptureDirectory():
            if isinstance(node.parent, TaskDirectory):
                listings.forget_captures(node.parent.task_id)
            listings.forget_scenes(node.capture_id)
            return (kinds.SCENES, node.capture_id)
        case _:
            scene = scene_of(node)
            return None if scene is None else await _forget_scene(mount, scene)


async def _forget_scene(mount: MountComponents, scene: SceneDirectory) -> tuple[str, str]:
    mount.listings.forget_scene(scene.scene_id)
    record = await scene.record()
    for attachment in record.attachments:
        try:
            await mount.contents.renew(scene.scene_id, attachment.name, record.revision)
        except NotThere:
            mount.contents.forget(scene.scene_id, attachment.name)
    if isinstance(scene.parent, CaptureDirectory):
        return (kinds.SCENES, scene.parent.capture_id)
    return (kinds.SCENE, scene.scene_id)
