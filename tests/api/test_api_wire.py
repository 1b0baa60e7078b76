"""From any response of the vendor to records."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from fakes.vendor import some_scene, some_tasks
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from satfs.api import json_document, record_parsers, wire
from satfs.errors import Garbled
from satfs.model import Attachment, AttachmentName
from satfs.redaction import may_hold_secrets

FIELDS = ["results", "features", "count", "next", "task_id", "capture_id", "scene_id", "id"]
FIELDS += ["status", "attachments", "name", "file_name", "url", "properties", "type", "rasters"]
FIELDS += ["timestamp", "footprint", "metadata", "items", "data", "total", "links", "_links"]
FIELDS += ["meta", "rel", "href", "next_url", "error"]
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(
        ["https://x?X-Amz-Signature=1", "Bearer abc", "2026-01-28T15:57:48Z", "\ud800"]
    ),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(FIELDS) | st.text(max_size=5),
            inner,
            max_size=6,
        )
    ),
    max_leaves=25,
)


def body(value: Any) -> bytes:
    """Return *value* as a response's body."""
    return json.dumps(value).encode()


def sent_page(raw: bytes) -> wire.Page:
    """Return the page in *raw* with its entries as values, as they were sent."""
    sent = wire._sent(raw)
    return replace(sent, entries=tuple(map(wire._value, sent.entries)))


# -- pages ---------------------------------------------------------------------------------------


def test_the_documented_envelope() -> None:
    """Count, an absolute next, and the results."""
    page = sent_page(body({"count": 3, "next": "https://a/?offset=2", "results": [1, 2]}))
    assert (page.count, page.next, page.entries) == (3, "https://a/?offset=2", (1, 2))
    assert page.has_next_field


@pytest.mark.parametrize(
    "value",
    [
        [{"id": 1}],
        {"results": [{"id": 1}]},
        {"type": "FeatureCollection", "features": [{"id": 1}], "count": 1, "next": None},
        {"results": [{"id": 1}], "count": None, "next": ""},
        {"results": [{"id": 1}], "count": "1", "previous": 7},
        {"results": [{"id": 1}], "count": -1},
        {"results": None, "items": [{"id": 1}]},
        {"scenes": [{"id": 1}], "meta": {"count": 1}},
        *({name: [{"id": 1}], "total": 1} for name in ("items", "data", "content", "records")),
        {"data": [{"id": 1}], "links": {"self": "x", "next": None}},
        {"features": [{"id": 1}], "links": [{"rel": "self", "href": "x"}, 7, {"rel": ["next"]}]},
    ],
)
def test_every_known_envelope_is_understood(value: Any) -> None:
    """Bare lists and lists under usual names; counts that are text, null or nonsense."""
    page = sent_page(body(value))
    assert page.entries == ({"id": 1},)
    assert page.next is None
    assert page.count in (None, 1)


@pytest.mark.parametrize(
    "value",
    [
        {},
        {"detail": "x"},
        {"results": None},
        {"results": None, "count": 5},
        {"results": {"a": 1}},
        {"results": "x"},
        {"results": [], "next": 5},
        {"results": [], "next": {"href": 5}},
        {"results": [], "error": "the backend did not respond"},
        {"data": [], "errors": [{"title": "Unavailable"}]},
        {"data": None, "message": "Unavailable"},
        {"items": {"a": 1}, "content": "x"},
        {"items": [], "meta": {"next": 2}},
        {"items": [], "links": [{"rel": "next", "href": 5}]},
        "x",
        5,
        None,
        True,
    ],
)
def test_what_is_no_page_is_garbled_and_never_empty(value: Any) -> None:
    """An error in the place of a listing must not look like an empty directory."""
    with pytest.raises(Garbled):
        sent_page(body(value))


