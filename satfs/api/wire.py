"""From response bodies to records; every irregularity of the vendor's JSON is handled here.

*Pure*. Strict in one thing: an answer that is not what was asked for is `Garbled`, never an empty
listing. Lenient in all else: fields may be missing, null or of another type, ids are numbers or
text, unknown fields are kept. For any bytes whatever, each function returns records or raises
`Garbled`.

No record keeps a signed link, and a scene's record keeps no link at all: they are secrets while
they live, and dead when they are needed.

What an answer costs is bounded before it is parsed, by its number of values and by the bytes of
each record. A page is parsed record by record, so that other threads run in between.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, TypeVar, cast

import msgspec

from satfs.api.packed import Packer, held_bytes
from satfs.api.scrub import is_link, is_secret_key, is_secret_like, may_hold_secrets
from satfs.errors import Garbled
from satfs.model import (
    DELIVERY_ZIP,
    Attachment,
    AttachmentName,
    Capture,
    CaptureId,
    Contract,
    ContractId,
    Json,
    Scene,
    SceneId,
    Task,
    TaskId,
)

R = TypeVar("R")

#: Deepest nesting of a record. Real ones have six levels (a footprint inside a page); what goes
#: deeper would overflow whoever walks it.
MAX_DEPTH = 64
#: Most values of one record. A scene of 20,000 attachments has 80,000. Parsing so many in one call
#: keeps other threads waiting for 20 ms.
MAX_RECORD_VALUES: Final = 200_000
#: Most values of a page that may be parsed in one call, or split without looking at its entries.
MAX_VALUES: Final = 300_000
#: Most values and objects of a page, read entry by entry. 32 MiB of footprints: 4 million values;
#: 10,000 scenes with six attachments each: 100,000 objects.
MAX_PAGE_VALUES: Final = 5_000_000
MAX_PAGE_OBJECTS: Final = 500_000
#: Most digits of one integer; converting more takes a time that grows with their square.
MAX_DIGITS: Final = 400
#: Most bytes of `count` or `next` in a page.
MAX_FIELD_BYTES: Final = 64 * 1024
#: Longest name of a field for which it is remembered whether it names a secret.
MAX_CACHED_KEY_CHARACTERS: Final = 64
#: Longest id, in characters; ids are path segments of URLs, which servers cap at about 8 kB.
MAX_ID_CHARACTERS = 1024
#: Moments outside of these are taken for nonsense; the upper one is the last full year that
#: nanoseconds in 64 bits can tell.
_FIRST_MOMENT = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_MOMENT = datetime(2262, 1, 1, tzinfo=UTC)
#: Numbers above this are milliseconds, not seconds (as seconds it would be the year 5138).
_MILLISECONDS_FROM = 1e11

_ENTRY_LISTS = ("results", "features")
#: How JSON writes half a pair of surrogates (and whole ones), in lower case.
_SURROGATE = b"\\ud"
#: Makes every digit a zero: then a search for zeros, which is linear, finds a long number.
_ZEROS = bytes.maketrans(b"123456789", b"0" * 9)
_LONG_NUMBER = b"0" * (MAX_DIGITS + 1)
_BOM = b"\xef\xbb\xbf"
_MISSING: Final = object()


class _Envelope(msgspec.Struct):
    """What is read of a page, undecoded; empty where a field is missing. Others are skipped."""

    results: msgspec.Raw = msgspec.Raw()
    features: msgspec.Raw = msgspec.Raw()
    count: msgspec.Raw = msgspec.Raw()
    next: msgspec.Raw = msgspec.Raw()


class _AnyObject(msgspec.Struct):
    """An entry none of whose fields is read."""


_ENVELOPE = msgspec.json.Decoder(_Envelope)
_LIST = msgspec.json.Decoder(list[msgspec.Raw])
_OBJECTS = msgspec.json.Decoder(list[_AnyObject])


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a listing: its entries, or the records made of them.

    *tells_next* is False when the answer has no `next` at all. *n_unusable* entries are left out.
    """

    entries: tuple[Any, ...]
    count: int | None = None
    next: str | None = None
    tells_next: bool = True
    n_unusable: int = 0
    #: About what the records take in memory; 0 for entries that are not records yet.
    n_bytes: int = 0

    @property
    def n_sent(self) -> int:
        """Return the number of entries that were sent, usable or not."""
        return len(self.entries) + self.n_unusable


