"""The thread that serves a tree: it ends, whatever its program does in that moment."""

from __future__ import annotations

import gc
import threading
from pathlib import Path

import pytest
from embedded.conftest import StartOrigin
from fakes.processes import wait_until

from satfs.embedded import loop_thread
from satfs.embedded.access import TreeAccess
from satfs.embedded.loop_thread import TreeThread
from satfs.settings import Settings


class Cycle:
    """Garbage that only the collector finds."""

    def __init__(self, content: object) -> None:
        self.content = content
        self.cycle = self


class Collecting(TreeThread):
    """Is made in the moment in which Python collects garbage."""

    def __init__(self, settings: Settings) -> None:
        gc.collect()
        super().__init__(settings)


def used(access: TreeAccess) -> TreeAccess:
    access.wait("", lambda tree: tree.info(""))
    return access


def test_one_that_is_collected_while_another_starts_holds_nothing_up(
    start_origin: StartOrigin, cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A finaliser runs in any thread, also in one that is about to start a tree."""
    start_origin()
    gc.disable()
    try:
        access = used(TreeAccess(None, "never"))
        thread = access.thread
        garbage = Cycle(access)
        del access, garbage
        monkeypatch.setattr(loop_thread, "TreeThread", Collecting)
        monkeypatch.setenv("SATFS_LISTING_TTL_S", "77")  # another thread than the first
        other = TreeAccess(None, "never")
        using = threading.Thread(target=used, args=(other,), daemon=True)
        using.start()
        using.join(30)
        assert not using.is_alive()
    finally:
        gc.enable()
    wait_until(lambda: thread is not None and not thread.is_usable)
    other.close()


def test_a_call_that_is_given_up_as_the_thread_ends_is_no_failure(
    start_origin: StartOrigin, cache_dir: Path
) -> None:
    """A program that is interrupted and closes: nothing is logged."""
    start_origin()
    access = used(TreeAccess(None, "never"))
    thread, goes_on = access.thread, threading.Event()
    assert thread is not None
    thread._token.run_sync_soon(goes_on.wait)
    thread._token.run_sync_soon(thread._cancel)
    thread.submit(lambda: thread.tree.info("")).cancel()
    goes_on.set()
    access.close()
    wait_until(lambda: not thread._thread.is_alive())