@pytest.mark.parametrize(
    "named",
    [
        {"next": "/more"},
        {"next": {"href": "/more"}},
        {"next_url": "/more"},
        {"nextLink": "/more"},
        {"links": {"next": "/more", "prev": None}},
        {"_links": {"self": {"href": "/x"}, "next": {"href": "/more"}}},
        {"links": [{"rel": "self", "href": "/x"}, {"rel": "next", "href": "/more"}]},
        {"meta": {"next": "/more", "total_count": 9}},
        {"pagination": {"next": {"url": "/more"}}},
    ],
)
def test_the_next_page_may_be_named_in_several_ways(named: Any) -> None:
    """As JSON:API, HAL, STAC, and frameworks for services do."""
    page = sent_page(body({"data": [{"id": 1}], **named}))
    assert (page.next, page.has_next_field) == ("/more", True)


def test_the_larger_count_is_that_of_the_listing() -> None:
    """Some services count the entries of the page beside those of the listing."""
    assert sent_page(body({"items": [1], "count": 1, "totalElements": "7"})).count == 7


@pytest.mark.parametrize(
    "value",
    [
        {"id": 7, "results": []},
        {"results": [{"id": 1}, {"id": 7}]},
        {"data": {"id": 7}},
        {"items": [{"id": 7}], "data": 3},
    ],
)
def test_one_record_may_be_in_an_envelope(value: Any) -> None:
    assert {"id": 7} in [
        {"id": each.get("id")} for each in wire.records_in(wire.one(body(value))) if each
    ]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_response_in_another_encoding_is_read(encoding: str) -> None:
    """With a byte order mark or without; what looks like a secret is left out all the same."""
    text = json.dumps({"results": [{"id": "Größe 😀"}], "count": 1}, ensure_ascii=False)
    page = sent_page(text.encode(encoding))
    assert (page.entries, page.count) == (({"id": "Größe 😀"},), 1)
    token = {"id": 7, "access_token": "Bearer abc", "url": "https://x?X-Amz-Signature=1"}
    assert wire.one(json.dumps(token).encode(encoding)) == {"id": 7}


def test_a_page_in_utf_16_that_is_cut_or_broken_is_garbled() -> None:
    whole = json.dumps({"results": [{"id": 1}]}).encode("utf-16")
    for raw in (whole[:-1], whole[:-8], whole[:2], b"\xff\xfe" + b"\x00\xd8" * 9):
        with pytest.raises(Garbled):
            sent_page(raw)


def test_bytes_that_are_no_utf_8_cost_one_record() -> None:
    """A name in another encoding in one record takes no other record away."""
    raw = b'{"results": [{"task_id": 1, "task_name": "caf\xe9"}, {"task_id": 2}]}'
    page = wire.page_of(raw, record_parsers.task)
    assert [task.task_id for task in page.entries] == ["1", "2"]


def test_no_results_of_none() -> None:
    """Null in the place of an empty list, when the count is 0, too."""
    assert sent_page(body({"results": None, "count": 0})).entries == ()


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"<html>",
        b"\xff\xfe\x00",
        b"{",
        b"[" * 100_000,
        b"[" * 200 + b"]" * 200,
        b"1" * 10_000 + b"{",
        b'{"results": [}',
        b"\x00",
        b"PK\x03\x04",
    ],
)
def test_what_is_no_json_is_garbled(raw: bytes) -> None:
    """HTML, nothing, cut JSON, endless nesting, a zip."""
    for read in (json_document.document, sent_page, wire.one):
        with pytest.raises(Garbled) as failure:
            read(raw)
        assert ("HTML" in str(failure.value)) == (raw == b"<html>")


def test_json_that_could_not_be_written_again_is_mended() -> None:
    """A byte order mark, half a surrogate pair, numbers that JSON has not."""
    raw = b'\xef\xbb\xbf{"a": "x\\ud83d", "b": NaN, "c": [-Infinity, 1e999], "d": "\\ud83d\\ude00"}'
    value = json_document.document(raw)
    assert value == {"a": "x�", "b": None, "c": [None, None], "d": "😀"}
    json.dumps(value, allow_nan=False, ensure_ascii=False).encode()


@pytest.mark.slow
@given(st.binary() | json_values.map(body))
@example(b"[]")
def test_any_bytes_give_a_page_or_garbled(raw: bytes) -> None:
    """Nothing that arrives can fail in another way."""
    for read in (sent_page, wire.one, json_document.document):
        with contextlib.suppress(Garbled):
            read(raw)


