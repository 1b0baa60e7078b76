"""Which failure ends the program with which exit code, and what to do about it: one table."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType
from typing import Final

from satfs.errors import (
    BadCache,
    BadMountpoint,
    BadSettings,
    FuseMissing,
    Garbled,
    NeedsContract,
    NotAllowed,
    NotThere,
    SatfsError,
    Unreachable,
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
    INTERRUPTED = 130  #: 128 + SIGINT, as shells count


MEANINGS: Final[Mapping[Exit, str]] = MappingProxyType(
    {
        Exit.DONE: "done; the mount works",
        Exit.FAILED: "failed in a way that has no code of its own",
        Exit.USAGE: "wrong usage, or a setting that cannot be",
        Exit.CREDENTIALS: "credentials or contract missing or refused",
        Exit.NETWORK: "the API cannot be reached, or does not answer in time",
        Exit.MOUNTPOINT: "the mountpoint cannot be used, or is busy",
        Exit.FUSE: "FUSE is missing, or not allowed",
        Exit.CACHE: "the cache directory cannot be used",
        Exit.VENDOR: "the API answers something that makes no sense",
        Exit.INTERRUPTED: "interrupted (Ctrl-C)",
    }
)

_CODES: Final[Mapping[type[SatfsError], Exit]] = MappingProxyType(
    {
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
)

_REMEDIES: Final[Mapping[type[SatfsError], str]] = MappingProxyType(
    {
        NeedsContract: "Set SATFS_CONTRACT_ID, or give --contract.",
        NotAllowed: (
            "Set SATFS_CLIENT_ID and SATFS_CLIENT_SECRET, or SATFS_TOKEN; "
            "credentials are made in Aleph, under My Profile."
        ),
        Unreachable: "Check the network, and SATFS_API_URL and SATFS_AUTH_URL if you set them.",
        Garbled: "Check that SATFS_API_URL and SATFS_AUTH_URL lead to the API.",
        NotThere: "Check that SATFS_API_URL and SATFS_AUTH_URL lead to the API.",
    }
)


def exit_code(error: BaseException) -> Exit:
    """Return the code that *error* ends the program with."""
    if isinstance(error, KeyboardInterrupt):
        return Exit.INTERRUPTED
    for ancestor in type(error).__mro__:
        if ancestor in _CODES:
            return _CODES[ancestor]
    return Exit.FAILED


def remedy(error: BaseException) -> str | None:
    """Return what to do about *error*, where its own sentence does not say so already."""
    for ancestor in type(error).__mro__:
        if ancestor in _REMEDIES:
            return _REMEDIES[ancestor]
    return None


def cause(error: BaseException) -> BaseException:
    """Return the one error to tell people of: out of a group, the first that is ours, else any.

    A nursery wraps what its children raise, and a child may have raised a group in turn.
    """
    if not isinstance(error, BaseExceptionGroup):
        return error
    causes = [cause(inner) for inner in error.exceptions]
    ours = [inner for inner in causes if isinstance(inner, SatfsError)]
    return (ours or causes)[0]