def document(body: bytes, max_values: int = MAX_RECORD_VALUES) -> Json:
    """Return *body* as JSON, without surrogates, infinities or endless depth.

    Raises:
        Garbled: it is no JSON (an HTML page, say), nests too deeply, or has too many values.
    """
    _check_size(body, max_values)
    try:
        return _decoded(body)
    except (ValueError, RecursionError):
        raise _no_json(body) from None


def page(body: bytes) -> Page:
    """Return the page in *body*: an envelope with `results` or `features`, or a bare list.

    Raises:
        Garbled: it is none of these.
    """
    sent = _sent(body)
    return replace(sent, entries=tuple(_entry(raw) for raw in sent.entries))


def page_of(body: bytes, reader: Callable[[Json], R | None]) -> Page:
    """Return the page in *body* with the records that *reader* makes of its entries.

    Entries without use (no id) are left out, and counted. The records are packed.

    Raises:
        Garbled: it is no page, or none of its entries is of any use. Taken for a listing, such an
            answer would make everything disappear that was listed before.
    """
    sent = _sent(body)
    kept, n_unusable = records((_entry(raw) for raw in sent.entries), reader)
    if sent.entries and not kept:
        raise Garbled("no entry of the answer's page has an id")
    return replace(sent, entries=kept, n_unusable=n_unusable, n_bytes=held_bytes(kept))


def one(body: bytes) -> Mapping[str, Json]:
    """Return the single object in *body*.

    Raises:
        Garbled: it is no object.
    """
    value = document(body)
    if not isinstance(value, dict):
        raise Garbled("the answer is not a single record")
    return cast(Mapping[str, Json], without_secrets(value) if may_hold_secrets(body) else value)


def contract(entry: Json) -> Contract | None:
    """Return the contract in *entry*, or None when it has no id."""
    record = _record(entry)
    contract_id = _id(record, "contract_id", "id")
    if contract_id is None:
        return None
    return Contract(ContractId(contract_id), _text(record, "name", "contract_name") or "")


def task(entry: Json) -> Task | None:
    """Return the task in *entry*, or None when it has no id."""
    record = _record(entry)
    task_id = _id(record, "task_id", "id")
    if task_id is None:
        return None
    return Task(
        task_id=TaskId(task_id),
        name=_text(record, "task_name", "name"),
        status=_text(record, "status"),
        created_at=moment(record.get("created_time", record.get("created_at"))),
        record=record,
    )


def capture(entry: Json) -> Capture | None:
    """Return the capture in *entry*, or None when it has no id."""
    record = _record(entry)
    capture_id = _id(record, "capture_id", "id")
    if capture_id is None:
        return None
    return Capture(
        capture_id=CaptureId(capture_id),
        status=_text(record, "status"),
        record=record,
    )


def scene(entry: Json) -> Scene | None:
    """Return the scene in *entry*, or None when it has no id."""
    record = _record(entry)
    scene_id = _id(record, "scene_id", "id")
    if scene_id is None:
        return None
    capture_id = _id(record, "sceneset_id", "capture_id")
    attachments = _attachments(record.get("attachments"), scene_id)
    record = without_links(record)
    revision = record.get("last_modified")
    return Scene(
        scene_id=SceneId(scene_id),
        capture_id=None if capture_id is None else CaptureId(capture_id),
        product_name=_text(record, "productname", "product_name"),
        timestamp=moment(record.get("timestamp")),
        revision=revision if isinstance(revision, str) else "",
        attachments=attachments,
        record=record,
    )


def records(
    entries: Iterable[Json], reader: Callable[[Json], R | None]
) -> tuple[tuple[R, ...], int]:
    """Return what *reader* makes of *entries*, packed together, and how many had no use (no id).

    Takes one entry at a time: a whole page of them would take ten times the memory of its JSON.
    """
    kept: list[R] = []
    n_read = 0
    packer = Packer()
    for entry in entries:
        n_read += 1
        found = reader(entry)
        if isinstance(found, Task | Capture | Scene):
            found = replace(found, record=packer.add(found.record))
        if found is not None:
            kept.append(found)
    packer.finish()
    return tuple(kept), n_read - len(kept)