@pytest.mark.slow
@given(json_values)
def test_any_json_gives_records(value: Any) -> None:
    """Each entry is a record or is skipped; what is kept can be written, and holds no link."""
    (entry,) = sent_page(body([[value]])).entries[0] or [None]
    for parse in (
        record_parsers.task,
        record_parsers.capture,
        record_parsers.scene,
        record_parsers.contract,
    ):
        found = parse(entry)
        if found is None or not hasattr(found, "record"):
            continue
        text = json.dumps(found.record, ensure_ascii=False, allow_nan=False)
        text.encode()
        # With its last dash, as it is in any signed link: hypothesis draws the words of this file.
        assert "x-amz-" not in text.lower()
        assert "Bearer abc" not in text
        hash(found.record.get("scene_id") if isinstance(found.record.get("scene_id"), str) else 0)
    for wrapped in ({"results": [value]}, {"results": value}):
        try:
            n_entries = len(sent_page(body(wrapped)).entries)
            page = wire.page_of(body(wrapped), record_parsers.scene)
        except Garbled:
            continue
        assert len(page.entries) + page.n_unusable == page.n_sent == n_entries


# -- the cost of a response ----------------------------------------------------------------------


def count_values(value: Any) -> int:
    """Return the number of values in *value*, itself among them; names of fields do not count."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(count_values(inner) for inner in inside)


def depth_of(value: Any) -> int:
    """Return how many containers are inside each other, at the deepest place."""
    if not isinstance(value, dict | list):
        return 0
    inside = value.values() if isinstance(value, dict) else value
    return 1 + max((depth_of(inner) for inner in inside), default=0)


@pytest.mark.slow
@given(json_values)
def test_no_document_has_more_values_than_its_bytes_tell(value: Any) -> None:
    """The bound that is computed without parsing holds, for any value."""
    assert count_values(value) <= json_document.max_values_in(body(value))


@given(json_values, st.integers(0, 30))
def test_a_document_is_refused_by_its_values(value: Any, max_values: int) -> None:
    """A text with more values than allowed is no document; one with fewer is."""
    if json_document.max_values_in(body(value)) <= max_values:
        json_document.document(body(value), max_values)
    else:
        with pytest.raises(Garbled):
            json_document.document(body(value), max_values)


@given(json_values, st.integers(0, 8))
def test_depth_is_measured_exactly(value: Any, depth: int) -> None:
    """However the containers are mixed."""
    assert json_document.is_nested_deeper(value, depth) == (depth_of(value) > depth)


@pytest.mark.parametrize("n_levels", [json_document.MAX_DEPTH, json_document.MAX_DEPTH + 1])
@pytest.mark.parametrize("leaf", [b"0", b"NaN"])
def test_no_record_is_deeper_than_allowed(n_levels: int, leaf: bytes) -> None:
    """Whichever parser reads it."""
    raw = b"[" * n_levels + leaf + b"]" * n_levels
    if n_levels <= json_document.MAX_DEPTH:
        json_document.document(raw)
    else:
        with pytest.raises(Garbled):
            json_document.document(raw)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"results":[' + b"[]," * 2_500_001 + b"[]]}",
        b'{"results":[' + b"[]," * 200_000 + b"[]]}",
        b"[" + b"0," * 400_000 + b"0]",
        b"[" + b"{}," * 500_001 + b"{}]",
        b'{"results":[' + b'{"scene_id":7},' * 500_001 + b"{}]}",
        b"{" + b'"a":1,' * 400_000 + b'"results":0}',
        b"[NaN" + b",0" * 400_000 + b"]",
        b'[{"scene_id":1' + b"0" * 1_000_000 + b"}]",
    ],
    ids=[
        "lists", "fewer lists", "numbers", "objects", "records", "fields", "numbers and NaN",
        "digits",
    ],
)  # fmt: skip
def test_a_page_that_costs_too_much_is_garbled(raw: bytes) -> None:
    """Refused by its values, its entries, or the values of one of them."""
    with pytest.raises(Garbled):
        wire.page_of(raw, record_parsers.scene)


@pytest.mark.parametrize(
    "large",
    [
        b'{"scene_id":7,"a":[' + b"0," * 200_001 + b"0]}",
        b'{"a":' + b"[" * 100 + b"]" * 100 + b',"scene_id":"7"}',
    ],
    ids=["values", "depth"],
)
def test_a_record_over_its_limit_is_unreadable_alone(large: bytes) -> None:
    """It is listed by its id with the reason; its neighbours are read."""
    raw = b'{"results":[{"scene_id":1},' + large + b',{"scene_id":2,"note":"x"}]}'
    page = wire.page_of(raw, record_parsers.scene)
    first, unread, last = page.entries
    assert (page.n_sent, page.n_unusable, page.n_unreadable) == (3, 0, 1)
    assert [each.scene_id for each in page.entries] == ["1", "7", "2"]
    assert unread.problem
    assert not first.problem
    assert not last.problem
    assert last.record == {"scene_id": 2, "note": "x"}
    assert unread.attachments == ()


@pytest.mark.parametrize(
    ("link", "following", "names_it"),
    [
        ('<https://a.test/t/?offset=2>; rel="next"', "https://a.test/t/?offset=2", True),
        ('</t/?a=1,2>; rel="first", </t/?a=3,4>; title="x; y"; REL="last next"', "/t/?a=3,4", True),
        ("<?page=2>;rel=next,<?page=9>;rel=next", "?page=2", True),
        ('<https://a.test/t/>; rel="first"', None, True),
        ('<https://a.test/t/?offset=2>; title="next"', None, False),
        ("next", None, False),
        ("", None, False),
    ],
)
def test_a_header_names_the_next_page_where_the_body_does_not(
    link: str, following: str | None, names_it: bool
) -> None:
    """Without that, a listing would end after its first page, and nothing would show it."""
    page = wire.page_of(b'[{"scene_id":1}]', record_parsers.scene, link)
    assert (page.next, page.has_next_field) == (following, names_it)
    last = wire.page_of(b'{"next":null,"results":[{"scene_id":1}]}', record_parsers.scene, link)
    assert last.next is None


@given(st.text(st.sampled_from('<>;,="/? relnxt'), max_size=60))
def test_any_header_is_read(link: str) -> None:
    page = wire.page_of(b'[{"scene_id":1}]', record_parsers.scene, link)
    assert page.next is None or page.next in link


@pytest.mark.parametrize("around", [b"", b'"count":NaN,', b'"x":1' + b"0" * 5000 + b","])
@pytest.mark.parametrize("odd", [b"NaN", b"-Infinity", b"1" + b"0" * 5000, b"-" + b"9" * 5000])
def test_a_number_that_nobody_reads_is_unknown(around: bytes, odd: bytes) -> None:
    """It is null, wherever it stands; all records of the page are listed, and all else of them."""
    raw = (
        b'{"next":"/more",' + around + b'"results":[{"scene_id":1},'
        b'{"id":7.0,"a":' + odd + b',"b":[' + odd + b'],"c":5},{"scene_id":2,"note":"x"}]}'
    )
    page = wire.page_of(raw, record_parsers.scene)
    assert (page.n_unreadable, page.next) == (0, "/more")
    assert [each.scene_id for each in page.entries] == ["1", "7", "2"]
    assert page.entries[1].record == {"id": 7.0, "a": None, "b": [None], "c": 5}


def test_a_record_is_unreadable_alone_beside_numbers_that_nobody_reads() -> None:
    """The parser that reads NaN does not make one record's fault that of the page."""
    deep = b'{"a":' + b"[" * 100 + b"]" * 100 + b',"scene_id":"7"}'
    raw = b'{"count":NaN,"results":[{"scene_id":1,"x":NaN},' + deep + b',{"scene_id":2}]}'
    page = wire.page_of(raw, record_parsers.scene)
    assert (page.n_unusable, page.n_unreadable) == (0, 1)
    assert [each.scene_id for each in page.entries] == ["1", "7", "2"]
    assert page.entries[1].problem


