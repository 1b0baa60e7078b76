"""The credential and its token: who we are to the vendor; the only opener of secrets.

Three ways, as `auth_mode` says: client credentials exchanged for a token that is renewed before it
ends (OAuth 2.0, RFC 6749 §4.4), a ready-made token, or the deprecated `Key,Secret` header. What is
returned here are headers, made for the API's own origin alone; the client sees to that.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass

import structlog
import trio
from pydantic import SecretStr

from satfs.api import said, wire
from satfs.errors import Garbled, NeedsLogin
from satfs.fresh import Fresh
from satfs.model import Json
from satfs.net.addresses import origin_of, shown
from satfs.net.http import Answer, Http
from satfs.net.retry import RETRIED_STATUSES, failure_for
from satfs.net.retrying import Retries
from satfs.settings import AuthMode, Settings

log = structlog.get_logger(__name__)

#: The vendor's own name for the header. It is not `Authorization`.
TOKEN_HEADER = "authorizationToken"  # noqa: S105 - a header's name

#: A token is renewed this long before its end, so that no request carries one that dies under way;
#: other clients of this API do the same.
RENEWAL_MARGIN_S = 60.0
#: Life of a token whose answer does not tell (`expires_in` is only recommended, RFC 6749 §5.1).
UNTOLD_LIFETIME_S = 600.0
#: How long a refusal is believed: wrong credentials must not be tried at the speed of `ls`.
REFUSAL_MEMORY_S = 5.0


@dataclass(frozen=True, slots=True)
class Deadline:
    """The time of one operation, as moments on trio's clock."""

    since_s: float
    at_s: float

    @classmethod
    def within(cls, seconds: float) -> Deadline:
        """Return the deadline of an operation that begins now."""
        now_s = trio.current_time()
        return cls(now_s, now_s + seconds)


