"""Which programs may not cause a fetch: crawlers; and thumbnailers, except of small pictures.

An indexer opens every file, at any time, without a request by a user; here each file is gigabytes
of paid egress. So known crawlers may read only bytes that are in the cache. Programs that draw
thumbnails may also fetch small pictures, but no raster. Backup programs and virus scanners are not
on the list: a user who runs them on a mount may want them to read all files.

Programs are known by the name of the process, and a thread within it where a file manager draws
thumbnails itself. Names are compared as the kernel keeps them, 15 bytes long (TASK_COMM_LEN).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from enum import Enum
from fnmatch import fnmatchcase
from typing import Final

import structlog
from cachetools import TTLCache

from satfs.fuse.callers import Caller, Callers
from satfs.tree.nodes import Directory, File, Node

log = structlog.get_logger(__name__)

#: updatedb and similar programs; GNOME's indexer under its two names, and its extractor; KDE's two;
#: Recoll; Akonadi's. Not `find`, `rsync`, `borg`, `restic`, `clamscan`.
CRAWLERS: Final = (
    "updatedb*",
    "mlocate",
    "plocate-build",
    "tracker-miner*",
    "tracker-extract*",
    "tracker-store",
    "localsearch*",
    "baloo_file*",
    "baloorunner",
    "recollindex",
    "akonadi_indexing*",
    "mediascanner*",
    "nepomuk*",
    "zeitgeist-fts",
)
#: Xfce's, those that GNOME, MATE, Cinnamon and libfm start, KDE's; and the thread of PCManFM that
#: draws thumbnails (libfm, fm-thumbnail-loader.c), while its copying is done by others.
THUMBNAILERS: Final = (
    "tumblerd",
    "*-thumbnailer",
    "gdk-pixbuf-thum*",
    "gnome-thumbnail*",
    "evince-thumbnai*",
    "atril-thumbnail*",
    "xreader-thumbna*",
    "totem-video-thu*",
    "ffmpegthumbnail*",
    "raw-thumbnailer",
    "thumbnail.so*",
    "pcmanfm/loader",
)
#: A thumbnailer may fetch pictures for the screen up to this size. Previews that vendors deliver
#: are a few megabytes; to draw a larger one costs more than it is worth.
PICTURE_BYTES: Final = 8 * 1024 * 1024
_PICTURE: Final = re.compile(r".+\.(png|jpe?g|gif|webp|svg)", re.IGNORECASE | re.DOTALL)

#: The special characters of a pattern of fnmatch(3).
_WILDCARD: Final = re.compile(r"[*?\[]")

#: Bytes of the kernel's name of a task (TASK_COMM_LEN - 1).
_COMM_BYTES: Final = 15
#: The word that stands for the lists above in a setting, and the one for no list at all.
DEFAULT: Final = "default"
NONE: Final = "none"

#: An episode, which is logged once, ends when a program was not refused for this time, in seconds:
#: an indexer pauses while it walks through a mount, and walks again a day later.
QUIET_S: Final = 600.0
#: Episodes remembered: more than there are indexers and thumbnailers.
_MAX_EPISODES: Final = 256


class ProgramBehaviour(Enum):
    """The known behaviour of a program."""

    PEOPLE = "people"  #: reads what a user wants to read
    CRAWLS = "crawls"
    DRAWS = "draws"  #: makes thumbnails


class CrawlerRules:
    """Decides which program may read which bytes; of files it knows only names and sizes.

    *crawlers* are names or patterns (fnmatch) of processes, `process/thread` for one thread only.
    """

    def __init__(
        self, crawlers: Iterable[str] = CRAWLERS, thumbnailers: Iterable[str] = THUMBNAILERS
    ) -> None:
        self._crawlers = tuple(crawlers)
        self._thumbnailers = tuple(thumbnailers)

    @property
    def is_active(self) -> bool:
        """Return whether any program is refused."""
        return bool(self._crawlers or self._thumbnailers)

    def behaviour(self, caller: Caller) -> ProgramBehaviour:
        """Return the known behaviour of *caller*."""
        if any(_is_named(caller, pattern) for pattern in self._crawlers):
            return ProgramBehaviour.CRAWLS
        if any(_is_named(caller, pattern) for pattern in self._thumbnailers):
            return ProgramBehaviour.DRAWS
        return ProgramBehaviour.PEOPLE

    def may_fetch(self, behaviour: ProgramBehaviour, name: str, size_bytes: int) -> bool:
        """Return whether a program of that *behaviour* may have a file that is not in the cache."""
        if behaviour is ProgramBehaviour.DRAWS:
            return size_bytes <= PICTURE_BYTES and _PICTURE.fullmatch(name) is not None
        return behaviour is ProgramBehaviour.PEOPLE

    def may_list(self, behaviour: ProgramBehaviour) -> bool:
        """Return whether a program of that *behaviour* may cause a request for a listing."""
        return behaviour is not ProgramBehaviour.CRAWLS


def crawler_rules(names: str) -> CrawlerRules:
    """Return the rules that a setting describes.

    `default` stands for the known programs, `none` for no program; other words, separated by
    spaces, are more names or patterns of crawlers. Without `default` the known programs may fetch.
    """
    chosen = names.split()
    crawlers = [entry for entry in chosen if entry not in (DEFAULT, NONE)]
    if DEFAULT in chosen:
        return CrawlerRules((*CRAWLERS, *crawlers))
    return CrawlerRules(crawlers, ())


def _is_named(caller: Caller, pattern: str) -> bool:
    process, _, thread = pattern.partition("/")
    return _matches(caller.process, process) and (not thread or _matches(caller.thread, thread))


def _matches(name: str, pattern: str) -> bool:
    """Return whether *name*, as the kernel cut it, can be one that *pattern* means."""
    # A pattern is compiled at its first use, which takes half a millisecond: so names with another
    # beginning are excluded before.
    if name.startswith(_WILDCARD.split(pattern, 1)[0]) and fnmatchcase(name, pattern):
        return True
    # `baloo_file_extractor` is `baloo_file_extr` to the kernel.
    return len(name.encode("utf-8", "surrogatepass")) >= _COMM_BYTES and name == _cut(pattern)


def _cut(pattern: str) -> str:
    return pattern.encode("utf-8", "surrogatepass")[:_COMM_BYTES].decode("utf-8", "ignore")


class CrawlerGate:
    """Decides which callers are refused."""

    def __init__(self, rules: CrawlerRules, callers: Callers, clock: Callable[[], float]) -> None:
        self._rules = rules
        self._callers = callers
        self._running: TTLCache[tuple[str, ProgramBehaviour], None] = TTLCache(
            _MAX_EPISODES, QUIET_S, timer=clock
        )

    def refuses_list(self, thread_id: int, directory: Directory) -> bool:
        """Return whether the caller may not list *directory*. Never waits.

        The top is always the same, and every program may list it.
        """
        program, behaviour = self._known(thread_id)
        if (
            behaviour is ProgramBehaviour.PEOPLE
            or directory.parent is None
            or self._rules.may_list(behaviour)
        ):
            return False
        self._note(program, behaviour, directory)
        return True

    async def refuses_open(self, thread_id: int, file: File) -> bool:
        """Return whether the caller may not open *file*.

        Every program may read bytes that are in the cache. Waits for the cache's disk when the
        caller is a crawler or a thumbnailer, and else not at all.
        """
        program, behaviour = self._known(thread_id)
        if behaviour is ProgramBehaviour.PEOPLE:
            return False
        size_bytes = file.attributes().size_bytes
        if self._rules.may_fetch(behaviour, file.path[-1], size_bytes) or await file.is_held():
            return False
        self._note(program, behaviour, file)
        return True

    def _known(self, thread_id: int) -> tuple[str, ProgramBehaviour]:
        caller = self._callers.caller(thread_id) if self._rules.is_active else None
        if caller is None:
            return "", ProgramBehaviour.PEOPLE
        return caller.process, self._rules.behaviour(caller)

    def _note(self, program: str, behaviour: ProgramBehaviour, node: Node) -> None:
        episode = (program, behaviour)
        is_first = episode not in self._running
        self._running[episode] = None  # also for a known episode: its quiet time starts again
        if not is_first:
            return
        fields = {"program": program, "path": "/" + "/".join(node.path)}
        if behaviour is ProgramBehaviour.DRAWS:
            log.info("thumbnailer kept from fetching", **fields)
        else:
            remedy = f"exclude the mount in the settings of {program}, or set SATFS_CRAWLERS"
            log.warning("crawler kept out", **fields, remedy=remedy)
