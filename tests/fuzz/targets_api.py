"""Pages and records of the API, as they come from the network."""

from __future__ import annotations

import json
from typing import Any

from fuzz.target import Target
from hypothesis import strategies as st

from satfs.api import json_document, record_parsers, wire
from satfs.api.packed_records import PackedRecord
from satfs.api.record_parsers import RecordParser
from satfs.errors import Garbled
from satfs.tree import sidecars

_READERS: dict[str, RecordParser[Any]] = {
    "task": record_parsers.task,
    "capture": record_parsers.capture,
    "scene": record_parsers.scene,
}

_FIELDS = st.sampled_from(
    ["results", "features", "count", "next", "previous", "task_id", "capture_id", "scene_id", "id",
     "sceneset_id", "status", "attachments", "name", "file_name", "url", "properties", "geometry",
     "footprint", "type", "coordinates", "timestamp", "last_modified", "created_time", "token"]
)  # fmt: skip
_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec=None, exclude_categories=()), max_size=20)
    | st.sampled_from(["https://x/?X-Amz-Signature=1", "2026-01-28T15:57:48Z", "Polygon", 10**500])
)
_values = st.recursive(
    _LEAVES,
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(_FIELDS | st.text(max_size=5), inner)
    ),
    max_leaves=30,
)
_envelopes = st.fixed_dictionaries(
    {"results": st.lists(_values, max_size=5)},
    optional={"count": _values, "next": _values, "features": _values},
)
#: The pieces that a body is cut into and joined from again.
_PIECES = st.sampled_from(
    [b"[", b"]", b"{", b"}", b",", b":", b'"', b"\\", b"\\ud800", b"\\udc00", b"NaN", b"-Infinity",
     b"1e999", b"0" * 500, b"[" * 100, b'{"results":[', b'"scene_id":1', b"\xef\xbb\xbf", b"\xff"]
)  # fmt: skip
_bodies = (
    (_values | _envelopes).map(lambda value: json.dumps(value).encode())
    | st.lists(_PIECES | st.binary(max_size=5), max_size=20).map(b"".join)
    | st.tuples(_envelopes, st.binary(max_size=4), st.integers(0, 200)).map(
        lambda given: _spliced(json.dumps(given[0]).encode(), given[1], given[2])
    )
)


def _spliced(body: bytes, piece: bytes, at: int) -> bytes:
    return body[:at] + piece + body[at + len(piece) :]


def check_page(given: tuple[str, bytes]) -> None:
    """Any body is a page of records or `Garbled`; each record is valid JSON and holds no link."""
    kind, body = given
    try:
        page = wire.page_of(body, _READERS[kind])
    except Garbled:
        return
    for found in page.entries:
        record: Any = found.record
        assert isinstance(record, PackedRecord)
        text = json.dumps(dict(record), ensure_ascii=False, allow_nan=False)
        text.encode("utf-8")
        assert "X-Amz-Signature=" not in text
        assert not json_document.is_nested_deeper(dict(record), json_document.MAX_DEPTH)
        if kind == "scene":
            json.loads(sidecars.record_json(found))
            json.loads(sidecars.footprint_geojson(found))


TARGETS = (
    Target(
        "pages",
        "a page of a listing of the API, down to its records (api/wire.py, api/packed_records.py)",
        st.tuples(st.sampled_from(sorted(_READERS)), _bodies),
        check_page,
        (
            ("scene", b'{"results":[{"scene_id":1,"a":NaN}],"count":1,"next":null}'),
            ("scene", b'[{"scene_id":"\\ud800","footprint":{"type":"Point"}}]'),
            ("task", b'\xef\xbb\xbf{"features":[{"properties":{"task_id":1}}]}'),
            ("task", b"[" * 100_000),
        ),
    ),
)
