"""The meaning of the object store's responses for the requested range.

Pure, and shared by both ways of moving bytes. Sources: RFC 9110 §§13-15 for ranges and conditions,
the S3 API for error codes and presigned URLs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from satfs.content.transfer.codings import encodings_of
from satfs.content.transfer.etags import (
    BY_DATE,
    etag_of,
    is_coded_of,
    is_same,
    may_be_condition,
    version_of,
)
from satfs.model import ByteRange, Version
from satfs.net.retry import PASSING_STATUSES

# Eighteen digits hold any offset that a file system knows; Python refuses to read thousands.
# Range units know no case (RFC 9110 §14.1). Servers were seen to write `bytes=`, `bytes: ` or the
# numbers alone, and spaces around them; which bytes come, the numbers show.
_UNIT: Final = r"(?i:bytes)?[ \t:=]*"
_PART: Final = rf"{_UNIT}([0-9]{{1,18}})[ \t]*-[ \t]*([0-9]{{1,18}})[ \t]*/[ \t]*"
_CONTENT_RANGE: Final = re.compile(rf"{_PART}([0-9]{{1,18}})")
#: The same without the total length, which RFC 9110 §14.4 allows.
_CONTENT_RANGE_ALONE: Final = re.compile(rf"{_PART}\*")
_UNSATISFIED: Final = re.compile(rf"{_UNIT}\*[ \t]*/[ \t]*([0-9]{{1,18}})")
#: An object without bytes has no first and no last one. Servers that write a `Content-Range` for it
#: compute them all the same: `0--1/0`, `0-0/0`, `0-18446744073709551615/0`.
_OF_NOTHING: Final = re.compile(rf"{_UNIT}[-0-9* \t]{{0,64}}/[ \t]*0")
_ACTUAL_SIZE: Final = re.compile(rb"<ActualObjectSize>([0-9]{1,18})</ActualObjectSize>")
_LENGTH: Final = re.compile(r"[0-9]{1,18}")
#: Codes of S3 and similar stores for credentials, links or requests that have expired, with any
#: status (S3 API, "Error responses": 400 for ExpiredToken, 403 for RequestTimeTooSkewed). Their
#: spellings differ (`ExpiredRequest`, `RequestExpired`, `ExpiredTokenException`).
_IS_OVER: Final = re.compile(r"expired|skewed|refreshrequired", re.IGNORECASE)
#: Codes for parts of a link that its signer has set: another link may be accepted. satfs sets only
#: the range of a request.
_ABOUT_LINK: Final = re.compile(
    r"token|auth|signature|credential|accesskey|security|querystring", re.IGNORECASE
)
_CODE: Final = re.compile(rb"<Code>([A-Za-z0-9.]{1,64})</Code>")
#: Longest length of an object that is accepted. Deliveries are gigabytes. The block map takes half
#: a megabyte per gigabyte, and a store with a false length must not fill the memory with it.
MAX_OBJECT_BYTES: Final = 256 * 1024**3
#: A body that begins before the requested range, such as the whole object, is read and skipped up
#: to this many bytes; if more come first, the response is refused.
MAX_SKIPPED_BYTES: Final = 1024 * 1024
#: The same, where the response before was refused for that: the server does so each time.
MAX_SKIPPED_AGAIN_BYTES: Final = 32 * 1024 * 1024


#: Ends of content types of error documents (`application/problem+json` is RFC 9457's).
_DOCUMENTS: Final = ("html", "json", "xml")
#: Our code for a response that refuses the condition of a request, whatever the store's own code.
CONDITION_REFUSED: Final = "412"
#: Our code for a response to a feature that the store does not support: perhaps the condition (S3
#: has NotImplemented: "a header you provided implies functionality that is not implemented").
NOT_IMPLEMENTED: Final = "501"


class ResponseKind(StrEnum):
    """The kind of a response, by its consequence."""

    BYTES = "bytes"  #: the requested bytes follow
    RENEW = "renew"  #: the link is refused: try again, with another if need be
    RETRY = "retry"  #: try again, after a wait
    SLOW_DOWN = "slow down"  #: try again after a wait, with fewer connections
    REDIRECT = "redirect"  #: the object is elsewhere
    CHANGED = "changed"  #: not the version that was opened
    GONE = "gone"  #: no such object
    REFUSED = "refused"  #: never for us
    GARBLED = "garbled"  #: the store broke its contract


@dataclass(frozen=True, slots=True)
class ResponseClass:
    """A meaning, with the values that are needed to act on it.

    `skip_bytes` come before the requested ones. `code` is the store's own code of an error, or the
    status. `is_over`: the response means that the link, or the credential that signed it, has
    expired.
    """

    kind: ResponseKind
    code: str = ""
    skip_bytes: int = 0
    is_over: bool = field(default=False, compare=False)


def request_headers(
    requested: ByteRange, version: Version | None, *, is_conditional: bool = True
) -> dict[str, str]:
    """Return the headers that request a range of one version of an object.

    *is_conditional*: the store is to refuse any other version, where it can.
    """
    headers = {
        "Range": f"bytes={requested.start}-{requested.stop - 1}",
        "Accept-Encoding": "identity",
    }
    if version is not None and is_conditional and may_be_condition(version):
        headers["If-Match"] = version.etag
    return headers


def _is_range(status: int, headers: Mapping[str, str]) -> bool:
    """Return whether the body is a part of the object: it has a `Content-Range`, with 206 or not.

    If the `Content-Range` of a 200 were ignored, it would count as the whole object.
    """
    return status == 206 or (status == 200 and "content-range" in headers)


def error_code(body: bytes) -> str:
    """Return the `Code` of an S3 error document, or nothing."""
    found = _CODE.search(body[:8192])
    return found.group(1).decode("ascii") if found else ""


def classify_error(status: int, body: bytes) -> ResponseClass:
    """Return the meaning of a response other than 200 and 206. *body* may be cut short."""
    code = error_code(body) or str(status)
    if code == "SlowDown" or status == 429:
        return ResponseClass(ResponseKind.SLOW_DOWN, code)
    is_over_by_code = 400 <= status < 500 and _IS_OVER.search(code) is not None
    if is_over_by_code or status in (401, 403) or (status == 400 and _ABOUT_LINK.search(code)):
        # S3 has no code of its own for a link that has expired: AccessDenied, with the moment.
        is_over = is_over_by_code or b"<Expires>" in body[:8192]
        return ResponseClass(ResponseKind.RENEW, code, is_over=is_over)
    if code == "RequestTimeout" or status in PASSING_STATUSES:
        return ResponseClass(ResponseKind.RETRY, code)
    if status in (301, 302, 303, 307, 308):
        return ResponseClass(ResponseKind.REDIRECT, code)
    # A range beyond the end means that the object became shorter: we never request bytes beyond the
    # end of the version that we opened.
    if status == 412:
        return ResponseClass(ResponseKind.CHANGED, CONDITION_REFUSED)
    if status == 501:
        return ResponseClass(ResponseKind.GARBLED, NOT_IMPLEMENTED)
    if status == 416:
        return ResponseClass(ResponseKind.CHANGED, code)
    if status in (404, 410):
        return ResponseClass(ResponseKind.GONE, code)
    if 400 <= status < 500:
        return ResponseClass(ResponseKind.REFUSED, code)
    return ResponseClass(ResponseKind.GARBLED, code)


def is_of_connection(status: int, response_class: ResponseClass) -> bool:
    """Return whether an error may be about the connection, if it is the first response on it.

    A proxy that limits the connections of a client responds with 503 to those beyond. A store that
    gets too many requests responds with `SlowDown`.
    """
    return status == 503 and response_class.kind is ResponseKind.RETRY


def classify_success(
    status: int,
    headers: Mapping[str, str],
    requested: ByteRange,
    version: Version | None,
    *,
    is_conditional: bool = True,
    max_skipped_bytes: int = MAX_SKIPPED_BYTES,
) -> ResponseClass:
    """Return the meaning of a 200 or 206. *headers* have lower-case names.

    With *version*, the response must show that version; by its ETag, where the request was not
    conditional, since the store has refused the condition. A server may send less of a range than
    was requested (RFC 9110 §15.3.7); such a part is BYTES if it begins where the range does. Some
    caches send more: all of their stored pieces that contain a byte of the range. That is BYTES if
    the whole range is in it and its length is stated: a header that is wrong, and put the bytes in
    a wrong place, would not agree with it. *max_skipped_bytes* may come before the range.
    """
    length = _number(headers.get("content-length"))
    if not (is_conditional or etag_of(headers)):
        return ResponseClass(ResponseKind.CHANGED, "no ETag")
    if not _is_range(status, headers):
        if status == 200:
            return _classify_whole(headers, length, requested, version, max_skipped_bytes)
        return ResponseClass(ResponseKind.GARBLED, str(status))
    span = _content_range(headers)
    if span is None:
        return ResponseClass(ResponseKind.GARBLED, "Content-Range")
    first, last, total = span
    if total is None:
        # The range is inside of the version that was opened; the ETag must show that it is this
        # version, since the length does not.
        if version is None or not (_names(headers) or may_be_condition(version)):
            return ResponseClass(ResponseKind.GARBLED, "Content-Range")
        total = version.size_bytes
    seen = version_of(headers, total)
    if version is not None and not _is_same(seen, version, headers):
        return ResponseClass(ResponseKind.CHANGED, "ETag")
    if not _is_label_alone(headers, length, last + 1 - first, total):
        return ResponseClass(ResponseKind.GARBLED, "Content-Encoding")
    if not first <= last < total:
        return ResponseClass(ResponseKind.GARBLED, "Content-Range")
    if length is not None and length > last + 1 - first:
        return ResponseClass(ResponseKind.GARBLED, "Content-Length")
    if first == requested.start and last < requested.stop:
        return ResponseClass(ResponseKind.BYTES)
    skip_bytes = requested.start - first
    holds_range = skip_bytes >= 0 and last + 1 >= requested.stop
    if not holds_range or length != last + 1 - first or skip_bytes > max_skipped_bytes:
        return ResponseClass(ResponseKind.GARBLED, "Content-Range")
    return ResponseClass(ResponseKind.BYTES, skip_bytes=skip_bytes)


def _classify_whole(
    headers: Mapping[str, str],
    length: int | None,
    requested: ByteRange,
    version: Version | None,
    max_skipped_bytes: int,
) -> ResponseClass:
    # RFC 9110 §14.2 lets a server ignore Range; then the whole object comes.
    if length is None and version is not None and is_whole_without_length(200, headers):
        # Only its end shows whether it is not the range alone: who takes it has to count.
        length = version.size_bytes
        if length > MAX_SKIPPED_AGAIN_BYTES:
            return ResponseClass(ResponseKind.GARBLED, "Content-Length")
    if length is None:
        return ResponseClass(ResponseKind.GARBLED, "Content-Length")
    seen = version_of(headers, length)
    if encodings_of(headers) and (version is None or seen != version):
        return ResponseClass(ResponseKind.GARBLED, "Content-Encoding")
    if version is not None and not _is_same(seen, version, headers):
        if length == len(requested) and (not _names(headers) or seen.etag == version.etag):
            # A proxy has replaced the status by 200: the response does not show which bytes these
            # are.
            return ResponseClass(ResponseKind.GARBLED, "200 for a range")
        if is_document(headers):
            return ResponseClass(ResponseKind.GARBLED, "Content-Type")
        return ResponseClass(ResponseKind.CHANGED, "ETag")
    if requested.start > max_skipped_bytes or requested.stop > length:
        return ResponseClass(ResponseKind.GARBLED, "200 for a range")
    return ResponseClass(ResponseKind.BYTES, skip_bytes=requested.start)


def is_document(headers: Mapping[str, str]) -> bool:
    """Return whether a body is labelled as text for people or programs: perhaps about an error."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind.endswith(_DOCUMENTS)


