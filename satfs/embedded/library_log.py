"""The log of satfs inside another program: lines for the standard library, without secrets.

A library does not decide where a program's log goes. Lines go to the logger `satfs` and those below
it, which show warnings on standard error unless the program configures them (`logging` in Python's
documentation, "configuring logging for a library").
"""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any

import structlog

from satfs.redaction import redact


def log_to_standard_library() -> None:
    """Send our log lines to the standard library, unless the program has configured structlog."""
    if structlog.is_configured():
        return
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, _as_text],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    # They log headers and whole addresses at their lower levels.
    for name in ("httpx", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _as_text(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> tuple[tuple[str, str], dict[str, Any]]:
    """Return the arguments of a call of a standard logger for *event*."""
    words = str(event.pop("event", ""))
    reason = event.pop("exc_info", None)
    fields = " ".join(f"{name}={value!r}" for name, value in event.items())
    return ("%s", redact(f"{words} {fields}".rstrip())), {"exc_info": reason}
