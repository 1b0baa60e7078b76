"""From response bodies to records; every irregularity of the vendor's JSON is handled here.

*Pure*. Strict in one thing: an answer that is not what was asked for is `Garbled`, never an empty
listing. Lenient in all else: fields may be missing, null or of another type, ids are numbers or
text, unknown fields are kept. For any bytes whatever, each function returns records or raises
`Garbled`.

No record keeps a signed link, and a scene's record keeps no link at all: they are secrets while
they live, and dead when they are needed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, TypeVar, cast

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

    @property
    def n_sent(self) -> int:
        """Return the number of entries that were sent, usable or not."""
        return len(self.entries) + self.n_unusable


def document(body: bytes) -> Json:
    """Return *body* as JSON, without surrogates, infinities or endless depth.

    Raises:
        Garbled: it is no JSON (an HTML page, say), or nests too deeply.
    """
    try:
        value = json.loads(body.decode("utf-8-sig"), parse_constant=lambda _: None)
        if _SURROGATE not in body.lower() and _is_sound(value, MAX_DEPTH):
            return value
        return _mended(value, MAX_DEPTH)
    except (ValueError, RecursionError):
        # A chained cause would quote the document.
        kind = "an HTML page" if _is_html(body) else "something that is no JSON"
        raise Garbled(f"the answer is {kind}") from None


def page(body: bytes) -> Page:
    """Return the page in *body*: an envelope with `results` or `features`, or a bare list.

    Raises:
        Garbled: it is none of these.
    """
    value = document(body)
    if isinstance(value, list):
        return Page(_entries(value, body), tells_next=False)
    if not isinstance(value, dict):
        raise Garbled("the answer is no page of a listing")
    count = _count(value.get("count"))
    entries: Json = None
    for key in _ENTRY_LISTS:
        if key in value:
            entries = value[key]
            break
    else:
        raise Garbled("the answer is no page of a listing")
    if entries is None and count == 0:
        entries = []
    if not isinstance(entries, list):
        raise Garbled("the answer's page holds no list")
    following = value.get("next")
    if following is not None and not isinstance(following, str):
        raise Garbled("the answer's next page has no address")
    return Page(_entries(entries, body), count, following or None, "next" in value)


def page_of(body: bytes, reader: Callable[[Json], R | None]) -> Page:
    """Return the page in *body* with the records that *reader* makes of its entries.

    Entries without use (no id) are left out, and counted.

    Raises:
        Garbled: it is no page, or none of its entries is of any use. Taken for a listing, such an
            answer would make everything disappear that was listed before.
    """
    sent = page(body)
    kept, n_unusable = records(sent.entries, reader)
    if sent.entries and not kept:
        raise Garbled("no entry of the answer's page has an id")
    return replace(sent, entries=kept, n_unusable=n_unusable)


def one(body: bytes) -> Mapping[str, Json]:
    """Return the single object in *body*.

    Raises:
        Garbled: it is no object.
    """
    value = document(body)
    if not isinstance(value, dict):
        raise Garbled("the answer is not a single record")
    (entry,) = _entries([value], body)
    return cast(Mapping[str, Json], entry)


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
    # From here on without links; the footprint is shared with the record, it is the larger half.
    record = without_links(record)
    footprint = record.get("footprint", record.get("geometry"))
    revision = record.get("last_modified")
    return Scene(
        scene_id=SceneId(scene_id),
        capture_id=None if capture_id is None else CaptureId(capture_id),
        product_name=_text(record, "productname", "product_name"),
        timestamp=moment(record.get("timestamp")),
        revision=revision if isinstance(revision, str) else "",
        footprint=footprint if isinstance(footprint, dict) else None,
        attachments=attachments,
        record=record,
    )


def records(
    entries: Sequence[Json], reader: Callable[[Json], R | None]
) -> tuple[tuple[R, ...], int]:
    """Return what *reader* makes of *entries*, and how many had no use (no id)."""
    read = [reader(entry) for entry in entries]
    kept = tuple(record for record in read if record is not None)
    return kept, len(read) - len(kept)


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
            key: without_secrets(inner)
            for key, inner in value.items()
            if not (is_secret_key(key) or is_secret_like(key) or is_secret_like(inner))
        }
    if isinstance(value, list):
        return [without_secrets(inner) for inner in value if not is_secret_like(inner)]
    return value


def without_links(value: Json) -> Json:
    """Return a copy of *value* without links of any kind."""
    if isinstance(value, dict):
        return {key: without_links(inner) for key, inner in value.items() if not is_link(inner)}
    if isinstance(value, list):
        return [without_links(inner) for inner in value if not is_link(inner)]
    return value


def _entries(entries: list[Json], body: bytes) -> tuple[Json, ...]:
    """Return the entries that *body* holds, without secrets."""
    return tuple(without_secrets(entries) if may_hold_secrets(body) else entries)


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
    """Tell whether *value* nests at most *depth* deep and all its numbers are finite."""
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
