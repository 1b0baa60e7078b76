"""The level of the log, changed while it is written."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import structlog

from satfs import log_level
from satfs.cli.flags import LogFormat, OutputOptions
from satfs.cli.log_setup import logging_as
from satfs.errors import BadSettings


def _events(file: Path) -> list[str]:
    return [json.loads(line)["event"] for line in file.read_text().splitlines()]


def test_a_level_is_changed_while_the_log_is_written(tmp_path: Path) -> None:
    """Loggers that were made before follow, ours and those of libraries."""
    file = tmp_path / "log"
    ours, theirs = structlog.get_logger("satfs.test"), logging.getLogger("library")

    with logging_as(OutputOptions(0, LogFormat.JSON, file), in_background=False):
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

    with logging_as(OutputOptions(1, LogFormat.JSON, file), in_background=False):
        log_level.set_level("info")

    assert _events(file) == []


@pytest.mark.parametrize("name", ["", "loud", "DEBUG", "warn"])
def test_a_level_that_is_none_is_refused_with_those_there_are(name: str) -> None:
    with pytest.raises(BadSettings, match="there are error, warning, info, debug"):
        log_level.set_level(name)
