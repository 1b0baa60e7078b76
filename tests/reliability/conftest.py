"""Real mounts on a vendor that breaks; the figures of the run are printed at its end."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from reliability.stand import QUICK_DEADLINES, Stand
from reliability.tally import TALLY

HERE = Path(__file__).parent
MakeStand = Callable[..., Stand]
StandFor = Callable[[frozenset[int]], Stand]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = None
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        missing = "FUSE is missing: /dev/fuse cannot be opened"
    elif os.geteuid() != 0:
        missing = "needs root: kills mounts, and mounts small disks"
    for item in items:
        if HERE in item.path.parents and "stand" in " ".join(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.mounts)
            if missing:
                item.add_marker(pytest.mark.skip(reason=missing))


def pytest_sessionfinish(session: pytest.Session) -> None:
    # In a process that runs a part of the tests (pytest-xdist): what it did goes to the first one.
    sent: dict[str, Any] | None = getattr(session.config, "workeroutput", None)
    if sent is not None:
        sent["reliability"] = TALLY.sums()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    sent = getattr(node, "workeroutput", {})  # a process that crashed has sent nothing
    if "reliability" in sent:
        TALLY.add(sent["reliability"])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if TALLY.n_calls:
        terminalreporter.section("reliability")
        for name, value in TALLY.rows():
            terminalreporter.write_line(f"{name:>24}  {value}")


@pytest.fixture
def make_stand(tmp_path: Path) -> Iterator[MakeStand]:
    """Return a function that makes a stand: `make_stand(workers=0, origin=...)`."""
    with ExitStack() as stack:
        yield lambda **given: stack.enter_context(Stand(tmp_path, **given))


@pytest.fixture(scope="module")
def stand_for(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StandFor]:
    """Return a function that returns a stand, with the module's `SETTINGS`, for many faults.

    It takes the errnos in which a fault may end; the deadlines are quick where that is by one.
    """
    with ExitStack() as stack:

        @cache
        def stand(*, is_quick: bool) -> Stand:
            directory = tmp_path_factory.mktemp("faults")
            settings = request.module.SETTINGS | (QUICK_DEADLINES if is_quick else {})
            return stack.enter_context(Stand(directory, **settings))

        yield lambda errnos: stand(is_quick=errno.ETIMEDOUT in errnos)
        assert all(stand(is_quick=each).origin.leaks == [] for each in (False, True))


@pytest.fixture
def stand_is_possible() -> None:
    """Ask for this where a stand is made without `make_stand`: skipped where none can be."""
