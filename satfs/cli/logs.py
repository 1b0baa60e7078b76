"""Where log lines go, how they look, and what they never hold.

Every module logs events with fields (`log.warning("link renewed", scene=...)`); this one decides
what becomes of them. Two promises hold for every line, whoever wrote it, libraries included:

- no token, and no query of a link (whoever holds a presigned URL may read the object), however
  they got into a message or a traceback;
- no control character from outside, so that a scene's name can neither forge a line nor steer a
  terminal.

Writing happens in a thread: a full pipe or a slow disk must not stop the mount.
"""

from __future__ import annotations

import logging
import logging.handlers
import os
import queue
import re
import stat
import sys
import threading
import time
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import structlog

from satfs.errors import BadSettings

#: The local system logger, and through it the journal (syslog(3)).
SYSLOG_SOCKET: Final = "/dev/log"
#: Lines that wait for the writing thread. At 200 bytes each that is 2 MB; more are dropped.
QUEUE_LINES: Final = 10_000
#: These log headers and whole URLs at their lower levels, at any level of ours.
_TALKATIVE: Final = ("httpx", "httpcore", "h11", "hpack")


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


_QUERY = re.compile(r"""(\bhttps?://[^\s?#'"\\<>]+)\?[^\s'"\\<>]*""")
_SIGNATURE = re.compile(r"""\b(X-Amz-[A-Za-z-]+|Signature|AWSAccessKeyId)=[^\s&'"\\<>]+""")
_HEADER = re.compile(r"""\b([Bb]earer|Key,Secret)\s+[^\s'"\\;]+""")
_JWT = re.compile(r"\beyJ[\w-]{8,}\.[\w-]+\.?[\w-]*")


def redact(text: str) -> str:
    """Return *text* without queries of links, signatures and tokens. Redacting twice is as once."""
    text = _QUERY.sub(r"\1?…", text)
    text = _SIGNATURE.sub(r"\1=…", text)
    text = _HEADER.sub(r"\1 …", text)
    return _JWT.sub("…", text)


_CONTROLS: Final = {
    code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029)
}


def show(text: str) -> str:
    """Return *text* as one line that steers no terminal: control characters are spelt out."""
    return text.translate(_CONTROLS)


def _show_fields(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    for name, value in event.items():
        if isinstance(value, str) and name not in ("exception", "stack"):
            event[name] = show(value)
    return event


def _brief(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Say on a terminal, which is narrow, the time of day only, and not which module speaks."""
    event["timestamp"] = time.strftime("%H:%M:%S")
    event.pop("logger", None)
    return event


class _Formatter(structlog.stdlib.ProcessorFormatter):
    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


class _Queue(logging.handlers.QueueHandler):
    """Formats here, in the caller's thread; drops lines rather than wait."""

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            return


def _write(waiting: queue.Queue[logging.LogRecord | None], target: logging.Handler) -> None:
    """Write what comes, until None does."""
    for record in iter(waiting.get, None):
        target.handle(record)


@contextmanager
def logging_as(choice: LogChoice, *, in_background: bool) -> Iterator[None]:
    """Log as *choice* says until the block ends, then write out what is still waiting.

    Without a file, a foreground mount logs to standard error, one in the background to the system
    logger where there is one. Starts a thread: to be entered after the last fork.

    Raises:
        BadSettings: the log file cannot be written.
    """
    target = _target(choice, in_background)
    is_terminal = isinstance(target, logging.StreamHandler) and target.stream.isatty()
    waiting: queue.Queue[logging.LogRecord | None] = queue.Queue(QUEUE_LINES)
    handler = _Queue(waiting)
    handler.setFormatter(_formatter(choice.format, is_terminal=is_terminal))
    writer = threading.Thread(target=_write, args=(waiting, target), name="log", daemon=True)
    root = logging.getLogger()
    before = root.handlers[:], root.level, structlog.get_config()
    root.handlers[:] = [handler]
    root.setLevel(choice.level)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)
    structlog.configure(
        processors=[*_COMMON, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(choice.level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    writer.start()
    try:
        yield
    finally:
        waiting.put(None)
        writer.join()
        target.close()
        root.handlers[:], root.level, configuration = before
        logging.captureWarnings(False)
        structlog.configure(**configuration)


_COMMON: Final[list[structlog.types.Processor]] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.StackInfoRenderer(),
    # Plain tracebacks: structlog's own ones would show local variables, secrets among them.
    structlog.processors.format_exc_info,
    _show_fields,
]


def _formatter(format: LogFormat, *, is_terminal: bool) -> logging.Formatter:
    steps: list[structlog.types.Processor] = [
        structlog.stdlib.ProcessorFormatter.remove_processors_meta
    ]
    if format is LogFormat.JSON:
        steps.append(structlog.processors.JSONRenderer(ensure_ascii=False, default=str))
    else:
        steps += [_brief] if is_terminal else []
        steps.append(
            structlog.dev.ConsoleRenderer(
                colors=is_terminal and "NO_COLOR" not in os.environ,
                exception_formatter=structlog.dev.plain_traceback,
            )
        )
    return _Formatter(foreign_pre_chain=_COMMON, processors=steps)


def _target(choice: LogChoice, in_background: bool) -> logging.Handler:
    if choice.file is not None:
        try:
            # Reopened when logrotate(8) moves it away.
            return logging.handlers.WatchedFileHandler(choice.file, encoding="utf-8")
        except OSError as failure:
            raise BadSettings(f"log file {show(str(choice.file))}: {failure.strerror}") from failure
    if not in_background:
        return logging.StreamHandler(sys.stderr)
    try:
        if stat.S_ISSOCK(os.stat(SYSLOG_SOCKET).st_mode):
            system = logging.handlers.SysLogHandler(SYSLOG_SOCKET)
            system.ident = f"satfs[{os.getpid()}]: "
            return system
    except OSError:
        pass  # no system logger, in a container say: the log goes nowhere
    return logging.NullHandler()
