"""JSON for people and programs: indented, always valid, and harmless in a terminal. *Pure*.

Values that JSON cannot hold are replaced: NaN and the infinities by null (RFC 8259 §6), a lone
surrogate by its own escape. Characters that steer a terminal, or make it show a text in another
order, are written as escapes, which RFC 8259 §7 allows for any character. Foreign or stored JSON is
read such that nothing in it raises.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from satfs.errors import Garbled
from satfs.model import Json

#: DEL and C1, which terminals obey; line and paragraph separators; bidirectional marks, embeddings,
#: overrides and isolates. C0 is escaped in any JSON.
STEERING: Final = re.compile(
    "[\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]"
)


def json_bytes(value: Json) -> bytes:
    """Return *value* as indented JSON in UTF-8, with a line end; see the module for odd values.

    Raises:
        Garbled: it is nested too deeply to be written.
    """
    try:
        try:
            return _indented(_dump(value))
        except ValueError:
            # NaN or an infinity somewhere (ValueError), or half a surrogate pair, which only
            # Python's own encoder writes.
            return _written(_dump(_without_odd_numbers(value), indent=2))
    except RecursionError:
        raise Garbled("a record is nested too deeply to be written as JSON") from None


def _indented(text: str) -> bytes:
    """Return JSON *text* of one line as indented JSON.

    Python's encoder takes ten times as long when it indents (only its other half is written in C),
    and a walk renders two such files for each scene.

    Raises:
        ValueError: *text* has half a surrogate pair.
    """
    return msgspec.json.format(_written(text)[:-1], indent=2) + b"\n"


def _written(text: str) -> bytes:
    """Return JSON *text* as it is written, with a line end."""
    # Outside of strings JSON has only ASCII characters, none of them these.
    text = STEERING.sub(lambda found: f"\\u{ord(found[0]):04x}", text)
    # The only characters that UTF-8 cannot encode are lone surrogates, and Python's escape for one
    # is JSON's own.
    return text.encode("utf-8", "backslashreplace") + b"\n"


def _dump(value: Json, indent: int | None = None) -> str:
    return json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False, default=plain)


def plain(value: object) -> Json:
    """Return *value* as what `json` knows: records are mappings, not always dictionaries."""
    if isinstance(value, Mapping):
        return dict(value.items())
    raise TypeError(f"not JSON: {type(value).__name__}")


def _without_odd_numbers(value: Json) -> Json:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _without_odd_numbers(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_odd_numbers(item) for item in value]
    return value


def json_object(text: str | bytes) -> dict[str, Any] | None:
    """Return the JSON object that *text* holds; None for anything else."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
