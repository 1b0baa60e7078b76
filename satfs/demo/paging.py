"""Pages as Django REST framework's limit-offset pagination makes them.

A `limit` that is missing, zero, negative or no number is the default; one too large is cut without
a word; an `offset` past the end gives an empty page; `next` and `previous` are absolute.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode


@dataclass(frozen=True)
class PageLimits:
    """The number of entries of a page: without a `limit` in the request, and at most."""

    default: int = 100
    maximum: int = 500


def _whole_number(text: str | None) -> int | None:
    try:
        return int(text or "")
    except ValueError:
        return None


def page_window(query: Mapping[str, str], limits: PageLimits) -> tuple[int, int]:
    """Return limit and offset as the framework understands the query."""
    limit = _whole_number(query.get("limit"))
    offset = _whole_number(query.get("offset"))
    return (
        min(limit, limits.maximum) if limit is not None and limit > 0 else limits.default,
        offset if offset is not None and offset >= 0 else 0,
    )


def page_url(base: str, path: str, query: Mapping[str, str], changes: Mapping[str, Any]) -> str:
    """Return an absolute URL: the query with *changes*, None removing, sorted as Django does."""
    merged: dict[str, Any] = {**query, **changes}
    kept = sorted((name, value) for name, value in merged.items() if value is not None)
    return f"{base}{path}" + (f"?{urlencode(kept)}" if kept else "")


def page(
    entries: Sequence[Any], base: str, path: str, query: Mapping[str, str], limits: PageLimits
) -> dict[str, Any]:
    """Return the envelope of the page that *query* requests."""
    limit, offset = page_window(query, limits)
    after, before = offset + limit, offset - limit
    following = previous = None
    if after < len(entries):
        following = page_url(base, path, query, {"limit": limit, "offset": after})
    if offset > 0:
        back = {"limit": limit, "offset": before if before > 0 else None}
        previous = page_url(base, path, query, back)
    return {
        "count": len(entries),
        "next": following,
        "previous": previous,
        "results": list(entries[offset:after]),
    }
