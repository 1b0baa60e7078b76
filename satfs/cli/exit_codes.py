"""The exit code and the message of each failure, in one table."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from enum import IntEnum
from typing import Final, TypeVar

from msgspec import Struct

from satfs.errors import (
    BadCache,
    BadMountpoint,
    BadSettings,
    FuseMissing,
    Garbled,
    Misuse,
    NeedsLogin,
    NotAllowed,
    NotThere,
    ProxyRefused,
    SatfsError,
    Unreachable,
)
from satfs.fuse.errnos import gravest_of

T = TypeVar("T")

#: For people who have no credential yet.
CREDENTIALS_ARE_MADE: Final = (
    "Credentials are made in Aleph (aleph.satellogic.com), under My Profile."
)


class Exit(IntEnum):
    """Exit codes of every command. Scripts may rely on them."""

    DONE = 0
    FAILED = 1  #: anything without a code of its own; a bug, most likely
    USAGE = 2  #: as of click, and of most Unix programs
    CREDENTIALS = 3
    NETWORK = 4
    MOUNTPOINT = 5
    FUSE = 6
    CACHE = 7
    VENDOR = 8
    WARNINGS = 9  #: of `satfs doctor`
    INTERRUPTED = 130  #: 128 + SIGINT, as shells count


MEANINGS: Final[Mapping[Exit, str]] = {
    Exit.DONE: "done; the mount works",
    Exit.FAILED: "a failure without a code of its own",
    Exit.USAGE: "wrong usage, or a setting that is not valid",
    Exit.CREDENTIALS: "credentials or contract missing or refused",
    Exit.NETWORK: "the API cannot be reached, or does not respond in time",
    Exit.MOUNTPOINT: "the mountpoint cannot be used, or is busy",
    Exit.FUSE: "FUSE is missing, or not allowed",
    Exit.CACHE: "the cache directory cannot be used",
    Exit.VENDOR: "the API sends an invalid response",
    Exit.WARNINGS: "`satfs doctor` has found warnings and no failure",
    Exit.INTERRUPTED: "interrupted (Ctrl-C)",
}

_CODES: Final[Mapping[type[SatfsError], Exit]] = {
    SatfsError: Exit.FAILED,
    BadSettings: Exit.USAGE,
    NotAllowed: Exit.CREDENTIALS,
    Unreachable: Exit.NETWORK,
    BadMountpoint: Exit.MOUNTPOINT,
    FuseMissing: Exit.FUSE,
    BadCache: Exit.CACHE,
    Garbled: Exit.VENDOR,
    NotThere: Exit.VENDOR,
}

_REMEDIES: Final[Mapping[type[SatfsError], str]] = {
    ProxyRefused: "`satfs doctor` checks each step of the connection, the proxy included.",
    NeedsLogin: CREDENTIALS_ARE_MADE,
    Unreachable: "Check the network, and SATFS_API_URL and SATFS_AUTH_URL if you set them; "
    "`satfs doctor` checks each step of the connection.",
    FuseMissing: "`satfs doctor` checks all that a mount needs.",
    Garbled: "Check that SATFS_API_URL and SATFS_AUTH_URL lead to the API.",
    NotThere: "Check that SATFS_API_URL and SATFS_AUTH_URL lead to the API.",
}


def exit_code(error: BaseException) -> Exit:
    """Return the code that *error* ends the program with."""
    if isinstance(error, KeyboardInterrupt):
        return Exit.INTERRUPTED
    return _nearest(_CODES, error) or Exit.FAILED


def remedy(error: BaseException) -> str | None:
    """Return what to do about *error*, where its own sentence does not know."""
    return _nearest(_REMEDIES, error)


def _nearest(table: Mapping[type[SatfsError], T], error: BaseException) -> T | None:
    """Return the entry of the class of *error*, or of the nearest class above it that has one."""
    return next((table[each] for each in type(error).__mro__ if each in table), None)


class Failure(Struct, frozen=True):
    """A failure as people see it: exit code, sentence, remedy, traceback."""

    code: int
    sentence: str
    remedy: str | None = None
    details: str | None = None


def failure_of(error: BaseException, *, with_details: bool = False) -> Failure:
    """Return *error*, or the worst of a group, for users; *with_details* adds its traceback."""
    failure = gravest_of(error)
    details = "".join(traceback.format_exception(error)) if with_details else None
    if isinstance(failure, SatfsError) and not isinstance(failure, Misuse):
        sentence = str(failure) or type(failure).__name__
        return Failure(exit_code(failure), sentence, remedy(failure), details)
    if isinstance(failure, KeyboardInterrupt):
        return Failure(Exit.INTERRUPTED, "interrupted", None, details)
    return Failure(
        exit_code(failure),
        f"satfs failed: {type(failure).__name__}: {failure}",
        "This is a bug. Please report it, with the output of `-vv`.",
        details,
    )
