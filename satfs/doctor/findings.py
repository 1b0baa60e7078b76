"""The result of a check: its severity, its meaning, the remedy. *Pure*."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import IntEnum, StrEnum
from typing import TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from satfs.errors import SatfsError


class Severity(IntEnum):
    """The severity of a finding; a larger number is more severe."""

    OK = 0  #: as it should be
    NOTE = 1  #: worth knowing; nothing is wrong
    WARNING = 2  #: a mount works, and not as well as it could, or not for long
    FAILURE = 3  #: a mount does not work, or not for some users

    @property
    def word(self) -> str:
        """Return its name as people and scripts read it."""
        return self.name.lower()


class Area(StrEnum):
    """The subject of a finding, in the order in which subjects are checked."""

    SETTINGS = "Settings"
    FUSE = "FUSE"
    MOUNTS = "Mounts"
    CACHE = "Cache"
    CRAWLERS = "Crawlers"
    NETWORK = "Network"
    ACCOUNT = "Account"
    STORE = "Object store"


class Finding(Struct, frozen=True):
    """The result of one check.

    *check* is its name for scripts, the same in every release. *statement* is the result as a
    sentence, *explanation* is why it matters, *remedy* is what the user can do, and *commands* are
    the remedy's shell commands. *cause* is the error that a mount raises for a finding of severity
    FAILURE; it decides the exit code.
    """

    area: Area
    check: str
    severity: Severity
    statement: str
    explanation: str = ""
    remedy: str = ""
    commands: tuple[str, ...] = ()
    cause: type[SatfsError] = SatfsError

    @property
    def error(self) -> SatfsError:
        """Return the error that a mount raises, with sentence, remedy and commands as message."""
        commands = "; ".join(self.commands)
        return self.cause(" ".join(filter(None, (self.statement, self.remedy, commands))))


#: Reports a finding as soon as it is there.
Report: TypeAlias = Callable[[Finding], None]


class Check(Struct, frozen=True):
    """One check: its area, its *name* for scripts, and the error that a failure of it raises.

    Its methods return its findings. Their texts are statement, explanation, remedy, and then the
    commands of the remedy, as of `Finding`.
    """

    area: Area
    name: str
    cause: type[SatfsError] = SatfsError

    def fine(self, statement: str) -> Finding:
        """Return a finding of severity OK."""
        return self.finding(Severity.OK, statement)

    def note(self, *texts: str) -> Finding:
        """Return a finding of severity NOTE."""
        return self.finding(Severity.NOTE, *texts)

    def warning(self, *texts: str) -> Finding:
        """Return a finding of severity WARNING."""
        return self.finding(Severity.WARNING, *texts)

    def failure(self, *texts: str, cause: type[SatfsError] | None = None) -> Finding:
        """Return a finding of severity FAILURE; *cause* replaces that of the check."""
        return replace(self.finding(Severity.FAILURE, *texts), cause=cause or self.cause)

    def finding(
        self,
        severity: Severity,
        statement: str,
        explanation: str = "",
        remedy: str = "",
        *commands: str,
    ) -> Finding:
        """Return a finding of any severity."""
        return Finding(
            self.area, self.name, severity, statement, explanation, remedy, commands, self.cause
        )


def worst(findings: Iterable[Finding]) -> Severity:
    """Return the highest severity of *findings*; OK for no finding."""
    return max((finding.severity for finding in findings), default=Severity.OK)


def deciding_failure(findings: Iterable[Finding]) -> Finding | None:
    """Return the first finding of severity FAILURE, to be repaired first; None without one."""
    return next((each for each in findings if each.severity is Severity.FAILURE), None)
