"""`.satfs/`: collects the facts from all layers, and holds the files that show them."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import trio
from msgspec.structs import asdict

from satfs.introspection.explain import explain_object
from satfs.introspection.explain_tree import ExplainRoot, MirrorContext
from satfs.introspection.log_ring import LogFile, LogRing, log_ring
from satfs.introspection.snapshots import Snapshots
from satfs.introspection.status import Identity, MountStatus, UnreachableHost, status_record
from satfs.model import AttachmentName, Json, SceneId
from satfs.redaction import for_people
from satfs.tree import names
from satfs.tree.nodes import Directory, Entry, Node, not_there
from satfs.views.indexer import IndexState

if TYPE_CHECKING:  # commands that import this do without libfuse, and without the parts
    from satfs.components import Components
    from satfs.fuse.operations import Operations
    from satfs.settings import Settings

#: Where it is, at the top of a mount.
DIRECTORY_NAME: Final = b".satfs"
STATUS, METRICS, LOG, EXPLAIN = b"status.json", b"metrics", b"log", b"explain"

#: Links looked at for the record: those used last. More would take longer than a look should.
_MAX_LINKS: Final = 1000


class Introspection:
    """The status, metrics and explanations of a mount. For the event loop; never waits.

    The attributes are set by `mount.py`, after this is made.
    """

    def __init__(
        self,
        settings: Settings,
        mountpoint: Path,
        source: str,
        parts: Components,
        operations: Operations,
    ) -> None:
        #: The settings that the kernel accepted (`kernel_tuning`); None where that is not allowed.
        self.read_ahead_kb: int | None = None
        self.max_background: int | None = None
        #: Where commands are taken, if they are: the path of a socket.
        self.control: str | None = None
        #: Returns how complete the index behind `views/` is; None where there are no views.
        self.index: Callable[[], IndexState] | None = None
        credential = parts.aleph.credential
        self._identity = Identity(
            pid=os.getpid(),
            mountpoint=_text(mountpoint),
            source=_text(source),
            profile=settings.profile,
            api_url=settings.api_url,
            mode=credential.mode.value,
            credential_source=credential.source,
            contract_id=settings.contract_id,
            cache_dir=_text(settings.cache_dir),
            since_s=time.time(),
        )
        self._parts = parts
        self._operations = operations
        self._lines = log_ring()

    # -- contents --------------------------------------------------------------------------------

    def status(self) -> dict[str, Json]:
        """Return the status record."""
        return status_record(self._mount_status(), self._parts.aleph.credential.secrets())

    def status_json(self) -> bytes:
        """Return the status record as `status.json` has it."""
        return json.dumps(self.status(), indent=2).encode() + b"\n"

    @property
    def mountpoint_names(self) -> tuple[bytes, ...]:
        """Return the names in the path of the mountpoint."""
        return tuple(name.encode() for name in self._identity.mountpoint.split("/") if name)

    def log_text(self) -> str:
        """Return the last lines of the log, as `log` has them."""
        return self._lines.text.decode("utf-8", "replace")

    def metrics(self) -> bytes:
        """Return the metrics as `metrics` has them."""
        from satfs.introspection.metrics import exposition  # few mounts ever have them read

        return exposition(self.status)

    def of_object(self, scene: SceneId, attachment: AttachmentName) -> str:
        """Return what reading an attachment took."""
        label, contents = f"{scene}/{attachment}", self._parts.contents
        return explain_object(
            contents.traces.find(label),
            link_left_s=dict(contents.links_left_s(_MAX_LINKS)).get(label),
            away=self._away(),
            clean=self._clean,
        )

    def of_record(self, path: Sequence[str]) -> str:
        """Return where a file made from records has them from."""
        candidates = _listings_behind(path)
        if not candidates:
            return "Made by satfs itself, without a request.\n"
        known = {(each.kind, each.id): each for each in self._parts.listings.states()}
        found = next((known[each] for each in candidates if each in known), None)
        text = "Made from records that came with a listing: no request of its own.\n"
        if path[-1] == "item.json":
            text = "Made from the record of the scene; with `-o stac=full`, of its zip as well.\n"
        if found is None:
            return text + "The listing has not been requested yet, or was forgotten since.\n"
        age_s = max(0.0, time.time() - found.requested_at_s)
        state = "STALE: no response when it was to be renewed" if found.is_stale else "fresh"
        of = f" of {self._clean(found.id)}" if found.id else ""
        return (
            f"{text}Listing: {found.kind}{of}, {found.n_records} records,"
            f" received {age_s:.0f} s ago; {state}.\n"
        )

    # -- as files --------------------------------------------------------------------------------

    def nodes(self, root: Directory) -> dict[bytes, Node]:
        """Return what is to be reachable at the top of the mount, by name."""
        return {DIRECTORY_NAME: IntrospectionDirectory(root, self, self._lines)}

    # -- gathering -------------------------------------------------------------------------------

    def _mount_status(self) -> MountStatus:
        parts, reporter = self._parts, self._operations.error_reporter
        aleph, contents = parts.aleph, parts.contents
        return MountStatus(
            now_s=time.time(),
            identity=self._identity,
            away=self._away(),
            token_expires_at_s=aleph.credential.token_expires_at_s,
            refusal=aleph.refusal(),
            links=tuple(contents.links_left_s(_MAX_LINKS)),
            listings=parts.listings.states(),
            transfers=contents.transfers(),
            content=contents.statistics(),
            connections=self._pool_counters(),
            reading=contents.traces.sums,
            spent=contents.egress.spent(),
            api=aleph.counters(),
            calls=self._operations.counters,
            n_calls_waiting=len(self._operations.calls),
            errnos=reporter.counters,
            failures=tuple(reporter.recent),
            read_ahead_kb=self.read_ahead_kb,
            max_background=self.max_background,
            control=self.control,
            index=None if self.index is None else self.index(),
        )

    def _pool_counters(self) -> Mapping[str, int]:
        sums: Counter[str] = Counter()
        for http in self._parts.connections:
            if http.has_own_pool and (figures := http.statistics()) is not None:
                sums.update(asdict(figures))
        return sums

    def _away(self) -> tuple[UnreachableHost, ...]:
        now_s = trio.current_time()
        return tuple(
            UnreachableHost(
                origin, now_s - (hosts.offline_since(origin) or now_s), hosts.offline_reason(origin)
            )
            for hosts in (http.reachability for http in self._parts.connections)
            for origin in hosts.offline_origins()
        )

    def _clean(self, text: str) -> str:
        return for_people(text, self._parts.aleph.credential.secrets())


class IntrospectionDirectory(Directory):
    """`.satfs/`."""

    __slots__ = ("_about", "_lines", "_root", "_snapshots")
    #: It names paths of this machine, what others open, and the account's contract.
    is_private = True

    def __init__(self, root: Directory, about: Introspection, lines: LogRing) -> None:
        super().__init__(root, DIRECTORY_NAME)
        self._root = root
        self._about = about
        self._lines = lines
        self._snapshots = Snapshots()

    async def lookup(self, name: bytes) -> Node:
        """Return what *name* leads to; waits for nothing."""
        make = self._made().get(name)
        if make is not None:
            return self._snapshots.file(self, name, make)
        for other in (self._log(), self._explain()):
            if other.path[-1].encode() == name:
                return other
        raise not_there(self, name)

    async def children(self) -> Sequence[Entry]:
        """Return what there is; waits for nothing."""
        made = [
            Entry(name, self._snapshots.file(self, name, make))
            for name, make in self._made().items()
        ]
        return [*made, Entry(LOG, self._log()), Entry(EXPLAIN, self._explain())]

    def _made(self) -> Mapping[bytes, Callable[[], bytes]]:
        return {STATUS: self._about.status_json, METRICS: self._about.metrics}

    def _log(self) -> Node:
        return LogFile(self, LOG, self._lines)

    def _explain(self) -> Node:
        context = MirrorContext(self._snapshots, self._about)
        mountpoint = self._about.mountpoint_names
        return ExplainRoot(self, EXPLAIN, _Shown(self._root), context, mountpoint)


class _Shown(Directory):
    """The top of the mount without what is hidden there: the mirror must not mirror itself."""

    __slots__ = ("_root",)

    def __init__(self, root: Directory) -> None:
        super().__init__(None, b"")
        self._root = root

    async def lookup(self, name: bytes) -> Node:
        """Return what *name* leads to, if it is listed."""
        for entry in await self.children():
            if entry.name == name and isinstance(entry.target, Node):
                return entry.target
        raise not_there(self, name)

    async def children(self) -> Sequence[Entry]:
        """Return what the top of the mount lists."""
        return await self._root.children()


def _text(path: Path | str) -> str:
    """Return *path*, made of any bytes, as text that any encoder takes."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def _listings_behind(path: Sequence[str]) -> list[tuple[str, str]]:
    """Return the listings that the file at *path* may be made from, as (kind, id)."""
    ids = [names.text_of(name.encode()) or name for name in path]
    last = ids[-1] if ids else ""
    of = ids[-2] if len(ids) > 1 else ""
    within = ids[-3] if len(ids) > 2 else ""
    match last:
        case "task.json":
            return [("task", of), ("tasks", "")]
        case "captures.json" | "collection.json":
            return [("captures", of)]
        case "catalog.json" if len(ids) < 3:
            return [("tasks", "")] if of else []
        case "capture.json":
            return [("captures", within), ("scenes", of)]
        case "footprints.geojson" | "catalog.json":
            return [("scenes", of)]
        case "scene.json" | "footprint.geojson" | "item.json":
            return [("scene", of), ("scenes", within)]
        case _:
            return []
