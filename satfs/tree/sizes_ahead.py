"""Which sizes a walk of a capture will need next.

*Decides*, and never waits. A program that lists the scenes of a capture one after the other
(`ls -lR`, `find -size`, `du`, a backup) would wait for a link and a size of each scene in turn.
When two scenes of one capture are listed shortly after each other, the sizes of those that follow
are learnt at the same time. A program that lists one scene causes no request for another.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import trio
from cachetools import LRUCache

from satfs.model import CaptureId, Scene, SceneId
from satfs.tree import names

if TYPE_CHECKING:
    from satfs.api.record_list import RecordList

#: Scenes whose sizes are learnt before they are listed, at most.
MAX_SCENES_AHEAD: Final = 16
#: Two scenes listed within this time are a walk, in seconds: a person takes longer to go on.
WALK_S: Final = 3.0
#: Captures of more scenes are not put in order, which takes 10 ms for this many.
MAX_SCENES: Final = 10_000
#: Captures whose walks are remembered.
_MAX_WALKS: Final = 8


class SizesAhead:
    """Notes which scenes are listed, and predicts which will be."""

    def __init__(self, clock: Callable[[], float] = trio.current_time) -> None:
        self._clock = clock
        self._walks: LRUCache[CaptureId, _Walk] = LRUCache(_MAX_WALKS)

    def after(
        self, capture_id: CaptureId, scenes: RecordList[Scene], scene_id: SceneId
    ) -> tuple[Scene, ...]:
        """Return the scenes that will be listed after *scene_id*, which is listed now.

        Each scene is returned once for as long as the listing is the same, and none while there is
        no walk.
        """
        if len(scenes) > MAX_SCENES:
            return ()
        walk = self._walks.get(capture_id)
        if walk is None or walk.scenes is not scenes:
            walk = self._walks[capture_id] = _Walk(scenes)
        return walk.after(scene_id, self._clock())


class _Walk:
    """The scenes of one listing, in the two orders in which programs visit them.

    Many sort the names that they have read. Others take them as `readdir` returned them.
    """

    def __init__(self, scenes: RecordList[Scene]) -> None:
        self.scenes = scenes
        ids = list(scenes.ids())
        shown = [names.name_of(id) for id in ids]
        by_name = sorted(range(len(ids)), key=shown.__getitem__)
        by_readdir = sorted(
            range(len(ids)), key=[names.order_of(name) for name in shown].__getitem__
        )
        self._orders = tuple(
            (order, {ids[index]: place for place, index in enumerate(order)})
            for order in (by_name, by_readdir)
        )
        self._returned: set[int] = set()
        self._last: tuple[SceneId, float] | None = None

    def after(self, scene_id: SceneId, now_s: float) -> tuple[Scene, ...]:
        last, self._last = self._last, (scene_id, now_s)
        if last is None or last[0] == scene_id or now_s - last[1] > WALK_S:
            return ()
        for order, places in self._orders:
            place, before = places.get(scene_id), places.get(last[0])
            if place is not None and before is not None and place == before + 1:
                following = order[place + 1 : place + 1 + MAX_SCENES_AHEAD]
                new = [index for index in following if index not in self._returned]
                self._returned.update(new)
                return tuple(self.scenes[index] for index in new)
        return ()
