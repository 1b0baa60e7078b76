"""The STAC files of a mount: the place, the source and the cost of each.

Catalogues and collections are made of the listing that the directory shows anyway. An item reads
the zip, unless the mount is to show what the records hold alone.
"""

from __future__ import annotations

from typing import Any, Final

from satfs.errors import NeedsContract, NeedsLogin, NotAllowed, ProxyRefused
from satfs.facts.delivery import combine
from satfs.facts.record import facts_of_record
from satfs.facts.scene import SceneFacts
from satfs.json_bytes import json_bytes
from satfs.model import DELIVERY_ZIP
from satfs.stac.assets import SceneFiles
from satfs.stac.items import ItemPlace, collection_id, item_of
from satfs.tree.archives import CONTENTS
from satfs.tree.captures import CaptureDirectory
from satfs.tree.delivery_facts import DeliveryFactsReader
from satfs.tree.rendered import Rendering
from satfs.tree.scenes import ITEM, SceneDirectory
from satfs.tree.tasks import TaskDirectory


class ItemFile:
    """The STAC item of each scene.

    Without *deliveries* items are made of the records alone. *has_contents*: scenes have a
    directory with the members of their zips, which assets lead to.
    """

    name: Final = ITEM.encode()

    def __init__(self, deliveries: DeliveryFactsReader | None, *, has_contents: bool) -> None:
        self._deliveries = deliveries
        self._has_contents = has_contents

    def rendering(self, scene: SceneDirectory) -> Rendering:
        """Return how the item of *scene* is rendered."""

        async def make() -> bytes:
            return json_bytes(await self.item(scene))

        async def known() -> bytes | None:
            if self._deliveries is not None and not await self._deliveries.is_known(scene):
                return None
            return await make()

        return Rendering(make, known)

    async def item(self, scene: SceneDirectory) -> dict[str, Any]:
        """Return the item of *scene*, at its place in the tree.

        Raises:
            SatfsError: the zip is there and cannot be read now.
        """
        facts, files = await self._look_at(scene)
        return item_of(facts, files, place_of(scene))

    async def facts(self, scene: SceneDirectory) -> SceneFacts:
        """Return what is known of *scene*; of its zip, too, unless items are made of records.

        Raises:
            SatfsError: the zip is there and cannot be read now.
        """
        facts, _ = await self._look_at(scene)
        return facts

    async def _look_at(self, scene: SceneDirectory) -> tuple[SceneFacts, SceneFiles]:
        record = await scene.record()
        facts = facts_of_record(record)
        attachments = {
            str(attachment.name): name.decode()
            for attachment, name in scene.attachment_names(record).items()
        }
        contents = CONTENTS.decode() if self._has_contents else None
        if self._deliveries is None:
            return facts, SceneFiles(attachments, None, contents)
        try:
            delivery = await self._deliveries.delivery(scene)
        except (NeedsLogin, NeedsContract, ProxyRefused):
            raise
        except NotAllowed:  # this zip alone: it is there, and states nothing to us
            return facts, SceneFiles(attachments, None, contents)
        if delivery is None:  # the record may announce one
            attachments.pop(DELIVERY_ZIP, None)
            return facts, SceneFiles(attachments, None, contents)
        files = SceneFiles(attachments, delivery.size_bytes, contents)
        return combine(facts, delivery.facts), files


def place_of(scene: SceneDirectory) -> ItemPlace:
    """Return the place of *scene* in the tree, which decides the links of its item."""
    capture = scene.parent
    task = None if capture is None else capture.parent
    if isinstance(task, TaskDirectory):
        collection = "../../collection.json"
        id = collection_id(task.task_id)
        return ItemPlace(collection, "../catalog.json", collection, id, task.task_id)
    if isinstance(capture, CaptureDirectory):
        return ItemPlace("../catalog.json", "../catalog.json")
    return ItemPlace()
