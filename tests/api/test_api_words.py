"""Questions, quotes and links: the small pure parts of the API client."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from satfs.api import endpoints, error_text, presigned
from satfs.errors import Garbled, NotThere
from satfs.model import AttachmentName, CaptureId, SceneId, TaskId
from satfs.redaction import MAX_QUOTE_CHARACTERS, for_people, is_link, is_secret_key, is_secret_like

API = "https://api.test/base"

# -- requests --------------------------------------------------------------------------------------


def test_the_documented_paths() -> None:
    """As the documentation and its clients write them, with the final slash."""
    asked = {
        endpoints.contracts(): "/contracts",
        endpoints.tasks(100): "/tasking/tasks/?limit=100&offset=0",
        endpoints.task(TaskId("5")): "/tasking/tasks/5/",
        endpoints.captures(TaskId("5"), 7): "/tasking/tasks/5/captures/?limit=7&offset=0",
        endpoints.scenes(CaptureId("c d"), 7): "/telluric/scenes/?sceneset_id=c%20d&limit=7",
        endpoints.scene(SceneId("s")): "/telluric/scenes/s/",
        endpoints.scene_search(SceneId("s")): "/telluric/scenes/?scene_id=s",
        endpoints.sign(SceneId("s"), AttachmentName("delivery_zip")): (
            "/telluric/scenes/s/attachments/delivery_zip/download/?redirect=false"
        ),
    }
    for question, path in asked.items():
        assert question.url(API) == f"{API}{path}"
        assert question.url(f"{API}/") == f"{API}{path}"


@given(st.text(min_size=1))
def test_an_id_is_one_segment_and_nothing_else(id: str) -> None:
    """No id leaves its place in the path, or adds to the query."""
    try:
        url = endpoints.task(TaskId(id)).url(API)
    except NotThere:
        assert id in (".", "..") or not id.isprintable()
        return
    segment = url.removeprefix(f"{API}/tasking/tasks/").removesuffix("/")
    assert not set(segment) & set("/?#\\ &=")
    assert segment not in ("", ".", "..")
    assert segment.isascii()


def test_half_a_surrogate_is_no_id() -> None:
    """It cannot be encoded, so nothing can have it."""
    with pytest.raises(NotThere):
        endpoints.task(TaskId("\ud800"))
    with pytest.raises(NotThere):
        endpoints.scenes(CaptureId("\ud800"), 1)


# -- the vendor's words ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"message": "No item found with id 2026"}, "No item found with id 2026"),
        ({"Message": "User is not authorized"}, "User is not authorized"),
        ({"detail": "Not found."}, "Not found."),
        ({"error": "access_denied", "error_description": "Unauthorized"}, "Unauthorized"),
        ({"error": "too_many_requests"}, "too_many_requests"),
        ({"error": {"message": "inside"}}, "inside"),
        ({"message": None, "detail": "second"}, "second"),
        ({"message": None}, ""),
        ({"message": ""}, ""),
        ({"status": ["not a valid choice", "no"]}, "status: not a valid choice; no"),
        ({"detail": [{"msg": "x", "message": "listed"}]}, "listed"),
        (["one", "two"], "one; two"),
        ("only text", "only text"),
        ({}, ""),
        (5, ""),
    ],
)
def test_every_dialect_is_understood(body: Any, words: str) -> None:
    """The gateway's, the tasking service's, Auth0's, and what comes in the place of them."""
    assert error_text.error_text(json.dumps(body).encode()) == words


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"plain words", "plain words"),
        (b"", ""),
        (b"\xff\xfd", "\ufffd\ufffd"),
        ("plain words".encode("utf-16"), "plain words"),
        (b"two\nlines\x00\x1b[31mred", "two lines [31mred"),
        (b"<html><head><title>503 Service\nUnavailable</title>", "an HTML page ' 503"),
        (b"<!DOCTYPE html><html><body>x", "an HTML page"),
        ("right\u202eleft".encode(), "right left"),
        (b"word " * 100_000, "word " * (MAX_QUOTE_CHARACTERS // 5 - 1)),
        (b"[" * 100_000, "\u2026"),
    ],
)
def test_what_is_no_json_is_quoted_in_short(body: bytes, words: str) -> None:
    """One line without control characters; HTML by its title."""
    assert error_text.error_text(body).replace("'503", "' 503").startswith(words)


