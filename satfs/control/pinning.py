"""Protect what is below a path against eviction, undo that, and list what is protected."""

from __future__ import annotations

from satfs.content.cache.maintenance import records_of
from satfs.content.open_fetchers import label_of
from satfs.control.mount_components import MountComponents
from satfs.control.prefetching import collect
from satfs.control.progress import CommandProgress
from satfs.control.server import Given, Result, SendNotice
from satfs.control.walk import Target, find, paths_of
from satfs.errors import NotThere
from satfs.tree.scenes import AttachmentFile, SceneDirectory


async def unpin(mount: MountComponents, given: Given, send: SendNotice) -> Result:
    """Take the pins from all versions of what the `paths` hold; return what had one.

    A scene or attachment is named by its path also when the vendor has it no more.

    Raises:
        BadCache: nothing is kept on disk.
    """
    labels: set[str] = set()
    for path_names in paths_of(given.get("paths")):
        try:
            found = await collect(
                mount, {**given, "paths": [list(path_names)]}, CommandProgress(send)
            )
            labels.update(filter(None, map(_label, found)))
            node = await find(mount.root, path_names)
        except NotThere:
            node = None
        # Also objects that the store has no longer, or whose version is not known now.
        if node is None or isinstance(node, SceneDirectory):
            scene_id = path_names[-1] if node is None else node.scene_id
            kept = (await mount.pins.kept()).values()
            labels.update(each.label for each in kept if each.label.rpartition("/")[0] == scene_id)
    return {"unpinned": records_of(await mount.pins.unpin(labels))}


async def pins(mount: MountComponents, _given: Given, _send: SendNotice) -> Result:
    """Return what is pinned, and where it is kept."""
    kept = (await mount.pins.kept()).values()
    return {
        "cache_dir": str(mount.cache_dir),
        "pinned": records_of(each for each in kept if each.is_pinned),
    }


def _label(target: Target) -> str | None:
    node = target.node
    return label_of(*node.key) if isinstance(node, AttachmentFile) else None
