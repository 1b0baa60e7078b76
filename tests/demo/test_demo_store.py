"""The store is as strict as S3 (aleph-api: behaviour of presigned URLs)."""

from __future__ import annotations

from email.utils import parsedate_to_datetime

import pytest
from demo.asking import Customer, ask
from hypothesis import given
from hypothesis import strategies as st

from satfs.demo.contents import BytesContent, RampContent
from satfs.demo.server import DemoOrigin
from satfs.demo.store import byte_span


@pytest.fixture
def data(origin: DemoOrigin, scene_id: str) -> bytes:
    content = origin.catalogue.content(scene_id)
    return bytes(content.read(0, content.size_bytes))


@pytest.fixture
def url(origin: DemoOrigin, scene_id: str) -> str:
    return origin.link(scene_id)


def test_whole_object(url: str, data: bytes) -> None:
    """A GET without range gives all bytes, unencoded, and says what it is."""
    reply = ask(url, headers={"Accept-Encoding": "gzip, br"})
    assert (reply.status, reply.body) == (200, data)
    assert reply.headers["accept-ranges"] == "bytes"
    assert reply.headers["content-type"] == "application/zip"
    assert "content-encoding" not in reply.headers
    assert reply.headers["etag"].startswith('"')
    assert reply.headers["etag"].endswith('"')
    assert parsedate_to_datetime(reply.headers["last-modified"]).microsecond == 0


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=10-19", 10, 20),
        ("bytes=100-", 100, None),
        ("bytes=-100", -100, None),
        ("bytes=50-99999999999", 50, None),
        ("bytes=-99999999999", 0, None),
    ],
)
def test_one_range(url: str, data: bytes, asked: str, start: int, stop: int | None) -> None:
    """A range is answered with 206 and says where it lies; an end past the end is clipped."""
    reply = ask(url, headers={"Range": asked})
    expected = data[start:stop]
    first = start % len(data)
    assert (reply.status, reply.body) == (206, expected)
    last = first + len(expected) - 1
    assert reply.headers["content-range"] == f"bytes {first}-{last}/{len(data)}"


@pytest.mark.parametrize(
    "asked", ["bytes=0-1,5-6", "bytes=9-3", "lines=1-2", "bytes=", "bytes=a-b"]
)
def test_range_that_is_none_is_ignored(url: str, data: bytes, asked: str) -> None:
    """Several ranges, another unit and nonsense are answered with the whole object."""
    reply = ask(url, headers={"Range": asked})
    assert (reply.status, len(reply.body)) == (200, len(data))


@pytest.mark.parametrize("asked", ["bytes=99999999-", "bytes=-0"])
def test_unsatisfiable_range(url: str, data: bytes, asked: str) -> None:
    """A range behind the end is 416, and the body has the length."""
    reply = ask(url, headers={"Range": asked})
    assert (reply.status, reply.code) == (416, "InvalidRange")
    assert f"<ActualObjectSize>{len(data)}<" in reply.body.decode()
    assert reply.headers["content-type"] == "application/xml"


def test_empty_object_has_no_range(origin: DemoOrigin, scene_id: str) -> None:
    """No range of an empty object is satisfiable; the whole object is sent."""
    origin.catalogue.replace(scene_id, b"")
    url = origin.link(scene_id)
    assert ask(url, headers={"Range": "bytes=-100"}).status == 416
    assert (ask(url).status, ask(url).body) == (200, b"")


def test_if_match(url: str) -> None:
    """If-Match with the object's ETag passes; with another one it is 412, before the range."""
    etag = ask(url).headers["etag"]
    good = ask(url, headers={"If-Match": etag, "Range": "bytes=0-9"})
    assert good.status == 206
    bad = ask(url, headers={"If-Match": '"other"', "Range": "bytes=99999999-"})
    assert (bad.status, bad.code) == (412, "PreconditionFailed")


def test_if_match_after_replacement(origin: DemoOrigin, scene_id: str, url: str) -> None:
    """An object that was replaced has another ETag, at once, behind the same link."""
    etag = ask(url).headers["etag"]
    origin.catalogue.replace(scene_id, RampContent(1000, 3))
    assert ask(url, headers={"If-Match": etag}).status == 412
    assert ask(url).body == bytes(RampContent(1000, 3).read(0, 1000))


def test_if_none_match(url: str) -> None:
    """If-None-Match with the object's ETag is 304, without a body."""
    etag = ask(url).headers["etag"]
    reply = ask(url, headers={"If-None-Match": etag})
    assert (reply.status, reply.body, reply.headers["etag"]) == (304, b"", etag)


def test_head_is_refused(url: str) -> None:
    """HEAD on a link signed for GET is 403 without a body: the method is part of the signature."""
    reply = ask(url, "HEAD")
    assert (reply.status, reply.body) == (403, b"")


def test_expired_link(origin: DemoOrigin, url: str) -> None:
    """A link that is too old is 403 AccessDenied, Request has expired, in XML."""
    origin.advance_clock(3601)
    reply = ask(url)
    assert (reply.status, reply.code) == (403, "AccessDenied")
    assert b"Request has expired" in reply.body
    assert b"<X-Amz-Expires>3600</X-Amz-Expires>" in reply.body
    assert reply.headers["content-type"] == "application/xml"


