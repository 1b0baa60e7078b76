"""JSON from the vendor: bounded before it is parsed, and such that it can be written again. *Pure*.

Memory and time of parsing are bounded by the number of values, which is counted first.
"""

from __future__ import annotations

import codecs
import json
import math
from typing import Any, Final

import msgspec

from satfs.errors import Garbled
from satfs.model import Json

#: Deepest nesting of a record. Real ones have six levels (a footprint inside a page); what goes
#: deeper would overflow the stack of a caller.
MAX_DEPTH = 64
#: Limit of values of one record. A scene of 20,000 attachments has 80,000. Parsing this many in one
#: call keeps other threads waiting for 20 ms.
MAX_RECORD_VALUES: Final = 200_000
#: Limit of digits of one integer that is read; converting more takes a time that grows with their
#: square, and Python refuses more than 4,300.
MAX_DIGITS: Final = 400
#: Bodies up to this size, with at most this many values, are parsed within 20 ms, and a page of 100
#: records is among them.
MAX_QUICK_BYTES: Final = 256 * 1024
MAX_QUICK_VALUES: Final = 20_000
#: Bytes that are brought into UTF-8 at once: a page of 32 MiB must not be held as text as well.
_PIECE_BYTES: Final = 1024 * 1024
#: How JSON writes half a pair of surrogates (and whole ones), in lower case.
_SURROGATE = b"\\ud"
#: Makes every digit a zero: then a search for zeros, which is linear, finds a long number.
_ZEROS = bytes.maketrans(b"123456789", b"0" * 9)
_LONG_NUMBER = b"0" * (MAX_DIGITS + 1)


def in_utf8(body: bytes) -> bytes:
    """Return *body*, which JSON may begin, in UTF-8 and without a byte order mark.

    JSON is UTF-8 (RFC 8259 §8.1). RFC 4627 allowed UTF-16 and UTF-32 as well, and some servers
    still send them; the mark, or the zeros between the first characters, show which one it is.
    """
    encoding = json.detect_encoding(body)
    if encoding in ("utf-8", "utf-8-sig"):
        return body.removeprefix(codecs.BOM_UTF8)
    pieces = (body[at : at + _PIECE_BYTES] for at in range(0, len(body), _PIECE_BYTES))
    return b"".join(codecs.iterencode(codecs.iterdecode(pieces, encoding, "replace"), "utf-8"))


def document(body: bytes, max_values: int = MAX_RECORD_VALUES) -> Json:
    """Return *body* as JSON, without surrogates, infinities or endless depth.

    Raises:
        Garbled: it is no JSON (an HTML page instead), nests too deeply, or has too many values.
    """
    body = in_utf8(body)
    check_size(body, max_values)
    try:
        return decoded(body)
    except (ValueError, RecursionError):
        raise no_json(body) from None


def decoded(body: bytes) -> Json:
    """Return *body* as JSON that can be written again.

    Raises:
        ValueError, RecursionError: it is not JSON, or nests too deeply.
    """
    # msgspec is three times as fast, and refuses all that would have to be mended.
    if _LONG_NUMBER not in body.translate(_ZEROS):
        try:
            value = msgspec.json.decode(body)
        except (ValueError, RecursionError):
            pass
        else:
            # Fewer brackets than that cannot nest so deeply, and looking takes as long as parsing.
            n_brackets = body.count(b"[") + body.count(b"{")
            if n_brackets <= MAX_DEPTH or not is_nested_deeper(value, MAX_DEPTH):
                return value
            raise ValueError("nested too deeply")
    value = parsed(body)
    if _SURROGATE not in body.lower() and _is_sound(value, MAX_DEPTH):
        return value
    return mended(value)


def parsed(body: bytes) -> Json:
    """Return *body* as Python reads it: to be `mended` before it is written again.

    What no JSON may hold, or no other program reads, is unknown: NaN, the infinities, and integers
    with too many digits are None.

    Raises:
        ValueError, RecursionError: it is not JSON, or nests a thousand levels deep.
    """
    return json.loads(
        body.decode("utf-8"),
        parse_constant=lambda _: None,
        parse_int=lambda digits: int(digits) if len(digits) <= MAX_DIGITS else None,
    )


def mended(value: Json) -> Json:
    """Return a copy of *value* that can be written again.

    Raises:
        ValueError: it nests too deeply.
    """
    return _mended(value, MAX_DEPTH)


def is_nested_deeper(value: Json, depth: int) -> bool:
    """Return whether *value* nests more than *depth* deep."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(depth):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return bool(level)


def max_values_in(body: bytes) -> int:
    """Return a number of values that *body* does not exceed, without parsing it.

    Each value but the first of its container follows a comma, and each container has a bracket.
    Those in texts are counted, too; real records have few.
    """
    return 1 + body.count(b",") + body.count(b"[") + body.count(b"{")


def check_size(body: bytes, max_values: int) -> None:
    """Raise `Garbled` where *body* may hold more than *max_values* values."""
    if max_values_in(body) > max_values:
        raise Garbled(f"the response has more than {max_values} values")


def no_json(body: bytes) -> Garbled:
    """Return the failure to raise; a chained cause would quote the document."""
    is_html = body[:512].lstrip().lower().startswith((b"<!doctype", b"<html", b"<head", b"<body"))
    return Garbled(f"the response is {'an HTML page' if is_html else 'no JSON'}")


def is_quick_to_parse(body: bytes) -> bool:
    """Return whether *body* is parsed within 20 ms: its bytes and its values are few."""
    return len(body) <= MAX_QUICK_BYTES and max_values_in(body) <= MAX_QUICK_VALUES


def _is_sound(value: Any, depth: int) -> bool:
    """Return whether *value* nests at most *depth* deep and all its numbers are finite."""
    if isinstance(value, float):
        return math.isfinite(value)
    if not isinstance(value, dict | list):
        return True
    inside = value.values() if isinstance(value, dict) else value
    return depth > 0 and all(
        _is_sound(inner, depth - 1) for inner in inside if not isinstance(inner, str)
    )


def _mended(value: Any, depth: int) -> Json:
    """Return a copy that can be written again: Unicode text, finite numbers, bounded depth."""
    if isinstance(value, str):
        return (
            value
            if value.isascii()
            else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        )
    if isinstance(value, dict | list):
        if depth == 0:
            raise ValueError("nested too deeply")
        if isinstance(value, list):
            return [_mended(inner, depth - 1) for inner in value]
        return {_mended(key, 0): _mended(inner, depth - 1) for key, inner in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