def _is_same(seen: Version, version: Version, headers: Mapping[str, str]) -> bool:
    if seen.size_bytes != version.size_bytes:
        return False
    # Proxies strip headers: a name that the response does not give cannot contradict.
    if version.etag.startswith(BY_DATE):
        modified = headers.get("last-modified", "").strip()
        return not modified or version.etag == f"{BY_DATE}{modified}"
    if not etag_of(headers):
        return True
    if encodings_of(headers) and is_coded_of(seen, version):
        return False  # the ETag and the label agree that this is another representation
    return is_same(seen, version)


def _names(headers: Mapping[str, str]) -> bool:
    """Return whether a response shows the name of its version."""
    return bool(etag_of(headers) or headers.get("last-modified", "").strip())


def _content_range(headers: Mapping[str, str]) -> tuple[int, int, int | None] | None:
    """Return first and last byte, and the total length where it is stated; None if invalid.

    A body of several parts (RFC 9110 §14.6), which was not requested, holds more than its bytes.
    """
    if headers.get("content-type", "").lower().startswith("multipart/byteranges"):
        return None
    stated = headers.get("content-range", "").strip()
    found = _CONTENT_RANGE.fullmatch(stated) or _CONTENT_RANGE_ALONE.fullmatch(stated)
    if found is None:
        return None
    first, last, *total = (int(number) for number in found.groups())
    return first, last, total[0] if total else None


