"""A token, parsed from text: the token itself, and the expiry that it states.

*Pure*. Every token of the vendor that was seen is a JSON web token (RFC 7519), but that is not
promised; every claim in one may be missing, and none is verified here: claims are for display, and
for the time of the next renewal.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from satfs.json_bytes import json_object

#: A year: a token with more has milliseconds, or nonsense.
MAX_S = 366 * 86400.0


@dataclass(frozen=True, slots=True)
class ReceivedToken:
    """A token, and how long it lives from now, in seconds; None when that is not known."""

    token: str = field(repr=False)
    lifetime_s: float | None = None


def parse(text: str, *, now_s: float) -> ReceivedToken | None:
    """Return the token in *text*, or None without one that a header can carry.

    Either the token alone, with or without `Bearer` in front, or the JSON that token endpoints
    send (RFC 6749 §5.1). *now_s* is the wall clock's time.
    """
    text = text.strip()
    if text.startswith("{"):
        received = of_record(json_object(text) or {})
    else:
        token = _bare(text)
        received = None if token is None else ReceivedToken(token)
    if received is None or received.lifetime_s is not None:
        return received
    expires_at_s = expiry_s(received.token)
    lifetime_s = None if expires_at_s is None else max(expires_at_s - now_s, 0.0)
    return ReceivedToken(received.token, lifetime_s)


def of_record(record: Mapping[str, Any]) -> ReceivedToken | None:
    """Return the token in what a token endpoint sends (RFC 6749 §5.1); None without one.

    The names of its fields are also written `accessToken` or `Access-Token`.
    """
    fields = {re.sub("[_-]", "", name).lower(): value for name, value in record.items()}
    text = fields.get("accesstoken")
    token = _bare(text) if isinstance(text, str) else None
    if token is None:
        return None
    return ReceivedToken(token, stated_lifetime_s(fields.get("expiresin")))


def _bare(text: str) -> str | None:
    """Return the token in *text* without `Bearer` in front; None where no header can carry it."""
    token = re.sub(r"^Bearer +", "", text.strip(), flags=re.IGNORECASE)
    return token if is_header_text(token) and " " not in token else None


def is_header_text(text: str) -> bool:
    """Return whether *text* could be the value of a header."""
    return bool(text) and text.isascii() and text.isprintable()


def stated_lifetime_s(value: Any) -> float | None:
    """Return `expires_in`, in seconds, however it was written; None when it cannot be meant."""
    try:
        lifetime_s = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return lifetime_s if 0 < lifetime_s < MAX_S else None


def expiry_s(token: str) -> float | None:
    """Return the expiry in *token*, in seconds since the epoch; None: it has none."""
    return _moment(claims(token).get("exp"))


def begins_at_s(token: str) -> float | None:
    """Return the beginning of the life of *token* as it states it, in seconds since the epoch.

    `nbf`, else `iat` (RFC 7519 §4.1.5, §4.1.6), by the issuer's clock; None: it names neither.
    """
    claimed = claims(token)
    begins_at_s = _moment(claimed.get("nbf"))
    return _moment(claimed.get("iat")) if begins_at_s is None else begins_at_s


def _moment(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e11:
        return None
    return float(value) if math.isfinite(value) else None


def subject(token: str) -> str | None:
    """Return the subject in *token*; None when it has none."""
    value = claims(token).get("sub")
    return value if isinstance(value, str) and value else None


def claims(token: str) -> dict[str, Any]:
    """Return what a JSON web token claims; nothing for any other text."""
    parts = token.split(".")
    if len(parts) != 3:
        return {}
    payload = parts[1]
    try:
        return json_object(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))) or {}
    except ValueError:
        return {}
