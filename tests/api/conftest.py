"""A vendor in memory, and the client that asks it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeAlias

import pytest
from fakes.vendor import Vendor, settings_for_vendor

from satfs.api.client import Aleph
from satfs.net.http import Http

Connect: TypeAlias = Callable[..., AbstractAsyncContextManager[Aleph]]


@pytest.fixture
def vendor() -> Vendor:
    """Return a vendor with nothing to list."""
    return Vendor()


@pytest.fixture
def connect(vendor: Vendor) -> Connect:
    """Return a function that opens a client of the vendor; takes settings."""

    @asynccontextmanager
    async def connected(**changes: Any) -> AsyncIterator[Aleph]:
        settings = settings_for_vendor(**changes)
        async with Http(
            connect_timeout_s=settings.connect_timeout_s,
            progress_timeout_s=settings.progress_timeout_s,
            max_connections=settings.max_connections,
            transport=vendor.transport(),
        ) as http:
            yield Aleph(http, settings)

    return connected