def _is_label_alone(
    headers: Mapping[str, str], length: int | None, n_bytes: int, total: int
) -> bool:
    """Return whether a part of an object is sent uncoded, in spite of its label.

    Uploads leave `aws-chunked` or `gzip` on objects that are not coded. We request identity; a body
    that was coded on its way has another length than its range, or none in advance.
    """
    if not encodings_of(headers):
        return True
    decoded = headers.get("x-amz-decoded-content-length")
    return length == n_bytes and (decoded is None or _number(decoded) in (n_bytes, total))


def classify_tail(
    status: int, headers: Mapping[str, str]
) -> tuple[Version, int, int] | ResponseClass:
    """Return version, first offset and length of the body of a response to a size request.

    The request was for a small range, given by its offsets or as a suffix. *headers* have
    lower-case names.
    """
    length = _number(headers.get("content-length"))
    if _is_range(status, headers):
        span = _content_range(headers)
        if span is None or span[2] is None:
            return ResponseClass(ResponseKind.GARBLED, "Content-Range")
        first, last, total = span[0], span[1], span[2]
        if not first <= last < total <= MAX_OBJECT_BYTES:
            return ResponseClass(ResponseKind.GARBLED, "Content-Range")
        if not _is_label_alone(headers, length, last + 1 - first, total):
            return ResponseClass(ResponseKind.GARBLED, "Content-Encoding")
        if length is not None and length > last + 1 - first:
            return ResponseClass(ResponseKind.GARBLED, "Content-Length")
        return version_of(headers, total), first, last + 1 - first
    if encodings_of(headers):
        return ResponseClass(ResponseKind.GARBLED, "Content-Encoding")
    if status != 200 or length is None or length > MAX_OBJECT_BYTES:
        return ResponseClass(ResponseKind.GARBLED, "Content-Length")
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    is_page = kind == "text/html" and "etag" not in headers
    if is_page or (kind == "application/json" and not _names(headers)):
        # An error page with status 200. A store's objects have ETags; so would a real HTML object.
        # JSON of a store without ETags has a date, which no error has.
        return ResponseClass(ResponseKind.GARBLED, "Content-Type")
    return version_of(headers, length), 0, length


