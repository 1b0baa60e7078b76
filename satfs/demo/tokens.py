"""The account: its credentials and contracts, and the tokens issued to it."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Final

from satfs.demo.faults import Fault, named
from satfs.demo.responses import Response, json_response, oauth_error

#: The audience of tasking and delivery; the final slash belongs to it (API documentation).
AUDIENCE: Final = "https://api.satellogic.com/"
SCOPE: Final = "api:tasking api:delivery"


@dataclass(frozen=True)
class DemoAccount:
    """The demo's customer. Contracts are (id, name); legacy keys are the old header."""

    client_id: str = "demo-client"
    client_secret: str = field(default="demo-secret-never-to-be-shown", repr=False)
    contracts: tuple[tuple[str, str], ...] = (
        ("cont.3f0c2a7e-5a41-4f5e-9d0b-6a1f6f0f7c21", "Imagery 2026"),
    )
    accepts_legacy_keys: bool = False

    @property
    def contract_id(self) -> str:
        """Return the first contract's id."""
        return self.contracts[0][0] if self.contracts else ""

    @property
    def legacy_header(self) -> str:
        """Return the deprecated header's value."""
        return f"Key,Secret {self.client_id},{self.client_secret}"


class CredentialState(Enum):
    """The state of the credential in a header."""

    NONE = auto()
    TOKEN = auto()
    LEGACY = auto()
    DENIED = auto()


class TokenOffice:
    """Gives out tokens and remembers them. Not pure: every token is new."""

    def __init__(self, account: DemoAccount, lifetime_s: float = 86_400.0) -> None:
        self.account = account
        self.lifetime_s = lifetime_s
        self._expiry_by_token: dict[str, float] = {}
        #: When tokens begin that are not valid at once, and the status until then.
        self._begins_by_token: dict[str, tuple[float, int]] = {}
        #: Every token that was issued, for the search for leaks.
        self.given_out: list[str] = []

    def issue(self, now_s: float) -> str:
        """Return a new token in the shape of a JWT."""
        claims = {"iss": "https://auth.demo.invalid/", "aud": AUDIENCE, "scope": SCOPE}
        claims |= {"sub": f"{self.account.client_id}@clients", "jti": secrets.token_hex(8)}
        parts = [
            base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()
            for part in ({"alg": "RS256", "typ": "JWT"}, claims)
        ]
        signature = hashlib.sha256(".".join(parts).encode()).digest() + secrets.token_bytes(32)
        token = ".".join((*parts, base64.urlsafe_b64encode(signature).rstrip(b"=").decode()))
        self._expiry_by_token[token] = now_s + self.lifetime_s
        self.given_out.append(token)
        return token

    def revoke_all(self) -> None:
        """Make every token given out so far worthless."""
        self._expiry_by_token = {}

    def standing(self, header: str | None, now_s: float) -> CredentialState:
        """Return what the value of an `authorizationToken` header is worth at *now_s*."""
        if not header:
            return CredentialState.NONE
        scheme, _, value = header.partition(" ")
        if scheme == "Bearer":
            expires_at_s = self._expiry_by_token.get(value, 0.0)
            begins_at_s, status = self._begins_by_token.get(value, (0.0, 0))
            if now_s < begins_at_s:
                return CredentialState.DENIED if status == 403 else CredentialState.NONE
            return CredentialState.TOKEN if now_s < expires_at_s else CredentialState.NONE
        if scheme == "Key,Secret":
            good = self.account.accepts_legacy_keys and header == self.account.legacy_header
            return CredentialState.LEGACY if good else CredentialState.DENIED
        return CredentialState.NONE

    def respond(self, body: bytes, now_s: float, faults: Sequence[Fault] = ()) -> Response:
        """Return the token endpoint's response to a request's body (shapes of Auth0)."""
        try:
            form: Mapping[str, Any] = json.loads(body)
        except ValueError:
            return oauth_error(400, "invalid_request", "the body must be JSON")
        if not isinstance(form, dict):
            return oauth_error(400, "invalid_request", "the body must be a JSON object")
        for name in ("grant_type", "client_id", "client_secret", "audience"):
            if not form.get(name):
                return oauth_error(400, "invalid_request", f"Missing required parameter: {name}")
        if form["grant_type"] != "client_credentials":
            return oauth_error(403, "unauthorized_client", "Grant type not allowed for the client.")
        given = (form["client_id"], form["client_secret"])
        if given != (self.account.client_id, self.account.client_secret):
            return oauth_error(401, "access_denied", "Unauthorized")
        if form["audience"] != AUDIENCE:
            text = f'Client is not authorized to access "{form["audience"]}".'
            return oauth_error(403, "access_denied", text)
        token = self.issue(now_s)
        if (early := named(faults, "token-not-yet-valid")) is not None:
            self._begins_by_token[token] = (now_s + early["seconds"], early["status"])
        granted: dict[str, Any] = {"access_token": token, "scope": SCOPE}
        granted |= {"expires_in": int(self.lifetime_s), "token_type": "Bearer"}
        return json_response(granted)