def test_a_record_over_its_limit_without_an_id_is_counted() -> None:
    """Nothing could be shown in its place; the log has their number."""
    raw = b'[{"scene_id":1},{"a":[' + b"0," * 200_001 + b"0]}]"
    page = wire.page_of(raw, record_parsers.scene)
    assert [each.scene_id for each in page.entries] == ["1"]
    assert (page.n_sent, page.n_unusable, page.n_unreadable) == (2, 1, 0)


@pytest.mark.slow
def test_a_large_page_of_detailed_footprints_is_read() -> None:
    """Two million numbers in a page, as long as each record is within its own limits."""
    ring = [[12.345678 + n * 1e-6, 45.678901] for n in range(20_000)]
    footprint = {"type": "Polygon", "coordinates": [ring]}
    scenes = [{**some_scene(f"s{n}", "c"), "footprint": "the footprint"} for n in range(40)]
    page = body({"count": 40, "next": None, "results": scenes})
    found = wire.page_of(page.replace(b'"the footprint"', body(footprint)), record_parsers.scene)
    assert len(found.entries) == 40
    assert found.entries[39].footprint == footprint


@pytest.mark.slow
def test_a_scene_of_many_attachments_is_read() -> None:
    """Twenty thousand of them, each with a signed link, in a page and by itself."""
    link = "https://b.s3.amazonaws.com/k?X-Amz-Signature=" + "0" * 400
    attachments = [{"name": f"a{n}", "file_name": f"f{n}.tif", "url": link} for n in range(20_000)]
    entry = {"scene_id": "s", "attachments": attachments}
    for found in (
        wire.page_of(body([entry]), record_parsers.scene).entries[0],
        record_parsers.scene(wire.one(body(entry))),
    ):
        assert found is not None
        assert len(found.attachments) == 20_000
        assert found.record["attachments"][7] == {"name": "a7", "file_name": "f7.tif"}


