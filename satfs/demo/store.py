"""Responses of the object store: presigned GETs of objects, as strict as S3. *Pure*.

Order of the checks, as S3's: one authentication only, form and time and signature of the link, the
object, `If-Match`, `If-None-Match`, the range.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import ClassVar, Final

from satfs.demo.catalogue import Attachment, Catalogue
from satfs.demo.contents import BytesContent, Tagged
from satfs.demo.faults import Fault, named
from satfs.demo.responses import Request, Response, Span, http_date, xml_error
from satfs.demo.signing import Check, SignatureState, SigningKey, check

BUCKET: Final = "demo-eo-backend-package"

_ONE_RANGE: Final = re.compile(r"bytes=(\d*)-(\d*)\Z")
_CREDENTIAL_HEADERS: Final = ("authorizationtoken", "x-satellogic-contract-id")


@dataclass
class Store:
    """The store: what it holds, the keys it knows, and when temporary ones die.

    `session_ends_at_s` maps a session token to the moment it dies, in seconds since the epoch.
    """

    side: ClassVar[str] = "store"
    catalogue: Catalogue
    keys: list[SigningKey]
    session_ends_at_s: dict[str, float]
    #: Returns whether a text holds a secret of the API: none may ever arrive here.
    holds_secret: Callable[[str], bool]
    #: Keys whose links count as expired at any time that their query states.
    expired_key_ids: set[str] = field(default_factory=set)
    #: When links of a key begin that are not valid at once, and the error's code until then.
    begins_by_key_id: dict[str, tuple[float, str]] = field(default_factory=dict)

    def respond(self, request: Request, now_s: float, faults: Sequence[Fault] = ()) -> Response:
        """Return the response to one request, as the faults drawn for it want the object."""
        stray = self.leak(request)
        if stray == "authorization":
            return xml_error(
                400,
                "InvalidArgument",
                "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, "
                "Signature query string parameter or the Authorization header should be specified",
                ArgumentName="Authorization",
            )
        if stray:
            return xml_error(400, "InvalidArgument", "A credential of another service was sent")
        checked = check(
            request.method,
            request.raw_path,
            request.query_pairs,
            request.headers.get("host", ""),
            keys=self.keys,
            now_s=now_s,
        )
        refusal = _refusal(checked, now_s) or self._session_refusal(request, now_s)
        if refusal:
            return refusal
        begins_at_s, code = self.begins_by_key_id.get(checked.key_id, (0.0, ""))
        if now_s < begins_at_s:
            return xml_error(403, code, "Request is not valid yet")
        if checked.key_id in self.expired_key_ids:
            return expired_response(checked.lifetime_s, now_s - 1, now_s)
        if request.method not in ("GET", "HEAD"):
            return xml_error(405, "MethodNotAllowed", "The specified method is not allowed")
        return self._object(request, faults)

    def endpoint(self, _request: Request) -> str:
        """Return the name of the only endpoint."""
        return "object"

    def leak(self, request: Request) -> str | None:
        """Return where a request carries a credential that has no business here, or None."""
        if "authorization" in request.headers:
            return "authorization"
        for name in _CREDENTIAL_HEADERS:
            if name in request.headers:
                return name
        for name, value in request.headers.items():
            if self.holds_secret(value):
                return name
        for place, text in (("path", request.path), ("query", str(request.query_pairs))):
            if self.holds_secret(text):
                return place
        return "body" if self.holds_secret(request.body.decode("latin-1")) else None

    def _session_refusal(self, request: Request, now_s: float) -> Response | None:
        token = request.query.get("X-Amz-Security-Token", "")
        if token and now_s >= self.session_ends_at_s.get(token, float("inf")):
            return xml_error(400, "ExpiredToken", "The provided token has expired.")
        return None

    def _object(self, request: Request, faults: Sequence[Fault]) -> Response:
        bucket, _, key = request.path.lstrip("/").partition("/")
        if bucket != BUCKET:
            return xml_error(404, "NoSuchBucket", "The specified bucket does not exist")
        attachment = self.catalogue.stored_at(key)
        if attachment is None or attachment.content is None:
            return xml_error(404, "NoSuchKey", "The specified key does not exist.", Key=key)
        content = attachment.content
        if (flipping := named(faults, "flipping-etag")) is not None:
            tagged = Tagged(content, flipping["etag"])
            return object_response(request, replace(attachment, content=tagged))
        refused = named(faults, "refused-condition")
        if refused is not None and "if-match" in request.headers:
            if refused["status"] == 501:
                text = "A header you provided implies functionality that is not implemented."
                return xml_error(501, "NotImplemented", text)
            if refused["status"] != 412:
                return xml_error(refused["status"], "InvalidRequest", "If-Match is not known.")
            return xml_error(412, "PreconditionFailed", "At least one of the conditions differs.")
        if named(faults, "compressed-representation") is not None:
            packed = gzip.compress(bytes(content.read(0, content.size_bytes)), 1, mtime=0)
            other = replace(attachment, content=BytesContent(packed))
            return object_response(request, other).with_headers(content_encoding="gzip")
        return object_response(request, attachment)


def _refusal(checked: Check, now_s: float) -> Response | None:
    match checked.state:
        case SignatureState.GOOD:
            return None
        case SignatureState.UNSIGNED:
            return xml_error(403, "AccessDenied", "Access Denied")
        case SignatureState.MALFORMED:
            text = "Query-string authentication version 4 requires well-formed X-Amz parameters"
            return xml_error(400, "AuthorizationQueryParametersError", text)
        case SignatureState.UNKNOWN_KEY:
            text = "The AWS Access Key Id you provided does not exist in our records."
            return xml_error(403, "InvalidAccessKeyId", text)
        case SignatureState.NOT_YET:
            return xml_error(403, "AccessDenied", "Request is not valid yet")
        case SignatureState.EXPIRED:
            return expired_response(checked.lifetime_s, checked.expires_at_s, now_s)
        case SignatureState.MISMATCH:
            text = "The request signature we calculated does not match the signature you provided."
            canonical = checked.canonical_request
            return xml_error(403, "SignatureDoesNotMatch", text, CanonicalRequest=canonical)


def expired_response(lifetime_s: int, expires_at_s: float, now_s: float) -> Response:
    """Return S3's response to a link that has expired."""
    moments = (datetime.fromtimestamp(s, UTC) for s in (expires_at_s, now_s))
    expires, now = (moment.strftime("%Y-%m-%dT%H:%M:%SZ") for moment in moments)
    more = {"X-Amz-Expires": str(lifetime_s), "Expires": expires, "ServerTime": now}
    return xml_error(403, "AccessDenied", "Request has expired", **more)


