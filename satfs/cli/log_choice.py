"""What a command line asks of the log: its level, its form, its file.

Apart from what sets the log up (`satfs.cli.log_setup`): every command has these flags, and most
need no log.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path


class LogFormat(StrEnum):
    """How a log line is written."""

    CONSOLE = "console"  #: for people
    JSON = "json"  #: one object a line, for programs


@dataclass(frozen=True, slots=True)
class LogChoice:
    """What one command line asks of the log."""

    level: int = logging.WARNING
    format: LogFormat = LogFormat.CONSOLE
    file: Path | None = None


def level_for(verbosity: int) -> int:
    """Return the level for *verbosity*: the number of `-v`, less the number of `-q`."""
    if verbosity < 0:
        return logging.ERROR
    return (logging.WARNING, logging.INFO, logging.DEBUG)[min(verbosity, 2)]
