"""The credential and its token; the only module that reads secrets.

Three ways, chosen by `auth_mode`: client credentials exchanged for a token that is renewed before
it ends (OAuth 2.0, RFC 6749 §4.4), a token that another program makes, or the deprecated
`Key,Secret` header. Their secrets come from the settings, a file, a command, or the store of `satfs
login`. The headers that are returned here are for the API's own origin alone, which the client
ensures.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Mapping
from copy import copy

import structlog
import trio

from satfs.api import secret_store, token_request, tokens
from satfs.api.secret_store import StoredLogin
from satfs.api.token_sources import LOOK_S, TokenCommand, TokenFile, mode_of, source_of
from satfs.api.tokens import ReceivedToken
from satfs.errors import NeedsLogin
from satfs.net.addresses import origin_of, shown
from satfs.net.http import Http
from satfs.net.refused_credentials import CredentialHistory, NextTry, Refusals
from satfs.net.retry_loop import Retries
from satfs.refreshable import Refreshable
from satfs.request_slots import Deadline
from satfs.setting_values import SecretStr
from satfs.settings import AuthMode, Settings

log = structlog.get_logger(__name__)

#: The vendor's own name for the header. It is not `Authorization`.
TOKEN_HEADER = "authorizationToken"  # noqa: S105 - a header's name

#: A token is renewed this long before its end, so that no request carries one that dies under way;
#: other clients of this API do the same.
RENEWAL_MARGIN_S = 60.0
#: Life of a token without `expires_in`, which is only recommended (RFC 6749 §5.1).
UNTOLD_LIFETIME_S = 600.0
#: Longest wait for a keyring, in seconds: a locked one may wait for a user who is not there.
KEYRING_S = 10.0
#: How long a refusal is remembered: wrong credentials must not be tried at the speed of `ls`.
REFUSAL_MEMORY_S = 5.0
#: Waits before further tries when the token endpoint refuses credentials that it accepted before in
#: this process, or right after another failure, in seconds: a server that restarts does so for a
#: moment.
RENEWAL_WAITS_S = (0.5, 1.5)


class Credential:
    """The credential of `settings`, as headers.

    At most one token request is under way, however many need a token. A refusal is remembered for
    a few seconds; the token itself until shortly before its end, or until it is `refused`. A token
    file that changes, and another login meanwhile, count without a new mount.
    """

    def __init__(self, http: Http, retries: Retries, settings: Settings) -> None:
        self._http = http
        self._retries = retries
        self._settings = settings
        self.mode = mode_of(settings)
        self.source = source_of(settings)
        self._kept: StoredLogin | None = None
        self._file: TokenFile | None = None
        self._command: TokenCommand | None = None
        if self.source == "token_file" and settings.token_file is not None:
            self._file = TokenFile(settings.token_file)
        elif self.source == "token_command" and settings.token_command is not None:
            self._command = TokenCommand(settings.token_command, settings.profile)
        self._token: Refreshable[str] = Refreshable(self._renewed)
        self._refusal: tuple[NeedsLogin, float] | None = None
        self._expires_at_s: float | None = None
        #: The history of tokens (or of the legacy key) from this source.
        self.standing = CredentialHistory()

    @property
    def needs_contract(self) -> bool:
        """Return whether requests must name a contract. A legacy credential implies one."""
        return self.mode is not AuthMode.LEGACY

    @property
    def token_expires_at_s(self) -> float | None:
        """When the token in use ends, in seconds since the epoch; None when that is not known."""
        return self._expires_at_s

    @property
    def token_subject(self) -> str | None:
        """The subject in the token in use; not verified, and None when it has none."""
        token = self._token.last()
        return None if token is None else tokens.subject(token)

    async def headers(self) -> dict[str, str]:
        """Return the header with the credential, waiting for a token if need be.

        Raises:
            NeedsLogin: the credential is missing, unusable or refused.
            Unreachable: the token endpoint is.
            Garbled: it sent something that is no token.
        """
        if self.mode is AuthMode.LEGACY:
            key = _usable(self._settings.client_id or "", "SATFS_CLIENT_ID")
            return {TOKEN_HEADER: f"Key,Secret {key},{await self._client_secret()}"}
        return {TOKEN_HEADER: f"Bearer {await self._token.get()}"}

    def refused(self, headers: Mapping[str, str]) -> bool:
        """Take in that *headers* were refused; return True if another request may succeed.

        It helps when the `headers` are others then: a new token, for example.
        """
        if self.source in ("token", "client_secret") and self.mode is not AuthMode.OAUTH:
            return False
        token = _sent(headers)
        if self.mode is not AuthMode.OAUTH:
            self._kept = None
            if self._file is not None and token == self._token.last():
                self._file.refused()
        self._token.invalidate(token)
        return True

    def accepted(self, headers: Mapping[str, str]) -> None:
        """Note that *headers* were accepted."""
        self.standing.accepted(_sent(headers))

    def is_young(self, headers: Mapping[str, str]) -> bool:
        """Return whether the token in *headers* is so new that it may not be valid yet."""
        sent = _sent(headers)
        return self.standing.is_young(sent, trio.current_time(), self._stated_age_s(sent))

    def again(self, headers: Mapping[str, str], refusals: Refusals) -> NextTry | None:
        """Return how to go on after *headers* were refused; None: give up."""
        sent = _sent(headers)
        return self.standing.again(
            refusals,
            sent,
            trio.current_time(),
            is_proven=self.standing.is_proven,
            stated_age_s=self._stated_age_s(sent),
        )

    def _stated_age_s(self, token: str) -> float:
        begins_at_s = tokens.begins_at_s(token)
        return 0.0 if begins_at_s is None else time.time() - begins_at_s

    def secrets(self) -> tuple[str, ...]:
        """Return every text that may not be shown, for callers that quote foreign text."""
        kept = None if self._kept is None else self._kept.secret
        held = (self._settings.token, self._settings.client_secret, kept)
        known = [secret.get_secret_value() for secret in held if secret is not None]
        return (*known, *filter(None, [self._token.last()]))

    def advice(self) -> str:
        """Return what to set when the credential is refused."""
        match self.source:
            case "token":
                return "set SATFS_TOKEN to a token that is still valid"
            case "token_file":
                return f"write a token that is still valid to {self._settings.token_file}"
            case "token_command":
                return "see that token_command prints a token that is still valid"
            case "secret_store":
                return secret_store.again(self._settings.profile)
            case _:
                return "check client id and secret (SATFS_CLIENT_ID, SATFS_CLIENT_SECRET)"

    # -- where it comes from -----------------------------------------------------------------------

    async def _renewed(self) -> tuple[str, float]:
        """Return what `_renew` does, and note since when a token is held that was not before."""
        token, used_for_s = await self._renew()
        self.standing.received(token, trio.current_time())
        return token, used_for_s

    async def _renew(self) -> tuple[str, float]:
        """Return a token, and for how many seconds it is used before the next is looked for."""
        if self.mode is AuthMode.OAUTH:
            return await self._request_token()
        if self._file is not None:
            stored = await self._file.look()
            used_for_s = LOOK_S
        elif self._command is not None:
            stored = await self._command.run()
            lifetime_s = UNTOLD_LIFETIME_S if stored.lifetime_s is None else stored.lifetime_s
            used_for_s = usable_for_s(lifetime_s)
            log.debug("token renewed", source=self.source, lifetime_s=lifetime_s)
        else:
            given = self._settings.token
            text = _opened(await self._kept_secret() if given is None else given, "SATFS_TOKEN")
            stored = tokens.parse(text, now_s=time.time()) or ReceivedToken(text)
            used_for_s = math.inf
        # One that was read from the file before has its lifetime from then.
        if self._file is None or stored.token != self._token.last():
            left_s = stored.lifetime_s
            self._expires_at_s = None if left_s is None else time.time() + left_s
        return stored.token, used_for_s

    async def _client_secret(self) -> str:
        given = self._settings.client_secret
        if given is None and self.source == "secret_store":
            given = await self._kept_secret()
        return _opened(given, "SATFS_CLIENT_SECRET")

    async def _kept_secret(self) -> SecretStr | None:
        """Return what `satfs login` has kept, waiting for disk or keyring; None: nothing was.

        Raises:
            NeedsLogin: it cannot be read, or is for another account or another API.
        """
        settings = self._settings
        if settings.secret_store is None:
            return None
        if self._kept is None:
            with trio.move_on_after(KEYRING_S):
                kept = await trio.to_thread.run_sync(
                    secret_store.fetch,
                    settings.profile,
                    settings.secret_store,
                    abandon_on_cancel=True,
                )
                if mismatch := kept.mismatch(settings, self.mode):
                    raise NeedsLogin(
                        f"the login kept for profile {settings.profile} {mismatch};"
                        f" {secret_store.again(settings.profile)}"
                    )
                self._kept = kept
                return kept.secret
            raise NeedsLogin("the keyring does not answer; is it locked?")
        return self._kept.secret

    async def _request_token(self) -> tuple[str, float]:
        settings = self._settings
        if self._refusal is not None and trio.current_time() < self._refusal[1]:
            raise copy(self._refusal[0])
        body = {
            "client_id": _usable(settings.client_id or "", "SATFS_CLIENT_ID"),
            "client_secret": await self._client_secret(),
            "audience": settings.audience,
            "grant_type": "client_credentials",
        }
        # A request for the contract may wait for it, another request for that, and a call.
        deadline = Deadline.within(settings.metadata_deadline_s, n_waiting=3)
        waits_s = list(RENEWAL_WAITS_S) if self.standing.is_proven else []
        is_first_refusal, n_tries = True, 0

        async def exchange() -> tuple[str, float]:
            nonlocal n_tries
            n_tries += 1
            return await self._exchange(json.dumps(body).encode())

        while True:
            try:
                return await self._retries.run(
                    exchange,
                    origin=origin_of(settings.auth_url),
                    deadline_at=deadline.at_s,
                    what="request a token",
                )
            except NeedsLogin as refusal:
                if is_first_refusal and n_tries > 1:
                    waits_s = list(RENEWAL_WAITS_S)
                is_first_refusal = False
                if waits_s and trio.current_time() + waits_s[0] < deadline.at_s:
                    await trio.sleep(waits_s.pop(0))
                    continue
                self._note_refusal(refusal)
                raise

    def _note_refusal(self, refusal: NeedsLogin) -> None:
        """Remember for a while that the token endpoint refuses the credential."""
        self._refusal = (refusal, trio.current_time() + REFUSAL_MEMORY_S)
        self._kept = None  # a new login counts without a new mount
        self.standing.given_up()
        log.error("credential refused", auth_url=shown(self._settings.auth_url))

    async def _exchange(self, body: bytes) -> tuple[str, float]:
        received = await token_request.exchange(
            self._http,
            self._settings.auth_url,
            body,
            secrets=self.secrets(),
            advice=self.advice(),
        )
        token, stated_s = received.token, received.lifetime_s
        lifetime_s = UNTOLD_LIFETIME_S if stated_s is None else stated_s
        self._expires_at_s = tokens.expiry_s(token) if stated_s is None else time.time() + stated_s
        log.debug("token renewed", lifetime_s=lifetime_s)
        return token, usable_for_s(lifetime_s)


def account_key(settings: Settings) -> str:
    """Return a name for the account in the cache's paths: 32 hexadecimal digits, no secret.

    Depends on the API, on the user and on the contract configured. The user is the client id; with
    a token given by itself, its hash; with one that is renewed by others, where it comes from, so
    that it stays the same. Known without any request, so that a mount can start offline.
    """
    client = settings.client_id or ""
    if mode_of(settings) is AuthMode.TOKEN:
        match source_of(settings):
            case "token" if settings.token is not None:
                client = hashlib.sha256(settings.token.get_secret_value().encode()).hexdigest()
            case "token_file":
                client = f"{client} file {settings.token_file}"
            case "token_command":
                client = f"{client} command {settings.token_command}"
            case "secret_store":
                client = f"{client} profile {settings.profile}"
    parts = (settings.api_url, mode_of(settings).value, client, settings.contract_id or "")
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def usable_for_s(lifetime_s: float) -> float:
    """Return for how long a token that lives *lifetime_s* is used: less a margin, at least half."""
    return max(lifetime_s - RENEWAL_MARGIN_S, lifetime_s / 2)


def _sent(headers: Mapping[str, str]) -> str:
    """Return the token, or the legacy key, that *headers* carry."""
    return headers.get(TOKEN_HEADER, "").removeprefix("Bearer ")


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
            f"no credential: {variable} is not set, and no login is stored (`satfs login`; or "
            "set SATFS_CLIENT_ID and SATFS_CLIENT_SECRET, or SATFS_TOKEN)"
        )
    if not tokens.is_header_text(value):
        raise NeedsLogin(f"{variable} holds characters that no credential has")
    return value
