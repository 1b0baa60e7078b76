"""Keep crawlers out: the guard's rules, the caller's name, and one log line for each episode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import structlog
from cachetools import TTLCache

from satfs.fuse.callers import Callers
from satfs.fuse.crawlers import CrawlerRules, Habit
from satfs.tree.nodes import Directory, File, Node

log = structlog.get_logger(__name__)

#: An episode is over when a program was not kept out for this long, in seconds: an indexer's round
#: through a mount has pauses, and the next one is a day later.
QUIET_S: Final = 600.0
#: Episodes kept in mind.
_MOST: Final = 256


class CrawlerGate:
    """Tells the door who is to be refused."""

    def __init__(self, guard: CrawlerRules, callers: Callers, clock: Callable[[], float]) -> None:
        self._guard = guard
        self._callers = callers
        self._running: TTLCache[tuple[str, Habit], None] = TTLCache(_MOST, QUIET_S, timer=clock)

    def refuses_list(self, thread_id: int, directory: Directory) -> bool:
        """Tell whether the caller may not list *directory*. Never waits.

        The top is always the same, and anybody's.
        """
        program, habit = self._known(thread_id)
        if habit is Habit.PEOPLE or directory.parent is None or self._guard.may_list(habit):
            return False
        self._note(program, habit, directory)
        return True

    async def refuses_open(self, thread_id: int, file: File) -> bool:
        """Tell whether the caller may not open *file*. Waits for a disk at most, for few callers.

        What is in the cache is anybody's.
        """
        program, habit = self._known(thread_id)
        if habit is Habit.PEOPLE:
            return False
        size_bytes = file.attributes().size_bytes
        if self._guard.may_fetch(habit, file.path[-1], size_bytes) or await file.is_held():
            return False
        self._note(program, habit, file)
        return True

    def _known(self, thread_id: int) -> tuple[str, Habit]:
        caller = self._callers.caller(thread_id) if self._guard.is_awake else None
        if caller is None:
            return "", Habit.PEOPLE
        return caller.process, self._guard.habit(caller)

    def _note(self, program: str, habit: Habit, node: Node) -> None:
        episode = (program, habit)
        is_news = episode not in self._running
        self._running[episode] = None  # also when it is no news: its quiet time starts again
        if not is_news:
            return
        fields = {"program": program, "path": "/" + "/".join(node.path)}
        if habit is Habit.DRAWS:
            log.info("thumbnailer kept from fetching", **fields)
        else:
            remedy = f"tell {program} to leave the mount out, or set SATFS_CRAWLERS"
            log.warning("crawler kept out", **fields, remedy=remedy)
