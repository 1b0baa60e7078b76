"""Where a watch looks: at a mount, over its socket, or at the API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import trio

from satfs.api import record_parsers
from satfs.api.listings import Listings
from satfs.cli.output import print_remark
from satfs.content.cache.index import CachedVersion
from satfs.control import records
from satfs.control.client import messages_of, result_of
from satfs.control.protocol import Done, Failed, error_of
from satfs.control.publications import Event
from satfs.errors import Garbled
from satfs.facts.record import facts_of_record
from satfs.model import DELIVERY_ZIP, Json
from satfs.mountpoints import Mounted
from satfs.stac.assets import SceneFiles
from satfs.stac.items import ItemPlace, item_of

Listing: TypeAlias = Mapping[str, Json]


@dataclass(frozen=True, slots=True)
class OfMount:
    """A mount, through its socket; it believes its listings as long as for other programs."""

    mounted: Mounted

    async def query(
        self, command: str, path_names: Sequence[str], where: Sequence[str] = ()
    ) -> Listing:
        """Return the result of *command* (`list` or `describe`)."""
        given = {"paths": [list(path_names)], "where": list(where)}
        return await trio.to_thread.run_sync(
            result_of, self.mounted, command, given, abandon_on_cancel=True
        )

    def path(self, path_names: Sequence[str]) -> str | None:
        """Return where *path_names* are in the file system; None without a mount."""
        return str(self.mounted.mountpoint.joinpath(*path_names))

    async def item(self, path_names: Sequence[str], event: Event) -> Json | None:
        """Return the STAC item of the scene at *path_names*, with absolute paths of the mount.

        None while its delivery is not there.

        Raises:
            SatfsError: it cannot be made now.
        """
        given = {"paths": [list(path_names)], "absolute": True}
        item = await trio.to_thread.run_sync(
            item_of_mount, self.mounted, given, abandon_on_cancel=True
        )
        scene = record_parsers.scene(dict(event.record))
        is_announced = scene is not None and any(a.name == DELIVERY_ZIP for a in scene.attachments)
        return None if is_announced and "delivery" not in item["assets"] else item

    async def fulfils(
        self, path_names: Sequence[str], event: Event, where: Sequence[str]
    ) -> bool | None:
        """Return whether a scene fulfils *where*, which its record leaves open, by its delivery.

        None while the delivery is not there.

        Raises:
            SatfsError: it cannot be read now.
        """
        if await self.item(path_names, event) is None:
            return None
        listing = await self.query("list", path_names, where)
        return None if listing["undecided"] else bool(listing["entries"])

    def forget(self) -> None:
        """Do nothing: the mount decides how long it uses an earlier response."""


@dataclass(frozen=True, slots=True)
class OfApi:
    """The API, without a mount."""

    listings: Listings

    async def query(self, command: str, path_names: Sequence[str]) -> Listing:
        """See `OfMount`."""
        call = records.listed if command == "list" else records.described
        return await call(self.listings, path_names, _nothing_kept)

    def path(self, path_names: Sequence[str]) -> str | None:
        """See `OfMount`."""
        return None

    async def item(self, path_names: Sequence[str], event: Event) -> Json | None:
        """See `OfMount`: made of the record alone, without assets."""
        scene = record_parsers.scene(dict(event.record))
        if scene is None:
            raise Garbled(f"the record of scene {event.scene_id} has no id")
        return item_of(facts_of_record(scene), SceneFiles(contents=None, record=None), ItemPlace())

    async def fulfils(
        self, path_names: Sequence[str], event: Event, where: Sequence[str]
    ) -> bool | None:
        """See `OfMount`: without a mount the record decides alone. It has not the fact; says so."""
        print_remark(
            f"{event.scene_id} left out: its record does not state what the condition is about; on"
            " a mount, its delivery is looked into."
        )
        return False

    def forget(self) -> None:
        """See `OfMount`."""
        self.listings.forget()


#: Where listings and items come from.
Source: TypeAlias = OfMount | OfApi


async def _nothing_kept() -> Sequence[CachedVersion]:
    return ()


def item_of_mount(mounted: Mounted, given: Mapping[str, Json]) -> Json:
    """Return the STAC item of the scene *given* on a mount. Waits for the mount.

    Raises:
        SatfsError: there is no item now.
    """
    item: Json = None
    for message in messages_of(mounted, "stac", given):
        if isinstance(message, Done):
            for failure in message.result["failed"]:
                raise error_of(Failed(failure["error"], failure["message"]))
        elif message.what.get("event") == "item":
            item = message.what["item"]
    if item is None:
        raise Garbled("the mount has sent no item")
    return item
