"""How much is logged, and how that is changed while a mount runs.

The log itself is set up where the program starts (`satfs.cli.log_setup`). A mount that runs changes
the level here, on a command over its control socket (`satfs log --level`).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Final

import structlog

from satfs.errors import BadSettings

log = structlog.get_logger(__name__)

#: The levels by name, from the one with the fewest lines to the one with the most.
LEVELS: Final[Mapping[str, int]] = {
    "error": logging.ERROR,
    "warning": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
}


def level() -> str:
    """Return the name of the level that is logged now."""
    now = logging.getLogger().level
    return next((name for name, number in LEVELS.items() if number == now), "warning")


def set_level(name: str) -> None:
    """Log lines of level *name* and above from now on, and log the change.

    Raises:
        BadSettings: there is no such level; the message has those that there are.
    """
    if name not in LEVELS:
        raise BadSettings(f"no such log level; there are {', '.join(LEVELS)}")
    before = level()
    if before == name:
        return
    # While the level with more lines is in force, so that it is logged either way.
    if LEVELS[name] < LEVELS[before]:
        apply(LEVELS[name])
    log.warning("log level changed", level_now=name, level_before=before)
    apply(LEVELS[name])


def apply(number: int) -> None:
    """Make *number*, a level of `logging`, the one that is logged."""
    logging.getLogger().setLevel(number)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(number))
