"""The log: where its lines go, their form, and the secrets that they never hold.

Every module logs events with fields (`log.warning("link renewed", scene=...)`); this module writes
them. Two promises hold for every line, also for lines of libraries:

- it holds no token, and no query of a link (a presigned URL lets anyone read the object), also
  where one is in a message or a traceback;
- it holds no control character from outside, so that a scene's name can neither forge a line nor
  steer a terminal.

Writing happens in a thread: a full pipe or a slow disk must not stop the mount.
"""

from __future__ import annotations

import logging
import logging.handlers
import os
import queue
import stat
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from enum import StrEnum
from io import TextIOWrapper
from pathlib import Path
from typing import Any, Final, TextIO

import structlog
from structlog.types import EventDict, Processor

from satfs import log_level
from satfs.atomic_file import for_owner
from satfs.cli.flags import LogFormat, OutputOptions
from satfs.cli.output import show
from satfs.errors import BadSettings
from satfs.introspection.log_ring import LogRing
from satfs.redaction import redact

#: The local system logger, and through it the journal (syslog(3)).
SYSLOG_SOCKET: Final = "/dev/log"
#: Lines that wait for the writing thread. At 200 bytes each that is 2 MB; more are dropped.
QUEUE_LINES: Final = 10_000
#: These log headers and whole URLs at their lower levels, at any level of ours.
_TALKATIVE: Final = ("httpx", "httpcore", "h11", "hpack")


class StderrReader(StrEnum):
    """The kind of reader of the lines that are written to standard error."""

    TERMINAL = "terminal"
    JOURNAL = "journal"  #: takes a priority from the beginning of each line (sd-daemon(3))
    MANAGER = "manager"  #: a service manager that waits for readiness; most do the same
    PLAIN = "plain"  #: a file, or a program


def place_of(stream: TextIO, environment: Mapping[str, str]) -> StderrReader:
    """Return the kind of reader of *stream*, from its type and from *environment*.

    The journal is recognised by `JOURNAL_STREAM`, which names device and inode of the socket that
    leads to it (systemd.exec(5)): a variable that was only inherited names another socket.
    """
    if stream.isatty():
        return StderrReader.TERMINAL
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):  # closed, or nothing that the kernel knows
        return StderrReader.PLAIN
    if environment.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}":
        return StderrReader.JOURNAL
    is_read = stat.S_ISFIFO(status.st_mode) or stat.S_ISSOCK(status.st_mode)
    return (
        StderrReader.MANAGER if is_read and environment.get("NOTIFY_SOCKET") else StderrReader.PLAIN
    )


def _show_fields(_logger: Any, _method: str, event: EventDict) -> EventDict:
    for name, value in event.items():
        if isinstance(value, str) and name not in ("exception", "stack"):
            event[name] = show(value)
    return event


def _brief(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Write on a terminal, which is narrow, the time of day only, and no name of a module."""
    event["timestamp"] = time.strftime("%H:%M:%S")
    event.pop("logger", None)
    return event


def _leave_to_journal(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Leave out the fields that the journal adds itself: time and level."""
    event.pop("timestamp", None)
    event.pop("level", None)
    return event


class _Formatter(structlog.stdlib.ProcessorFormatter):
    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))


class _JournalFormatter(_Formatter):
    """Begins each line with its priority: the journal makes an entry of each (sd-daemon(3))."""

    def format(self, record: logging.LogRecord) -> str:
        syslog = logging.handlers.SysLogHandler
        name = syslog.priority_map.get(record.levelname, "info")  # another library's own level
        prefix = f"<{syslog.priority_names[name]}>"
        lines = super().format(record).split("\n")
        return "\n".join(prefix + line for line in lines if line)


class _Queue(logging.handlers.QueueHandler):
    """Formats in the caller's thread; drops a line when the queue is full rather than wait."""

    def enqueue(self, record: logging.LogRecord) -> None:
        with suppress(queue.Full):
            self.queue.put_nowait(record)


class _Writer(logging.handlers.QueueListener):
    """Writes what is in the queue, in a thread of its own."""

    def enqueue_sentinel(self) -> None:
        """Wait for room for the mark of the end; the base class would raise `queue.Full`."""
        self.queue.put(None)  # type: ignore[attr-defined]  # it is a `queue.Queue`


