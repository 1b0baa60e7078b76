"""A test stand: a vendor that can be broken, a real mount of it, and calls that are timed.

Every call on the mount runs in a thread of its own and must return within its limit: these tests
look for calls that hang, so a call that hangs must not hang the tests.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from fakes.processor_waits import waited_s, waits_s
from mounted.mounting import RealMount
from reliability.tally import TALLY, Tally

from satfs.demo.catalogue import (
    Catalogue,
    capture_uuid,
    make_capture,
    make_delivery,
    make_scene,
    make_task,
)
from satfs.demo.contents import Content, RampContent
from satfs.demo.faults import Fault
from satfs.demo.server import DemoOrigin

T = TypeVar("T")

KIB: Final = 1024
MIB: Final = 1024 * KIB

#: Deadlines for tests in which calls end at them: small, so that the suite waits little. On a busy
#: machine calls that end otherwise may take as long.
QUICK_DEADLINES: Final[Mapping[str, Any]] = {"metadata_deadline_s": 1.5, "read_deadline_s": 2.0}
#: Other times are small, too; each a hundredfold of what loopback needs.
SETTINGS: Final[Mapping[str, str]] = {
    "SATFS_CONNECT_TIMEOUT_S": "1",
    "SATFS_PROGRESS_TIMEOUT_S": "0.5",
    "SATFS_METADATA_DEADLINE_S": "8",
    "SATFS_READ_DEADLINE_S": "10",
    "SATFS_LISTING_TTL_S": "0.5",
    "SATFS_NEGATIVE_TTL_S": "0.2",
    "SATFS_ENTRY_TIMEOUT_S": "0.2",
    "SATFS_ATTR_TIMEOUT_S": "0.2",
    "SATFS_PAGE_LIMIT": "10",
    "SATFS_RANGE_BYTES": "1MiB",
}
#: Time that a busy machine may add to a deadline, in seconds: threads wait for each other.
SLACK_S: Final = 1.0
#: Time after its limit in which a call that was late has returned: what a busy machine may take.
HUNG_S: Final = 30.0
#: Time after which everything works again when it is mended: the probe of a host that was away
#: comes every 2 s, and what was remembered about an absence is short (see SETTINGS).
RECOVERY_S: Final = 10.0
#: Limit of a call on something that is known, or known to be away: it waits for no network.
AT_ONCE_S: Final = 1.0

_numbers = itertools.count(1)


class Hung(AssertionError):
    """A call on the mount did not return."""


class Late(AssertionError):
    """A call on the mount returned after its deadline."""


class Wrong(AssertionError):
    """The mount returned wrong bytes."""


class Calls:
    """Calls on a mount, each in a thread, timed and entered in the tally.

    The time of a call leaves out how long its thread, and those that *servers* names, have waited
    for a processor: a busy machine is late, and not the mount.
    """

    def __init__(self, servers: Callable[[], Iterable[int]], tally: Tally = TALLY) -> None:
        self.tally = tally
        self._servers = servers
        self._threads = ThreadPoolExecutor(256, thread_name_prefix="call")

    def start(self, name: str, limit_s: float, function: Callable[..., T], *args: Any) -> Future[T]:
        """Begin a call; its future raises what it raises, or `Late`."""

        def timed() -> T:
            before = waits_s((threading.get_native_id(), *self._servers()))
            started_s = time.monotonic()
            failure: OSError | None = None
            try:
                return function(*args)
            except OSError as error:
                failure = error
                raise
            finally:
                took_s = max(0.0, time.monotonic() - started_s - waited_s(before))
                self.tally.note_call(name, took_s, failure, limit_s)
                if took_s > limit_s:
                    raise Late(f"{name}: returned after {took_s:.1f} s, limit {limit_s:.1f} s")

        return self._threads.submit(timed)

    def make(self, name: str, limit_s: float, function: Callable[..., T], *args: Any) -> T:
        """Return what a call returns.

        Raises:
            OSError: the call failed.
            Late, Hung: it returned after *limit_s*, or not at all.
        """
        return self.end(name, limit_s, self.start(name, limit_s, function, *args))

    def end(self, name: str, limit_s: float, call: Future[T]) -> T:
        """Return what a call that was begun returns; raises as `make`."""
        # Not result(timeout): its TimeoutError is what os.read raises for ETIMEDOUT, too.
        if not wait([call], limit_s + HUNG_S).done:
            raise Hung(f"{name}: not returned within {limit_s + HUNG_S:.0f} s")
        return call.result()

    def close(self) -> None:
        """Let the threads end, each with its call."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class Stand:
    """An origin, a mount of it and everything in between. A context manager.

    Files are reached as `scenes/ID/ID.zip`. Each one published here holds a ramp: byte k is
    (seed + k) mod 251, so that bytes from a wrong place are wrong.
    """

    def __init__(
        self,
        directory: Path,
        *,
        origin: DemoOrigin | None = None,
        tally: Tally = TALLY,
        **settings: object,
    ) -> None:
        self.directory = directory
        self.origin = origin or DemoOrigin(Catalogue([make_task(1)]))
        self.calls = Calls(self._serving_threads, tally)
        self.tally = tally
        self.root = directory / "mnt"
        self.cache_dir = directory / "cache"
        self.settings = {
            **SETTINGS,
            "SATFS_CACHE_DIR": str(self.cache_dir),
            **{f"SATFS_{name.upper()}": str(value) for name, value in settings.items()},
        }
        self.mounts: list[RealMount] = []
        #: Limit of read(2). The kernel requests again, once and for a single page, what its
        #: read-ahead did not get (filemap_read → read_folio): a read that fails by silence takes
        #: two deadlines at most.
        self.read_call_s = 2 * float(self.settings["SATFS_READ_DEADLINE_S"]) + SLACK_S
        #: Limit of open(2) and stat(2), which look up each name of a path: two below `scenes/`, and
        #: the file is opened.
        self.path_call_s = 4 * float(self.settings["SATFS_METADATA_DEADLINE_S"]) + SLACK_S

    # -- life ------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self.origin.start()
        try:
            self.mount()
        except BaseException:
            self.origin.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.ExitStack() as ending:
            ending.callback(self.origin.stop)
            ending.callback(self.calls.close)
            for mount in self.mounts:
                ending.callback(mount.clean)
        self.count_faults()

    def environment(self) -> dict[str, str]:
        """Return what leads a mount here."""
        return {**self.origin.environment(), **self.settings}

    def mount(self, **options: object) -> RealMount:
        """Mount, a second time perhaps, and wait until it works."""
        mount = RealMount(
            self.root, self.environment(), self.directory / "log.jsonl", options=options
        )
        self.mounts.append(mount)
        try:
            mount.start()
        except BaseException:
            mount.clean()
            raise
        return mount

    @property
    def current(self) -> RealMount:
        """Return the mount that was made last."""
        return self.mounts[-1]

    def _serving_threads(self) -> list[int]:
        """Return the threads that serve calls: the loops of the mount and of the origin."""
        origin = [each for each in threading.enumerate() if each.name == "demo-origin"]
        return [self.current.process.pid, *(each.native_id for each in origin if each.native_id)]

    def remount(self, number: int = signal.SIGTERM, **options: object) -> RealMount:
        """End the mount by a signal, take away what it left, and mount again."""
        if number == signal.SIGKILL:
            self.tally.n_kills += 1
        self.current.stop(number)
        self.current.clean()
        return self.mount(**options)

    def count_faults(self) -> None:
        """Enter what the faults switched on have done, and switch them off."""
        self.tally.n_faults += sum(fault.hits for fault in self.origin.faults)
        self.origin.faults.clear()

    @contextlib.contextmanager
    def origin_breaks(self, name: str, endpoint: str, **how: Any) -> Iterator[Fault]:
        """Switch a fault on for the body; it must have met something in the end."""
        fault = self.origin.faults.add(name, endpoint, **how)
        yield fault
        self.origin.faults.remove(fault)
        self.tally.n_faults += fault.hits
        assert fault.hits, f"{name} met no request"

    def settle(self) -> None:
        """Mend everything, and return when the mount has noticed."""
        self.count_faults()
        self.origin.resume_listening()
        probe = self.publish(1)
        self.until(RECOVERY_S, lambda: self.read_at(probe, 0, 1))
        self.origin.catalogue.remove_scene(probe)

    def until(self, within_s: float, work: Callable[[], T]) -> T:
        """Return what *work* returns, tried again while the mount fails it.

        Raises:
            OSError: it still does after *within_s*.
        """
        deadline_s = time.monotonic() + within_s
        while True:
            try:
                return work()
            except OSError:
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(0.1)

    # -- the catalogue ---------------------------------------------------------------------------

    def publish(self, content: Content | bytes | int = 3 * MIB, *, task_id: int = 1) -> str:
        """Put a new scene with one zip for sale, and return its id. A number makes a ramp."""
        number = next(_numbers)
        scene_id = f"20260128_{number:06}_SN33_L1D_MS_{task_id}"
        held = RampContent(content, number) if isinstance(content, int) else content
        capture = capture_uuid("stand", number)
        scene = make_scene(scene_id, [make_delivery(scene_id, held)])
        self.origin.catalogue.add_capture(task_id, make_capture(capture, [scene]))
        return scene_id

    def content(self, scene_id: str) -> Content:
        """Return what a scene's zip holds now."""
        return self.origin.catalogue.content(scene_id)

    def path(self, scene_id: str) -> Path:
        """Return where a scene's zip is."""
        return self.root / "scenes" / scene_id / f"{scene_id}.zip"

    # -- calls -----------------------------------------------------------------------------------

    def stat(self, path: Path, limit_s: float | None = None) -> os.stat_result:
        """Return the attributes of *path*."""
        return self.calls.make(f"stat {path.name}", limit_s or self.path_call_s, os.stat, path)

    def list(self, path: Path, limit_s: float | None = None) -> list[str]:
        """Return the names in a directory."""
        return self.calls.make(f"ls {path.name}", limit_s or self.path_call_s, os.listdir, path)

    def open(self, scene_id: str) -> int:
        """Open a scene's zip, and return the descriptor."""
        name = f"open {scene_id}"
        return self.calls.make(name, self.path_call_s, os.open, self.path(scene_id), os.O_RDONLY)

    @contextlib.contextmanager
    def opened(self, scene_id: str) -> Iterator[int]:
        """Open a scene's zip for the body."""
        descriptor = self.open(scene_id)
        try:
            yield descriptor
        finally:
            with contextlib.suppress(OSError):  # ENOTCONN, when the mount has been killed
                os.close(descriptor)

    def pread(
        self, descriptor: int, start: int, n_bytes: int, limit_s: float | None = None
    ) -> bytes:
        """Read at a place, by one system call."""
        name, limit_s = f"read {start}+{n_bytes}", limit_s or self.read_call_s
        return self.calls.make(name, limit_s, os.pread, descriptor, n_bytes, start)

    def read_at(self, scene_id: str, start: int, n_bytes: int) -> bytes:
        """Open, read once, close."""
        with self.opened(scene_id) as descriptor:
            return self.pread(descriptor, start, n_bytes)

    def compare(self, descriptor: int, content: Content, start: int = 0, stop: int | None = None,
                *, limit_s: float | None = None) -> None:  # fmt: skip
        """Read [start, stop) in pieces, and compare each with what it must be.

        Raises:
            Wrong: it isn't.
            OSError: a call failed; the bytes before it were right.
        """
        end = content.size_bytes if stop is None else min(stop, content.size_bytes)
        at = start
        while at < end:
            wanted = min(256 * KIB, end - at)
            at += self.check(self.pread(descriptor, at, wanted, limit_s), content, at, wanted)

    def check(self, got: bytes, content: Content, start: int, n_bytes: int) -> int:
        """Compare the result of a read of *n_bytes* with the right bytes; return its length.

        A read that meets an error after some bytes returns these alone, and the next one the error
        (read(2)). A read that returns no byte means that the file is over.

        Raises:
            Wrong: the bytes differ, or the file is not over.
        """
        right = bytes(content.read(start, start + len(got)))
        n_wrong = 0 if got == right else sum(a != b for a, b in zip(got, right, strict=True))
        if not 0 < len(got) <= n_bytes:
            n_wrong = n_bytes
        self.tally.note_bytes(max(0, len(got) - n_wrong), n_wrong)
        if n_wrong:
            raise Wrong(f"{n_wrong} wrong bytes of {len(got)} from {start} on")
        return len(got)


@contextlib.contextmanager
def refused(*numbers: int) -> Iterator[None]:
    """Expect that the body's call on the mount fails with one of these errnos."""
    try:
        yield
    except OSError as failure:
        name = errno.errorcode.get(failure.errno or 0, str(failure))
        assert failure.errno in numbers, f"refused with {name}"  # noqa: PT017 - of several
    else:
        raise AssertionError("not refused")
