"""The result of a check: its severity, its meaning, the remedy. *Pure*."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import TypeAlias

from satfs.errors import SatfsError


class Severity(IntEnum):
    """How grave a finding is; the larger the graver."""

    OK = 0  #: as it should be
    NOTE = 1  #: worth knowing; nothing is wrong
    WARNING = 2  #: a mount works, and not as well as it could, or not for long
    FAILURE = 3  #: a mount does not work, or not for some users

    @property
    def word(self) -> str:
        """Return its name as people and scripts read it."""
        return self.name.lower()


class Area(StrEnum):
    """What a finding is about, in the order in which things are looked at."""

    SETTINGS = "Settings"
    FUSE = "FUSE"
    MOUNTS = "Mounts"
    CACHE = "Cache"
    CRAWLERS = "Crawlers"
    NETWORK = "Network"
    ACCOUNT = "Account"
    STORE = "Object store"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    *check* is its name for scripts, the same in every release; *says* what was found, in a
    sentence; *means* why that matters. *remedy* says what to do, *commands* are for a shell.
    *cause* is the error that a mount fails with for a failure's sake: it decides the exit code.
    """

    area: Area
    check: str
    severity: Severity
    says: str
    means: str = ""
    remedy: str = ""
    commands: tuple[str, ...] = ()
    cause: type[SatfsError] = SatfsError

    @property
    def error(self) -> SatfsError:
        """Return the error that a mount fails with, its sentence made of finding and remedy."""
        commands = "; ".join(self.commands)
        return self.cause(" ".join(filter(None, (self.says, self.remedy, commands))))


#: Reports a finding as soon as it is there.
Tell: TypeAlias = Callable[[Finding], None]


def fine(area: Area, check: str, says: str) -> Finding:
    """Return a finding that nothing is to be done about."""
    return Finding(area, check, Severity.OK, says)


def worst(findings: Iterable[Finding]) -> Severity:
    """Return the gravest severity there is; OK when nothing was found."""
    return max((finding.severity for finding in findings), default=Severity.OK)


def deciding_failure(findings: Iterable[Finding]) -> Finding | None:
    """Return the first failure, as the one to be mended first; None when there is none."""
    return next((each for each in findings if each.severity is Severity.FAILURE), None)
