"""Prefetching while the vendor, the line and the cache change."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
import trio
from imagery.rasters import directory, learn, tiff, tiled_fields
from story.shelves import (
    FakeCatalogue,
    FakeObjects,
    make_capture,
    make_scene,
    make_task,
    sources_of,
)

from satfs.content.cache.index import CachedVersion
from satfs.content.cache.pins import StoredObject
from satfs.control import prefetching
from satfs.control.mount_components import MountComponents
from satfs.control.prefetching import prefetch
from satfs.control.raster_prefetch import places_of
from satfs.errors import BadCache, BadSettings, NotAllowed, SatfsError, Unreachable
from satfs.facts.scene import SceneFacts
from satfs.imagery.block_choice import BlockChoice, block_spans, chosen_blocks
from satfs.imagery.geotiff import Facts
from satfs.imagery.raster import Raster
from satfs.imagery.spans import merge_spans
from satfs.model import AttachmentName, ByteRange, MadeReader, SceneId, Version
from satfs.tree.root import Root
from satfs.tree.scenes import SceneDirectory

SIZE = 3 * prefetching.PIECE_BYTES + 7
ZIP = "delivery_zip"


@dataclass
class FakePins:
    """A cache that holds all that is read, less the files that it is made to lose."""

    room_bytes: int = 1 << 40
    #: So many times, and of what label, something is gone when it is looked for.
    losses: dict[str, int] = field(default_factory=dict)
    known: dict[str, StoredObject] = field(default_factory=dict)
    pinned: list[str] = field(default_factory=list)

    async def kept(self) -> dict[str, CachedVersion]:
        held = {}
        for each in self.known.values():
            is_lost = self.losses.get(each.label, 0) > 0
            if is_lost:
                self.losses[each.label] -= 1
            n_bytes = 0 if is_lost else each.size_bytes
            held[each.name] = CachedVersion(
                each.name, each.label, each.size_bytes, n_bytes, False, 0.0
            )
        return held

    async def pin(self, objects: Iterable[StoredObject]) -> None:
        self.pinned += [each.name for each in objects]

    async def capacity_bytes(self, names: Collection[str]) -> int:
        return self.room_bytes


class FakeDeliveries:
    """Zips that state clouds: how many percent by scene, or why one cannot be read."""

    def __init__(self) -> None:
        self.clouds: dict[str, float | SatfsError] = {}
        self.n_looks = 0
        self._now, self.most_at_once = 0, 0

    async def facts(self, scene: SceneDirectory) -> SceneFacts:
        self.n_looks += 1
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        await trio.sleep(0.1)
        self._now -= 1
        found = self.clouds.get(scene.scene_id)
        if isinstance(found, SatfsError):
            raise found
        return SceneFacts(scene.scene_id, cloud_percent=found)


class House:
    """A task of two scenes, each with a zip of `SIZE` bytes."""

    def __init__(self) -> None:
        self.catalogue, self.objects, self.pins = FakeCatalogue(), FakeObjects(), FakePins()
        self.deliveries = FakeDeliveries()
        self.catalogue.put(make_task("1"), make_capture("cap"), make_capture("not", "planned"))
        files = [("delivery_zip", "all.zip")]
        scenes = [make_scene(id, "cap", files) for id in ("a", "b")]
        self.catalogue.put_scenes("cap", *scenes)
        for scene in scenes:
            self.objects.put(scene.scene_id, b"x" * SIZE)
        self.messages: list[Mapping[str, Any]] = []
        self.mount = MountComponents(
            mountpoint=Path("/mnt"),
            cache_dir=Path("/cache"),
            root=Root(sources_of(self.catalogue, self.objects)),
            listings=cast(Any, self.catalogue),
            contents=cast(Any, self),
            archives=cast(Any, None),
            pins=cast(Any, self.pins),
            kernel=cast(Any, None),
            introspection=cast(Any, None),
            items=cast(Any, self.deliveries),
        )

    def stored(self, scene: SceneId, attachment: AttachmentName, version: Version) -> StoredObject:
        name = f"{scene}/{attachment}/{version.etag}"
        known = StoredObject(name, f"{scene}/{attachment}", version.size_bytes)
        return self.pins.known.setdefault(name, known)

    async def prefetch(self, *path: str, **given: Any) -> dict[str, Any]:
        async def tell(what: Mapping[str, Any]) -> None:
            self.messages.append(what)

        paths = given.pop("paths", [list(path)])
        return await prefetch(self.mount, {"paths": paths, **given}, tell)

    def ended(self) -> list[tuple[str, Any]]:
        return [(each["path"], each["error"]) for each in self.messages if each["event"] == "ended"]


async def test_all_below_is_read_once_and_let_go_of() -> None:
    house = House()
    result = await house.prefetch("tasks", "1")
    assert (result["files"], result["bytes_done"], result["failed"]) == (2, 2 * SIZE, [])
    assert house.objects.calls["read"] == 2 * 4
    assert house.objects.n_open == 0
    assert {error for _, error in house.ended()} == {None}


async def test_one_object_on_two_paths_is_one_file() -> None:
    house = House()
    paths = [["tasks"], ["scenes", "a"], ["captures", "cap"], []]
    assert (await house.prefetch(paths=paths))["files"] == 2


async def test_what_the_cache_lost_meanwhile_is_fetched_again() -> None:
    house = House()
    house.pins.losses["a/delivery_zip"] = 1
    result = await house.prefetch("tasks", "1")
    assert (result["bytes_done"], result["failed"]) == (2 * SIZE, [])
    assert house.objects.calls["open"] == 3


async def test_a_cache_that_goes_on_losing_is_told() -> None:
    house = House()
    house.pins.losses["a/delivery_zip"] = 9
    result = await house.prefetch("tasks", "1")
    assert result["bytes_done"] == SIZE
    (failure,) = result["failed"]
    assert failure["error"] == "BadCache"
    assert "too small" in failure["message"]


async def test_what_was_replaced_since_it_was_listed_is_fetched_as_it_is_now() -> None:
    """And what is pinned is the new version."""
    house = House()
    looks = 0
    look = house.objects._look

    def replaced_after_listing(scene: str, attachment: str) -> tuple[Version, bytes]:
        nonlocal looks
        looks += 1
        if looks == 3:  # the first two are the listing's
            house.objects.put("a", b"new", etag="2")
            house.objects.put("b", b"new", etag="2")
        return look(scene, attachment)

    house.objects._look = replaced_after_listing  # type: ignore[method-assign]
    result = await house.prefetch("tasks", "1", pin=True)
    assert result["failed"] == []
    assert {'a/delivery_zip/"2"', 'b/delivery_zip/"2"'} <= set(house.pins.pinned)


async def test_a_line_that_is_gone_for_a_moment_is_waited_for(autojump_clock: object) -> None:
    house = House()
    house.objects.read_failure = Unreachable("away")

    async def recover() -> None:
        await trio.sleep(prefetching.PAUSES_S[0] / 2)
        house.objects.read_failure = None

    async with trio.open_nursery() as nursery:
        nursery.start_soon(recover)
        result = await house.prefetch("tasks", "1")
    assert result["failed"] == []


async def test_once_nobody_answers_the_rest_is_given_up(autojump_clock: object) -> None:
    """Waiting for each of a thousand files would take hours."""
    house = House()
    scenes = [make_scene(f"s{n:03}", "cap", [(ZIP, "all.zip")]) for n in range(300)]
    house.catalogue.put_scenes("cap", *scenes)
    for scene in scenes:
        house.objects.put(scene.scene_id, b"x" * SIZE)
    house.objects.read_failure = Unreachable("away")
    started_s = trio.current_time()
    result = await house.prefetch("tasks", "1")
    assert len(result["failed"]) == 300
    assert {each["error"] for each in result["failed"]} == {"Unreachable"}
    assert trio.current_time() - started_s < 10 * sum(prefetching.PAUSES_S)


async def test_what_cannot_be_listed_is_told_and_the_rest_is_fetched() -> None:
    house = House()
    house.objects.failures["a", ZIP] = NotAllowed("no")
    result = await house.prefetch("tasks", "1")
    assert [(each["path"], each["error"]) for each in result["failed"]] == [
        ("tasks/1/cap/a/all.zip", "NotAllowed")
    ]
    assert result["bytes_done"] == SIZE


async def test_a_scene_that_breaks_a_condition_costs_nothing() -> None:
    house = House()
    result = await house.prefetch("tasks", "1", where=["scene_id=b"])
    assert result["files"] == 1
    assert house.objects.calls["version"] == 1


async def test_a_task_that_breaks_a_condition_is_not_looked_into() -> None:
    house = House()
    assert (await house.prefetch("tasks", "1", where=["task.status=received"]))["files"] == 0
    assert house.catalogue.calls["captures"] == 0
    inside = await house.prefetch("tasks", "1", "cap", "a", where=["task.status=received"])
    assert inside["files"] == 0, "what the path lies in counts as well"


async def test_what_a_record_does_not_state_is_looked_for_in_the_delivery(
    autojump_clock: object,
) -> None:
    """Of scenes that nothing else rules out, many at once; one that cannot be read is named."""
    house = House()
    house.deliveries.clouds = {"a": 4.2, "b": 90.0}
    result = await house.prefetch("tasks", "1", where=["cloud<20"])
    assert [path for path, _ in house.ended()] == ["tasks/1/cap/a/all.zip"]
    assert (result["files"], result["failed"]) == (1, [])
    assert house.deliveries.most_at_once == 2
    inside = await house.prefetch("tasks", "1", "cap", "b", "all.zip", where=["cloud>20"])
    assert inside["files"] == 1
    looks = house.deliveries.n_looks
    none = await house.prefetch("tasks", "1", where=["cloud<20", "product=L1C"])
    assert (none["files"], house.deliveries.n_looks) == (0, looks)
    house.deliveries.clouds["b"] = Unreachable("away")
    result = await house.prefetch("tasks", "1", where=["cloud<20"])
    (failure,) = result["failed"]
    assert (failure["path"], failure["error"]) == ("tasks/1/cap/b", "Unreachable")


@pytest.mark.parametrize("given", [{"jobs": 0}, {"jobs": "x"}, {"where": ["x"]}])
async def test_what_cannot_be_is_refused_before_anything_is_fetched(given: dict[str, Any]) -> None:
    house = House()
    with pytest.raises(BadSettings):
        await house.prefetch("tasks", "1", **given)
    assert house.objects.calls["open"] == 0


async def test_what_does_not_fit_is_not_begun() -> None:
    house = House()
    house.pins.room_bytes = 2 * SIZE - 1
    with pytest.raises(BadCache, match="do not fit"):
        await house.prefetch("tasks", "1", pin=True)
    assert house.objects.calls["open"] == 0
    assert house.pins.pinned == []


async def test_a_pin_comes_before_the_bytes() -> None:
    """So that what is fetched first is not pushed out by what is fetched last."""
    house = House()
    await house.prefetch("tasks", "1", pin=True, is_for_later=True)
    assert len(house.pins.pinned) == 2
    assert house.objects.calls["open"] == 0


class FakeReader(MadeReader):
    """Reads from bytes."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.size_bytes = len(data)

    async def read(self, span: ByteRange) -> bytes:
        return self.data[span.start : span.stop]


async def test_the_places_of_all_blocks_are_found_in_tables_of_any_size(
    autojump_clock: Any,
) -> None:
    """A column of a large raster is in every row of its tables, which are not kept at once."""
    n = 256
    offsets = [1_000_000 + 100 * i for i in range(n * n)]
    fields = tiled_fields(n, offsets=(4, offsets), sizes=(3, [100] * n * n))
    data = tiff(directory(fields), size_bytes=offsets[-1] + 100)
    whole = learn(data, whole=True)
    assert whole.layout is not None
    blocks = chosen_blocks(whole.layout, Facts(), BlockChoice(window=(0, 0, 16, 16 * n)))
    small = Raster(len(data), max_kept_bytes=256 * 1024)
    small.feed(0, data[:4096])

    spans = await places_of(small, FakeReader(data), blocks)

    assert merge_spans(spans) == block_spans(whole, blocks, 0)
    assert len(spans) == n
