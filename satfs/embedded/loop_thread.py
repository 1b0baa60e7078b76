"""One trio loop in a thread of its own for the tree of one profile, shared by a whole process.

Programs call from any thread. A `TreeThread` is started when it is first needed, counted, and ends
with its last user, or with the program's main thread: its last blocks are in the cache then, and no
thread, socket or lock is left.

A child made by fork has the memory of its parent and none of its threads. It starts threads of its
own; what it inherited is never used, nor closed, which for SQLite would not be safe
(https://sqlite.org/howtocorrupt.html, "carrying an open database across a fork"). Locks of the
cache that it would keep alive after the death of its parent it gives back.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import Future, InvalidStateError
from pathlib import Path
from typing import Any, Final, TypeVar

import structlog
import trio

from satfs.components import Components, open_components, tree_over
from satfs.embedded.tree import PathTree
from satfs.fuse.errnos import gravest_of
from satfs.redaction import redact
from satfs.settings import Settings

T = TypeVar("T")
log = structlog.get_logger(__name__)

#: How often the loop looks whether the program's main thread has ended, in seconds.
_LOOK_S: Final = 0.25
#: Longest wait for the loop to end: the cache is given 5 s for its disk, and listings 2.
_ENDING_S: Final = 10.0


class Ended(Exception):
    """The thread has ended, or its process is another one."""


class TreeThread:
    """The tree of one profile in this process. `start` before use; made by `acquire`.

    Invariants:
        `tree` and `parts` are touched in the loop only.
        Every future that `submit` returns is completed, also when the thread ends.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.n_users = 0
        self.tree: PathTree
        self.parts: Components
        self._pid = os.getpid()
        self._token: trio.lowlevel.TrioToken
        self._nursery: trio.Nursery
        self._opened: Future[None] = Future()
        self._has_ended = False
        # No daemon, also where a daemon thread starts it: the interpreter waits for it at its end.
        self._thread = threading.Thread(
            target=self._run, name=f"satfs-{settings.profile}", daemon=False
        )

    @property
    def is_usable(self) -> bool:
        """Return whether calls are taken."""
        return not self._has_ended and self._pid == os.getpid()

    def start(self) -> None:
        """Start the loop, and return when the tree can be used; waits for the disk only.

        Raises:
            SatfsError: the parts could not be built.
        """
        self._thread.start()
        self._opened.result()

    def submit(self, work: Callable[[], Awaitable[T]]) -> Future[T]:
        """Have *work* run in the loop; return the future of its result. Never waits.

        Cancelling the future cancels the work.

        Raises:
            Ended: no calls are taken any more.
        """
        future: Future[T] = Future()

        def begin() -> None:
            if self._has_ended:
                _complete(future, failure=Ended())
                return
            self._nursery.start_soon(self._work, future, work)

        if not self.is_usable:
            raise Ended
        try:
            self._token.run_sync_soon(begin)
        except trio.RunFinishedError:
            raise Ended from None
        return future

    def end(self, *, is_waiting: bool) -> None:
        """End the loop; with *is_waiting* return when the thread has ended, or a while later."""
        if self.is_usable:
            with contextlib.suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._cancel)
        if is_waiting and self._pid == os.getpid() and threading.current_thread() != self._thread:
            self._thread.join(_ENDING_S)

    # -- in the loop -----------------------------------------------------------------------------

    def _cancel(self) -> None:
        self._has_ended = True
        self._nursery.cancel_scope.cancel()

    def _run(self) -> None:
        try:
            trio.run(self._serve)
        except BaseException as failure:
            gravest = gravest_of(failure)
            if self._opened.done():
                log.error("the tree has ended unexpectedly", exc_info=gravest)
            else:
                self._opened.set_exception(gravest)
        finally:
            self._has_ended = True

    async def _serve(self) -> None:
        async with open_components(self.settings) as parts, trio.open_nursery() as nursery:
            await parts.listings.recall()
            self._token, self._nursery = trio.lowlevel.current_trio_token(), nursery
            self.parts = parts
            root = tree_over(parts, self.settings)
            self.tree = PathTree(root, self.settings, parts.contents.traces.sums)
            self._opened.set_result(None)
            try:
                await self._end_with_program()
            finally:
                # Before the nursery closes, however it does: nothing is started in it afterwards.
                self._has_ended = True

    async def _end_with_program(self) -> None:
        while threading.main_thread().is_alive():  # noqa: ASYNC110 - no event announces its end
            await trio.sleep(_LOOK_S)
        self._cancel()

    async def _work(self, future: Future[T], work: Callable[[], Awaitable[T]]) -> None:
        """Run *work* and complete *future*; raises nothing but the cancellation of the loop."""
        with trio.CancelScope() as scope:

            def withdraw(ended: Future[T]) -> None:
                if ended.cancelled():
                    with contextlib.suppress(trio.RunFinishedError):
                        self._token.run_sync_soon(scope.cancel)

            future.add_done_callback(withdraw)
            try:
                result = await work()
            except trio.Cancelled:
                _complete(future, failure=Ended())
                raise
            except BaseException as failure:
                _complete(future, failure=failure)
            else:
                _complete(future, result)


