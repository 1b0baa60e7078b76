"""The vendor's explanation of an error, in any of its formats, safe to display.

*Pure*. The gateway sends `message` or `Message`, the tasking service `detail` (or a list of words
per field), the token service `error_description` and `error`; a load balancer sends HTML.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping

from satfs.api.json_document import in_utf8
from satfs.errors import SatfsError, Unreachable
from satfs.model import Json
from satfs.redaction import for_people

_KEYS = ("message", "Message", "detail", "error_description", "error")
#: Bytes of a body that are looked at: longer errors are ignored.
_LOOKED_AT = 64 * 1024
_TITLE = re.compile(r"<(title|h1)[^>]*>(.*?)</\1", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"<[^>]*>")


class RefusedByPage(Unreachable):
    """A 403 that is not the service's own: another try may succeed; if none does, it is refused.

    Proxies, firewalls and content delivery networks send one, for a moment or for good. It is no
    judgement about a credential or a thing.
    """


def is_page(headers: Mapping[str, str], body: bytes) -> bool:
    """Return whether a refusal is no JSON, which each of the services sends."""
    return "json" not in headers.get("content-type", "json").lower() or body[:1] == b"<"


def error_text(body: bytes, secrets: Iterable[str] = ()) -> str:
    """Return the vendor's own words in *body*, or "" when it has none.

    One line, cut short, control characters removed, *secrets* and signatures taken out.
    """
    text = in_utf8(body[:_LOOKED_AT]).decode("utf-8", "replace")
    try:
        value: Json = json.loads(text)
    except (ValueError, RecursionError):
        return for_people(_of_html(text[:4096]) if text.lstrip()[:1] == "<" else text, secrets)
    return for_people(_of_json(value), secrets)


def response_text(sender: str, status: int, body: bytes, secrets: Iterable[str]) -> str:
    """Return that *sender* responded with *status*, and its own words in *body* (`error_text`)."""
    words = error_text(body, secrets)
    return f"{sender} responded with {status}" + (f": {words}" if words else "")


def _of_json(value: Json) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "; ".join(filter(None, (_of_json(inner) for inner in value[:3])))
    if not isinstance(value, dict):
        return ""
    for key in _KEYS:
        inner = value.get(key)
        if isinstance(inner, str) and inner:
            return inner
        if isinstance(inner, dict | list):
            parsed = _of_json(inner)
            if parsed:
                return parsed
    # A refused field: {"status": ["not a valid choice"]}.
    fields = (
        f"{key}: {parsed}"
        for key, inner in list(value.items())[:3]
        if isinstance(inner, list) and (parsed := _of_json(inner))
    )
    return "; ".join(fields)


def _of_html(text: str) -> str:
    title = _TITLE.search(text)
    parsed = _TAG.sub(" ", title.group(2)) if title else ""
    return f"an HTML page {parsed!r}" if parsed.strip() else "an HTML page"


def prefixed(what: str, failure: SatfsError) -> str:
    """Return the message of *failure* with *what* was requested in front, once."""
    text = str(failure)
    return text if text.startswith(what) else f"{what}: {text}"