# -- records -------------------------------------------------------------------------------------


def test_a_documented_task() -> None:
    """Its fields, and the record as it was sent."""
    entry = some_tasks(1)[0]
    task = record_parsers.task(entry)
    assert task is not None
    assert task.task_id == "341000"
    assert task.name == "Harbour monitoring 0"
    assert task.status == "completed"
    assert task.created_at == datetime(2026, 1, 19, 14, 3, 22, 481905, UTC)
    assert task.record == entry


@pytest.mark.parametrize(
    ("id", "read"),
    [
        (5, "5"),
        ("5", "5"),
        (5.0, "5"),
        (-1, "-1"),
        ("a/b", "a/b"),
        ("..", ".."),
        (10**30, str(10**30)),
        (None, None),
        ("", None),
        ("  ", None),
        (True, None),
        ([], None),
        ({}, None),
        (1.5, None),
        ("x" * 2000, None),
    ],
)
def test_ids_are_numbers_or_text(id: Any, read: str | None) -> None:
    """Whichever; what identifies nothing makes the entry useless."""
    task = record_parsers.task({"task_id": id, "unknown": 1})
    assert (None if task is None else task.task_id) == read


def test_missing_and_null_fields_are_survived() -> None:
    """An id is enough."""
    for entry in ({"scene_id": "s"}, dict.fromkeys(some_scene("s", "c")) | {"scene_id": "s"}):
        scene = record_parsers.scene(entry)
        assert scene is not None
        assert scene.attachments == ()
        assert scene.timestamp is None
        assert scene.footprint is None
        assert scene.revision == ""


def test_a_null_is_no_value_where_another_field_has_one() -> None:
    """Nor does a number in the place of a text take the record's revision away."""
    point = {"type": "Point", "coordinates": [0, 0]}
    scene = record_parsers.scene(
        {"scene_id": "s", "footprint": None, "geometry": point, "last_modified": 1769637951}
    )
    assert scene is not None
    assert (scene.footprint, scene.revision) == (point, "1769637951")
    task = record_parsers.task(
        {"task_id": 1, "created_time": None, "created_at": "2026-01-28T22:05:51Z"}
    )
    assert task is not None
    assert task.created_at is not None


def test_unknown_fields_are_kept() -> None:
    """A field that the vendor adds tomorrow is in the record."""
    for parse, key in (
        (record_parsers.task, "task_id"),
        (record_parsers.capture, "capture_id"),
        (record_parsers.scene, "scene_id"),
    ):
        found = parse({key: 1, "new": {"deep": [1, None, "x"]}})
        assert found is not None
        assert found.record["new"] == {"deep": [1, None, "x"]}


