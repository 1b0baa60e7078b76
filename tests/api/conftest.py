"""A vendor in memory, and a client of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeAlias

import pytest
import trio
import trio.testing
from fakes.vendor import Vendor, settings_for_vendor

from satfs.api.client import Aleph
from satfs.net.http import Http

Connect: TypeAlias = Callable[..., AbstractAsyncContextManager[Aleph]]


@pytest.fixture
def vendor() -> Vendor:
    """Return a vendor with nothing to list."""
    return Vendor()


@pytest.fixture
def thread_clock(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> trio.testing.MockClock:
    """Return the clock that jumps, except while a thread works: trio's does not see threads.

    On a busy machine a thread needs a moment to start, and the clock would jump to the deadline.
    """
    run_sync = trio.to_thread.run_sync
    n_at_work = 0

    async def run_and_count(*arguments: Any, **options: Any) -> Any:
        nonlocal n_at_work
        n_at_work += 1
        autojump_clock.autojump_threshold = float("inf")
        try:
            return await run_sync(*arguments, **options)
        finally:
            n_at_work -= 1
            if n_at_work == 0:
                autojump_clock.autojump_threshold = 0

    monkeypatch.setattr(trio.to_thread, "run_sync", run_and_count)
    return autojump_clock


@pytest.fixture
def connect(vendor: Vendor) -> Connect:
    """Return a function that opens a client of the vendor; takes settings."""

    @asynccontextmanager
    async def connected(**changes: Any) -> AsyncIterator[Aleph]:
        settings = settings_for_vendor(**changes)
        async with Http(
            connect_timeout_s=settings.connect_timeout_s,
            progress_timeout_s=settings.progress_timeout_s,
            body_timeout_s=settings.body_timeout_s,
            max_connections=settings.max_connections,
            transport=vendor.transport(),
        ) as http:
            yield Aleph(http, settings)

    return connected
