"""Effects of each fault on a response, or on the way it is sent. *Pure*."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final

from satfs.demo import page_forms
from satfs.demo.faults import Fault
from satfs.demo.responses import (
    Response,
    Span,
    gateway_error,
    http_date,
    json_response,
    oauth_error,
    tasking_error,
    telluric_error,
    xml_error,
)
from satfs.demo.store import expired_response, unsatisfiable_response

_TASKING: Final = frozenset({"tasks", "task", "captures", "products", "clients"})

_PAGE: Final = (
    b"<!DOCTYPE html><html><head><title>Maintenance</title></head>"
    b"<body><h1>We will be back soon</h1></body></html>"
)


@dataclass(frozen=True)
class BodyPace:
    """How a body is sent: where it breaks or pauses, in bytes of the body, and how fast it is."""

    cut_at: int | None = None
    reset_at: int | None = None
    stall_at: int | None = None
    stall_s: float = 0.0
    bytes_per_s: float | None = None
    shape: str | None = None  # of "odd-response"
    is_announced: bool = False  # the cut is an orderly end, not a broken connection
    lost_beyond: int | None = None  # of a longer body nothing comes


def delivery(faults: Sequence[Fault], bytes_per_s: float | None = None) -> BodyPace:
    """Return how the body is to be sent, given the connection's normal speed."""
    way = BodyPace(bytes_per_s=bytes_per_s)
    for fault in faults:
        match fault.name:
            case "cut":
                way = replace(way, cut_at=fault["at_byte"], is_announced=fault["announced"])
            case "reset":
                way = replace(way, reset_at=fault["at_byte"])
            case "large-lost":
                way = replace(way, lost_beyond=fault["bytes"])
            case "stall":
                way = replace(way, stall_at=fault["at_byte"], stall_s=fault["seconds"])
            case "drip":
                way = replace(way, bytes_per_s=fault["bytes_per_s"])
            case "odd-response":
                way = replace(way, shape=fault["shape"])
    return way


def delay_s(faults: Sequence[Fault]) -> float:
    """Return the delay of the response's start, in seconds."""
    return float(sum(fault["seconds"] for fault in faults if fault.name == "latency"))


def replacement(fault: Fault, endpoint: str, now_s: float) -> Response | None:
    """Return the response in place of the right one, or None where the fault replaces none."""
    make = _REPLACEMENTS.get(fault.name)
    return make(fault, endpoint, now_s) if make else None


def altered(response: Response, fault: Fault) -> Response:
    """Return the response as the fault changes it; most faults do not."""
    if (alter := _ALTERATIONS.get(fault.name)) is not None:
        return alter(response, fault)
    alter_part = _ALTERATIONS_OF_PARTS.get(fault.name)
    if alter_part is None or response.status != 206 or not isinstance(response.body, Span):
        return response
    return alter_part(response, response.body, fault)


# -- in place of a response ----------------------------------------------------------------------


def _server_error(fault: Fault, endpoint: str, now_s: float) -> Response:
    status = int(fault["status"])
    if endpoint == "object":
        code, text = {
            500: ("InternalError", "We encountered an internal error. Please try again."),
        }.get(status, ("SlowDown", "Please reduce your request rate."))
        response = xml_error(status, code, text)
    else:
        text = {504: "Endpoint request timed out"}.get(status, "Internal server error")
        response = gateway_error(status, "InternalServerErrorException", text)
    return _with_retry_after(response, fault["retry_after"], as_date=False, now_s=now_s)


def _throttled(fault: Fault, endpoint: str, now_s: float) -> Response:
    after = fault["retry_after"]
    if endpoint == "object":
        response = xml_error(503, "SlowDown", "Please reduce your request rate.")
    elif endpoint in _TASKING:
        text = f"Request was throttled. Expected available in {after or 1} seconds."
        response = tasking_error(429, text)
    elif endpoint == "token":
        response = oauth_error(429, "too_many_requests", "Global limit has been reached")
    else:
        response = gateway_error(429, "TooManyRequestsException", "Too Many Requests")
    return _with_retry_after(response, after, as_date=fault["as_date"], now_s=now_s)


def _with_retry_after(
    response: Response, after: float | None, *, as_date: bool, now_s: float
) -> Response:
    if after is None:
        return response
    return response.with_headers(retry_after=http_date(now_s + after) if as_date else str(after))


def _forbidden(fault: Fault, endpoint: str, now_s: float) -> Response:
    if endpoint == "object":
        return xml_error(fault["status"], fault["code"], "Access Denied")
    text = "User is not authorized to access this resource with an explicit deny"
    return gateway_error(403, "AccessDeniedException", text, key="Message")


def _not_found(fault: Fault, endpoint: str, now_s: float) -> Response:
    if endpoint == "object":
        return xml_error(404, "NoSuchKey", "The specified key does not exist.")
    if endpoint in _TASKING:
        return tasking_error(404, "Not found.")
    return telluric_error(404, "No item found with id x")