def moment(value: Json) -> datetime | None:
    """Return the moment that *value* tells, in UTC; None when it tells none worth believing.

    Takes ISO 8601 with or without zone (then UTC) and fractions, and seconds or milliseconds since
    the epoch.
    """
    try:
        if isinstance(value, str):
            told = datetime.fromisoformat(value.strip())
            told = told.replace(tzinfo=UTC) if told.tzinfo is None else told.astimezone(UTC)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            seconds = value / 1000 if abs(value) >= _MILLISECONDS_FROM else value
            told = datetime.fromtimestamp(seconds, UTC)
        else:
            return None
    except (ValueError, OverflowError, OSError):
        return None
    return told if _FIRST_MOMENT <= told < _LAST_MOMENT else None


def without_secrets(value: Json) -> Json:
    """Return a copy of *value* without signed links, tokens and the like."""
    if isinstance(value, dict):
        return {
            key: without_secrets(inner) if isinstance(inner, dict | list) else inner
            for key, inner in value.items()
            if not (_is_secret_field(key) or (isinstance(inner, str) and is_secret_like(inner)))
        }
    if isinstance(value, list):
        return [
            without_secrets(inner) if isinstance(inner, dict | list) else inner
            for inner in value
            if not (isinstance(inner, str) and is_secret_like(inner))
        ]
    return value


def without_links(value: Json) -> Json:
    """Return a copy of *value* without links of any kind."""
    if isinstance(value, dict):
        return {
            key: without_links(inner) if isinstance(inner, dict | list) else inner
            for key, inner in value.items()
            if not (isinstance(inner, str) and is_link(inner))
        }
    if isinstance(value, list):
        return [
            without_links(inner) if isinstance(inner, dict | list) else inner
            for inner in value
            if not (isinstance(inner, str) and is_link(inner))
        ]
    return value


@lru_cache(maxsize=1024)
def _is_known_secret_field(key: str) -> bool:
    return is_secret_key(key) or is_secret_like(key)


def _is_secret_field(key: str) -> bool:
    """Return whether a field of that name is dropped. The names repeat in each record."""
    if len(key) > MAX_CACHED_KEY_CHARACTERS:
        return is_secret_key(key) or is_secret_like(key)
    return _is_known_secret_field(key)


def _sent(body: bytes) -> Page:
    """Return the page in *body*, its entries as the bytes that were sent, or as values.

    They are values where only Python's own parser can read the answer: it knows NaN, for one.
    """
    _check_size(body, MAX_PAGE_VALUES)
    content = body.removeprefix(_BOM)
    entries = _split(content)
    if entries is not None:
        return Page(tuple(entries), tells_next=False)
    try:
        envelope: _Envelope | dict[str, Json] = _ENVELOPE.decode(content)
    except (ValueError, RecursionError):
        top = document(body, MAX_VALUES)
        if isinstance(top, list):
            return Page(tuple(top), tells_next=False)
        if not isinstance(top, dict):
            raise Garbled("the answer is no page of a listing") from None
        envelope = top
    fields = _fields(envelope)
    sent = next((fields[key] for key in _ENTRY_LISTS if key in fields), _MISSING)
    if sent is _MISSING:
        raise Garbled("the answer is no page of a listing")
    count = _count(_field(fields.get("count")))
    entries = _entries(sent)
    if entries is None and count == 0:
        entries = []
    if entries is None:
        raise Garbled("the answer's page holds no list")
    following = _field(fields.get("next"))
    if following is not None and not isinstance(following, str):
        raise Garbled("the answer's next page has no address")
    return Page(tuple(entries), count, following or None, "next" in fields)


def _fields(envelope: _Envelope | dict[str, Json]) -> dict[str, Json]:
    """Return the fields that an envelope has; undecoded, unless it came as values."""
    if isinstance(envelope, dict):
        return envelope
    fields = {name: getattr(envelope, name) for name in envelope.__struct_fields__}
    return {name: raw for name, raw in fields.items() if memoryview(raw).nbytes}


def _entries(sent: Json) -> list[Json] | None:
    """Return the entries in a field of an envelope; None when it holds no list."""
    if isinstance(sent, msgspec.Raw):
        entries = _split(sent)
        if entries is not None:
            return entries
        sent = _field(sent)
    return sent if isinstance(sent, list) else None


def _split(content: bytes | msgspec.Raw) -> list[Json] | None:
    """Return the entries of a list, undecoded; None where *content* is no list, or broken.

    Raises:
        Garbled: it has too many entries. They are counted before a list of them is made, which
            would take twenty times the bytes of *content*.
    """
    text = bytes(content)
    if not text[:64].lstrip().startswith(b"["):
        return None
    if max_values_in(text) > MAX_VALUES:
        if text.count(b"{") > MAX_PAGE_OBJECTS:
            raise Garbled(f"the answer has more than {MAX_PAGE_OBJECTS} objects")
        try:
            _OBJECTS.decode(text)
        except (ValueError, RecursionError):
            raise Garbled("an entry of the answer's page is no object") from None
    try:
        return cast(list[Json], _LIST.decode(text))
    except (ValueError, RecursionError):
        return None


