"""From the entries of a page to records: which fields are read, and what no record keeps.

*Pure*. Lenient: fields may be missing, null or of another type, ids are numbers or text, unknown
fields are kept. No record keeps a signed link or a token, and a scene's record keeps no link at
all: they are secrets while they live, and dead when they are needed.

A record is read in two steps. `RecordParser.clean` makes of an entry the JSON that is kept, in
memory and on disk; `RecordParser.of` makes the record from that, whenever it is wanted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final, Generic, NamedTuple, TypeVar

from msgspec import Struct

from satfs.api.packed_records import PackedRecord, decoded, encoded
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
from satfs.redaction import is_link, is_secret_key, is_secret_like, may_hold_secrets

R = TypeVar("R")

#: Longest name of a field for which it is remembered whether it names a secret.
MAX_CACHED_KEY_CHARACTERS: Final = 64
#: Longest id, in characters; ids are path segments of URLs, which servers cap at about 8 kB.
MAX_ID_CHARACTERS: Final = 1024
#: Moments outside of these are taken for nonsense; the upper one is the last full year that
#: nanoseconds in 64 bits can hold.
_FIRST_MOMENT: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_MOMENT: Final = datetime(2262, 1, 1, tzinfo=UTC)
_NUMBERS: Final = frozenset({int, float})
#: Numbers above this are no seconds (that would be the year 5138), but milliseconds, or smaller.
_MILLISECONDS_FROM: Final = 1e11
#: Seconds since the epoch as text; fewer digits may be a date.
_NUMBER: Final = re.compile(r"-?[0-9]{9,19}(\.[0-9]{1,9})?")
#: Dates and times that `datetime.fromisoformat` does not take: slashes, a zone in small letters, in
#: words, after a space or in brackets (RFC 9557), a typographic minus, 24:00:00 and leap seconds.
_DATE_TIME: Final = re.compile(
    r"([0-9]{4}[-/][0-9]{2}[-/][0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}:[0-9]{2})([.,][0-9]{1,9})?"
    r" ?([Zz]|[Uu][Tt][Cc]|[Gg][Mm][Tt]|[-+\u2212][0-9]{2}:?(?:[0-9]{2})?)?(?:\[[^\[\]]{0,64}\])?"
)
#: The day of a year (ISO 8601 §5.2.3), and what follows it.
_DAY_OF_YEAR: Final = re.compile(r"([0-9]{4})-([0-9]{3})([Tt ][^T]{5,40})?")
#: The field of a record that could not be read: the reason. The record's id is beside it.
UNREADABLE: Final = "satfs_unreadable"


class CleanedEntry(NamedTuple):
    """An entry as it is kept: its id, and its JSON without secrets."""

    id: str
    content: bytes


class RecordParser(Struct, Generic[R], frozen=True, eq=False):
    """Makes records of one kind.

    Their ids are in the first of *id_keys* that has one.
    """

    id_keys: tuple[str, ...]
    make: Callable[[str, dict[str, Json], Mapping[str, Json]], R]
    keeps_links: bool = True

    def clean(self, entry: Json) -> CleanedEntry | None:
        """Return what is kept of *entry*; None when it has no id."""
        sent = _record(entry)
        record = sent if self.keeps_links else _without(sent, is_link, lambda _key: False)
        content = encoded(record)
        if may_hold_secrets(content):
            record = without_secrets(record)
            content = encoded(record)
        # An id may look like a link, which the record does not keep.
        id = id_in(sent, *self.id_keys)
        if id is not None and is_secret_like(id):
            id = id_in(record, *self.id_keys)
        return None if id is None else CleanedEntry(id, content)

    def unreadable(self, id: str, reason: str) -> CleanedEntry:
        """Return what is kept of an entry of which nothing but its *id* is read, and why."""
        return CleanedEntry(id, encoded({self.id_keys[0]: id, UNREADABLE: reason}))

    def of(self, id: str, record: Mapping[str, Json]) -> R:
        """Return the record that was kept as *record*."""
        fields = record.as_dict() if isinstance(record, PackedRecord) else dict(record)
        return self.make(id, fields, record)

    def __call__(self, entry: Json) -> R | None:
        """Return the record in *entry*; None when it has no id."""
        cleaned = self.clean(entry)
        if cleaned is None:
            return None
        fields: dict[str, Json] = decoded(cleaned.content)
        return self.make(cleaned.id, fields, fields)


def _contract(id: str, fields: dict[str, Json], kept: Mapping[str, Json]) -> Contract:
    return Contract(ContractId(id), _text(fields, "name", "contract_name") or "")


def _task(id: str, fields: dict[str, Json], kept: Mapping[str, Json]) -> Task:
    return Task(
        task_id=TaskId(id),
        name=_text(fields, "task_name", "name"),
        status=_text(fields, "status"),
        created_at=moment(fields.get("created_time") or fields.get("created_at")),
        record=kept,
        problem=_problem(fields),
    )


def _capture(id: str, fields: dict[str, Json], kept: Mapping[str, Json]) -> Capture:
    return Capture(
        capture_id=CaptureId(id),
        status=_text(fields, "status", "state"),
        record=kept,
        problem=_problem(fields),
    )


def _scene(id: str, fields: dict[str, Json], kept: Mapping[str, Json]) -> Scene:
    capture_id = id_in(fields, "sceneset_id", "capture_id")
    return Scene(
        scene_id=SceneId(id),
        capture_id=None if capture_id is None else CaptureId(capture_id),
        product_name=_text(fields, "productname", "product_name"),
        timestamp=moment(fields.get("timestamp")),
        revision=_text(fields, "last_modified") or "",
        attachments=_attachments(fields.get("attachments"), id),
        record=kept,
        problem=_problem(fields),
    )


def _problem(fields: Mapping[str, Json]) -> str:
    problem = fields.get(UNREADABLE, "")
    return problem if isinstance(problem, str) else ""


def moment(value: Json) -> datetime | None:
    """Return the moment in *value*, in UTC; None without one between 1970 and 2262.

    Takes ISO 8601 with or without zone (then UTC) and fractions, the ways of writing it that are
    seen, an HTTP date, and seconds, milliseconds, microseconds or nanoseconds since the epoch.
    """
    try:
        if isinstance(value, str):
            parsed = _parsed_moment(value.strip())
            parsed = parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            parsed = _since_epoch(value)
        else:
            return None
    except (ValueError, OverflowError, OSError):
        return None
    return parsed if _FIRST_MOMENT <= parsed < _LAST_MOMENT else None


def _parsed_moment(text: str) -> datetime:
    """Return the moment in *text*; raises ValueError without one."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        pass
    if _NUMBER.fullmatch(text):
        return _since_epoch(float(text))
    if (found := _DATE_TIME.fullmatch(text)) is not None:
        date, time, fraction, zone = found.groups()
        zone = (zone or "").upper().replace("\u2212", "-").removesuffix("UTC").removesuffix("GMT")
        hour, minute, second = (int(part) for part in time.split(":"))
        # Python's own parser takes neither the end of a day nor a leap second for a moment.
        begin = datetime.fromisoformat(f"{date.replace('/', '-')}T00:00:00{fraction or ''}{zone}")
        if hour <= 24 and minute < 60 and second <= 60:
            return begin + timedelta(hours=hour, minutes=minute, seconds=second)
    if (found := _DAY_OF_YEAR.fullmatch(text)) is not None:
        year, day, rest = found.groups(default="")
        return _parsed_moment(f"{year}-01-01{rest}") + timedelta(days=int(day) - 1)
    # Few records hold such a date.
    from email.utils import parsedate_to_datetime

    try:
        return parsedate_to_datetime(text)
    except (TypeError, IndexError):
        raise ValueError("no moment") from None