def _costly_page(fault: Fault, endpoint: str, now_s: float) -> Response:
    body = _costly_body(fault["shape"], int(fault["size_bytes"]), is_packed=bool(fault["gzip"]))
    response = Response(200, {"Content-Type": "application/json"}, body)
    return response.with_headers(content_encoding="gzip") if fault["gzip"] else response


@lru_cache(maxsize=1)  # it must cost the client, not the origin
def _costly_body(shape: str, size_bytes: int, *, is_packed: bool) -> bytes:
    begin, unit, end = {
        "lists": (b'{"results":[', b"[],", b"[]]}"),
        "objects": (b'{"results":[', b"{},", b"{}]}"),
        "records": (b'{"results":[', b'{"scene_id":7,"task_id":7},', b"{}]}"),
        "numbers": (b'{"results":[{"task_id":7,"scene_id":7,"a":[', b"0,", b"0]}]}"),
        "keys": (b'{"results":[],', b'"a":1,', b'"b":1}'),
        "depth": (b'{"results":[', b"[", b""),
        "text": (b'{"results":[{"task_id":7,"scene_id":7,"a":"\\ud800', b"x", b'"}]}'),
    }[shape]
    n_bytes = size_bytes - len(begin) - len(end)
    body = begin + unit * (n_bytes // len(unit)) + end
    return gzip.compress(body, 9) if is_packed else body


def _html(fault: Fault, endpoint: str, now_s: float) -> Response:
    return Response(int(fault["status"]), {"Content-Type": "text/html; charset=utf-8"}, _PAGE)


def _error_as_object(fault: Fault, endpoint: str, now_s: float) -> Response:
    kind, body = {
        "json": ("application/json", b'{"error": "something went wrong", "code": 17}'),
        "html": ("text/html; charset=utf-8", _PAGE),
        "xml": ("application/xml", b"<Error><Code>InternalError</Code></Error>"),
    }[fault["form"]]
    dated = {"ETag": '"65f0-error"', "Last-Modified": http_date(now_s - 86_400)}
    return Response(200, {"Content-Type": kind, **dated}, body)


def _precondition_failed(fault: Fault, endpoint: str, now_s: float) -> Response:
    text = "At least one of the pre-conditions you specified did not hold"
    return xml_error(412, "PreconditionFailed", text, Condition="If-Match")


def _unauthorized(fault: Fault, endpoint: str, now_s: float) -> Response | None:
    if not fault.lasts(now_s):
        return None
    return gateway_error(401, "UnauthorizedException", "Unauthorized")


_REPLACEMENTS: Final[Mapping[str, Callable[[Fault, str, float], Response | None]]] = {
    "server-error": _server_error,
    "throttled": _throttled,
    "unauthorized": _unauthorized,
    "forbidden": _forbidden,
    "not-found": _not_found,
    "error-as-object": _error_as_object,
    "html": _html,
    "refused-agent": _html,
    "costly-page": _costly_page,
    "redirect": lambda f, e, n: Response(
        int(f["status"]), {"Location": f["location"]} if f["location"] else {}
    ),
    "expired-link": lambda f, e, n: expired_response(3600, n - 60, n),
    "expired-token": lambda f, e, n: xml_error(
        400, "ExpiredToken", "The provided token has expired."
    ),
    "expired-request": lambda f, e, n: xml_error(400, "ExpiredRequest", "Request has expired."),
    "precondition-failed": _precondition_failed,
    "archived": lambda f, e, n: xml_error(
        403,
        "InvalidObjectState",
        "The operation is not valid for the object's storage class",
        StorageClass="DEEP_ARCHIVE",
    ),
    "range-not-satisfiable": lambda f, e, n: unsatisfiable_response("", int(f["size_bytes"])),
}


# -- a changed response --------------------------------------------------------------------------


def _broken_json(response: Response, fault: Fault) -> Response:
    whole = response.body
    return (
        replace(response, body=whole[: len(whole) // 2]) if isinstance(whole, bytes) else response
    )


def _short_gzip(response: Response, fault: Fault) -> Response:
    if not isinstance(response.body, bytes):
        return response
    packed = gzip.compress(response.body, 1)
    body = packed[: len(packed) // 2]
    return replace(response, body=body).with_headers(content_encoding="gzip")


def scrambled(value: Any) -> Any:
    """Return JSON with each field's value of another type than it was."""
    match value:
        case dict():
            return {name: scrambled(inner) for name, inner in value.items()}
        case list():
            return {"items": [scrambled(inner) for inner in value]}
        case str():
            return [value]
        case bool() | int() | float():
            return {"value": value}
        case _:
            return 7


def _wrong_types(response: Response, fault: Fault) -> Response:
    if not isinstance(response.body, bytes):
        return response
    right = json.loads(response.body)
    entries = right.get("results") if isinstance(right, dict) else right
    entries = entries if isinstance(entries, list) else [right]
    envelope = right if isinstance(right, dict) else {}
    shapes: dict[str, Any] = {
        "null": None,
        "list": [1, "two", None],
        "string": "no such thing",
        "number": 42,
        "results-null": {**envelope, "results": None},
        "results-object": {**envelope, "results": {"0": entries[:1]}},
        "results-strings": {**envelope, "results": ["one", "two"]},
        "fields-scrambled": {**envelope, "results": [scrambled(entry) for entry in entries]}
        if "results" in envelope
        else scrambled(right),
    }
    return json_response(shapes[fault["shape"]], response.status)


def _whole_for_range(response: Response, part: Span, fault: Fault) -> Response:
    whole = Span(part.content, 0, part.content.size_bytes)
    return _range_as_whole(replace(response, body=whole), part, fault)


def _range_as_whole(response: Response, part: Span, fault: Fault) -> Response:
    return replace(response, status=200).with_headers(content_range=None)


def _with_range(response: Response, part: Span, total: int | str) -> Response:
    return response.with_headers(content_range=f"bytes {part.start}-{part.stop - 1}/{total}")


def _wrong_content_range(response: Response, part: Span, fault: Fault) -> Response:
    moved = Span(part.content, part.start + fault["shift"], part.stop + fault["shift"])
    return _with_range(response, moved, part.content.size_bytes)


def _short_range(response: Response, part: Span, fault: Fault) -> Response:
    short = replace(part, stop=min(part.stop, part.start + fault["bytes"]))
    return _with_range(replace(response, body=short), short, part.content.size_bytes)


def _wide_range(response: Response, part: Span, fault: Fault) -> Response:
    piece, size_bytes = fault["bytes"], part.content.size_bytes
    stop = min(-(-part.stop // piece) * piece, size_bytes)
    wide = replace(part, start=part.start // piece * piece, stop=stop)
    return _with_range(replace(response, body=wide), wide, size_bytes)


def _labelled_encoding(response: Response, fault: Fault) -> Response:
    is_object = isinstance(response.body, Span)
    return response.with_headers(content_encoding=fault["value"]) if is_object else response


def _encoded_body(response: Response, fault: Fault) -> Response:
    if not isinstance(response.body, Span):
        return response
    span = response.body
    packed = gzip.compress(bytes(span.content.read(span.start, span.stop)), 1)
    return replace(response, body=packed).with_headers(content_encoding="gzip")


def _empty_object(response: Response, fault: Fault) -> Response:
    if response.status != 416 and not isinstance(response.body, Span):
        return response
    empty = Response(200, {"ETag": '"d41d8cd98f00b204e9800998ecf8427e"'})
    match fault["shape"]:
        case "no-content":
            return replace(empty, status=204)
        case "negative":
            return replace(empty, status=206).with_headers(content_range="bytes 0--1/0")
        case "zero":
            return replace(empty, status=206).with_headers(content_range="bytes 0-0/0")
        case "unsized" if response.status != 200:  # the whole object has no range to refuse
            return replace(empty, status=416)
        case "chunked":
            return empty.with_headers(transfer_encoding="chunked")
    return empty


def _short_body(response: Response, fault: Fault) -> Response:
    body = response.body
    if isinstance(body, Span):
        return replace(
            response, body=replace(body, stop=min(body.stop, body.start + fault["bytes"]))
        )
    return replace(response, body=body[: fault["bytes"]])


def _etag(response: Response, value: str | None) -> Response:
    return response.with_headers(etag=value) if "ETag" in response.headers else response


_ALTERATIONS: Final[Mapping[str, Callable[[Response, Fault], Response]]] = {
    "broken-json": _broken_json,
    "page-form": page_forms.reformed,
    "encoding": page_forms.encoded,
    "short-gzip": _short_gzip,
    "wrong-types": _wrong_types,
    "labelled-encoding": _labelled_encoding,
    "encoded-body": _encoded_body,
    "no-content-range": lambda a, f: a.with_headers(content_range=None),
    "no-etag": lambda a, f: _etag(a, None),
    "weak-etag": lambda a, f: _etag(a, f"W/{a.headers.get('ETag')}"),
    "suffixed-etag": lambda a, f: _etag(a, f'{a.headers.get("ETag", "")[:-1]}{f["suffix"]}"'),
    "other-etag": lambda a, f: _etag(a, f["etag"]),
    "no-last-modified": lambda a, f: a.with_headers(last_modified=None),
    "no-length": lambda a, f: a.with_headers(transfer_encoding="chunked"),
    "short-body": _short_body,
    "empty-object": _empty_object,
}
#: Those of the response to a range: they get the part of the object that it holds.
_ALTERATIONS_OF_PARTS: Final[Mapping[str, Callable[[Response, Span, Fault], Response]]] = {
    "whole-for-range": _whole_for_range,
    "range-as-whole": _range_as_whole,
    "wrong-content-range": _wrong_content_range,
    "wrong-total": lambda a, p, f: _with_range(a, p, p.content.size_bytes + f["by"]),
    "unknown-total": lambda a, p, f: _with_range(a, p, "*"),
    "short-range": _short_range,
    "wide-range": _wide_range,
}
