"""From response bodies to records; every irregularity of the vendor's JSON is handled here.

*Pure*. Strict in one thing: a response of another form than the requested one is `Garbled`, never
an empty listing. Lenient in all else: fields may be missing, null or of another type, ids are
numbers or text, unknown fields are kept. For any bytes, each function returns records or raises
`Garbled`.

The cost of a response is bounded before it is parsed (`json_document`), and so are the bytes of
each record. A page is parsed record by record, so that other threads run in between.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar, cast

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from satfs.api.json_document import (
    check_size,
    decoded,
    document,
    in_utf8,
    max_values_in,
    mended,
    no_json,
    parsed,
)
from satfs.api.record_list import packed
from satfs.api.record_parsers import CleanedEntry, RecordParser, id_in, without_secrets
from satfs.errors import Garbled
from satfs.model import Json
from satfs.redaction import may_hold_secrets

R = TypeVar("R")

#: Limit of values of a page that is parsed in one call, or split without a look at its entries.
MAX_VALUES: Final = 300_000
#: Limits of values and objects of a page that is read entry by entry. 32 MiB of footprints have 4
#: million values, 10,000 scenes with six attachments each 100,000 objects.
MAX_PAGE_VALUES: Final = 5_000_000
MAX_PAGE_OBJECTS: Final = 500_000
#: Limit of bytes of `count` or `next` in a page.
MAX_FIELD_BYTES: Final = 64 * 1024
#: Names of the field that has the entries: the vendor's two, and those of other services.
_ENTRY_LISTS: Final = (
    *("results", "features", "items", "data", "content", "records", "entries", "objects"),
    *("contracts", "tasks", "captures", "scenes"),
)
#: Names of the field that has the number of all entries. `count` may be that of the page alone
#: where there is another one beside it.
_COUNTS: Final = (
    *("count", "total", "total_count", "totalCount", "totalElements", "totalResults"),
    "numberMatched",
)
#: Names of the field that has the next page's address, where there is no `next`, or of one that
#: holds it: an object with a `next` (JSON:API, HAL, tastypie), or a list of links with their
#: relations (STAC).
_NEXT_ADDRESSES: Final = ("next_url", "next_link", "nextLink", "next_page_url")
_HOLD_NEXT: Final = ("links", "_links", "meta", "paging", "pagination")


class _AnyObject(msgspec.Struct):
    """An entry none of whose fields is read."""


class _Ids(msgspec.Struct):
    """The fields of an entry that may be its id, undecoded. Others are skipped."""

    task_id: msgspec.Raw = msgspec.Raw()
    capture_id: msgspec.Raw = msgspec.Raw()
    scene_id: msgspec.Raw = msgspec.Raw()
    id: msgspec.Raw = msgspec.Raw()


#: The fields of a page that are read, undecoded; empty where missing. Others are skipped.
_Envelope: Final = msgspec.defstruct(
    "_Envelope",
    [
        (f"field_{number}", msgspec.Raw, msgspec.field(name=name, default=msgspec.Raw()))
        for number, name in enumerate(
            (*_ENTRY_LISTS, *_COUNTS, "next", *_NEXT_ADDRESSES, *_HOLD_NEXT, "error", "errors")
        )
    ],
)
_ENVELOPE = msgspec.json.Decoder(_Envelope)
_LIST = msgspec.json.Decoder(list[msgspec.Raw])
_OBJECTS = msgspec.json.Decoder(list[_AnyObject])
_IDS = msgspec.json.Decoder(_Ids)
#: An entry of a `Link` header and its parameters, and the parameter for its relations.
_LINK: Final = re.compile(r"<([^<>]*)>([^<]*)")
_RELATION: Final = re.compile(r';\s*rel\s*=\s*(?:"([^"]*)"|([^\s;,"]+))', re.IGNORECASE)
_MAX_LINK_CHARACTERS: Final = 16 * 1024


class Page(Struct, frozen=True):
    """One page of a listing: its entries, or the records made of them (a `RecordList`).

    *has_next_field* is False when the response has no `next` at all. *n_unusable* entries are left
    out; of *n_unreadable* nothing but the id was read.
    """

    entries: Sequence[Any]
    count: int | None = None
    next: str | None = None
    has_next_field: bool = True
    n_unusable: int = 0
    n_unreadable: int = 0

    @property
    def n_sent(self) -> int:
        """Return the number of entries that were sent, usable or not."""
        return len(self.entries) + self.n_unusable


def page_of(body: bytes, parser: RecordParser[R], link_header: str = "") -> Page:
    """Return the page in *body* with the records that *parser* makes of its entries.

    Where the body has no field for the next page, *link_header* names it (RFC 8288).

    Entries without use (no id) are left out, and counted. So are counted those that are over the
    limits of one record: nothing but their id is read, and the others are listed beside them.

    Raises:
        Garbled: it is no page, or none of its entries is of any use. Taken for a listing, such an
            response would make everything disappear that was listed before.
    """
    sent = _sent(body)
    if not sent.has_next_field and (links := _links(link_header)):
        sent = replace(sent, next=links.get("next"), has_next_field=True)
    kept: list[CleanedEntry] = []
    n_unusable = n_unreadable = 0
    # One entry at a time: a whole page of them would take ten times the memory of its JSON.
    for raw in sent.entries:
        try:
            cleaned = parser.clean(_value(raw))
        except Garbled as failure:
            cleaned = _unreadable(raw, parser, str(failure))
            n_unreadable += cleaned is not None
        if cleaned is None:
            n_unusable += 1
        else:
            kept.append(cleaned)
    if sent.entries and not kept:
        raise Garbled("no entry of the page has an id")
    records = packed(parser, kept)
    return replace(sent, entries=records, n_unusable=n_unusable, n_unreadable=n_unreadable)


def _links(header: str) -> dict[str, str]:
    """Return the addresses in a `Link` header by their relations."""
    found: dict[str, str] = {}
    for address, parameters in _LINK.findall(header[:_MAX_LINK_CHARACTERS]):
        relation = _RELATION.search(parameters)
        for name in (relation[1] or relation[2]).lower().split() if relation else ():
            found.setdefault(name, address)
    return found


def one(body: bytes) -> Mapping[str, Json]:
    """Return the single object in *body*.

    Raises:
        Garbled: it is no object.
    """
    body = in_utf8(body)  # also for the look at its bytes below
    value = document(body)
    if not isinstance(value, dict):
        raise Garbled("the response is not a single record")
    return cast(Mapping[str, Json], without_secrets(value) if may_hold_secrets(body) else value)


def records_in(value: Mapping[str, Json]) -> list[Json]:
    """Return what may be the record in a response about one: it alone, or in an envelope."""
    found: list[Json] = [dict(value)]
    for name in _ENTRY_LISTS:
        inner = value.get(name)
        found += inner if isinstance(inner, list) else [inner] if isinstance(inner, dict) else []
    return found


def _sent(body: bytes) -> Page:
    """Return the page in *body*, its entries as the bytes that were sent, or as values.

    They are values where only Python's own parser can read the response: it knows NaN, for example.
    Then each is still to be mended, so that one that cannot be is lost alone.
    """
    check_size(body, MAX_PAGE_VALUES)
    content = in_utf8(body)
    entries = _split(content)
    if entries is not None:
        return Page(tuple(entries), has_next_field=False)
    try:
        fields = _fields(_ENVELOPE.decode(content))
    except (ValueError, RecursionError):
        top = _parsed(content)
        if isinstance(top, list):
            return Page(tuple(top), has_next_field=False)
        if not isinstance(top, dict):
            raise Garbled("the response is not a page of a listing") from None
        fields = top
    lists = [fields[name] for name in _ENTRY_LISTS if name in fields]
    if not lists:
        raise Garbled("the response is not a page of a listing")
    counts = [_count(_field(fields[name])) for name in _COUNTS if name in fields]
    count = max((each for each in counts if each is not None), default=None)
    entries = next((each for each in map(_entries, lists) if each is not None), None)
    if entries is None and count == 0:
        entries = []
    if entries is None:
        raise Garbled("the page holds no list")
    if not entries and any(_field(fields.get(name)) for name in ("error", "errors")):
        raise Garbled("the page holds an error and no entries")
    following, has_next_field = _following(fields)
    return Page(tuple(entries), count, following, has_next_field)


def _following(fields: Mapping[str, Json]) -> tuple[str | None, bool]:
    """Return the next page's address in the fields of a page, and whether there is one for it.

    Raises:
        Garbled: what names the next page is no address.
    """
    found = [_field(fields[name]) for name in ("next", *_NEXT_ADDRESSES) if name in fields]
    for name in _HOLD_NEXT if not found else ():
        held = _field(fields.get(name))
        if isinstance(held, list):
            links = (each for each in held if isinstance(each, dict))
            found += [each for each in links if each.get("rel") == "next"]
        elif isinstance(held, dict) and "next" in held:
            found.append(held["next"])
    following = next(filter(None, found), None)
    if isinstance(following, dict):  # a link of HAL, JSON:API or STAC
        following = following.get("href") or following.get("url")
    if following is not None and not isinstance(following, str):
        raise Garbled("the next page has no address")
    return following or None, bool(found)


def _parsed(content: bytes) -> Json:
    check_size(content, MAX_VALUES)
    try:
        return parsed(content)
    except (ValueError, RecursionError):
        raise no_json(content) from None


def _fields(envelope: msgspec.Struct) -> Mapping[str, Json]:
    """Return the fields that an envelope has, undecoded."""
    names = zip(envelope.__struct_encode_fields__, envelope.__struct_fields__, strict=True)
    fields = {name: getattr(envelope, attribute) for name, attribute in names}
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
            raise Garbled(f"the response has more than {MAX_PAGE_OBJECTS} objects")
        try:
            _OBJECTS.decode(text)
        except (ValueError, RecursionError):
            raise Garbled("an entry of the page is not an object") from None
    try:
        return cast(list[Json], _LIST.decode(text))
    except (ValueError, RecursionError):
        return None


def _field(value: Json) -> Json:
    """Return a field of a page.

    Raises:
        Garbled: it cannot be read, or is too large.
    """
    if not isinstance(value, msgspec.Raw):
        return _mended(value)
    content = bytes(value)
    if len(content) > MAX_FIELD_BYTES:
        raise Garbled("a field of the page is too long")
    try:
        return decoded(content)
    except (ValueError, RecursionError):
        raise no_json(content) from None


def _value(sent: Json) -> Json:
    """Return one entry of a page as it was sent.

    Raises:
        Garbled: it cannot be read, or has more values than a record may have.
    """
    return document(bytes(sent)) if isinstance(sent, msgspec.Raw) else _mended(sent)


def _mended(value: Json) -> Json:
    try:
        return mended(value)
    except ValueError as problem:
        raise Garbled(f"the response is {problem}") from None


def _unreadable(sent: Json, parser: RecordParser[R], reason: str) -> CleanedEntry | None:
    """Return what is kept of an entry that cannot be read; None when its id cannot be, either."""
    fields = without_secrets(_id_fields(sent, parser.id_keys))
    id = id_in(fields, *parser.id_keys)
    return None if id is None else parser.unreadable(id, reason)


def _id_fields(sent: Json, names: Sequence[str]) -> dict[str, Json]:
    """Return those of the fields *names* of an entry that can be read."""
    if not isinstance(sent, msgspec.Raw):
        values = sent if isinstance(sent, dict) else {}
        found = {name: values[name] for name in names if name in values}
        plain = {name: v for name, v in found.items() if not isinstance(v, dict | list)}
        return cast("dict[str, Json]", _mended(plain))
    try:
        ids = _IDS.decode(bytes(sent))
        contents = {name: bytes(getattr(ids, name)) for name in names}
        return {
            name: decoded(content)
            for name, content in contents.items()
            if content and len(content) <= MAX_FIELD_BYTES
        }
    except (ValueError, RecursionError):
        return {}


def _count(value: Json) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 16:
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    return None
