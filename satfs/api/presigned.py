"""Presigned URLs: from the response to a sign request, with the expiry that the URL states.

*Pure*.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import parse_qsl, urlsplit

from satfs.api.json_document import document, in_utf8
from satfs.api.record_parsers import moment
from satfs.errors import Garbled
from satfs.model import Json, Link
from satfs.net.addresses import escaped, resolved

_KEYS = ("url", "download_url", "signed_url", "presigned_url", "href", "link", "location")
#: Levels of a response in which a link is looked for, and entries of a list that are looked at.
_MAX_LEVELS = 3
_MAX_ENTRIES = 8
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
    body = in_utf8(body)
    if _BARE_URL.fullmatch(body):
        return from_url(body.strip().decode("ascii"))
    value = (_found(document(body), _MAX_LEVELS) or "").strip()
    if not value:
        raise Garbled("the response holds no link")
    return from_url(resolved(request_url, value) if value.startswith("/") else escaped(value))


def _found(value: Json, n_levels: int) -> str | None:
    """Return the text under the first of the names for a link, at most *n_levels* down."""
    if isinstance(value, str) or n_levels == 0:
        return value if isinstance(value, str) else None
    inner: list[Json] = []
    if isinstance(value, dict):
        fields = {key.lower(): each for key, each in value.items()}
        named = [fields[key] for key in _KEYS if fields.get(key)]
        if (text := next((each for each in named if isinstance(each, str)), None)) is not None:
            return text
        inner = [each for each in value.values() if isinstance(each, dict | list)]
    elif isinstance(value, list):
        inner = [each for each in value if isinstance(each, dict | list)]
    found = (_found(each, n_levels - 1) for each in inner[:_MAX_ENTRIES])
    return next((each for each in found if each), None)


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
    if "sig" in query and (end := moment(query.get("se"))) is not None:
        return end.timestamp()  # a shared access signature of Azure
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
