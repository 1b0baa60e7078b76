"""Silence is checked: a warning, or a log line that nobody announced, fails the test.

Somebody who reads our log should find in it what went wrong and nothing else, so a test that makes
something go wrong says which line it expects. Warnings are errors by pytest's own settings.
"""

from __future__ import annotations

import gc
import logging
import os
import re
import ssl
import tempfile
from collections.abc import Callable, Generator, Iterator, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import hypothesis
import pytest
import structlog

# What the one who runs the tests has configured for himself has no say in them.
for _variable in ("SATFS_CONFIG_FILE", "SATFS_SYSTEM_CONFIG_FILE"):
    os.environ[_variable] = "/nonexistent/config.toml"

# Tests never touch the home of the user who runs them: neither configuration nor cache. Processes
# that pytest-xdist starts inherit the home that its controller has made.
for _variable in ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"):
    os.environ.pop(_variable, None)
if "PYTEST_XDIST_WORKER" not in os.environ:
    _home = tempfile.TemporaryDirectory(prefix="satfs-test-home-", ignore_cleanup_errors=True)
    os.environ["HOME"] = _home.name
    os.chmod(_home.name, 0o755)
    # A TLS context reads the system's 140 authorities in 20 ms of processor time, a third of what
    # a mount takes to start: tests trust the first of them alone. Those about authorities name
    # others.
    if _authorities := ssl.create_default_context().get_ca_certs(binary_form=True):
        os.environ["SSL_CERT_FILE"] = os.path.join(_home.name, ".authority.pem")
        with open(os.environ["SSL_CERT_FILE"], "w", encoding="ascii") as _file:
            _file.write(ssl.DER_cert_to_PEM_cert(_authorities[0]))

# Modules and collected tests live until the end. The garbage collector would walk through all of
# them again and again, which takes a tenth of the processor time of all tests: it rests until they
# are there, and leaves them out from then on.
gc.disable()

#: The variable with the directory in which demos keep drawn imagery. Drawing takes ten seconds of
#: processor time, so that all tests share it; `scripts/stages.py` sets it for both halves of a run.
DRAWN = "TESTS_DRAWN_IMAGERY"
os.environ.setdefault(DRAWN, os.path.join(os.environ["HOME"], ".cache"))

#: The variable with the number of examples of a property, which `scripts/stages.py --quick` sets.
EXAMPLES = "TESTS_EXAMPLES"

# An example of a property may take as long as the machine is busy: speed is no promise of a test.
hypothesis.settings.register_profile(
    "satfs", deadline=None, max_examples=int(os.environ.get(EXAMPLES, "100"))
)
hypothesis.settings.load_profile("satfs")

#: From this level on a line must be announced.
_LOUD = logging.WARNING


@dataclass(frozen=True)
class LogLine:
    """One line of the log: our own events have fields, those of libraries only a message."""

    level: int
    event: str
    fields: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        shown = " ".join(f"{name}={value!r}" for name, value in self.fields.items())
        return f"{logging.getLevelName(self.level)}: {self.event} {shown}".rstrip()


@dataclass
class LogBook:
    """What was logged during one test, and what was announced."""

    lines: list[LogLine] = field(default_factory=list)
    expected: list[tuple[re.Pattern[str], dict[str, Any]]] = field(default_factory=list)

    def named(self, event: str) -> list[LogLine]:
        """Return the lines with this event, whatever their level."""
        return [line for line in self.lines if line.event == event]

    def _answers(self, line: LogLine, expected: tuple[re.Pattern[str], dict[str, Any]]) -> bool:
        pattern, fields = expected
        return pattern.fullmatch(line.event) is not None and all(
            line.fields.get(name) == value for name, value in fields.items()
        )

    def unannounced(self) -> list[LogLine]:
        """Return the loud lines that nobody expected."""
        return [
            line
            for line in self.lines
            if line.level >= _LOUD and not any(self._answers(line, each) for each in self.expected)
        ]

    def unheard(self) -> list[str]:
        """Return the announcements that nothing came of."""
        return [
            f"{each[0].pattern} {each[1]}"
            for each in self.expected
            if not any(self._answers(line, each) for line in self.lines)
        ]


class _Listener(logging.Handler):
    """Writes what libraries log through the standard library into the book."""

    def __init__(self, book: LogBook) -> None:
        super().__init__(_LOUD)
        self._book = book

    def emit(self, record: logging.LogRecord) -> None:
        self._book.lines.append(
            LogLine(record.levelno, record.getMessage(), {"logger": record.name})
        )


def pytest_collection_finish() -> None:
    """Let the garbage collector work, on what tests make."""
    gc.freeze()
    gc.enable()


_IS_SKIPPED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note which tests skip: one that announced a line before it skipped need not log it."""
    report = yield
    if report.skipped:
        item.stash[_IS_SKIPPED] = True
    return report


@pytest.fixture(autouse=True)
def log_book(request: pytest.FixtureRequest) -> Iterator[LogBook]:
    """Return what the test logs; fail it at the end for what it should not have logged."""
    book = LogBook()

    def note(
        _logger: Any, method: str, event_dict: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        level = {"exception": "error", "warn": "warning"}.get(method, method)
        event = str(event_dict.pop("event", ""))
        book.lines.append(
            LogLine(logging.getLevelNamesMapping()[level.upper()], event, dict(event_dict))
        )
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(
        processors=[note],
        wrapper_class=structlog.make_filtering_bound_logger(logging.NOTSET),
        cache_logger_on_first_use=False,
    )
    listener = _Listener(book)
    root = logging.getLogger()
    root.addHandler(listener)
    try:
        yield book
    finally:
        root.removeHandler(listener)
        structlog.configure(**before)
    if unannounced := book.unannounced():
        lines = "\n  ".join(map(str, unannounced))
        pytest.fail(f"logged, and not announced with expect_log:\n  {lines}", pytrace=False)
    if not request.node.stash.get(_IS_SKIPPED, False) and (unheard := book.unheard()):
        pytest.fail(f"announced with expect_log, and not logged: {unheard}", pytrace=False)


@pytest.fixture
def expect_log(log_book: LogBook) -> Callable[..., None]:
    """Return a function that announces a log line: `expect_log("call failed", errno="EIO")`.

    The event is a regular expression that matches as a whole; fields that are given must be equal.
    Any number of lines may answer one announcement, but at least one must.
    """

    def expect(event: str, **fields: Any) -> None:
        log_book.expected.append((re.compile(event, re.DOTALL), fields))

    return expect