@given(st.binary(max_size=2000), st.lists(st.text(min_size=4, max_size=20), max_size=3))
def test_any_body_is_one_short_line(body: bytes, secrets: list[str]) -> None:
    """Any text that arrives can be shown on a terminal."""
    words = error_text.error_text(body, secrets)
    assert len(words) <= MAX_QUOTE_CHARACTERS
    assert "\n" not in words
    assert "\x1b" not in words


@given(st.text(max_size=30), st.text(alphabet="abcXYZ019-_.", min_size=8, max_size=40))
def test_a_secret_is_never_quoted(text: str, secret: str) -> None:
    """Wherever the vendor puts it."""
    body = json.dumps({"message": f"{text}{secret}{text}", "x": secret}).encode()
    assert secret not in error_text.error_text(body, [secret]) or secret in "***"


def test_signatures_are_never_quoted() -> None:
    """Queries of URLs, tokens and passwords are taken out of any text."""
    shown = for_people(
        "see https://b.s3.amazonaws.com/k?X-Amz-Signature=5ec2e7 and Bearer 5ec2e7, "
        "https://user:5ec2e7@h/x, token eyJhbGciOiJIUzI1NiJ9.5ec2e75ec2e7.5ec2e7!"
    )
    assert "5ec2e7" not in shown
    assert "https://b.s3.amazonaws.com/k" in shown


@pytest.mark.parametrize(
    "name",
    ["token", "accessToken", "session_token", "sessionToken", "SecretAccessKey", "API-KEY"],
)
def test_a_field_is_secret_by_its_name(name: str) -> None:
    """However its words are put together."""
    assert is_secret_key(name)
    assert not is_secret_key(f"{name}_id")
    assert is_secret_like("https://h.test/x#access_token=5ec2e7")


@pytest.mark.parametrize(
    "piece",
    ["[", "a", "eyj", "eyj-", "http://", "://", "bearer ", "x@", "?token", "<title", "%25", "\x00"],
)
def test_no_text_keeps_us_busy(piece: str) -> None:
    """The vendor writes the text; a megabyte of anything is judged at once."""
    text = piece * (1_000_000 // len(piece))
    is_secret_like(text)
    for_people(text)
    error_text.error_text(text.encode())


def test_ordinary_text_is_no_secret() -> None:
    """Names, dates and ids stay."""
    for text in ("20241206_081221_SN49_L1C_MS_268095", "a policy", "Harbour", "https://a/b.png"):
        assert not is_secret_like(text)
    assert is_link("https://a/b.png")
    assert not is_link("Harbour: https")


# -- links -----------------------------------------------------------------------------------------

SIGNED = "https://b.test/k?X-Amz-Date=20260205T101500Z&X-Amz-Expires=3600&X-Amz-Signature=1"
AT_S = 1770286500.0


@pytest.mark.parametrize(
    ("url", "expires_at_s"),
    [
        (SIGNED, AT_S + 3600),
        (SIGNED.replace("X-Amz", "x-amz"), AT_S + 3600),
        (SIGNED.replace("X-Amz", "X-Goog"), AT_S + 3600),
        ("https://b.test/k?AWSAccessKeyId=A&Expires=1770290100&Signature=x", 1770290100),
        ("https://b.test/k", None),
        ("https://b.test/k?Expires=soon", None),
        (SIGNED.replace("3600", "-1"), None),
        (SIGNED.replace("3600", "99999999"), None),
        (SIGNED.replace("20260205T101500Z", "2026-02-05"), None),
        (SIGNED.replace("20260205", "20269905"), None),
        ("https://b.test/k?X-Amz-Expires=3600", None),
    ],
)
def test_a_link_tells_its_end(url: str, expires_at_s: float | None) -> None:
    """By the date and the lifetime in its query, where they make sense."""
    link = presigned.from_url(url)
    assert link.url == url
    assert link.expires_at_s == expires_at_s
    assert "5ec2e7" not in repr(presigned.from_url("https://h/?X-Amz-Signature=5ec2e7"))


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (200, {}, {"url": SIGNED}),
        (200, {}, {"url": f" {SIGNED}\n", "expires": 5}),
        (200, {}, {"download_url": SIGNED, "url": None}),
        (200, {}, {"URL": SIGNED}),
        (200, {}, {"signed_url": SIGNED}),
        (200, {}, {"status": "ready", "data": {"url": SIGNED}}),
        (200, {}, [{"url": SIGNED}]),
        (200, {}, {"url": "//b.test" + SIGNED.removeprefix("https://b.test")}),
        (200, {}, SIGNED),
        (302, {"location": SIGNED}, ""),
        (307, {"location": "//b.test" + SIGNED.removeprefix("https://b.test")}, {"url": "x"}),
    ],
)
def test_links_come_in_several_ways(status: int, headers: dict[str, str], body: Any) -> None:
    """JSON with a url, a bare text, or a redirect where JSON was requested."""
    raw = json.dumps(body).encode()
    link = presigned.link(status, headers, raw, request_url="https://api.test/x/download/")
    assert link.url == SIGNED


