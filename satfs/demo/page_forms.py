"""Pages of a listing in the forms and encodings that other services send. *Pure*."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from satfs.demo.faults import Fault
from satfs.demo.responses import Response, json_response

#: A page's entries, its count and the next page's address, if any, in the form of that name.
FORMS: Final[Mapping[str, Callable[[list[Any], int, str | None], Any]]] = {
    "items": lambda entries, n, following: {
        "items": entries,
        "total": n,
        "next_url": following,
        "errors": [],
    },
    "json-api": lambda entries, n, following: {
        "data": entries,
        "links": {"self": "x", "next": following},
        "meta": {"total": n},
    },
    "hal": lambda entries, n, following: {
        "content": entries,
        "_links": {"next": {"href": following}} if following else {"prev": {"href": "x"}},
        "totalElements": n,
    },
    "stac": lambda entries, n, following: {
        "type": "FeatureCollection",
        "features": entries,
        "numberMatched": n,
        "numberReturned": len(entries),
        "links": [
            {"rel": "self", "href": "x"},
            *([{"rel": "next", "href": following}] if following else []),
        ],
    },
    "tastypie": lambda entries, n, following: {
        "meta": {"next": following, "total_count": n},
        "objects": entries,
    },
    "counted": lambda entries, n, following: {"records": entries, "count": n},
}


def reformed(response: Response, fault: Fault) -> Response:
    """Return a page in the form of another service; any other response as it is."""
    value = _json_in(response)
    if isinstance(value, list):
        return json_response(FORMS[fault["form"]](value, len(value), None))
    if not isinstance(value, dict) or not isinstance(value.get("results"), list):
        return response
    form = FORMS[fault["form"]]
    return json_response(form(value["results"], value.get("count", 0), value.get("next")))


def first_entry(by: str, query: Mapping[str, str], length: int, offset: int) -> int:
    """Return which entry is the first of a page, where the fault `bare-list` is on."""
    text = query.get("page", "")
    number = int(text) if text.isascii() and text.isdigit() else None
    match by:
        case "page":
            return length * max(0, (number or 1) - 1)
        case "page-from-0":
            return length * (number or 0)
        case "nothing":
            return 0
    return offset


def encoded(response: Response, fault: Fault) -> Response:
    """Return the JSON of a response in another encoding."""
    value = _json_in(response)
    if value is None:
        return response
    body = json.dumps(value, ensure_ascii=False).encode(fault["encoding"])
    return replace(response, body=body)


def _json_in(response: Response) -> Any:
    if response.headers.get("Content-Type") != "application/json":
        return None
    return json.loads(response.body) if isinstance(response.body, bytes) else None