def _field(value: Json) -> Json:
    """Return a field of a page; None for one that cannot be read, or that is too large."""
    if not isinstance(value, msgspec.Raw):
        return value
    content = bytes(value)
    if len(content) > MAX_FIELD_BYTES:
        raise Garbled("a field of the answer's page is too long")
    try:
        return _decoded(content)
    except (ValueError, RecursionError):
        raise _no_json(content) from None


def _entry(sent: Json) -> Json:
    """Return one entry of a page, without secrets.

    Raises:
        Garbled: it cannot be read, or has more values than a record may have.
    """
    if not isinstance(sent, msgspec.Raw):
        return without_secrets(sent)
    content = bytes(sent)
    value = document(content)
    return without_secrets(value) if may_hold_secrets(content) else value


def _decoded(body: bytes) -> Json:
    """Return *body* as JSON that can be written again.

    Raises:
        ValueError, RecursionError: it is none, or nests too deeply.
    """
    # msgspec is three times as fast, and refuses all that would have to be mended.
    if _LONG_NUMBER not in body.translate(_ZEROS):
        try:
            value = msgspec.json.decode(body)
        except (ValueError, RecursionError):
            pass
        else:
            if not is_nested_deeper(value, MAX_DEPTH):
                return value
            raise ValueError("nested too deeply")
    value = json.loads(
        body.decode("utf-8-sig"), parse_constant=lambda _: None, parse_int=_short_integer
    )
    if _SURROGATE not in body.lower() and _is_sound(value, MAX_DEPTH):
        return value
    return _mended(value, MAX_DEPTH)


def _short_integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError("an integer with too many digits")
    return int(digits)


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


def _check_size(body: bytes, max_values: int) -> None:
    if max_values_in(body) > max_values:
        raise Garbled(f"the answer has more than {max_values} values")


def _no_json(body: bytes) -> Garbled:
    """Return the failure to raise; a chained cause would quote the document."""
    kind = "an HTML page" if _is_html(body) else "something that is no JSON"
    return Garbled(f"the answer is {kind}")


def _attachments(value: Json, scene_id: str) -> tuple[Attachment, ...]:
    """Return the attachments that have a name to be asked by, each name once, in their order.

    Without a file name, the zip is called as the scene (as deliveries are), others as their key.
    """
    if isinstance(value, dict):  # by name, instead of a list of named ones
        value = [
            {"name": name, **entry} for name, entry in value.items() if isinstance(entry, dict)
        ]
    if not isinstance(value, list):
        return ()
    found: dict[str, Attachment] = {}
    for entry in value:
        record = entry if isinstance(entry, dict) else {}
        name = _id(record, "name")
        if name is None or name in found or is_secret_like(name):
            continue
        file_name = _text(record, "file_name", "filename")
        if not file_name or is_secret_like(file_name):
            file_name = f"{scene_id}.zip" if name == DELIVERY_ZIP else name
        found[name] = Attachment(AttachmentName(name), file_name)
    return tuple(found.values())


def _record(entry: Json) -> dict[str, Json]:
    """Return the fields of an entry; a GeoJSON feature's properties are lifted to its top."""
    if not isinstance(entry, dict):
        return {}
    properties = entry.get("properties")
    if entry.get("type") == "Feature" and isinstance(properties, dict):
        return {**properties, **{k: v for k, v in entry.items() if k != "properties"}}
    return entry


def _id(record: Mapping[str, Json], *keys: str) -> str | None:
    for key in keys:
        value = record.get(key)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if isinstance(value, str) and value.strip() and len(value) <= MAX_ID_CHARACTERS:
            return value
    return None


def _text(record: Mapping[str, Json], *keys: str) -> str | None:
    for key in keys:
        value = record.get(key)
        if isinstance(value, str):
            return value
        if isinstance(value, int | float) and not isinstance(value, bool):
            return str(value)
    return None


def _count(value: Json) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 16:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    return None


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


def _is_html(body: bytes) -> bool:
    head = body[:512].lstrip().lower()
    return head.startswith((b"<!doctype", b"<html", b"<head", b"<body"))
