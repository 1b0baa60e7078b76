"""The errno of each error of satfs: one table.

The table is in docs/SEMANTICS.md as well; a test holds the two together. The most serious come
first: of several failures at once, the first in the table is reported.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Final

from satfs import errors
from satfs.errors import SatfsError

#: From failures that only satfs can repair, over those that others must repair, to results that are
#: no failure. An error class that is not here has the errno of its nearest ancestor; a test demands
#: that each has.
ERRNOS: Final[dict[type[SatfsError], int]] = {
    errors.Misuse: errno.EIO,
    errors.Damaged: errno.EIO,
    errors.Garbled: errno.EIO,
    errors.Changed: errno.ESTALE,
    errors.NeedsLogin: errno.EACCES,
    errors.NeedsContract: errno.EACCES,
    errors.Encrypted: errno.EACCES,
    errors.NotAllowed: errno.EACCES,
    errors.OverEgressLimit: errno.EDQUOT,
    errors.TooManyOpen: errno.ENFILE,
    errors.DeadlineReached: errno.ETIMEDOUT,
    errors.Throttled: errno.EIO,
    errors.Unreachable: errno.EIO,
    errors.CannotMount: errno.EIO,
    errors.Unsupported: errno.EOPNOTSUPP,
    errors.Unneeded: errno.ECANCELED,
    errors.NotThere: errno.ENOENT,
}

#: The errno of any other exception of a handler: a bug in satfs.
BUG: Final = errno.EIO

_WEIGHTS: Final = {error: weight for weight, error in enumerate(ERRNOS)}


def errno_of(failure: BaseException) -> int:
    """Return the errno for *failure*, which may be a group (PEP 654)."""
    gravest = gravest_of(failure)
    listed = _listed(gravest)
    return ERRNOS[listed] if listed is not None else BUG


def gravest_of(failure: BaseException) -> BaseException:
    """Return the one failure in *failure* to report: a bug first, then by the table.

    A failure that is no group is returned itself. Of equally serious ones the first counts.
    """
    return min(_leaves(failure), key=_weight)


def is_result(failure: BaseException) -> bool:
    """Return whether *failure* is an ordinary result, such as "no such name", and no fault."""
    return isinstance(failure, errors.NotThere | errors.Unneeded)


def _leaves(failure: BaseException) -> Iterator[BaseException]:
    if isinstance(failure, BaseExceptionGroup):
        for inner in failure.exceptions:
            yield from _leaves(inner)
    else:
        yield failure


def _weight(failure: BaseException) -> int:
    listed = _listed(failure)
    return -1 if listed is None else _WEIGHTS[listed]


def _listed(failure: BaseException) -> type[SatfsError] | None:
    return next((cls for cls in type(failure).__mro__ if cls in ERRNOS), None)
