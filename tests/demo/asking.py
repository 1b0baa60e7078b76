"""Raw requests to the demo origin, one connection each: nothing is added, retried or followed."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from satfs.demo.server import DemoOrigin
from satfs.demo.tokens import AUDIENCE


@dataclass(frozen=True)
class Reply:
    """A response; header names in lower case. `is_whole`: the body was as long as announced."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    is_whole: bool = True

    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """Return the `Code` of an S3 error."""
        return self.body.decode().partition("<Code>")[2].partition("</Code>")[0]


def ask(
    url: str,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    timeout_s: float = 10.0,
) -> Reply:
    """Return the answer to one request."""
    parts = urlsplit(url)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    connection = http.client.HTTPConnection(parts.netloc, timeout=timeout_s)
    try:
        connection.request(method, target, body, dict(headers or {}))
        response = connection.getresponse()
        is_whole = True
        try:
            data = response.read()
        except http.client.IncompleteRead as short:
            data, is_whole = short.partial, False
        received = {name.lower(): value for name, value in response.getheaders()}
        return Reply(response.status, received, data, is_whole)
    finally:
        connection.close()


def token(origin: DemoOrigin, **changes: Any) -> Reply:
    """Request a token, with fields of the request changed, or left out where None."""
    form = {
        "client_id": origin.account.client_id,
        "client_secret": origin.account.client_secret,
        "audience": AUDIENCE,
        "grant_type": "client_credentials",
        **changes,
    }
    body = json.dumps({name: value for name, value in form.items() if value is not None})
    kind = {"Content-Type": "application/json"}
    return ask(origin.auth_url, "POST", kind, body.encode())


class Customer:
    """A client with a token and a contract."""

    def __init__(self, origin: DemoOrigin) -> None:
        self.origin = origin
        self.headers = {
            "authorizationToken": f"Bearer {token(origin).json()['access_token']}",
            "X-Satellogic-Contract-Id": origin.account.contract_id,
        }

    def get(self, path: str, **headers: str) -> Reply:
        return ask(self.origin.api_url + path, headers={**self.headers, **headers})

    def results(self, path: str) -> list[Any]:
        return list(self.get(path).json()["results"])
