"""The level of the log, changed while it is written."""

from __future__ import annotations

import json
import logging
import os
import signal
from pathlib import Path

import pytest
import structlog

from satfs import log_level
from satfs.cli.log_setup import LogChoice, LogFormat, logging_as
from satfs.errors import BadSettings


def _events(file: Path) -> list[str]:
    return [json.loads(line)["event"] for line in file.read_text().splitlines()]


def test_a_level_is_changed_while_the_log_is_written(tmp_path: Path) -> None:
    """Loggers that were made before follow, ours and those of libraries."""
    file = tmp_path / "log"
    ours, theirs = structlog.get_logger("satfs.test"), logging.getLogger("library")

    with logging_as(LogChoice(logging.WARNING, LogFormat.JSON, file), in_background=False):
        ours.debug("ours before")
        log_level.set_level("debug")
        ours.debug("ours")
        theirs.debug("theirs")
        log_level.set_level("error")
        ours.warning("ours after")
        theirs.warning("theirs after")
        assert log_level.level() == "error"

    assert _events(file) == ["log level changed", "ours", "theirs", "log level changed"]


def test_a_level_that_is_set_already_is_no_news(tmp_path: Path) -> None:
    file = tmp_path / "log"

    with logging_as(LogChoice(logging.INFO, LogFormat.JSON, file), in_background=False):
        log_level.set_level("info")

    assert _events(file) == []


@pytest.mark.parametrize("name", ["", "loud", "DEBUG", "warn"])
def test_a_level_that_is_none_is_refused_with_those_there_are(name: str) -> None:
    with pytest.raises(BadSettings, match="there are error, warning, info, debug"):
        log_level.set_level(name)


def test_signals_ask_for_more_and_for_less(tmp_path: Path) -> None:
    """SIGUSR1 one level more, SIGUSR2 one less, and no further than there are levels."""
    before = signal.getsignal(signal.SIGUSR1), signal.getsignal(signal.SIGUSR2)
    levels = []

    with logging_as(LogChoice(logging.WARNING, file=tmp_path / "log"), in_background=False):
        for number in [signal.SIGUSR1] * 3 + [signal.SIGUSR2] * 4:
            os.kill(os.getpid(), number)
            levels.append(log_level.level())

    assert levels == ["info", "debug", "debug", "info", "warning", "error", "error"]
    assert before == (signal.getsignal(signal.SIGUSR1), signal.getsignal(signal.SIGUSR2))


def test_a_signal_in_the_middle_of_a_line_locks_nobody_out(tmp_path: Path) -> None:
    """The handler logs, too, while the thread that it interrupts is about to."""
    file = tmp_path / "log"
    log = structlog.get_logger("satfs.test")

    with logging_as(LogChoice(logging.WARNING, LogFormat.JSON, file), in_background=False):
        # Let a timer of its own interrupt at any instruction, many times.
        numbers = iter([signal.SIGUSR1, signal.SIGUSR2] * 250)
        hits = 0

        def hit(_number: int, _frame: object) -> None:
            nonlocal hits
            hits += 1
            os.kill(os.getpid(), next(numbers, signal.SIGUSR1))

        before = signal.signal(signal.SIGPROF, hit)
        signal.setitimer(signal.ITIMER_PROF, 0.001, 0.001)
        try:
            written = 0
            while hits < 100:
                log.warning("line", number=written)
                written += 1
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.signal(signal.SIGPROF, before)

    assert "log level changed" in _events(file)


def test_one_signal_waits_for_the_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second comes while the level is changed for the first: both count, in their order."""
    apply, is_first = log_level.apply, True

    def interrupted(number: int) -> None:
        nonlocal is_first
        apply(number)
        if is_first:
            is_first = False
            os.kill(os.getpid(), signal.SIGUSR1)

    with logging_as(LogChoice(logging.WARNING, file=tmp_path / "log"), in_background=False):
        monkeypatch.setattr(log_level, "apply", interrupted)
        os.kill(os.getpid(), signal.SIGUSR1)
        level = log_level.level()

    assert level == "debug"


def test_afterwards_the_level_is_as_it_was(tmp_path: Path) -> None:
    before = logging.getLogger().level

    with logging_as(LogChoice(file=tmp_path / "log"), in_background=False):
        log_level.set_level("debug")

    assert logging.getLogger().level == before
