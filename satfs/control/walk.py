"""From the names of a path to its node, and to all files below it that can be fetched."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Final, TypeAlias

import trio
from msgspec import Struct, field
from msgspec.structs import replace

from satfs.control.conditions import (
    AnyCondition,
    FactCondition,
    holds_with,
    may_hold,
    parse_condition,
    verdict,
)
from satfs.errors import BadSettings, NotThere, SatfsError
from satfs.facts.scene import MemberKind, SceneFacts
from satfs.model import Capture, CaptureId, Json, Scene, Task, TaskId, names_in
from satfs.request_slots import concurrent_map
from satfs.tree.archives import ContentsDirectory
from satfs.tree.captures import CaptureDirectory
from satfs.tree.delivery_facts import raster_paths
from satfs.tree.names import RECORD_DIRECTORIES
from satfs.tree.nodes import ContentFile, Directory, File, Node, Symlink
from satfs.tree.rendered import ListedFile
from satfs.tree.root import Root
from satfs.tree.scenes import Extra, SceneDirectory
from satfs.tree.tasks import TaskDirectory

if TYPE_CHECKING:
    from satfs.api.listings import Listings


#: Returns what is known of a scene, its zip included; raises SatfsError when that cannot be read.
FactsOf: TypeAlias = Callable[[SceneDirectory], Awaitable[SceneFacts]]

#: Deliveries looked into at once. Each needs one round of reads; this many hide a far store's round
#: trips.
SCENES_AT_ONCE: Final = 12


class Target(Struct, frozen=True):
    """A file whose bytes are wanted, or a name below that could not be looked at, and why."""

    path: str
    node: File | SatfsError

    @property
    def size_bytes(self) -> int:
        """Return the length of the file; 0 when it is not known."""
        return 0 if isinstance(self.node, SatfsError) else self.node.attributes().size_bytes


class Selection(Struct, frozen=True):
    """The aim of a walk: *conditions* on scenes, and in each of them rasters of some *kinds*.

    Without kinds it is every file of a scene. *members* gives the directory of a scene's members.
    *facts_of* decides about scenes whose records do not state a fact that a condition is about.
    """

    catalogue: Listings
    facts_of: FactsOf
    conditions: Sequence[AnyCondition] = ()
    kinds: frozenset[MemberKind] = frozenset()
    members: Extra | None = None
    #: By level ("task", "capture", "scene"), as far as the walk has come.
    records: Mapping[str, Json] = field(default_factory=dict)

    def below(self, level: str, record: Json) -> Selection | None:
        """Return the same with one more record known; None when it breaks a condition."""
        known = {**self.records, level: record}
        if not may_hold(self.conditions, known):
            return None
        return replace(self, records=known)

    async def takes(self, scene: SceneDirectory) -> bool:
        """Return whether *scene*, whose records are known, fulfils all conditions.

        Raises:
            SatfsError: only the scene's zip can tell, and it cannot be read now.
        """
        decision = verdict(self.conditions, self.records)
        if decision is None:
            return holds_with(self.conditions, self.records, await self.facts_of(scene))
        return decision


def paths_of(given: object) -> list[tuple[str, ...]]:
    """Return the paths that a request gives, each as its names below the root of the mount.

    Raises:
        BadSettings: it gives none.
    """
    if isinstance(given, list) and given:
        paths = [
            tuple(each)
            for each in given
            if isinstance(each, list) and all(isinstance(part, str) for part in each)
        ]
        if len(paths) == len(given):
            return paths
    raise BadSettings("no path was given")


def conditions_of(given: Mapping[str, Json]) -> list[AnyCondition]:
    """Return the conditions that a request gives as `where`.

    Raises:
        BadSettings: one cannot be read.
    """
    where = given.get("where")
    return [parse_condition(str(each)) for each in where] if isinstance(where, list) else []


async def find(root: Directory, path_names: Sequence[str]) -> Node:
    """Return the node that *path_names* lead to from *root*; links in `views/` are followed.

    Raises:
        NotThere: nothing is there.
        SatfsError: that is not known now.
    """
    node: Node = root
    for part in path_names:
        if not isinstance(node, Directory):
            raise NotThere(f"{'/'.join(node.path)} is no directory")
        try:
            node = await node.lookup(os.fsencode(part))
        except NotThere as absence:
            here = "/".join((*node.path, part))
            raise NotThere(f"there is no {here}") from absence
        if isinstance(node, Symlink):
            node = await _followed(root, node)
    return node


async def _followed(root: Directory, link: Symlink) -> Node:
    """Return the node that a link leads to, which is no link. Raises as `find`."""
    return await find(root, names_in(os.fsdecode(link.target), link.path[:-1]))


async def record_path(root: Directory, path_names: Sequence[str]) -> Sequence[str]:
    """Return the path among the vendor's records that *path_names* lead to, or the same lone id.

    Raises:
        NotThere: satfs makes what is there: there is no record of it.
        SatfsError: what a link leads to is not known now.
    """
    if not path_names or path_names[0] in RECORD_DIRECTORIES:
        return path_names
    try:
        node = await find(root, path_names)
    except NotThere:
        return path_names
    if node.path[0] not in RECORD_DIRECTORIES:
        raise NotThere(
            f"{'/'.join(path_names)} is made by satfs: the vendor has records of tasks, of captures"
            " and of scenes"
        )
    return node.path


async def starts(
    root: Directory, given: Mapping[str, Json], wanted: Selection
) -> list[tuple[Node, Selection]]:
    """Return the nodes at the paths that a request gives, each with *wanted* below it.

    A node is left out when a record above it breaks a condition. Deliveries that decide about
    scenes there have been looked into, many at once.

    Raises:
        BadSettings: no path was given.
        SatfsError: nothing is at a path, or that is not known now.
    """
    nodes = [await find(root, path_names) for path_names in paths_of(given.get("paths"))]
    found = [(node, await _known_above(node, wanted)) for node in nodes]
    known_starts = [(node, known) for node, known in found if known is not None]
    await _look_ahead(known_starts, wanted)
    return known_starts


async def _look_ahead(found: Sequence[tuple[Node, Selection]], wanted: Selection) -> None:
    """Have the deliveries that decide about scenes looked into; the walk takes one by one."""
    if not any(isinstance(each, FactCondition) for each in wanted.conditions):
        return
    undecided: dict[str, SceneDirectory] = {}

    async def note(scene: SceneDirectory) -> SceneFacts:
        undecided.setdefault(scene.scene_id, scene)
        return SceneFacts(scene.scene_id)

    async def look(scene: SceneDirectory) -> None:
        with suppress(SatfsError):  # the walk comes by, and says so
            await wanted.facts_of(scene)

    for node, known in found:
        async with aclosing(scenes(node, replace(known, facts_of=note))) as below:
            async for _ in below:
                pass
    await concurrent_map(look, list(undecided.values()), SCENES_AT_ONCE)


async def _known_above(node: Node, wanted: Selection) -> Selection | None:
    found: Selection | None = wanted
    for each in [*_lineage(node)][:0:-1]:  # from the root down
        found = None if found is None else await _with_record(each, found)
    return found


def _lineage(node: Node) -> Iterator[Node]:
    """Yield *node*, and each directory that it is in, up to the root."""
    here: Node | None = node
    while here is not None:
        yield here
        here = here.parent


async def targets(node: Node, wanted: Selection) -> AsyncGenerator[Target, None]:
    """Yield every file at and below *node* whose bytes come from the store, scene by scene.

    With kinds of rasters, only members of zips are yielded. Looks at every directory on the way, so
    that its listing and records are remembered. A node that cannot be listed is yielded with its
    error; the walk goes on. Into `contents/` it goes only when *node* is there: it shows the bytes
    of the zip once more.
    """
    try:
        if isinstance(node, File):
            if not isinstance(node, ContentFile | ListedFile) and await _takes_file(node, wanted):
                yield Target(_path(node), node)
            return
        if (entered := await _entered(node, wanted)) is None:
            return  # before the store gets a request for the scene
        node, here = entered
        if isinstance(node, SceneDirectory) and wanted.kinds:
            for target in await _rasters(node, wanted):
                yield target
            return
        children = await _children(node)
    except SatfsError as error:
        yield Target(_path(node), error)
        return
    for path, child in children:
        if isinstance(child, SatfsError):
            yield Target(path, child)
        elif not isinstance(child, ContentsDirectory):
            async with aclosing(targets(child, here)) as below:
                async for target in below:
                    yield target


async def scenes(
    node: Node, wanted: Selection
) -> AsyncGenerator[SceneDirectory | tuple[str, SatfsError], None]:
    """Yield every scene at and below *node* that fulfils the conditions; needs listings alone.

    A directory that cannot be listed is yielded as its path and the error; the walk goes on.
    """
    try:
        if (entered := await _entered(node, wanted)) is None:
            return
        node, here = entered
        if isinstance(node, SceneDirectory):
            yield node
            return
        children = await _children(node)
    except SatfsError as error:
        yield _path(node), error
        return
    for path, child in children:
        if isinstance(child, SatfsError):
            yield path, child
        else:
            async with aclosing(scenes(child, here)) as below:
                async for each in below:
                    yield each


async def _entered(node: Node, wanted: Selection) -> tuple[Directory, Selection] | None:
    """Return the directory that *node* is or leads to, and *wanted* with the records down to it.

    None when it is a file, or a condition is broken. Below a scene that fulfils all of them none is
    left.
    """
    if isinstance(node, Symlink):
        node, here = await _behind(node, wanted)
    elif isinstance(node, Directory):
        here = await _with_record(node, wanted)
    else:
        return None
    if here is not None and isinstance(node, SceneDirectory):
        here = replace(here, conditions=()) if await here.takes(node) else None
    return None if here is None else (node, here)


async def _takes_file(file: File, wanted: Selection) -> bool:
    """Return whether *file* is to be fetched: the scene that it is of fulfils all conditions."""
    scene = scene_of(file)
    if scene is None:
        return verdict(wanted.conditions, wanted.records) is True
    return await wanted.takes(scene)


async def _behind(link: Symlink, wanted: Selection) -> tuple[Directory, Selection | None]:
    """Return the directory that a link leads to, and *wanted* with the records down to it."""
    *_, root = _lineage(link)
    node = await _followed(root, link) if isinstance(root, Directory) else None
    if not isinstance(node, Directory):
        raise NotThere(f"{_path(link)} leads to no directory")
    above = await _known_above(node, wanted)
    return node, None if above is None else await _with_record(node, above)


async def _children(node: Directory) -> list[tuple[str, Node | SatfsError]]:
    """Return the children of a directory with their paths, by name; of the root only `tasks`.

    The other directories of the root lead to the same scenes once more, by id.
    """
    entries = sorted(await node.children(), key=lambda entry: entry.name)
    return [
        ("/".join((*node.path, each.name.decode("utf-8", "backslashreplace"))), each.target)
        for each in entries
        if not isinstance(node, Root) or each.name == b"tasks"
    ]


async def _rasters(scene: SceneDirectory, wanted: Selection) -> list[Target]:
    """Return the rasters of the wanted kinds in the zip of *scene*; none without a zip."""
    contents = (
        None if wanted.members is None else wanted.members.directory(scene, scene.attachments)
    )
    if not isinstance(contents, ContentsDirectory):
        return []
    try:
        shown = await contents.shown()
    except NotThere:
        return []
    found = []
    for path in await trio.to_thread.run_sync(raster_paths, shown.members, wanted.kinds):
        node = await find(contents, path.split("/"))
        if isinstance(node, File):
            found.append(Target(_path(node), node))
    return found


async def _with_record(node: Node, wanted: Selection) -> Selection | None:
    record: Task | Capture | Scene
    match node:
        case TaskDirectory():
            record = await wanted.catalogue.task(TaskId(node.task_id))
            return wanted.below("task", record.record)
        case CaptureDirectory():
            record = await wanted.catalogue.capture(CaptureId(node.capture_id))
            return wanted.below("capture", record.record)
        case SceneDirectory():
            record = await node.record()
            return wanted.below("scene", record.record)
        case _:
            return wanted


def scene_of(node: Node) -> SceneDirectory | None:
    """Return the scene that *node* is, or is part of."""
    return next((each for each in _lineage(node) if isinstance(each, SceneDirectory)), None)


def _path(node: Node) -> str:
    return "/".join(node.path)