def _since_epoch(value: float) -> datetime:
    for _ in range(3):
        if abs(value) >= _MILLISECONDS_FROM:
            value /= 1000
    return datetime.fromtimestamp(value, UTC)


def without_secrets(value: Json) -> Json:
    """Return a copy of *value* without signed links, tokens and the like."""
    return _without(value, is_secret_like, _is_secret_field)


def _without(value: Json, is_text: Callable[[str], bool], is_field: Callable[[str], bool]) -> Json:
    """Return a copy of *value* without the texts of one kind and the fields of one kind."""
    if isinstance(value, dict):
        return {
            key: _without(inner, is_text, is_field) if isinstance(inner, dict | list) else inner
            for key, inner in value.items()
            if not (is_field(key) or (isinstance(inner, str) and is_text(inner)))
        }
    if isinstance(value, list):
        # A footprint is thousands of pairs of numbers, and has nothing to leave out.
        return [
            inner
            if type(inner) is list and _NUMBERS.issuperset(map(type, inner))
            else _without(inner, is_text, is_field)
            for inner in value
            if not (isinstance(inner, str) and is_text(inner))
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


def _attachments(value: Json, scene_id: str) -> tuple[Attachment, ...]:
    """Return the attachments that have a name to be requested by, each name once, in their order.

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
        name = id_in(record, "name")
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


def id_in(record: Mapping[str, Json], *keys: str) -> str | None:
    """Return the first of the fields *keys* that is an id, as text; None when none is."""
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


contract: Final = RecordParser(("contract_id", "id"), _contract)
task: Final = RecordParser(("task_id", "id"), _task)
capture: Final = RecordParser(("capture_id", "id"), _capture)
scene: Final = RecordParser(("scene_id", "id"), _scene, keeps_links=False)