@contextmanager
def logging_as(
    chosen: OutputOptions, *, in_background: bool, level: int | None = None
) -> Iterator[None]:
    """Log as *chosen* until the block ends, then write the lines that still wait.

    *level* is from which on lines are logged, by default the one chosen.

    Without a file, a foreground mount logs to standard error, one in the background to the system
    logger where there is one. Starts a thread: to be entered after the last fork.

    Raises:
        BadSettings: the log file cannot be written.
    """
    target = _target(chosen.log_file, in_background)
    is_stderr = isinstance(target, logging.StreamHandler) and target.stream is sys.stderr
    place = place_of(sys.stderr, os.environ) if is_stderr else StderrReader.PLAIN
    waiting: queue.Queue[Any] = queue.Queue(QUEUE_LINES)
    handler = _Queue(waiting)
    handler.setFormatter(_formatter(chosen.log_format, place))
    writer = _Writer(waiting, target)
    root = logging.getLogger()
    before = root.handlers[:], root.level, structlog.get_config()
    # The mount shows its last lines itself, wherever they go besides.
    lines = LogRing()
    lines.setFormatter(_formatter(LogFormat.CONSOLE, StderrReader.PLAIN))
    root.handlers[:] = [handler, lines]
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)
    structlog.configure(
        processors=[*_COMMON, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    log_level.apply(chosen.level if level is None else level)
    writer.start()
    try:
        yield
    finally:
        writer.stop()
        target.close()
        root.handlers[:], level_before, configuration = before
        root.setLevel(level_before)
        logging.captureWarnings(False)
        structlog.configure(**configuration)


def logging_quietly(output_options: OutputOptions) -> AbstractContextManager[None]:
    """Log to standard error with `-v` only: what a command prints has what its log would have."""
    level = None if output_options.verbosity > 0 else logging.CRITICAL
    return logging_as(output_options, in_background=False, level=level)


_COMMON: Final[list[Processor]] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.StackInfoRenderer(),
    # Plain tracebacks: structlog's own ones would show local variables, secrets among them.
    structlog.processors.format_exc_info,
    _show_fields,
]


def _formatter(format: LogFormat, place: StderrReader) -> logging.Formatter:
    steps: list[Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if format is LogFormat.JSON:
        steps.append(structlog.processors.JSONRenderer(ensure_ascii=False, default=str))
    else:
        if place is StderrReader.TERMINAL:
            steps.append(_brief)
        elif place in (StderrReader.JOURNAL, StderrReader.MANAGER):
            steps.append(_leave_to_journal)
        steps.append(
            structlog.dev.ConsoleRenderer(
                colors=place is StderrReader.TERMINAL and "NO_COLOR" not in os.environ,
                exception_formatter=structlog.dev.plain_traceback,
            )
        )
    # The journal takes priorities off again; another manager might not, and JSON is for programs.
    is_marked = place is StderrReader.JOURNAL or (
        place is StderrReader.MANAGER and format is not LogFormat.JSON
    )
    kind = _JournalFormatter if is_marked else _Formatter
    return kind(foreign_pre_chain=_COMMON, processors=steps)


class _LogFile(logging.handlers.WatchedFileHandler):
    """A log file; a file that it makes is for its owner alone, with any umask."""

    def _open(self) -> TextIOWrapper:
        return open(self.baseFilename, "a", encoding=self.encoding, opener=for_owner)


def _target(file: Path | None, in_background: bool) -> logging.Handler:
    if file is not None:
        try:
            # Reopened when logrotate(8) moves it away.
            return _LogFile(file, encoding="utf-8")
        except OSError as failure:
            raise BadSettings(f"log file {show(str(file))}: {failure.strerror}") from failure
    if not in_background:
        return logging.StreamHandler(sys.stderr)
    try:
        if stat.S_ISSOCK(os.stat(SYSLOG_SOCKET).st_mode):
            system = logging.handlers.SysLogHandler(SYSLOG_SOCKET)
            system.ident = f"satfs[{os.getpid()}]: "
            return system
    except OSError:
        pass  # no system logger, as in a container: the log goes nowhere
    return logging.NullHandler()
