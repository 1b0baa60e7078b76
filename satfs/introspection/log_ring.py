"""The last lines of the log, in memory, and the file that shows them.

The file grows while it is open, as a log does, so that `tail -f` follows it. When it has grown to
its limit the older half is dropped, which programs see as a file that was truncated; `tail -f`
prints that and goes on.
"""

from __future__ import annotations

import logging
import time
from typing import Final

from satfs.model import ByteRange, MadeReader, Reader
from satfs.tree.nodes import Attributes, Directory, File, Kind

#: Most bytes of lines kept: some two thousand lines, and no less than half of them at any time.
MAX_BYTES: Final = 256 * 1024
#: Longest line kept whole; of a longer one the end is cut.
MAX_LINE_BYTES: Final = 8 * 1024


class LogRing(logging.Handler):
    """Keeps what is logged; its formatter must have taken secrets out.

    One of the root logger's handlers, put there by `satfs.cli.log_setup`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._text = bytearray()
        self.changed_ns = time.time_ns()

    @property
    def text(self) -> bytearray:
        """Return the lines: they grow, until the older half is dropped and they are another."""
        return self._text

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one record."""
        try:
            line = self.format(record).encode("utf-8", "backslashreplace")
        except Exception:  # a log line must not end what logs it
            self.handleError(record)
            return
        if len(line) > MAX_LINE_BYTES:
            line = line[:MAX_LINE_BYTES].decode("utf-8", "ignore").encode() + " …".encode()
        if len(self._text) + len(line) >= MAX_BYTES:
            half = self._text.find(b"\n", len(self._text) - MAX_BYTES // 2) + 1
            self._text = self._text[half:]
        self._text += line + b"\n"
        self.changed_ns = time.time_ns()


def log_ring() -> LogRing:
    """Return what keeps the lines of this process's log; an empty one when nothing does."""
    handlers = logging.getLogger().handlers
    return next((each for each in handlers if isinstance(each, LogRing)), None) or LogRing()


class LogFile(File):
    """The lines as a file that grows."""

    __slots__ = ("_lines",)
    is_in_memory = True
    is_name_cacheable = False
    is_live = True

    def __init__(self, parent: Directory, name: bytes, lines: LogRing) -> None:
        super().__init__(parent, name)
        self._lines = lines

    @property
    def identity(self) -> tuple[str, ...]:
        """The identity of the node: one file, with any content."""
        return (*self.path, "/live")

    def attributes(self) -> Attributes:
        """Return the attributes as they are now."""
        changed_ns = self._lines.changed_ns
        return Attributes(Kind.FILE, 0o644, len(self._lines.text), changed_ns, changed_ns)

    async def open(self) -> Reader:
        """Return a reader; waits for nothing."""
        return _LinesReader(self._lines)


class _LinesReader(MadeReader):
    """Reads the lines as they were when it began to read, and those that came after them."""

    def __init__(self, lines: LogRing) -> None:
        self._lines = lines
        self._text = lines.text

    @property
    def size_bytes(self) -> int:
        return len(self._text)

    async def read(self, span: ByteRange) -> bytes:
        """Return *span*; read from the start, as after a truncation, the present lines."""
        if span.start == 0 and len(self._lines.text) >= span.stop:
            self._text = self._lines.text
        return bytes(self._text[span.start : span.stop])