def object_response(request: Request, attachment: Attachment) -> Response:
    """Return the object, or the requested part of it, as RFC 9110 and S3 have it."""
    content = attachment.content
    assert content is not None  # noqa: S101 - the caller looked
    headers = {
        "Accept-Ranges": "bytes",
        "Content-Type": attachment.content_type,
        "ETag": content.etag,
        "Last-Modified": http_date(attachment.last_modified_s),
    }
    for name, value in request.query_pairs:
        if name.startswith("response-content-") or name == "response-cache-control":
            headers[name.removeprefix("response-").title()] = value
    wanted = request.headers.get("if-match")
    if wanted is not None and not _matches(wanted, content.etag):
        text = "At least one of the pre-conditions you specified did not hold"
        return xml_error(412, "PreconditionFailed", text, Condition="If-Match")
    unwanted = request.headers.get("if-none-match")
    if unwanted is not None and _matches(unwanted, content.etag):
        return Response(304, {name: headers[name] for name in ("ETag", "Last-Modified")})
    size_bytes = content.size_bytes
    span = byte_span(request.headers.get("range"), size_bytes)
    if span is None:
        return Response(200, headers, Span(content, 0, size_bytes))
    start, stop = span
    if start >= stop:
        return unsatisfiable_response(request.headers.get("range", ""), size_bytes)
    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size_bytes}"
    return Response(206, headers, Span(content, start, stop))


def unsatisfiable_response(requested: str, size_bytes: int) -> Response:
    """Return S3's response to a range behind the end."""
    text = "The requested range is not satisfiable"
    more = {"RangeRequested": requested, "ActualObjectSize": str(size_bytes)}
    response = xml_error(416, "InvalidRange", text, **more)
    return response.with_headers(content_range=f"bytes */{size_bytes}")


def byte_span(header: str | None, size_bytes: int) -> tuple[int, int] | None:
    """Return the span [start, stop) that a `Range` header means.

    None: the header is not one that this store serves (several ranges, another unit, nonsense)
    and is ignored, as RFC 9110 §14.2 allows and S3 does. An empty span: the range is unsatisfiable.
    """
    found = _ONE_RANGE.match((header or "").strip())
    if not found:
        return None
    first, last = found.groups()
    if first:
        start, stop = int(first), int(last) + 1 if last else size_bytes
        if last and int(last) < start:
            return None
        return (start, min(stop, size_bytes)) if start < size_bytes else (0, 0)
    if not last:
        return None
    return (max(0, size_bytes - int(last)), size_bytes)


def _matches(header: str, etag: str) -> bool:
    listed: Sequence[str] = [part.strip() for part in header.split(",")]
    return "*" in listed or etag in listed or etag.strip('"') in listed
