"""The archive package over zips in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import trio
from archive.opening import Opened


@pytest.fixture
async def opened(nursery: trio.Nursery) -> AsyncIterator[Callable[..., Opened]]:
    """Open a zip's bytes; everything left open is closed in the end."""
    made: list[Opened] = []

    def make(data: bytes, **means: Any) -> Opened:
        made.append(Opened(data, nursery, **means))
        return made[-1]

    yield make
    for it in made:
        await it.end()
