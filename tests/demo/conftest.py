"""An origin that runs for one test, and a client that it accepts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from demo.asking import Customer

from satfs.demo.server import DemoOrigin


@pytest.fixture
def origin() -> Iterator[DemoOrigin]:
    with DemoOrigin() as running:
        yield running


@pytest.fixture
def customer(origin: DemoOrigin) -> Customer:
    return Customer(origin)


@pytest.fixture
def scene_id(origin: DemoOrigin) -> str:
    return origin.catalogue.published_scenes()[0].scene_id