def is_whole_without_length(status: int, headers: Mapping[str, str]) -> bool:
    """Return whether the body is the whole object, whose length only the end of its chunks shows.

    One that ends with its connection is not: it may have been cut.
    """
    return (
        status == 200
        and "content-range" not in headers
        and "content-length" not in headers
        and headers.get("transfer-encoding", "").strip().lower() == "chunked"
    )


def unsized_part(status: int, headers: Mapping[str, str]) -> ByteRange | None:
    """Return the part in a response without a total length; None for other responses."""
    span = _content_range(headers) if _is_range(status, headers) else None
    if span is None or span[2] is not None or not span[0] <= span[1] < MAX_OBJECT_BYTES:
        return None
    return ByteRange(span[0], span[1] + 1)


def part_bytes(status: int, headers: Mapping[str, str]) -> int | None:
    """Return the length of the part in a response, by its `Content-Range`; None without one."""
    span = _content_range(headers) if _is_range(status, headers) else None
    return None if span is None else span[1] + 1 - span[0]


def is_of_nothing(status: int, headers: Mapping[str, str]) -> bool:
    """Return whether a 200 or 206 states by its `Content-Range` that the object has no bytes.

    Its body shows whether that is so.
    """
    stated = headers.get("content-range", "").strip()
    return _is_range(status, headers) and _OF_NOTHING.fullmatch(stated) is not None


def total_if_unsatisfied(headers: Mapping[str, str], body: bytes) -> int | None:
    """Return the object's length by a 416, or None.

    In `Content-Range: bytes */N` (RFC 9110 §15.5.17), or in S3's error document.
    """
    found = _UNSATISFIED.fullmatch(headers.get("content-range", "").strip())
    found_in_body = _ACTUAL_SIZE.search(body[:8192])
    if found is not None:
        return int(found.group(1))
    return int(found_in_body.group(1)) if found_in_body is not None else None


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and _LENGTH.fullmatch(text.strip()) else None
