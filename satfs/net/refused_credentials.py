"""When a credential that was refused is tried again, and when another one is requested.

*Pure*: moments come in as seconds on any clock that never runs backwards. A credential is a token
of the API or a presigned link; even healthy servers refuse both for a moment in these cases:

- The clock of the issuer or signer is ahead, so that the credential is not valid yet (RFC 7519
  §4.1.5 `nbf`; S3 answers 403 AccessDenied). Another credential would be as young: the refused one
  itself is tried again, a few times over two seconds.
- A server behind a load balancer does not know the credential yet, or refuses all for a moment.
- An API hands a link out again that has expired, from a cache of its own.

Wrong credentials are refused by the same responses. The difference is whether a credential is
proven: a token, when one of its source was accepted before; a link, when it was accepted itself, or
when the store or its own query states that its time is over. Then the tries continue at growing
intervals until the caller's deadline. Otherwise they end after `UNPROVEN_S`.
"""

from __future__ import annotations

import math
from typing import Final

from msgspec import Struct

#: Waits before each further try of a credential that was refused while it was young. In sum 2 s,
#: since issuers and signers without disciplined clocks are a second off, rarely more.
YOUNG_WAITS_S: Final = (0.1, 0.3, 0.6, 1.0)
#: Age up to which a credential that was never accepted is young, in seconds: the sum of the waits.
YOUNG_S: Final = sum(YOUNG_WAITS_S)
#: Waits for a credential that is older and was never accepted in this process: two 401 in a row
#: cause no failure, and a token that was revoked before the start fails within a second.
OLD_WAITS_S: Final = (0.25, 0.5)
#: Limit of the time over which credentials of a source are tried of which none was ever accepted.
UNPROVEN_S: Final = 4.0
#: Limit of different new credentials that are requested within that time.
MAX_UNPROVEN: Final = 2
#: Waits before another credential is requested: none, then the first, doubled up to a limit.
FIRST_WAIT_S: Final = 0.5
MAX_WAIT_S: Final = 4.0


class NextTry(Struct, frozen=True):
    """Try again after *wait_s* seconds; with another credential, if *is_another*."""

    wait_s: float
    is_another: bool


class Refusals:
    """The refusals that one operation has met in a row."""

    def __init__(self) -> None:
        self._key: str | None = None
        self._began_s = 0.0
        self._own_waits: tuple[float, ...] = ()
        self._has_waited = False
        self._n_requested = 0
        self._n_different = 0

    @property
    def is_first(self) -> bool:
        """Return whether nothing has been refused so far."""
        return self._key is None

    @property
    def is_repeated(self) -> bool:
        """Return whether another credential was requested, and the same one came."""
        return self._n_requested > 1 and self._n_different == 0

    def again(
        self, key: str, now_s: float, *, age_s: float, was_accepted: bool, is_proven: bool
    ) -> NextTry | None:
        """Return the next step after the credential *key* was refused at *now_s*; None: give up.

        *age_s*: how long the credential has been held. *was_accepted*: it was accepted before.
        *is_proven*: a credential of its source was accepted before, or the refusal is known to
        pass; then the caller's deadline alone ends the tries.
        """
        if key != self._key:
            if self._key is None:
                self._began_s = now_s
            else:
                self._n_different += 1
            self._key = key
            self._own_waits = _own_waits(age_s, was_accepted)
            if self._has_waited and not is_proven:
                self._own_waits = ()  # one before it was given its time, to no avail
            self._has_waited = self._has_waited or bool(self._own_waits)
        if self._own_waits:
            wait_s, *rest = self._own_waits
            self._own_waits = tuple(rest)
            return NextTry(wait_s, is_another=False)
        is_spent = now_s - self._began_s >= UNPROVEN_S or self._n_different >= MAX_UNPROVEN
        if is_spent and not is_proven:
            return None
        n_waited = self._n_requested
        self._n_requested += 1
        if n_waited == 0:
            return NextTry(0.0, is_another=True)
        return NextTry(
            min(MAX_WAIT_S, FIRST_WAIT_S * 2.0 ** min(n_waited - 1, 10)), is_another=True
        )


def _own_waits(age_s: float, was_accepted: bool) -> tuple[float, ...]:
    if was_accepted:
        return ()  # not a matter of its youth
    return YOUNG_WAITS_S if age_s < YOUNG_S else OLD_WAITS_S


class CredentialHistory:
    """The credentials of one source: their age, and whether they were accepted."""

    def __init__(self) -> None:
        self._received: tuple[str, float] = ("", -math.inf)
        self._accepted: str | None = None
        #: Whether a credential was accepted, and none has been refused until the end since.
        self.is_proven = False

    def received(self, key: str, now_s: float) -> None:
        """Note that the credential *key* is held from now on, unless it is held already."""
        if key != self._received[0]:
            self._received = (key, now_s)

    def accepted(self, key: str) -> None:
        """Note that *key* was accepted."""
        self._accepted = key
        self.is_proven = True

    def given_up(self) -> None:
        """Note that the tries are over: after the next refusal there are fewer."""
        self.is_proven = False

    def is_young(self, key: str, now_s: float, stated_age_s: float = 0.0) -> bool:
        """Return whether *key* may not be valid yet: until it is accepted, while it is that new.

        *stated_age_s* is the age by the credential itself. A last try may be under way when
        `YOUNG_S` are over, hence a little more.
        """
        age_s = max(self._age_s(key, now_s), stated_age_s)
        return key != self._accepted and age_s <= YOUNG_S + FIRST_WAIT_S

    def was_accepted(self, key: str) -> bool:
        """Return whether *key* is the credential that was accepted last."""
        return key == self._accepted

    def again(
        self,
        refusals: Refusals,
        key: str,
        now_s: float,
        *,
        is_proven: bool,
        stated_age_s: float = 0.0,
    ) -> NextTry | None:
        """Return the next step after *key* was refused (`Refusals.again`); None: give up."""
        return refusals.again(
            key,
            now_s,
            age_s=max(self._age_s(key, now_s), stated_age_s),
            was_accepted=self.was_accepted(key),
            is_proven=is_proven,
        )

    def _age_s(self, key: str, now_s: float) -> float:
        return now_s - self._received[1] if key == self._received[0] else math.inf
