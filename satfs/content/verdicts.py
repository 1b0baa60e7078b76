"""What an answer of the object store means for the range that was asked.

Pure, and shared by both ways of moving bytes. Sources: RFC 9110 §§13-15 for ranges and conditions,
the S3 API for error codes and presigned URLs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from satfs.model import ByteRange, Version

# Eighteen digits hold any offset that a file system knows; Python refuses to read thousands.
# Range units know no case (RFC 9110 §14.1).
_CONTENT_RANGE: Final = re.compile(r"(?i:bytes) ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})")
_UNSATISFIED: Final = re.compile(r"(?i:bytes) \*/([0-9]{1,18})")
_ACTUAL_SIZE: Final = re.compile(rb"<ActualObjectSize>([0-9]{1,18})</ActualObjectSize>")
_LENGTH: Final = re.compile(r"[0-9]{1,18}")
#: Codes of S3 and its kin for credentials, links or requests whose time is over, whatever status
#: they come with (S3 API, "Error responses": 400 for ExpiredToken, 403 for RequestTimeTooSkewed).
_EXPIRED: Final = frozenset(
    {
        "ExpiredToken",
        "ExpiredRequest",
        "RequestExpired",
        "TokenRefreshRequired",
        "RequestTimeTooSkewed",
    }
)
_CODE: Final = re.compile(rb"<Code>([A-Za-z0-9.]{1,64})</Code>")
#: Begins the name of a version that has no ETag, only a date.
_BY_DATE: Final = "modified:"
#: Longest object that is believed. Deliveries are gigabytes; a length is held in a map of half a
#: megabyte per gigabyte, and a store that lies must not be able to fill the memory with it.
MOST_OBJECT_BYTES: Final = 256 * 1024**3
#: A whole body in place of a range is read through up to here, to the bytes that were asked for;
#: beyond, the answer is refused.
MOST_SKIPPED_BYTES: Final = 1024 * 1024


class Meaning(StrEnum):
    """What to do about an answer."""

    BYTES = "bytes"  #: the bytes asked for follow
    RENEW = "renew"  #: the link is spent: ask for another, once
    RETRY = "retry"  #: try again, after a wait
    SLOW_DOWN = "slow down"  #: try again after a wait, with fewer connections
    REDIRECT = "redirect"  #: the object is elsewhere
    CHANGED = "changed"  #: not the version that was opened
    GONE = "gone"  #: no such object
    REFUSED = "refused"  #: never for us
    GARBLED = "garbled"  #: the store broke its contract


@dataclass(frozen=True, slots=True)
class Verdict:
    """A meaning, with what else is needed to act on it.

    `skip_bytes` come before those asked for. `seen` is the version that the answer shows, if it
    shows one. `code` is the store's own word for an error, or the status.
    """

    meaning: Meaning
    code: str = ""
    skip_bytes: int = 0
    seen: Version | None = None


def request_headers(asked: ByteRange, version: Version | None) -> dict[str, str]:
    """Return the headers that ask for a range of one version of an object."""
    headers = {"Range": f"bytes={asked.start}-{asked.stop - 1}", "Accept-Encoding": "identity"}
    if version is not None and version.is_strong:
        headers["If-Match"] = version.etag
    return headers


def version_of(headers: Mapping[str, str], size_bytes: int) -> Version:
    """Return the version that *headers* (lower-case names) name.

    Without an ETag, `Last-Modified` stands in; without both, the length is all that is known.
    """
    etag = _etag(headers)
    if not etag:
        etag = f"{_BY_DATE}{headers.get('last-modified', '').strip()}"
    return Version(etag, size_bytes)


def _etag(headers: Mapping[str, str]) -> str:
    """Return the ETag, if there is one that everybody writes alike: beyond ASCII nobody does."""
    etag = headers.get("etag", "").strip()
    return etag if etag.isascii() else ""


def _is_range(status: int, headers: Mapping[str, str]) -> bool:
    """Tell whether the body is a part of the object: what says which part is one, 206 or not.

    A 200 whose `Content-Range` were ignored would be taken for the whole object.
    """
    return status == 206 or (status == 200 and "content-range" in headers)


def error_code(body: bytes) -> str:
    """Return the `Code` of an S3 error document, or nothing."""
    found = _CODE.search(body[:8192])
    return found.group(1).decode("ascii") if found else ""


def judge_error(status: int, body: bytes) -> Verdict:
    """Return what an answer other than 200 and 206 means. *body* may be cut short."""
    code = error_code(body) or str(status)
    if code == "SlowDown" or status == 429:
        return Verdict(Meaning.SLOW_DOWN, code)
    if code in _EXPIRED or status in (401, 403):
        return Verdict(Meaning.RENEW, code)
    if code == "RequestTimeout" or status in (408, 500, 502, 503, 504):
        return Verdict(Meaning.RETRY, code)
    if status in (301, 302, 303, 307, 308):
        return Verdict(Meaning.REDIRECT, code)
    # A range beyond the end means that the object became shorter: we never ask beyond the end of
    # the version that we opened.
    if status in (412, 416):
        return Verdict(Meaning.CHANGED, code)
    if status in (404, 410):
        return Verdict(Meaning.GONE, code)
    if 400 <= status < 500:
        return Verdict(Meaning.REFUSED, code)
    return Verdict(Meaning.GARBLED, code)


def judge_success(
    status: int, headers: Mapping[str, str], asked: ByteRange, version: Version | None
) -> Verdict:
    """Return what a 200 or 206 means. *headers* have lower-case names.

    With *version*, the answer must show that version.
    """
    if headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        return Verdict(Meaning.GARBLED, "Content-Encoding")
    length = _number(headers.get("content-length"))
    if not _is_range(status, headers):
        if status == 200:
            return _judge_whole(headers, length, asked, version)
        return Verdict(Meaning.GARBLED, str(status))
    found = _CONTENT_RANGE.fullmatch(headers.get("content-range", "").strip())
    if found is None:
        return Verdict(Meaning.GARBLED, "Content-Range")
    first, last, total = (int(number) for number in found.groups())
    seen = version_of(headers, total)
    if version is not None and not _is_same(seen, version, headers):
        return Verdict(Meaning.CHANGED, "ETag", seen=seen)
    if first != asked.start or last + 1 != min(asked.stop, total):
        return Verdict(Meaning.GARBLED, "Content-Range", seen=seen)
    if length is not None and length > last + 1 - first:
        return Verdict(Meaning.GARBLED, "Content-Length", seen=seen)
    return Verdict(Meaning.BYTES, seen=seen)


def _judge_whole(
    headers: Mapping[str, str], length: int | None, asked: ByteRange, version: Version | None
) -> Verdict:
    # RFC 9110 §14.2 lets a server ignore Range; then the whole object comes.
    if length is None:
        return Verdict(Meaning.GARBLED, "Content-Length")
    seen = version_of(headers, length)
    if version is not None and not _is_same(seen, version, headers):
        if headers.get("content-type", "").startswith(("text/html", "application/json")):
            return Verdict(Meaning.GARBLED, "Content-Type")
        return Verdict(Meaning.CHANGED, "ETag", seen=seen)
    if asked.start > MOST_SKIPPED_BYTES or asked.stop > length:
        return Verdict(Meaning.GARBLED, "200 for a range", seen=seen)
    return Verdict(Meaning.BYTES, skip_bytes=asked.start, seen=seen)


def _is_same(seen: Version, version: Version, headers: Mapping[str, str]) -> bool:
    if seen.size_bytes != version.size_bytes:
        return False
    # Proxies strip headers: a name that the answer does not give cannot contradict.
    if version.etag.startswith(_BY_DATE):
        modified = headers.get("last-modified", "").strip()
        return not modified or version.etag == f"{_BY_DATE}{modified}"
    return not _etag(headers) or seen.etag == version.etag


def judge_tail(status: int, headers: Mapping[str, str]) -> tuple[Version, int, int] | Verdict:
    """Return version, first offset and length of the body of an answer to a question about size.

    The question was a small range, given by its offsets or as a suffix. *headers* have lower-case
    names.
    """
    if headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        return Verdict(Meaning.GARBLED, "Content-Encoding")
    if _is_range(status, headers):
        found = _CONTENT_RANGE.fullmatch(headers.get("content-range", "").strip())
        if found is None:
            return Verdict(Meaning.GARBLED, "Content-Range")
        first, last, total = (int(number) for number in found.groups())
        if not first <= last < total <= MOST_OBJECT_BYTES:
            return Verdict(Meaning.GARBLED, "Content-Range")
        return version_of(headers, total), first, last + 1 - first
    length = _number(headers.get("content-length"))
    if status != 200 or length is None or length > MOST_OBJECT_BYTES:
        return Verdict(Meaning.GARBLED, "Content-Length")
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind in ("text/html", "application/json") and "etag" not in headers:
        # An error page with status 200. A store's objects have ETags; so would a real HTML object.
        return Verdict(Meaning.GARBLED, "Content-Type")
    return version_of(headers, length), 0, length


def total_if_unsatisfied(headers: Mapping[str, str], body: bytes) -> int | None:
    """Return the object's length as a 416 tells it, or None.

    In `Content-Range: bytes */N` (RFC 9110 §15.5.17), or in S3's error document.
    """
    found = _UNSATISFIED.fullmatch(headers.get("content-range", "").strip())
    found_in_body = _ACTUAL_SIZE.search(body[:8192])
    if found is not None:
        return int(found.group(1))
    return int(found_in_body.group(1)) if found_in_body is not None else None


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and _LENGTH.fullmatch(text.strip()) else None
