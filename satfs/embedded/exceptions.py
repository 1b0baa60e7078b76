"""Our errors as the exceptions that Python programs expect of a filesystem.

The errno comes from the table that a mount uses (`fuse/errnos.py`), so that a program sees the same
failure with and without a mount; Python chooses the class by the errno (PEP 3151).
"""

from __future__ import annotations

import structlog

from satfs.errors import CannotMount, SatfsError
from satfs.fuse.errnos import errno_of, gravest_of

log = structlog.get_logger(__name__)


def exception_for(failure: BaseException, path: str) -> Exception:
    """Return the exception to raise in a program for *failure* of a call about *path*.

    A `FileNotFoundError`, `PermissionError`, `TimeoutError` or another `OSError` with our sentence;
    `ValueError` for settings that cannot be. An exception of another library is a bug in satfs: it
    is logged, and becomes an `OSError` with EIO.
    """
    gravest = gravest_of(failure)
    if isinstance(gravest, CannotMount):
        return ValueError(str(gravest))
    if isinstance(gravest, SatfsError | OSError):
        number = gravest.errno if isinstance(gravest, OSError) else errno_of(gravest)
        words = gravest.strerror if isinstance(gravest, OSError) else str(gravest)
        return OSError(number, words, path)
    log.error("call failed unexpectedly", path=path, exc_info=gravest)
    return OSError(errno_of(gravest), "a fault inside satfs; its log has the details", path)
