"""Presigned URLs: AWS Signature Version 4 in the query string, made and checked.

The algorithm is the documented one ("Authenticating Requests: Using Query Parameters", Amazon S3
API reference), so any S3 tool that presigns or verifies agrees with it. The signature covers
method, path, every query parameter, and the host.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from functools import lru_cache
from typing import Final
from urllib.parse import quote, urlsplit

ALGORITHM: Final = "AWS4-HMAC-SHA256"
#: Longest lifetime S3 accepts, in seconds: one week.
MAX_LIFETIME_S: Final = 604_800
#: How far S3 lets a client's clock run ahead, in seconds.
MAX_SKEW_S: Final = 900
_STAMP: Final = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True)
class SigningKey:
    """A key pair, and the session token when it is a temporary one."""

    key_id: str
    secret: str = field(repr=False)
    session_token: str = field(default="", repr=False)
    region: str = "eu-west-1"


class SignatureState(Enum):
    """The state of a presigned request: right, or in which way wrong."""

    GOOD = auto()
    UNSIGNED = auto()
    MALFORMED = auto()
    UNKNOWN_KEY = auto()
    NOT_YET = auto()
    EXPIRED = auto()
    MISMATCH = auto()


@dataclass(frozen=True)
class Check:
    """The result of a check, and the two moments in a store's error, in seconds since the epoch."""

    state: SignatureState
    signed_at_s: float = 0.0
    lifetime_s: int = 0
    canonical_request: str = ""
    key_id: str = ""

    @property
    def expires_at_s(self) -> float:
        """Return the moment from which the URL is refused."""
        return self.signed_at_s + self.lifetime_s


def _quoted(text: str) -> str:
    return quote(text, safe="-_.~")


def _canonical_query(pairs: Sequence[tuple[str, str]]) -> str:
    signed = sorted((_quoted(name), _quoted(value)) for name, value in pairs)
    return "&".join(f"{name}={value}" for name, value in signed)


def _canonical(method: str, raw_path: str, query: str, host: str) -> str:
    return "\n".join((method, raw_path, query, f"host:{host}", "", "host", "UNSIGNED-PAYLOAD"))


def _signature(key: SigningKey, stamp: str, canonical: str) -> str:
    scope = f"{stamp[:8]}/{key.region}/s3/aws4_request"
    hashed = hashlib.sha256(canonical.encode()).hexdigest()
    text = "\n".join((ALGORITHM, stamp, scope, hashed))
    derived = _derived_key(key.secret, stamp[:8], key.region)
    return hmac.digest(derived, text.encode(), "sha256").hex()


@lru_cache(maxsize=64)
def _derived_key(secret: str, day: str, region: str) -> bytes:
    """Return the key for all links of one *day*: a page of a listing may hold a thousand links."""
    derived = f"AWS4{secret}".encode()
    for part in (day, region, "s3", "aws4_request"):
        derived = hmac.digest(derived, part.encode(), "sha256")
    return derived


def presign(
    url: str,
    key: SigningKey,
    *,
    now_s: float,
    lifetime_s: int,
    overrides: Sequence[tuple[str, str]] = (),
) -> str:
    """Return *url* (scheme, host and quoted path) signed for GET from *now_s* on.

    *overrides* are further signed parameters, for example `response-content-disposition`.
    """
    parts = urlsplit(url)
    stamp = datetime.fromtimestamp(now_s, UTC).strftime(_STAMP)
    canonical_query, query = _queries(key, stamp, lifetime_s, tuple(overrides))
    canonical = _canonical("GET", parts.path, canonical_query, parts.netloc)
    signature = _signature(key, stamp, canonical)
    address = f"{parts.scheme}://{parts.netloc}{parts.path}"
    return f"{address}?{query}&X-Amz-Signature={signature}"


@lru_cache(maxsize=64)
def _queries(
    key: SigningKey, stamp: str, lifetime_s: int, overrides: tuple[tuple[str, str], ...]
) -> tuple[str, str]:
    """Return the query of a link as it is signed, and as it is sent without its signature.

    All links of one second have the same.
    """
    pairs = [
        ("X-Amz-Algorithm", ALGORITHM),
        ("X-Amz-Credential", f"{key.key_id}/{stamp[:8]}/{key.region}/s3/aws4_request"),
        ("X-Amz-Date", stamp),
        ("X-Amz-Expires", str(lifetime_s)),
        ("X-Amz-SignedHeaders", "host"),
        *overrides,
    ]
    if key.session_token:
        pairs.append(("X-Amz-Security-Token", key.session_token))
    return _canonical_query(pairs), "&".join(f"{_quoted(n)}={_quoted(v)}" for n, v in pairs)


def check(
    method: str,
    raw_path: str,
    pairs: Sequence[tuple[str, str]],
    host: str,
    *,
    keys: Sequence[SigningKey],
    now_s: float,
) -> Check:
    """Return the state of a presigned request that arrives at a store at *now_s*.

    The validity is that of the request's start: S3 lets a transfer under way go on. The order of
    the checks is that of S3: form, key, time, signature.
    """
    given = dict(pairs)
    if "X-Amz-Signature" not in given or "X-Amz-Algorithm" not in given:
        return Check(SignatureState.UNSIGNED)
    try:
        stamp = given["X-Amz-Date"]
        signed_at = datetime.strptime(stamp, _STAMP).replace(tzinfo=UTC)
        lifetime_s = int(given["X-Amz-Expires"])
        credential = given["X-Amz-Credential"].split("/")
    except (KeyError, ValueError):
        return Check(SignatureState.MALFORMED)
    well_formed = (
        len(pairs) == len(given)
        and given["X-Amz-Algorithm"] == ALGORITHM
        and given.get("X-Amz-SignedHeaders") == "host"
        and 1 <= lifetime_s <= MAX_LIFETIME_S
        and len(credential) == 5
        and credential[1] == stamp[:8]
    )
    if not well_formed:
        return Check(SignatureState.MALFORMED)
    times = (signed_at.timestamp(), lifetime_s)
    key = next((key for key in keys if key.key_id == credential[0]), None)
    if key is None:
        return Check(SignatureState.UNKNOWN_KEY, *times)
    now = datetime.fromtimestamp(now_s, UTC)
    if now < signed_at - timedelta(seconds=MAX_SKEW_S):
        return Check(SignatureState.NOT_YET, *times)
    if now >= signed_at + timedelta(seconds=lifetime_s):
        return Check(SignatureState.EXPIRED, *times)
    unsigned = [(name, value) for name, value in pairs if name != "X-Amz-Signature"]
    canonical = _canonical(method, raw_path, _canonical_query(unsigned), host)
    made = _signature(key, stamp, canonical).encode()
    good = hmac.compare_digest(made, given["X-Amz-Signature"].encode())
    if key.session_token != given.get("X-Amz-Security-Token", ""):
        good = False
    state = SignatureState.GOOD if good else SignatureState.MISMATCH
    return Check(state, *times, canonical, key.key_id)