def _complete(
    future: Future[T], result: T | None = None, failure: BaseException | None = None
) -> None:
    """Complete *future*, unless the program has cancelled it."""
    with contextlib.suppress(InvalidStateError):
        if failure is not None:
            future.set_exception(failure)
        else:
            future.set_result(result)  # type: ignore[arg-type]  # None only where T allows it


# -- one for each set of settings ----------------------------------------------------------------

#: Held by a thread that may collect garbage meanwhile, in which `release` is called as a finaliser.
_lock = threading.RLock()
_threads: dict[Settings, TreeThread] = {}
#: Objects of the parent in a forked process: held for good, so that none is closed (see above).
_inherited: list[object] = []


def acquire(settings: Settings) -> TreeThread:
    """Return the running thread for *settings*, starting it if need be; give it back by `release`.

    Raises:
        SatfsError: it could not be started.
    """
    _log_to_standard_library()
    with _lock:
        found = _threads.get(settings)
        if found is None or not found.is_usable:
            found = TreeThread(settings)
            found.start()
            _threads[settings] = found
        found.n_users += 1
        return found


def release(thread: TreeThread, *, is_waiting: bool = False) -> None:
    """Give *thread* back; the last user ends it. Fit for a finaliser without *is_waiting*."""
    with _lock:
        thread.n_users -= 1
        if thread.n_users > 0:
            return
        if _threads.get(thread.settings) is thread:
            del _threads[thread.settings]
    thread.end(is_waiting=is_waiting)


def _begin_afresh() -> None:
    """Forget, in the child of a fork, what belongs to its parent."""
    global _lock
    _lock = threading.RLock()
    if not _threads:
        return
    for thread in _threads.values():
        _give_back_locks(thread.settings.cache_dir)
    _inherited.append(dict(_threads))
    _threads.clear()


def _give_back_locks(cache_dir: Path) -> None:
    """Let go of the locks on files of *cache_dir* that a fork has handed down.

    A lock belongs to the open file, which parent and child share (fcntl(2), "open file description
    locks"). So the child's descriptors are pointed elsewhere instead of closed: their numbers stay
    taken, since objects of the parent name them.
    """
    kept = (str(cache_dir / "objects"), str(cache_dir / "claims"))
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/self/fd/{name}").startswith(kept):
                    os.dup2(nothing, int(name), inheritable=False)
    finally:
        os.close(nothing)


# -- the log -------------------------------------------------------------------------------------


def _log_to_standard_library() -> None:
    """Send our log lines to the standard library, unless the program has configured structlog.

    A library does not decide where a program's log goes. Lines go to the logger `satfs` and those
    below it, which show warnings on standard error unless the program configures them (`logging` in
    Python's documentation, "configuring logging for a library").
    """
    if structlog.is_configured():
        return
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, _as_text],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=_Logger,
        cache_logger_on_first_use=False,
    )
    # They log headers and whole addresses at their lower levels.
    for name in ("httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)


class _Logger(structlog.stdlib.BoundLogger):
    """A logger of the standard library, for which a line that is not shown costs next to nothing.

    There is one for each range.
    """

    def debug(self, event: str | None = None, *args: Any, **kw: Any) -> Any:
        """Log a line at debug level."""
        return super().debug(event, *args, **kw) if self.isEnabledFor(logging.DEBUG) else None


def _as_text(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> tuple[tuple[str, str], dict[str, Any]]:
    """Return the arguments of a call of a standard logger for *event*."""
    words = str(event.pop("event", ""))
    reason = event.pop("exc_info", None)
    fields = " ".join(f"{name}={value!r}" for name, value in event.items())
    return ("%s", redact(f"{words} {fields}".rstrip())), {"exc_info": reason}


os.register_at_fork(after_in_child=_begin_afresh)