def test_a_link_is_escaped_where_it_should_have_been() -> None:
    """A file name in it, as it is; its host and what is escaped already stay."""
    body = json.dumps({"url": "https://b.test/a%20b/c d/\u00e9.zip?n=e\u0301\u4e2d&s=1"}).encode()
    found = presigned.link(200, {}, body, request_url="https://api.test/")
    assert found.url == "https://b.test/a%20b/c%20d/%C3%A9.zip?n=e%CC%81%E4%B8%AD&s=1"


def test_a_link_of_azure_has_an_expiry() -> None:
    url = "https://b.test/c/z.zip?sv=2022-11-02&se=2026-01-28T15%3A57%3A48Z&sr=b&sig=x"
    assert presigned.from_url(url).expires_at_s == 1769615868


@pytest.mark.parametrize("body", [SIGNED, f" {SIGNED}\r\n"])
def test_a_link_may_be_the_whole_text(body: str) -> None:
    """The URL itself, as `text/plain`, without the quotes of JSON."""
    found = presigned.link(200, {}, body.encode(), request_url="https://api.test/x/download/")
    assert found.url == SIGNED


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (200, {}, b"https://b.test/a https://b.test/b"),
        (200, {}, b"see https://b.test/a"),
        (200, {}, b"{}"),
        (200, {}, b'{"url": null}'),
        (200, {}, b'{"url": ["x"]}'),
        (200, {}, b'{"url": "  "}'),
        (200, {}, b"PK\x03\x04 the zip itself"),
        (200, {}, b"<html>"),
        (302, {}, b""),
        (302, {"location": " "}, b'{"url": "https://b.test"}'),
    ],
)
def test_without_a_link_it_is_garbled(status: int, headers: dict[str, str], body: bytes) -> None:
    """For example the zip in place of a link, when `redirect` is not understood at all."""
    with pytest.raises(Garbled):
        presigned.link(status, headers, body, request_url="https://api.test/")


@given(
    st.sampled_from([200, 302]),
    st.text(),
    st.binary() | st.text().map(lambda t: json.dumps(t).encode()),
)
def test_any_answer_is_a_link_or_garbled(status: int, location: str, body: bytes) -> None:
    """Nothing else comes of it."""
    try:
        link = presigned.link(status, {"location": location}, body, request_url="https://api.test/")
    except Garbled:
        return
    assert isinstance(link.url, str)
