"""Where a watch looks: at a mount, over its socket, or at the API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import trio

from satfs.api import readers
from satfs.api.listings import Listings
from satfs.content.cache.index import CachedVersion
from satfs.control import records
from satfs.control.client import ask, result_of
from satfs.control.protocol import Done, Failed, error_of
from satfs.control.publications import Event
from satfs.errors import Garbled
from satfs.facts.record import facts_of_record
from satfs.model import DELIVERY_ZIP, Json, Scene
from satfs.mountpoints import Mounted
from satfs.stac.assets import SceneFiles
from satfs.stac.items import ItemPlace, item_of

Listing: TypeAlias = Mapping[str, Json]


class Source(Protocol):
    """Where listings and items come from: a mount, or the API."""

    async def ask(self, question: str, words: Sequence[str]) -> Listing:
        """Return the answer to *question* (`list` or `describe`)."""
        ...

    def path(self, words: Sequence[str]) -> str | None:
        """Return where *words* are in the file system; None without a mount."""
        ...

    async def item(self, words: Sequence[str], event: Event) -> Json | None:
        """Return the STAC item of the scene at *words*; None while its delivery is not there.

        Raises:
            SatfsError: it cannot be made now.
        """
        ...

    def forget(self) -> None:
        """Believe no earlier response."""
        ...


@dataclass(frozen=True, slots=True)
class OfMount:
    """A mount, through its socket; it believes its listings as long as for other programs."""

    mounted: Mounted

    async def ask(self, question: str, words: Sequence[str]) -> Listing:
        """See `Source`."""
        given = {"paths": [list(words)]}
        return await trio.to_thread.run_sync(
            result_of, self.mounted, question, given, abandon_on_cancel=True
        )

    def path(self, words: Sequence[str]) -> str | None:
        """See `Source`."""
        return str(self.mounted.mountpoint.joinpath(*words))

    async def item(self, words: Sequence[str], event: Event) -> Json | None:
        """See `Source`: with absolute paths of the mount."""
        given = {"paths": [list(words)], "absolute": True}
        item = await trio.to_thread.run_sync(
            item_of_mount, self.mounted, given, abandon_on_cancel=True
        )
        scene = scene_of_record(event.record)
        is_announced = scene is not None and any(a.name == DELIVERY_ZIP for a in scene.attachments)
        return None if is_announced and "delivery" not in item["assets"] else item

    def forget(self) -> None:
        """Do nothing: what a mount believes is its own business."""


@dataclass(frozen=True, slots=True)
class OfApi:
    """The API, without a mount."""

    listings: Listings

    async def ask(self, question: str, words: Sequence[str]) -> Listing:
        """See `Source`."""
        answer = records.listed if question == "list" else records.described
        return await answer(self.listings, words, _nothing_kept)

    def path(self, words: Sequence[str]) -> str | None:
        """See `Source`."""
        return None

    async def item(self, words: Sequence[str], event: Event) -> Json | None:
        """See `Source`: made of the record alone, without assets."""
        scene = scene_of_record(event.record)
        if scene is None:
            raise Garbled(f"the record of scene {event.scene_id} has no id")
        return item_of(facts_of_record(scene), SceneFiles(contents=None, record=None), ItemPlace())

    def forget(self) -> None:
        """See `Source`."""
        self.listings.forget()


async def _nothing_kept() -> Sequence[CachedVersion]:
    return ()


def item_of_mount(mounted: Mounted, given: Mapping[str, Json]) -> Json:
    """Return the STAC item of the scene *given* on a mount. Waits for the mount.

    Raises:
        SatfsError: there is none now.
    """
    item: Json = None
    for message in ask(mounted, "stac", given):
        if isinstance(message, Done):
            for failure in message.result["failed"]:
                raise error_of(Failed(failure["error"], failure["message"]))
        elif message.what.get("event") == "item":
            item = message.what["item"]
    if item is None:
        raise Garbled("the mount has sent no item")
    return item


def scene_of_record(record: Mapping[str, Json]) -> Scene | None:
    """Return the scene of a record of the API; None when it has no id."""
    return readers.scene(dict(record))