class Credential:
    """What `settings` say we are, as headers.

    At most one token request is under way, however many need a token. A refusal is remembered for
    a few seconds; the token itself until shortly before its end, or until it is `refused`.
    """

    def __init__(
        self,
        http: Http,
        retries: Retries,
        settings: Settings,
        *,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._http = http
        self._retries = retries
        self._settings = settings
        self._wall_clock = wall_clock
        self._token: Fresh[str] = Fresh(self._ask_for_token, wall_clock=wall_clock)
        self._refusal: tuple[NeedsLogin, float] | None = None
        self.mode = mode_of(settings)

    @property
    def needs_contract(self) -> bool:
        """Tell whether requests must name a contract. A legacy credential implies one."""
        return self.mode is not AuthMode.LEGACY

    async def headers(self) -> dict[str, str]:
        """Return the header that says who we are, waiting for a token if need be.

        Raises:
            NeedsLogin: the credential is missing, unusable or refused.
            Unreachable: the token endpoint is.
            Garbled: it sent something that is no token.
        """
        settings = self._settings
        match self.mode:
            case AuthMode.TOKEN:
                token = _opened(settings.token, "SATFS_TOKEN")
                return {TOKEN_HEADER: f"Bearer {token.removeprefix('Bearer ')}"}
            case AuthMode.LEGACY:
                key = _usable(settings.client_id or "", "SATFS_CLIENT_ID")
                secret = _opened(settings.client_secret, "SATFS_CLIENT_SECRET")
                return {TOKEN_HEADER: f"Key,Secret {key},{secret}"}
            case _:
                return {TOKEN_HEADER: f"Bearer {await self._token.get()}"}

    def refused(self, headers: Mapping[str, str]) -> bool:
        """Say that *headers* were refused; return True if asking again may help (a new token)."""
        if self.mode is not AuthMode.OAUTH:
            return False
        self._token.invalidate(headers.get(TOKEN_HEADER, "").removeprefix("Bearer "))
        return True

    def renewed_in_s(self) -> float | None:
        """Return in how many seconds the token is to be renewed; None when there is none."""
        return self._token.left_s()

    def secrets(self) -> tuple[str, ...]:
        """Return every text that may not be shown, for those who quote others."""
        held = (self._settings.token, self._settings.client_secret)
        known = [secret.get_secret_value() for secret in held if secret is not None]
        return (*known, *filter(None, [self._token.last()]))

    def advice(self) -> str:
        """Return what to set when the credential is refused."""
        match self.mode:
            case AuthMode.TOKEN:
                return "set SATFS_TOKEN to a token that is still valid"
            case _:
                return "check SATFS_CLIENT_ID and SATFS_CLIENT_SECRET"

    async def _ask_for_token(self) -> tuple[str, float]:
        settings = self._settings
        if self._refusal is not None and trio.current_time() < self._refusal[1]:
            raise copy(self._refusal[0])
        body = {
            "client_id": _usable(settings.client_id or "", "SATFS_CLIENT_ID"),
            "client_secret": _opened(settings.client_secret, "SATFS_CLIENT_SECRET"),
            "audience": settings.audience,
            "grant_type": "client_credentials",
        }
        deadline = Deadline.within(settings.metadata_deadline_s)
        try:
            return await self._retries.run(
                lambda: self._exchange(json.dumps(body).encode()),
                origin=origin_of(settings.auth_url),
                deadline_at=deadline.at_s,
                what="ask for a token",
            )
        except NeedsLogin as refusal:
            self._refusal = (refusal, trio.current_time() + REFUSAL_MEMORY_S)
            log.error("credential refused", auth_url=shown(settings.auth_url))
            raise

    async def _exchange(self, body: bytes) -> tuple[str, float]:
        url = self._settings.auth_url
        answer = await self._http.request(
            "POST", url, headers={"Content-Type": "application/json"}, content=body
        )
        if answer.status != 200:
            raise self._not_a_token(answer)
        told = wire.document(answer.body)
        record = told if isinstance(told, dict) else {}
        token = record.get("access_token")
        if not isinstance(token, str) or not _is_header_text(token):
            raise Garbled(f"{shown(url)} answered without a token")
        lifetime_s = _lifetime_s(record.get("expires_in"))
        log.debug("token renewed", lifetime_s=lifetime_s)
        return token, usable_for_s(lifetime_s)

    def _not_a_token(self, answer: Answer) -> Exception:
        where = shown(self._settings.auth_url)
        told = said.words(answer.body, self.secrets())
        message = f"ask for a token: {where} answered {answer.status}" + (
            f": {told}" if told else ""
        )
        if answer.status in (400, 401, 403):
            return NeedsLogin(f"{message}; {self.advice()}")
        if answer.status in RETRIED_STATUSES or answer.status >= 500:
            return failure_for(answer.status, answer.headers, message, now_s=self._wall_clock())
        return Garbled(f"{message}; is SATFS_AUTH_URL the token endpoint?")


def mode_of(settings: Settings) -> AuthMode:
    """Return how `settings` want us to log in: `auto` is a token if there is one, else OAuth."""
    if settings.auth_mode is not AuthMode.AUTO:
        return settings.auth_mode
    return AuthMode.OAUTH if settings.token is None else AuthMode.TOKEN


def account_key(settings: Settings) -> str:
    """Return a name for the account in the cache's paths: 32 hexadecimal digits, no secret.

    Depends on the API, on who asks (the client id; with a ready-made token its hash) and on the
    contract configured. Known without any request, so that a mount can start offline.
    """
    if mode_of(settings) is AuthMode.TOKEN and settings.token is not None:
        who = hashlib.sha256(settings.token.get_secret_value().encode()).hexdigest()
    else:
        who = settings.client_id or ""
    parts = (settings.api_url, mode_of(settings).value, who, settings.contract_id or "")
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def usable_for_s(lifetime_s: float) -> float:
    """Return for how long a token that lives *lifetime_s* is used: less a margin, at least half."""
    return max(lifetime_s - RENEWAL_MARGIN_S, lifetime_s / 2)


def _lifetime_s(value: Json) -> float:
    """Return `expires_in`, in seconds, however it was written."""
    try:
        lifetime_s = float(value)
    except (TypeError, ValueError, OverflowError):
        return UNTOLD_LIFETIME_S
    # Above a year: milliseconds, or nonsense. A refused token is renewed in any case.
    return lifetime_s if 0 < lifetime_s < 366 * 86400 else UNTOLD_LIFETIME_S


def _opened(secret: SecretStr | None, variable: str) -> str:
    return _usable("" if secret is None else secret.get_secret_value(), variable)


def _usable(value: str, variable: str) -> str:
    """Return *value* without the blanks that files and shells add.

    Raises:
        NeedsLogin: it is missing, or no header could carry it; names the variable to set.
    """
    value = value.strip()
    if not value:
        raise NeedsLogin(
            f"no credential: {variable} is not set (either SATFS_CLIENT_ID and "
            "SATFS_CLIENT_SECRET, or SATFS_TOKEN are needed)"
        )
    if not _is_header_text(value):
        raise NeedsLogin(f"{variable} holds characters that no credential has")
    return value


def _is_header_text(value: str) -> bool:
    return bool(value) and value.isascii() and value.isprintable()