def test_a_feature_is_read_by_its_properties() -> None:
    """The newer API lists GeoJSON features."""
    geometry = {"type": "Point", "coordinates": [0, 0]}
    scene = record_parsers.scene(
        {"type": "Feature", "geometry": geometry, "properties": {"scene_id": "s"}}
    )
    assert scene is not None
    assert scene.scene_id == "s"
    assert scene.footprint == geometry


def test_a_scenes_record_holds_no_link() -> None:
    """Links expire, and are secrets: none is in the record, nor in what is made of it."""
    scene = wire.page_of(body([some_scene("s", "c")]), record_parsers.scene).entries[0]
    assert scene.attachments == (
        Attachment(AttachmentName("preview"), "s_preview.png"),
        Attachment(AttachmentName("delivery_zip"), "s.zip"),
    )
    text = json.dumps(dict(scene.record))
    assert "http" not in text
    assert "Signature" not in text
    assert scene.record["attachments"][0] == {"name": "preview", "file_name": "s_preview.png"}
    assert scene.record["rasters"] == [{"file_name": "x_TOA_0.tif"}]
    assert scene.revision == "2026-01-28T22:05:51.733000+00:00"


@pytest.mark.parametrize(
    "secret",
    [
        "https://b.s3.amazonaws.com/k?X-Amz-Signature=1",
        "see https://b/k?x-amz-security-token=1 for it",
        "https%3A%2F%2Fb%2Fk%3FX-Amz-Signature%3D1",
        "https://b/k?AWSAccessKeyId=A&Signature=b&Expires=1",
        "https://storage.googleapis.com/k?X-Goog-Signature=1",
        "https://d.cloudfront.net/k?Policy=a&Signature=b&Key-Pair-Id=c",
        "https://acc.blob.core.windows.net/c/b?sv=1&sig=abc",
        "https://user:pass@host/x",
        "Bearer abc.def",
        "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln",
        "https://h/x?access_token=1",
    ],
)
def test_signed_links_and_tokens_are_dropped_wherever_they_stand(secret: str) -> None:
    """In any field, list or key, of any record."""
    kinds: list[tuple[record_parsers.RecordParser[Any], str]] = [
        (record_parsers.task, "task_id"),
        (record_parsers.capture, "capture_id"),
        (record_parsers.scene, "scene_id"),
    ]
    for parse, key in kinds:
        entry = {key: 1, "a": secret, "b": [secret, {"c": secret}, 1], secret: 1, "keep": "x"}
        found = wire.page_of(body([entry]), parse).entries[0]
        assert found == parse(wire.one(body(entry)))
        assert found is not None
        assert found.record == {key: 1, "b": [{}, 1], "keep": "x"}


def test_fields_that_name_a_secret_are_dropped() -> None:
    """For any form of their value."""
    entry = {"task_id": 1, "access_token": "opaque", "client-secret": "x", "tokens": 3}
    task = wire.page_of(body([entry]), record_parsers.task).entries[0]
    assert task.record == {"task_id": 1, "tokens": 3}