def test_altered_link(url: str) -> None:
    """A query or path that was altered does not match its signature."""
    assert (
        ask(url.replace("X-Amz-Expires=3600", "X-Amz-Expires=9999")).code == "SignatureDoesNotMatch"
    )
    assert ask(url.replace(".zip?", ".zap?")).code == "SignatureDoesNotMatch"
    assert ask(url.partition("?")[0]).code == "AccessDenied"


def test_deleted_key(origin: DemoOrigin, scene_id: str, url: str) -> None:
    """Links of a deleted key are refused, new ones are good."""
    origin.delete_key()
    assert (ask(url).status, ask(url).code) == (403, "InvalidAccessKeyId")
    assert ask(origin.link(scene_id)).status == 200


def test_links_expire_when_told(origin: DemoOrigin, scene_id: str, url: str) -> None:
    """All links can be made to expire at once, before the time that they state."""
    origin.expire_links()
    reply = ask(url)
    assert (reply.status, b"Request has expired" in reply.body) == (403, True)
    assert ask(origin.link(scene_id)).status == 200


def test_object_that_is_gone(origin: DemoOrigin, scene_id: str, url: str) -> None:
    """An object that was removed is 404 NoSuchKey."""
    origin.catalogue.replace(scene_id, None)
    assert (ask(url).status, ask(url).code) == (404, "NoSuchKey")


def test_two_authentications(origin: DemoOrigin, url: str) -> None:
    """Authorization beside the signature is 400, and noticed."""
    reply = ask(url, headers={"Authorization": "Bearer x"})
    assert (reply.status, reply.code) == (400, "InvalidArgument")
    assert b"Only one auth mechanism allowed" in reply.body
    assert [leak.place for leak in origin.leaks] == ["authorization"]


@pytest.mark.parametrize(
    "name", ["authorizationToken", "AUTHORIZATIONTOKEN", "X-Satellogic-Contract-Id"]
)
def test_credential_header_is_noticed(origin: DemoOrigin, url: str, name: str) -> None:
    """A credential header of the API at the store is 400, and noticed."""
    assert ask(url, headers={name: "x"}).status == 400
    assert [(leak.side, leak.place) for leak in origin.leaks] == [("store", name.lower())]


def test_secret_anywhere_is_noticed(origin: DemoOrigin, customer: Customer, url: str) -> None:
    """Token and client secret are recognised wherever they are put: header, query or path."""
    bearer = customer.headers["authorizationToken"].removeprefix("Bearer ")
    assert ask(url, headers={"X-Debug": f"[{bearer}]"}).status == 400
    assert ask(f"{url}&t={bearer}").status == 400
    assert ask(f"{origin.store_url}/{origin.account.client_secret}").status == 400
    assert [leak.place for leak in origin.leaks] == ["x-debug", "query", "path"]


def test_leaks_are_told_without_the_secret(origin: DemoOrigin, url: str) -> None:
    """The record of a leak leads to its place, and is no leak itself."""
    ask(url, headers={"Cookie": origin.account.client_secret})
    assert origin.account.client_secret not in repr(origin.leaks)
    assert "X-Amz-Signature" not in repr(origin.leaks) + repr(origin.requests)


def test_signed_override(origin: DemoOrigin, scene_id: str, url: str) -> None:
    """An override that is not signed is refused."""
    assert ask(f"{url}&response-content-type=text/plain").status == 403


@given(
    size_bytes=st.integers(0, 5000),
    first=st.none() | st.integers(0, 6000),
    last=st.none() | st.integers(0, 6000),
)
def test_span_is_that_of_the_bytes(size_bytes: int, first: int | None, last: int | None) -> None:
    """The span of a Range header agrees with slicing."""
    header = f"bytes={'' if first is None else first}-{'' if last is None else last}"
    span = byte_span(header, size_bytes)
    everything = range(size_bytes)
    if (first is None and last is None) or (
        first is not None and last is not None and last < first
    ):
        assert span is None
        return
    assert span is not None
    if first is None:
        expected = everything[max(0, size_bytes - (last or 0)) :]
    else:
        expected = everything[first : None if last is None else last + 1]
    assert list(everything[slice(*span)]) == list(expected)


@given(st.text(max_size=40))
def test_any_range_header_is_understood_or_ignored(header: str) -> None:
    """Any Range header gives a span inside the object, or nothing."""
    span = byte_span(header, 100)
    assert span is None or 0 <= span[0] <= span[1] <= 100


def test_bytes_content_is_served_as_it_is(origin: DemoOrigin, scene_id: str) -> None:
    """The bytes that a test puts into the catalogue are the bytes that come over the wire."""
    origin.catalogue.replace(scene_id, BytesContent(b"\x00\xff" * 300_000))
    assert ask(origin.link(scene_id)).body == b"\x00\xff" * 300_000
