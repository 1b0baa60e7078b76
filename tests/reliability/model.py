"""A small reference model of what a mount may show, and every way to disturb it.

The model knows each version that each scene ever had. Versions of one scene differ in length and in
every byte, so that a file's size identifies the version, and a byte of another is wrong.

After every step: bytes equal those of the version that was opened, or the call ended in an errno
that what is broken at the moment explains; within the deadline, which `Calls` watches.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from reliability.crashing import workers_of
from reliability.stand import KIB, MIB, QUICK_DEADLINES, Stand, Wrong

from satfs.demo.contents import RampContent

BROKEN = frozenset({errno.EIO, errno.ETIMEDOUT})
GONE = frozenset({errno.ENOENT, errno.ESTALE})


@dataclass
class ModelScene:
    """A scene that was published once."""

    scene_id: str
    versions: list[RampContent]
    is_published: bool = True
    #: When it last changed, on the monotonic clock: for a moment the mount may show either state.
    changed_at_s: float = field(default_factory=time.monotonic)

    def version_of(self, size_bytes: int) -> RampContent:
        """Return the version of that length, which must be one."""
        for version in self.versions:
            if version.size_bytes == size_bytes:
                return version
        raise Wrong(f"{self.scene_id} never was {size_bytes} bytes long")


@dataclass
class Handle:
    """An open file, and the version that it was opened as."""

    descriptor: int
    scene: ModelScene
    content: RampContent


indexes = st.integers(0, 1000)


class Reliability(RuleBasedStateMachine):
    """A real mount and a vendor; the rules break one thing after the other."""

    def __init__(self) -> None:
        super().__init__()
        self._directory = tempfile.TemporaryDirectory(prefix="satfs-model-")
        self.stand = Stand(Path(self._directory.name), workers=2, **QUICK_DEADLINES)
        self.scenes: list[ModelScene] = []
        self.handles: list[Handle] = []
        self.is_api_up = True
        self.is_store_up = True
        self.is_settled = True
        self._seed = 0
        self._n_looks = 0

    @initialize()
    def begin(self) -> None:
        """Mount, with something to read."""
        self.stand.__enter__()
        self.publish(2 * MIB)

    def teardown(self) -> None:
        """Take everything away."""
        self._drop_handles()
        self.stand.__exit__(None, None, None)
        assert self.stand.origin.leaks == []
        self._directory.cleanup()

    # -- the catalogue changes -------------------------------------------------------------------

    @rule(size_bytes=st.sampled_from([1, 4095, 64 * KIB, 200_000, MIB, 5 * MIB]))
    def publish(self, size_bytes: int) -> None:
        """A new scene appears."""
        content = self._content(size_bytes)
        self.scenes.append(ModelScene(self.stand.publish(content), [content]))

    @rule(which=indexes)
    def withdraw(self, which: int) -> None:
        """A scene disappears, and its objects with it."""
        scene = self._scene(which)
        if scene.is_published and len(self.scenes) > 1:
            self.stand.origin.catalogue.remove_scene(scene.scene_id)
            scene.is_published = False
            scene.changed_at_s = time.monotonic()

    @rule(which=indexes, size_bytes=st.sampled_from([2, 100_000, 3 * MIB]))
    def replace(self, which: int, size_bytes: int) -> None:
        """A scene's zip is replaced under the same name."""
        scene = self._scene(which)
        if scene.is_published:
            content = self._content(size_bytes)
            scene.versions.append(content)
            self.stand.origin.catalogue.replace(scene.scene_id, content)
            scene.changed_at_s = time.monotonic()

    def _content(self, size_bytes: int) -> RampContent:
        self._seed += 1
        # Another length each time, so that the length identifies the version.
        return RampContent(size_bytes + self._seed, 17 * self._seed)

    # -- things break ----------------------------------------------------------------------------

    @rule()
    def expire_links(self) -> None:
        """Every link that was handed out is worthless."""
        self.stand.origin.expire_links()

    @rule()
    def revoke_tokens(self) -> None:
        """Every token that was handed out is worthless."""
        self.stand.origin.revoke_tokens()

    @rule()
    def drop_connections(self) -> None:
        """Every connection breaks."""
        self.stand.origin.drop_connections()

    @rule(sides=st.sampled_from([("api",), ("store",), ("api", "store")]))
    def drop_network(self, sides: tuple[str, ...]) -> None:
        """One side or both cannot be reached any more."""
        self.stand.origin.stop_listening(*sides)
        self.is_api_up &= "api" not in sides
        self.is_store_up &= "store" not in sides
        self.is_settled = False

    @rule(name=st.sampled_from(["stall", "hang", "reset", "server-error", "short-body", "html"]))
    def break_store(self, name: str) -> None:
        """The store misbehaves in one of its ways."""
        self.stand.origin.faults.add(name, "object", probability=0.5, seed=self._seed)
        self.is_settled = False

    @rule(name=st.sampled_from(["hang", "server-error", "html", "broken-json", "throttled"]))
    def break_api(self, name: str) -> None:
        """The API misbehaves in one of its ways."""
        self.stand.origin.faults.add(name, "api", probability=0.5, seed=self._seed)
        self.is_settled = False

    @rule()
    def mend(self) -> None:
        """Everything works again, and the mount has noticed."""
        self.stand.settle()
        self.is_api_up = self.is_store_up = self.is_settled = True

    # -- after every step ------------------------------------------------------------------------

    @invariant()
    def look_and_read(self) -> None:
        """After every step: stat one file, and read somewhere in one that is open."""
        if not self.scenes:
            return
        self._n_looks += 1
        self.stat(self._n_looks)
        if not self.handles:
            self.open(self._n_looks)
        if self.handles:
            where = (self._n_looks * 0.37) % 1
            self.read_at_random(self._n_looks, where, 50_000)

    # -- programs use the mount ------------------------------------------------------------------

    @rule()
    def walk(self) -> None:
        """Look at everything that is listed: names that were published, sizes that were true."""
        known = {scene.scene_id: scene for scene in self.scenes}
        with self._explained("walk", BROKEN | GONE):
            for name in self.stand.list(self.stand.root / "scenes"):
                assert name in known or name.startswith("20260128_"), name
            self.stand.list(self.stand.root / "tasks" / "1")

    @rule(which=indexes)
    def stat(self, which: int) -> None:
        """Look at one file: its size is that of a version it had."""
        scene = self._scene(which)
        with self._explained("stat", self._may_fail(scene)):
            scene.version_of(self.stand.stat(self.stand.path(scene.scene_id)).st_size)

    @rule(which=indexes)
    def open(self, which: int) -> None:
        """Open a file, and note which version that is."""
        scene = self._scene(which)
        with self._explained("open", self._may_fail(scene)):
            descriptor = self.stand.open(scene.scene_id)
            size = self.stand.calls.make("fstat", 2.5, os.fstat, descriptor).st_size
            self.handles.append(Handle(descriptor, scene, scene.version_of(size)))

    @precondition(lambda self: self.handles)
    @rule(which=indexes, where=st.floats(0, 1), n_bytes=st.sampled_from([1, 4096, 100_000, MIB]))
    def read_at_random(self, which: int, where: float, n_bytes: int) -> None:
        """Read somewhere."""
        handle = self.handles[which % len(self.handles)]
        size = handle.content.size_bytes
        start = min(int(where * size), size - 1)
        with self._explained("read", self._may_fail_to_read(handle)):
            stop = min(start + n_bytes, size)
            self.stand.compare(handle.descriptor, handle.content, start, stop)

    @precondition(lambda self: self.handles)
    @rule(which=indexes)
    def read_all(self, which: int) -> None:
        """Read a file from the beginning to the end."""
        handle = self.handles[which % len(self.handles)]
        with self._explained("read", self._may_fail_to_read(handle)):
            self.stand.compare(handle.descriptor, handle.content)

    @precondition(lambda self: self.handles)
    @rule(which=indexes)
    def reopen(self, which: int) -> None:
        """Close a file and open it again; it may be another version now."""
        handle = self.handles.pop(which % len(self.handles))
        os.close(handle.descriptor)
        self.open(self.scenes.index(handle.scene))

    @rule()
    def let_listings_expire(self) -> None:
        """Wait until no listing, no size and no name may be believed any more."""
        time.sleep(0.8)

    # -- processes end ---------------------------------------------------------------------------

    @rule(number=st.sampled_from([signal.SIGTERM, signal.SIGKILL]))
    def remount(self, number: signal.Signals) -> None:
        """The mount ends, or is killed, and comes again."""
        self._drop_handles(is_mount_ending=number)
        is_askable = self.is_api_up and not self.stand.origin.faults
        self.stand.remount(number, is_offline=not is_askable)

    @rule(which=indexes)
    def kill_worker(self, which: int) -> None:
        """A worker process is killed."""
        workers = workers_of(self.stand.current.process.pid)
        if workers:
            self.stand.tally.n_kills += 1
            with contextlib.suppress(ProcessLookupError):
                os.kill(workers[which % len(workers)], signal.SIGKILL)

    # -- what explains what ----------------------------------------------------------------------

    def _scene(self, which: int) -> ModelScene:
        return self.scenes[which % len(self.scenes)]

    @property
    def _is_broken(self) -> bool:
        return not self.is_settled or not (self.is_api_up and self.is_store_up)

    def _may_fail(self, scene: ModelScene) -> frozenset[int]:
        """Return the errnos that looking at *scene* may end in now."""
        allowed: frozenset[int] = frozenset()
        if self._is_broken:
            # Something may also have been learnt to be away, and be believed for a moment.
            allowed |= BROKEN | GONE
        if not scene.is_published or time.monotonic() - scene.changed_at_s < 3.0:
            allowed |= GONE
        return allowed

    def _may_fail_to_read(self, handle: Handle) -> frozenset[int]:
        allowed = BROKEN if self._is_broken else frozenset()
        if handle.content is not handle.scene.versions[-1] or not handle.scene.is_published:
            allowed |= {errno.ESTALE}
        return allowed

    @contextlib.contextmanager
    def _explained(self, call: str, allowed: frozenset[int]):  # type: ignore[no-untyped-def]
        try:
            yield
        except OSError as failure:
            name = errno.errorcode.get(failure.errno or 0, str(failure))
            assert failure.errno in allowed, f"{call} was refused with {name}, for no reason"  # noqa: PT017

    def _drop_handles(self, is_mount_ending: object = None) -> None:
        for handle in self.handles:
            with contextlib.suppress(OSError):
                os.close(handle.descriptor)
        self.handles.clear()
