"""Every error that satfs raises, divided by what the caller can do about it.

    SatfsError
    ├── NotThere         no such task, capture, scene, attachment, member or name
    ├── NotAllowed       the vendor (or the archive) knows us and refuses
    │   ├── NeedsLogin       the credential is refused, missing or spent
    │   ├── NeedsContract    a contract must be named, or the named one is not ours
    │   ├── ProxyRefused     the proxy refuses the user and password, or wants them
    │   └── Encrypted        an archive member that needs a password
    ├── Changed          not the object that was opened any more
    ├── Unreachable      network, vendor or store down; retries are spent
    │   ├── DeadlineReached  the call's time is up
    │   │   └── Unfinished       the same, and part of a long listing has come
    │   └── Throttled        the required wait is longer than the deadline allows
    ├── OverEgressLimit  the day's egress limit is reached, and the cache does not have it
    ├── TooManyOpen      the process has no descriptor left for one more file
    ├── Garbled          the vendor broke its own contract
    ├── Damaged          an archive that contradicts itself
    ├── Unsupported      satfs does not do this (a compression method, for example)
    ├── Unneeded         read ahead by the kernel, and not needed by a program
    ├── Misuse           we broke our own contract: a bug
    └── CannotMount      raised before anything is mounted: the user has to change something first
        ├── BadSettings      the configuration cannot work
        ├── BadMountpoint    the directory cannot be mounted on, or unmounted
        ├── BadCache         the cache directory cannot be used, or is not ours
        └── FuseMissing      the machine lacks FUSE, or does not allow it

`fuse/errnos.py` maps each to an errno; a test demands that none is forgotten. Messages are for
people: they name the operation and the thing, and never hold a token or the query of a link.
"""

from __future__ import annotations


class SatfsError(Exception):
    """The root. Never raised itself."""


class NotThere(SatfsError):
    """No such task, capture, scene, attachment, member or name."""


class NotAllowed(SatfsError):
    """Known to the other side, and refused."""


class NeedsLogin(NotAllowed):
    """The credential is refused, missing or spent; another one is needed."""


class NeedsContract(NotAllowed):
    """A contract must be configured, or the configured one is not usable."""


class ProxyRefused(NotAllowed):
    """The proxy refuses the user and password in its address, or wants them; nothing was sent."""


class Encrypted(NotAllowed):
    """An archive member that needs a password."""


class Changed(SatfsError):
    """The object is no longer the version that was opened."""


class Unreachable(SatfsError):
    """Network, vendor or store are down, and retries are spent.

    `is_permanent`: another try soon cannot help (a certificate that fails, for example).
    """

    def __init__(self, message: str, *, is_permanent: bool = False) -> None:
        super().__init__(message)
        self.is_permanent = is_permanent


class DeadlineReached(Unreachable):
    """The time allowed for the call is up.

    `is_silence`: there was a connection, and no response came; it is False when there was no
    connection.
    """

    def __init__(
        self, message: str, *, is_silence: bool = True, is_permanent: bool = False
    ) -> None:
        super().__init__(message, is_permanent=is_permanent)
        self.is_silence = is_silence


class Unfinished(DeadlineReached):
    """The time is up while pages of a long listing come; the next call goes on from there."""

    def __init__(self, message: str) -> None:
        super().__init__(message, is_silence=False)


class Throttled(Unreachable):
    """The vendor requires a wait that is longer than the deadline allows.

    `retry_after_s` is that wait in seconds, or None when the response has none.
    """

    def __init__(
        self, message: str, *, retry_after_s: float | None = None, is_permanent: bool = False
    ) -> None:
        super().__init__(message, is_permanent=is_permanent)
        self.retry_after_s = retry_after_s


class OverEgressLimit(SatfsError):
    """Bytes that are not in the cache, when no more are to be fetched today."""


class TooManyOpen(SatfsError):
    """No descriptor is left for one more open file; closing others helps."""


class Garbled(SatfsError):
    """The vendor or the store broke its own contract: what it sent cannot be what it meant."""


class Damaged(SatfsError):
    """An archive that contradicts itself, or whose member fails its checksum."""


class Unsupported(SatfsError):
    """Something that satfs does not do: a compression method, an operation."""


class Unneeded(SatfsError):
    """Bytes that the kernel read ahead of a program, which then went elsewhere: not fetched."""


class Misuse(SatfsError):
    """A promise inside satfs was broken: a bug of ours."""


class CannotMount(SatfsError):
    """Nothing is mounted: the user has to change something first. Never raised itself."""


class BadSettings(CannotMount):
    """The configuration cannot work; the message names the setting, and what would work."""


class BadMountpoint(CannotMount):
    """The directory cannot be mounted on, or unmounted; the message has reason and remedy."""


class BadCache(CannotMount):
    """The cache directory cannot be used: not writable, not ours, or inside the mount itself."""


class FuseMissing(CannotMount):
    """The machine lacks FUSE, or does not allow it; the message has what to install or allow."""
