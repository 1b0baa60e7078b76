"""HTTP as data: requests, responses, and the forms of errors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qsl, unquote
from xml.sax.saxutils import escape

from satfs.demo.contents import Content


@dataclass(frozen=True)
class Request:
    """One request: header names in lower case, path and query as they came over the wire."""

    method: str
    raw_path: str
    raw_query: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    scheme: str = "http"

    @property
    def path(self) -> str:
        """Return the path, decoded."""
        return unquote(self.raw_path)

    @property
    def query(self) -> dict[str, str]:
        """Return the query's parameters, decoded; the last one of a name wins."""
        return dict(self.query_pairs)

    @property
    def query_pairs(self) -> list[tuple[str, str]]:
        """Return the query's parameters in order, decoded, empty ones kept."""
        return parse_qsl(self.raw_query, keep_blank_values=True)

    @property
    def base_url(self) -> str:
        """Return scheme and host as the client named them."""
        return f"{self.scheme}://{self.headers.get('host', '')}"


@dataclass(frozen=True)
class Span:
    """Bytes [start, stop) of a content."""

    content: Content
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class Response:
    """One response. `Content-Length` is that of the body unless a header states another."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | Span = b""

    def with_headers(self, **changes: str | None) -> Response:
        """Return the response with headers set, or removed where None; `_` stands for `-`."""
        headers = dict(self.headers)
        for name, value in changes.items():
            key = name.replace("_", "-").title().replace("Etag", "ETag")
            headers.pop(key, None)
            if value is not None:
                headers[key] = value
        return replace(self, headers=headers)


def request_id(*parts: object) -> str:
    """Return a stable identifier in the shape AWS uses, made of *parts*."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16].upper()


def json_response(value: Any, status: int = 200, **headers: str) -> Response:
    """Return *value* as a JSON response."""
    plain = Response(status, {"Content-Type": "application/json"}, json.dumps(value).encode())
    return plain.with_headers(**headers)


def gateway_error(status: int, kind: str, message: str | None, *, key: str = "message") -> Response:
    """Return an error as AWS API Gateway sends it (`Message` with a capital M: an authorizer's)."""
    return json_response(
        {key: message},
        status,
        x_amzn_errortype=kind,
        x_amzn_requestid=request_id(status, kind, message),
    )


def tasking_error(status: int, detail: str) -> Response:
    """Return an error as Django REST framework sends it."""
    return json_response({"detail": detail}, status)


def telluric_error(status: int, message: str) -> Response:
    """Return an error as the delivery service sends it."""
    return json_response({"message": message}, status)


def oauth_error(status: int, error: str, description: str) -> Response:
    """Return an error as RFC 6749 §5.2 has it (and Auth0 sends it)."""
    return json_response({"error": error, "error_description": description}, status)


def xml_error(status: int, code: str, message: str, **more: str) -> Response:
    """Return an error as S3 sends it; *more* are further elements."""
    elements = {"Code": code, "Message": message, **more}
    elements |= {"RequestId": request_id(code, message), "HostId": "ZGVtbyBvcmlnaW4="}
    inner = "".join(f"<{name}>{escape(text)}</{name}>" for name, text in elements.items())
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{inner}</Error>'
    return Response(status, {"Content-Type": "application/xml"}, body.encode())


def http_date(epoch_s: float) -> str:
    """Return the moment as RFC 9110 §5.6.7 writes it: whole seconds, GMT."""
    return formatdate(epoch_s, usegmt=True)
