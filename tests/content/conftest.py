"""Fixtures of the tests of the content package."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest


@pytest.fixture
def allow_log(log_book: Any) -> Iterator[Callable[[str], None]]:
    """Return a function that allows log lines which may come or not: faults are drawn at random."""
    allowed: list[re.Pattern[str]] = []
    yield lambda event: allowed.append(re.compile(event))
    log_book.lines[:] = [
        line for line in log_book.lines if not any(each.fullmatch(line.event) for each in allowed)
    ]
