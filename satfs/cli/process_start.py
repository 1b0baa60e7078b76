"""Prepare the process of a command: standard streams, UTF-8, a home, the FUSE library.

Service managers, cron and minimal images start programs with less than a shell does.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final, TextIO

from satfs.errors import FuseMissing

#: Standard input, output and error (POSIX).
_STANDARD_DESCRIPTORS: Final = range(3)


def settle_descriptors() -> None:
    """Open `/dev/null` as each of descriptors 0 to 2 that was closed when the program started.

    Otherwise a socket or a cache file gets the number, and what is written to standard error goes
    there. Where there is no `/dev/null`, an anonymous file takes its place (memfd_create(2)). Must
    come before anything else is opened.
    """
    for number in _STANDARD_DESCRIPTORS:
        if _is_open(number):
            continue
        try:
            descriptor = os.open(os.devnull, os.O_RDWR)
        except OSError:
            descriptor = os.memfd_create("closed")
        # The lowest free number is taken (open(2)): that one, since those below it are open.
        os.set_inheritable(descriptor, True)
    # Python has None for a stream that was closed.
    sys.stdin = sys.stdin or _stream(0, "r")
    sys.stdout = sys.stdout or _stream(1, "w")
    sys.stderr = sys.stderr or _stream(2, "w")


def detach(*descriptors: int) -> None:
    """Point *descriptors* at nothing, for reading and writing."""
    nothing = os.open(os.devnull, os.O_RDWR)
    try:
        for descriptor in descriptors:
            os.dup2(nothing, descriptor)
    finally:
        if nothing not in descriptors:
            os.close(nothing)


def settle_encoding() -> None:
    """Start the program again in Python's UTF-8 mode where the locale has another encoding.

    Names in a mount are UTF-8 in every locale: under ISO-8859-1 most of them could be neither
    opened nor printed. Returns where that is done already, or cannot be; characters that a stream's
    encoding lacks are then printed as escapes. Bytes of a path that are not UTF-8 are printed as
    they are (PEP 383), so that a shell finds the path.
    """
    if sys.getfilesystemencoding() != "utf-8" and sys.executable:
        # The same interpreter, options and arguments, byte for byte.
        command = [sys.orig_argv[0], "-X", "utf8", *sys.orig_argv[1:]]
        with contextlib.suppress(OSError):
            os.execv(sys.executable, command)  # noqa: S606 - our own interpreter
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            if stream.encoding.lower() != "utf-8":
                stream.reconfigure(errors="backslashreplace")
            elif stream.errors == "strict":
                stream.reconfigure(errors="surrogateescape")


def settle_home() -> None:
    """Give a user without a home directory the one that container runtimes give: `/`.

    Nothing of ours is in `/`, and nothing can be written there: it serves as an empty home, and
    content is kept in memory. Must be called before settings and caches are looked up.
    """
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = "/"


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _stream(descriptor: int, mode: str) -> TextIO:
    return open(descriptor, mode, encoding="utf-8", closefd=False)  # type: ignore[return-value]


@contextlib.contextmanager
def fuse_library_explained() -> Iterator[None]:
    """Raise an error with the remedy where an import in the body lacks the FUSE library.

    Raises:
        FuseMissing: it cannot be loaded; the message has the remedy.
    """
    try:
        yield
    except ImportError as failure:
        if (failure.name or "").partition(".")[0] != "pyfuse3":
            raise
        raise FuseMissing(
            f"the FUSE library cannot be loaded ({failure}); install it: sudo apt install fuse3"
        ) from failure
