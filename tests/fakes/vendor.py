"""The vendor in memory: accounts, listings and links behind an httpx transport.

As strict as the real one about headers, as odd as it may be about pages. Every request is kept in
`requests`; what goes wrong is set by name: `fail_next`, `revoke_token`, `silence`.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode

import httpx
import trio
from msgspec.structs import replace

from satfs.settings import Settings, load_settings

API = "https://api.vendor.test"
AUTH = "https://auth.vendor.test/oauth/token"
STORE = "https://store.vendor.test"
CLIENT_ID = "client-4711"
CLIENT_SECRET = "the-secret-of-the-client"
CONTRACT = "cont.3f0c2a7e-5a41-4f5e-9d0b-6a1f6f0f7c21"


@dataclass(frozen=True)
class VendorRequest:
    """One request as it arrived."""

    method: str
    url: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]


@dataclass
class Vendor:
    """The vendor. Change its fields at any time; the next request sees them."""

    tasks: list[Any] = field(default_factory=list)
    captures: dict[str, list[Any]] = field(default_factory=dict)
    scenes: dict[str, list[Any]] = field(default_factory=dict)
    contracts: list[Any] = field(
        default_factory=lambda: [{"contract_id": CONTRACT, "name": "Imagery 2026"}]
    )
    #: The largest `limit` that is honoured; a larger one is cut silently.
    max_limit: int = 500
    #: The status for a larger one, where it is refused instead; 0: it is cut.
    refuses_limit_with: int = 0
    #: How `next` is written: absolute, relative, cursor, absent, or a function of (url, offset).
    next_style: str | Callable[[str, int], str | None] = "absolute"
    tells_count: bool = True
    #: A page of entries, their count and the next page's address in another form.
    form: Callable[[list[Any], int, str | None], Any] | None = None
    #: Whether contracts come in pages, too.
    pages_contracts: bool = False
    #: Whether the service for contracts reads the token from `Authorization` alone.
    wants_standard_header: bool = False
    #: Seconds until the response, on trio's clock.
    delay_s: float = 0.0
    token_lifetime_s: Any = 86400
    #: Where else the token endpoint is.
    moved_auth: str = ""
    #: The names of the fields in its response.
    token_fields: tuple[str, str] = ("access_token", "expires_in")
    knows_scene_path: bool = True
    #: The response to a sign request: json, redirect, or a function of (scene id, attachment).
    signing: str | Callable[[str, str], httpx.Response] = "json"
    #: Seconds until a new token is valid, on trio's clock: the issuer's clock is ahead.
    token_begins_s: float = 0.0
    #: The status for a token that is not valid yet.
    refuses_early_with: int = 401
    #: Until when, on trio's clock, every token is refused.
    refuses_until_s: float = 0.0
    is_silent: bool = False
    is_gone: bool = False
    requests: list[VendorRequest] = field(default_factory=list)
    n_tokens: int = 0
    _valid_tokens: set[str] = field(default_factory=set)
    _valid_from_s: dict[str, float] = field(default_factory=dict)
    _planned: deque[tuple[str, httpx.Response | Exception]] = field(default_factory=deque)
    #: Called before each response, for events that a test wants to happen then.
    meanwhile: Callable[[VendorRequest], None] | None = None

    def transport(self) -> httpx.MockTransport:
        """Return the HTTP transport to this vendor."""
        return httpx.MockTransport(self._handle)

    def paths(self) -> list[str]:
        """Return the paths requested so far, in order."""
        return [each.path for each in self.requests]

    def n_requests(self, path: str) -> int:
        """Return how often *path* was requested."""
        return self.paths().count(path)

    # -- faults ------------------------------------------------------------------------------------

    def fail_next(
        self, response: int | httpx.Response | Exception, *, path: str = "", times: int = 1
    ) -> None:
        """Answer the next *times* requests whose path begins with *path* by *response*."""
        for _ in range(times):
            if isinstance(response, int):
                self._planned.append((path, httpx.Response(response, json={"message": "planned"})))
            else:
                self._planned.append((path, response))

    def revoke_token(self) -> None:
        """Refuse every token handed out so far."""
        self._valid_tokens.clear()

    # -- responses ---------------------------------------------------------------------------------

    async def _handle(self, request: httpx.Request) -> httpx.Response:
        path = request.url.raw_path.decode().partition("?")[0]
        arrived = VendorRequest(
            method=request.method,
            url=str(request.url),
            path=path,
            query=dict(parse_qsl(request.url.query.decode(), keep_blank_values=True)),
            headers={name.lower(): value for name, value in request.headers.items()},
        )
        self.requests.append(arrived)
        if self.is_gone:
            raise httpx.ConnectError("no route to host")
        if self.is_silent:
            await trio.sleep_forever()
        await trio.sleep(self.delay_s)
        if self.meanwhile is not None:
            self.meanwhile(arrived)
        for number, (prefix, planned) in enumerate(self._planned):
            if path.startswith(prefix):
                del self._planned[number]
                if isinstance(planned, Exception):
                    raise planned
                return httpx.Response(
                    planned.status_code, headers=planned.headers, content=planned.content
                )
        if str(request.url) in (AUTH, self.moved_auth):
            return self._token(request)
        assert f"{request.url.scheme}://{request.url.host}" == API, f"credentials at {request.url}"
        return self._authorised(arrived) or self._routed(arrived)

    def _token(self, request: httpx.Request) -> httpx.Response:
        assert request.method == "POST"
        body = json.loads(request.content)
        assert request.headers["content-type"] == "application/json"
        assert body["grant_type"] == "client_credentials"
        if (body["client_id"], body["client_secret"]) != (CLIENT_ID, CLIENT_SECRET):
            return _json(401, {"error": "access_denied", "error_description": "Unauthorized"})
        self.n_tokens += 1
        token = f"token-number-{self.n_tokens}"
        self._valid_tokens.add(token)
        self._valid_from_s[token] = trio.current_time() + self.token_begins_s
        token_field, lifetime_field = self.token_fields
        response = {token_field: token, "token_type": "Bearer", "refresh_token": None, "x": [1]}
        if self.token_lifetime_s is not None:
            response[lifetime_field] = self.token_lifetime_s
        return _json(200, response)

    def accept_token(self, token: str) -> None:
        """Take *token* for good from now on."""
        self._valid_tokens.add(token)

    def refuse_tokens(self) -> None:
        """Take every token for worthless that was good until now."""
        self._valid_tokens.clear()

    def _authorised(self, request: VendorRequest) -> httpx.Response | None:
        sent = request.headers.get("authorizationtoken", "")
        standard = request.headers.get("authorization")
        assert standard is None or request.path == "/contracts"
        if self.wants_standard_header and request.path == "/contracts":
            sent = standard or ""
        if sent == f"Key,Secret {CLIENT_ID},{CLIENT_SECRET}":
            return None
        if sent.removeprefix("Bearer ") not in self._valid_tokens:
            return _json(401, {"message": "Unauthorized"})
        if trio.current_time() < self._valid_from_s.get(sent.removeprefix("Bearer "), 0.0):
            return _json(self.refuses_early_with, {"message": "The token is not valid yet"})
        if trio.current_time() < self.refuses_until_s:
            return _json(401, {"message": "Unauthorized"})
        contract = request.headers.get("x-satellogic-contract-id")
        if request.path == "/contracts":
            assert contract is None, "/contracts must be requested without a contract"
            return None
        if contract not in [entry.get("contract_id", entry.get("id")) for entry in self.contracts]:
            return _json(401, {"message": "Missing required header X-Satellogic-Contract-Id"})
        return None

    def _routed(self, request: VendorRequest) -> httpx.Response:
        parts = [unquote(part) for part in request.path.strip("/").split("/")]
        match parts:
            case ["contracts"]:
                if self.pages_contracts:
                    return self._page(request, self.contracts)
                return _json(200, self.contracts)
            case ["tasking", "tasks"]:
                return self._page(request, self.tasks)
            case ["tasking", "tasks", task_id]:
                for task in self.tasks:
                    if str(task["task_id"]) == task_id:
                        return _json(200, task)
                return _json(404, {"detail": "Not found."})
            case ["tasking", "tasks", task_id, "captures"]:
                if task_id not in self.captures:
                    return _json(404, {"detail": "Not found."})
                return self._page(request, self.captures[task_id])
            case ["telluric", "scenes"]:
                return self._scene_list(request)
            case ["telluric", "scenes", scene_id] if self.knows_scene_path:
                scene = self._scene(scene_id)
                if scene is None:
                    return _json(404, {"message": f"No item found with id {scene_id}"})
                return _json(200, scene)
            case ["telluric", "scenes", scene_id, "attachments", name, "download"]:
                return self._signed(scene_id, name)
            case _:
                return _json(403, {"message": "Missing Authentication Token"})

    def _scene(self, scene_id: str) -> Any:
        for scenes in self.scenes.values():
            for scene in scenes:
                if scene["scene_id"] == scene_id:
                    return scene
        return None

    def _scene_list(self, request: VendorRequest) -> httpx.Response:
        if "sceneset_id" in request.query:
            return self._page(request, self.scenes.get(request.query["sceneset_id"], []))
        found = self._scene(request.query.get("scene_id", ""))
        return self._page(request, [] if found is None else [found])

    def _signed(self, scene_id: str, name: str) -> httpx.Response:
        if callable(self.signing):
            return self.signing(scene_id, name)
        url = (
            f"{STORE}/bucket/{quote(scene_id)}/{quote(name)}?X-Amz-Algorithm=AWS4-HMAC-SHA256"
            "&X-Amz-Date=20260205T101500Z&X-Amz-Expires=3600&X-Amz-Signature=5f0c5f0c"
        )
        if self.signing == "redirect":
            return httpx.Response(302, headers={"Location": url})
        return _json(200, {"url": url})

    def _page(self, request: VendorRequest, entries: list[Any]) -> httpx.Response:
        limit = int(request.query.get("limit", str(min(100, self.max_limit))))
        if self.refuses_limit_with and limit > self.max_limit:
            return _json(self.refuses_limit_with, {"limit": ["is too large"]})
        limit = min(limit, self.max_limit)
        offset = int(request.query.get("offset", request.query.get("cursor", "0")))
        results = entries[offset : offset + limit]
        following = offset + limit if offset + limit < len(entries) else None
        if self.form is not None:
            named = self._next(request, limit, following)
            return _json(200, self.form(results, len(entries), named))
        response: dict[str, Any] = {"previous": None, "results": results}
        if self.tells_count:
            response["count"] = len(entries)
        if self.next_style != "absent":
            response["next"] = self._next(request, limit, following)
        return _json(200, response)

    def _next(self, request: VendorRequest, limit: int, following: int | None) -> str | None:
        if callable(self.next_style):
            return self.next_style(request.url, int(request.query.get("offset", "0")))
        if following is None:
            return None
        query = {k: v for k, v in request.query.items() if k not in ("limit", "offset", "cursor")}
        if self.next_style == "cursor":
            query["cursor"] = str(following)
        else:
            query |= {"limit": str(limit), "offset": str(following)}
        base = "" if self.next_style == "relative" else API
        return f"{base}{request.path}?{urlencode(query)}"


def _json(status: int, value: Any) -> httpx.Response:
    # Written by hand: httpx refuses what json can write, lone surrogates for one.
    body = json.dumps(value).encode()
    return httpx.Response(status, content=body, headers={"Content-Type": "application/json"})


def some_tasks(n: int) -> list[dict[str, Any]]:
    """Return *n* tasks like the documented ones."""
    return [
        {
            "task_id": 341000 + number,
            "task_name": f"Harbour monitoring {number}",
            "project_name": "Coast 2026",
            "status": "completed",
            "created_time": "2026-01-19T14:03:22.481905Z",
            "target": {"type": "Point", "coordinates": [-58.37, -34.6, 0.0]},
        }
        for number in range(n)
    ]


def some_scene(scene_id: str, capture_id: str) -> dict[str, Any]:
    """Return a scene like the documented ones, signed links in the listing included."""
    link = f"{STORE}/x.zip?X-Amz-Signature=5f0c&X-Amz-Expires=3600"
    return {
        "scene_id": scene_id,
        "sceneset_id": capture_id,
        "productname": "L1D_SR",
        "timestamp": "2026-01-28T15:57:47.002000+00:00",
        "last_modified": "2026-01-28T22:05:51.733000+00:00",
        "footprint": {
            "type": "Polygon",
            "coordinates": [[[-58.4, -34.6], [-58.3, -34.6], [-58.3, -34.5], [-58.4, -34.6]]],
        },
        "rasters": [{"url": link, "file_name": "x_TOA_0.tif"}],
        "attachments": [
            {"name": "preview", "file_name": f"{scene_id}_preview.png", "url": link},
            {"name": "delivery_zip", "file_name": f"{scene_id}.zip", "url": link},
        ],
    }


def settings_for_vendor(**changes: Any) -> Settings:
    """Return settings that point at the vendor in memory, with client credentials.

    A memory for listings may be smaller here than that of a mount: filling it takes less time.
    """
    given: dict[str, Any] = {
        "api_url": API,
        "auth_url": AUTH,
        "client_id": CLIENT_ID,
        "client_secret": CLIENT_SECRET,
    }
    smaller = {name: changes.pop(name) for name in ("listing_memory_bytes",) if name in changes}
    return replace(load_settings({}, **{**given, **changes}), **smaller)
