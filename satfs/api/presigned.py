"""Presigned URLs: from the response to a sign request, with the expiry that the URL states.

*Pure*.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import parse_qsl, urlsplit

from satfs.api.json_document import document
from satfs.errors import Garbled
from satfs.model import Json, Link
from satfs.net.addresses import resolved

_KEYS = ("url", "download_url", "href", "link")
#: A response that is the URL and nothing else, in the characters of RFC 3986 §2.
_BARE_URL = re.compile(rb"\s*https?://[!#-;=?-\[\]_a-z~]+\s*")
REDIRECTS = frozenset({301, 302, 303, 307, 308})
#: Longest validity that a SigV4 URL may have (AWS: seven days). More is taken for nonsense.
_MAX_LIFETIME_S = 604_800.0


def link(status: int, headers: Mapping[str, str], body: bytes, *, request_url: str) -> Link:
    """Return the link in a response: JSON with a `url`, the URL as plain text, or a redirect.

    `redirect=false` requests JSON; a server that ignores it responds with a `Location`. Nothing is
    checked here about where the link leads (`satfs.net.addresses.LinkRule` does).

    Raises:
        Garbled: there is no link in it.
    """
    if status in REDIRECTS:
        location = headers.get("location", "").strip()
        if not location:
            raise Garbled("the response is a redirect without an address")
        return from_url(resolved(request_url, location))
    if _BARE_URL.fullmatch(body):
        return from_url(body.strip().decode("ascii"))
    value = document(body)
    if isinstance(value, dict):
        value = next((value[key] for key in _KEYS if value.get(key)), None)
    if not isinstance(value, str) or not value.strip():
        raise Garbled("the response holds no link")
    value = value.strip()
    return from_url(resolved(request_url, value) if value.startswith("/") else value)


def from_url(url: str) -> Link:
    """Return *url* as a link, with its expiry as far as its query has one."""
    try:
        query = dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))
    except ValueError:
        return Link(url)
    return Link(url, _expires_at_s({key.lower(): value for key, value in query.items()}))


def _expires_at_s(query: Mapping[str, Json]) -> float | None:
    for vendor in ("x-amz", "x-goog"):
        begin = _moment(query.get(f"{vendor}-date"))
        lifetime_s = _number(query.get(f"{vendor}-expires"))
        if begin is not None and lifetime_s is not None and lifetime_s <= _MAX_LIFETIME_S:
            return begin + lifetime_s
    # SigV2 and CloudFront have the moment itself, in seconds since the epoch.
    return _number(query.get("expires"))


def _moment(text: str | None) -> float | None:
    try:
        return datetime.strptime(text or "", "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None


def _number(text: str | None) -> float | None:
    if text is None or not (text.isascii() and text.isdigit()) or len(text) > 15:
        return None
    return float(text)