@pytest.mark.slow
@given(json_values)
def test_the_quick_look_misses_nothing(value: Any) -> None:
    """A record that counts as harmless as a whole has no field that would be dropped."""
    for raw in (body(value), json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")):
        if not may_hold_secrets(raw):
            document = json_document.document(raw)
            assert record_parsers.without_secrets(document) == document


@pytest.mark.parametrize(
    ("attachments", "files"),
    [
        ([{"name": "delivery_zip"}], {"delivery_zip": "s.zip"}),
        ([{"name": "delivery_zip", "file_name": None}], {"delivery_zip": "s.zip"}),
        ([{"name": "preview", "file_name": ""}], {"preview": "preview"}),
        ([{"file_name": "x"}, {"name": None}, None, 5, {"name": "a", "filename": "b"}], {"a": "b"}),
        ([{"name": "a", "file_name": "1"}, {"name": "a", "file_name": "2"}], {"a": "1"}),
        ({"preview": {"file_name": "p.png", "url": "https://x"}, "odd": 1}, {"preview": "p.png"}),
        ([{"name": 7, "file_name": 8}], {"7": "8"}),
        ([{"name": "a", "file_name": "https://x?X-Amz-Signature=1"}], {"a": "a"}),
        ("x", {}),
        (None, {}),
    ],
)
def test_attachments_are_read_leniently(attachments: Any, files: dict[str, str]) -> None:
    """Without a name nothing can be requested; without a file name one is made."""
    scene = record_parsers.scene({"scene_id": "s", "attachments": attachments})
    assert scene is not None
    assert {found.name: found.file_name for found in scene.attachments} == files


# -- moments -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2026-01-28T15:57:48Z", datetime(2026, 1, 28, 15, 57, 48, tzinfo=UTC)),
        ("2026-01-28T15:57:48.311000+00:00", datetime(2026, 1, 28, 15, 57, 48, 311000, UTC)),
        ("2026-01-28T18:57:48+03:00", datetime(2026, 1, 28, 15, 57, 48, tzinfo=UTC)),
        ("2026-01-28T15:57:48", datetime(2026, 1, 28, 15, 57, 48, tzinfo=UTC)),
        (" 2026-01-28 ", datetime(2026, 1, 28, tzinfo=UTC)),
        (1769615868, datetime(2026, 1, 28, 15, 57, 48, tzinfo=UTC)),
        (1769615868000, datetime(2026, 1, 28, 15, 57, 48, tzinfo=UTC)),
        (1769615868000000, datetime(2026, 1, 28, 15, 57, 48, tzinfo=UTC)),
        (1769615868000000000, datetime(2026, 1, 28, 15, 57, 48, tzinfo=UTC)),
        ("20260128", datetime(2026, 1, 28, tzinfo=UTC)),
        *(
            (text, datetime(2026, 1, 28, 15, 57, 48, tzinfo=UTC))
            for text in (
                "1769615868",
                "1769615868.0",
                "1769615868000",
                "2026-01-28T15:57:48z",
                "2026-01-28t15:57:48z",
                "2026-01-28 15:57:48 UTC",
                "2026-01-28 15:57:48 +0000",
                "2026-01-28T15:57:48GMT",
                "2026-01-28T12:57:48\u221203:00",
                "2026-01-28T15:57:48+00:00[UTC]",
                "2026/01/28 15:57:48",
                "2026-028T15:57:48Z",
                "Wed, 28 Jan 2026 15:57:48 GMT",
                "Wed, 28 Jan 2026 18:57:48 +0300",
            )
        ),
        ("2026-01-28t15:57:48.25z", datetime(2026, 1, 28, 15, 57, 48, 250000, UTC)),
        ("2026-01-28T23:59:60Z", datetime(2026, 1, 29, tzinfo=UTC)),
        ("2026-01-28T24:00:00Z", datetime(2026, 1, 29, tzinfo=UTC)),
        ("2026-028", datetime(2026, 1, 28, tzinfo=UTC)),
    ],
)
def test_moments_are_told_in_many_ways(value: Any, expected: datetime) -> None:
    """With and without zone, fraction and time of day; also in seconds and milliseconds."""
    assert record_parsers.moment(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        None,
        "",
        "yesterday",
        "2026-13-45T99:99:99Z",
        "2026-01-28T25:00:00Z",
        "2026-01-28 15:57:48 noon",
        "2026-999T00:00:00Zx",
        "9" * 5000,
        "-9999999999999999999",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59Z",
        *(-1, 1e300, float("nan"), float("inf"), True, [], {}, 10**400),
    ],
)
def test_silly_moments_are_none(value: Any) -> None:
    """A bad date costs the date, not the record."""
    assert record_parsers.moment(value) is None


@given(st.text() | st.integers() | st.floats() | st.datetimes().map(str))
def test_any_moment_fits_a_files_time(value: Any) -> None:
    """A time is one that nanoseconds in 64 bits can hold."""
    moment = record_parsers.moment(value)
    assert moment is None or 0 <= moment.timestamp() < 2**63 / 1e9
