"""Responses of the API: token, contracts, tasks, captures, scenes and links. *Pure*.

Checks are made in this order: token, contract, route, as behind a gateway with a token authorizer.
Errors of tasking have the form of Django REST framework (`detail`), those of delivery the key
`message`, the gateway's own `message` or, from its authorizer, `Message`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final
from urllib.parse import unquote, urlencode

from satfs.demo.catalogue import TASK_STATUSES, Attachment, Capture, Catalogue, Scene, Task
from satfs.demo.faults import Fault, named
from satfs.demo.page_forms import first_entry
from satfs.demo.responses import (
    Request,
    Response,
    gateway_error,
    json_response,
    tasking_error,
    telluric_error,
)
from satfs.demo.tokens import CredentialState, TokenOffice


@dataclass(frozen=True)
class PageLimits:
    """The number of entries of a page: without a `limit` in the request, and at most."""

    default: int = 100
    maximum: int = 500


def _whole_number(text: str | None) -> int | None:
    try:
        return int(text or "")
    except ValueError:
        return None


def page_window(query: Mapping[str, str], limits: PageLimits) -> tuple[int, int]:
    """Return limit and offset as Django REST framework understands the query.

    A `limit` that is missing, zero, negative or no number is the default; one too large is cut
    without a word; an `offset` past the end gives an empty page.
    """
    limit = _whole_number(query.get("limit"))
    offset = _whole_number(query.get("offset"))
    return (
        min(limit, limits.maximum) if limit is not None and limit > 0 else limits.default,
        offset if offset is not None and offset >= 0 else 0,
    )


def page_url(base: str, path: str, query: Mapping[str, str], changes: Mapping[str, Any]) -> str:
    """Return an absolute URL: the query with *changes*, None removing, sorted as Django does."""
    merged: dict[str, Any] = {**query, **changes}
    kept = sorted((name, value) for name, value in merged.items() if value is not None)
    return f"{base}{path}" + (f"?{urlencode(kept)}" if kept else "")


def page(
    entries: Sequence[Any], base: str, path: str, query: Mapping[str, str], limits: PageLimits
) -> dict[str, Any]:
    """Return the envelope of the page that *query* requests."""
    limit, offset = page_window(query, limits)
    after, before = offset + limit, offset - limit
    following = previous = None
    if after < len(entries):
        following = page_url(base, path, query, {"limit": limit, "offset": after})
    if offset > 0:
        back = {"limit": limit, "offset": before if before > 0 else None}
        previous = page_url(base, path, query, back)
    return {
        "count": len(entries),
        "next": following,
        "previous": previous,
        "results": list(entries[offset:after]),
    }


#: Endpoint names by the shape of their raw path; the final slash is Django's.
_ROUTES: Final = [
    ("token", re.compile(r"/oauth/token\Z")),
    ("contracts", re.compile(r"/contracts\Z")),
    ("products", re.compile(r"/tasking/products/\Z")),
    ("clients", re.compile(r"/tasking/clients/\Z")),
    ("tasks", re.compile(r"/tasking/tasks/\Z")),
    ("task", re.compile(r"/tasking/tasks/([^/]+)/\Z")),
    ("captures", re.compile(r"/tasking/tasks/([^/]+)/captures/\Z")),
    ("scenes", re.compile(r"/telluric/scenes/\Z")),
    ("scene", re.compile(r"/telluric/scenes/([^/]+)/\Z")),
    ("sign", re.compile(r"/telluric/scenes/([^/]+)/attachments/([^/]+)/download/\Z")),
]
_PRODUCTS: Final = [
    {"pk": 169, "name": "Multispectral 70cm", "is_area": False},
    {"pk": 178, "name": "Area Coverage 70cm", "is_area": True},
]


def route(raw_path: str) -> tuple[str, tuple[str, ...]]:
    """Return the endpoint of a raw path and its arguments, decoded; `other` for an unknown path."""
    for endpoint, shape in _ROUTES:
        found = shape.match(raw_path)
        if found:
            return endpoint, tuple(unquote(part) for part in found.groups())
    return "other", ()


@dataclass
class Api:
    """The API: its records, the credentials that it accepts, and the links that it signs."""

    side: ClassVar[str] = "api"
    catalogue: Catalogue
    office: TokenOffice
    #: Returns the presigned URL of an attachment, in the way the faults drawn want it.
    sign: Callable[[Attachment, Sequence[Fault]], str]
    limits: PageLimits = field(default_factory=PageLimits)
    #: Secrets of another origin, which must not arrive here.
    watched: list[str] = field(default_factory=list)

    def endpoint(self, request: Request) -> str:
        """Return the name of the endpoint."""
        return route(request.raw_path)[0]

    def leak(self, request: Request) -> str | None:
        """Return which credential the request carries where it must not be, or None."""
        if self._is_in_address(request):
            return "query"
        texts = (request.raw_path, request.raw_query, *request.headers.values())
        return "watched" if any(s in text for s in self.watched for text in texts) else None

    def respond(self, request: Request, now_s: float, faults: Sequence[Fault] = ()) -> Response:
        """Return the response to one request."""
        endpoint, arguments = route(request.raw_path)
        if endpoint == "token":
            if request.method != "POST":
                return json_response({"message": "Method Not Allowed"}, 405)
            return self.office.respond(request.body, now_s, faults)
        if self._is_in_address(request):
            return gateway_error(400, "BadRequestException", "A credential was sent in the query")
        refusal = self._token_refusal(request, now_s)
        if refusal:
            return refusal
        if endpoint == "contracts":
            named_as = dict(self.office.account.contracts)
            contracts = [{"contract_id": key, "name": name} for key, name in named_as.items()]
            if named(faults, "short-pages") is not None:
                return self._page(request, contracts, faults)
            return json_response(contracts)
        contract, refusal = self._contract(request, now_s)
        if refusal:
            return refusal
        if endpoint == "other":
            return _no_route(request)
        if request.method != "GET":
            detail = f'Method "{request.method}" not allowed.'
            return tasking_error(405, detail).with_headers(allow="GET, HEAD, OPTIONS")
        match endpoint:
            case "products":
                return self._page(request, _PRODUCTS, faults)
            case "clients":
                return self._page(request, [{"pk": 1, "name": "Example Geo Ltd"}], faults)
            case "tasks":
                return self._tasks(request, self.catalogue.tasks_of(contract), faults)
            case "task" | "captures":
                return self._task(request, endpoint, arguments[0], contract, faults)
            case "scenes":
                return self._scenes(request, contract, faults)
            case _:
                return self._scene(request, arguments, contract, faults)

    def _is_in_address(self, request: Request) -> bool:
        """Return whether a credential was put where proxies and logs see it: into path or query."""
        return self.holds_secret(request.path) or self.holds_secret(unquote(request.raw_query))

    def holds_secret(self, text: str) -> bool:
        """Return whether a text holds the client secret or any token ever given out."""
        secrets = (self.office.account.client_secret, *self.office.given_out)
        return any(secret and secret in text for secret in secrets)

    # -- credentials -----------------------------------------------------------------------------

    def _token_refusal(self, request: Request, now_s: float) -> Response | None:
        match self.office.standing(request.headers.get("authorizationtoken"), now_s):
            case CredentialState.NONE:
                return gateway_error(401, "UnauthorizedException", "Unauthorized")
            case CredentialState.DENIED:
                text = "User is not authorized to access this resource with an explicit deny"
                return gateway_error(403, "AccessDeniedException", text, key="Message")
            case _:
                return None

    def _contract(self, request: Request, now_s: float) -> tuple[str | None, Response | None]:
        header = request.headers.get("authorizationtoken")
        if self.office.standing(header, now_s) is CredentialState.LEGACY:
            return None, None  # an old credential belongs to one contract, and names none
        contract = request.headers.get("x-satellogic-contract-id")
        if not contract:
            text = "Missing required header X-Satellogic-Contract-Id"
            return None, gateway_error(401, "UnauthorizedException", text)
        if contract not in dict(self.office.account.contracts):
            text = "The contract id is not valid for this access profile"
            return None, gateway_error(401, "UnauthorizedException", text)
        return contract, None

    # -- tasking ---------------------------------------------------------------------------------

    def _tasks(self, request: Request, tasks: list[Task], faults: Sequence[Fault]) -> Response:
        query = request.query
        status = query.get("status")
        if status:
            if status not in {*TASK_STATUSES, *(str(t.record.get("status")) for t in tasks)}:
                text = f"Select a valid choice. {status} is not one of the available choices."
                return json_response({"status": [text]}, 400)
            tasks = [task for task in tasks if task.record.get("status") == status]
        for name in ("task_name", "project_name"):
            if query.get(name):
                tasks = [task for task in tasks if task.record.get(name) == query[name]]
        return self._page(request, tasks, faults, shown=lambda task: task.record)

    def _task(
        self,
        request: Request,
        endpoint: str,
        task_id: str,
        contract: str | None,
        faults: Sequence[Fault],
    ) -> Response:
        task = self.catalogue.task(task_id)
        if task is None or not task.is_visible(contract):
            return tasking_error(404, "Not found.")
        if endpoint == "task":
            return json_response(task.record)
        return self._page(request, [capture.record for capture in task.captures], faults)

    # -- delivery --------------------------------------------------------------------------------

    def _scenes(self, request: Request, contract: str | None, faults: Sequence[Fault]) -> Response:
        query = request.query
        sceneset = query.get("sceneset_id")
        if sceneset:
            capture: Capture | None = self.catalogue.capture(sceneset)
            captures = [capture] if capture and capture.is_published else []
        else:
            captures = self.catalogue.published_captures()
        # By captures: each page of a capture of 100,000 scenes comes by here.
        task_of = self.catalogue.task_of_capture
        shown = [
            each.scenes for each in captures if self._is_visible(task_of(each.capture_id), contract)
        ]
        scenes = shown[0] if len(shown) == 1 else [scene for each in shown for scene in each]
        for name in ("scene_id", "productname"):
            if query.get(name):
                scenes = [scene for scene in scenes if scene.record.get(name) == query[name]]
        return self._page(request, scenes, faults, shown=lambda scene: self._listed(scene, faults))

    def _scene(
        self,
        request: Request,
        arguments: tuple[str, ...],
        contract: str | None,
        faults: Sequence[Fault],
    ) -> Response:
        scene = self.catalogue.published_scene(arguments[0])
        task = self.catalogue.task_of(arguments[0])
        if scene is None or not self._is_visible(task, contract):
            return telluric_error(404, f"No item found with id {arguments[0]}")
        if len(arguments) == 1:
            return json_response(self._listed(scene, faults))
        attachment = scene.attachment(arguments[1])
        if attachment is None:
            return telluric_error(404, f"No item found with id {arguments[1]}")
        url = self.sign(attachment, faults)
        if request.query.get("redirect", "true").lower() != "false":
            return Response(302, {"Location": url})
        return json_response({} if named(faults, "no-link") else {"url": url})

    def _listed(self, scene: Scene, faults: Sequence[Fault]) -> dict[str, Any]:
        if "attachments" in scene.record:
            return scene.record
        attachments = [
            self._listed_attachment(attachment, faults) for attachment in scene.attachments
        ]
        return {**scene.record, "attachments": attachments}

    def _listed_attachment(self, attachment: Attachment, faults: Sequence[Fault]) -> Any:
        if attachment.record is not None:
            return attachment.record
        named_as = {"name": attachment.name, "file_name": attachment.file_name}
        return {**named_as, "url": self.sign(attachment, faults)}

    @staticmethod
    def _is_visible(task: Task | None, contract: str | None) -> bool:
        return task is None or task.is_visible(contract)

    # -- pages -----------------------------------------------------------------------------------

    def _page(
        self,
        request: Request,
        entries: Sequence[Any],
        faults: Sequence[Fault],
        shown: Callable[[Any], Any] = lambda entry: entry,
    ) -> Response:
        query, path = request.query, request.raw_path
        limits = self.limits
        for fault in faults:
            if fault.name == "short-pages":
                limits = PageLimits(fault["entries"], fault["entries"])
            if fault.name == "limit-refused":
                limits = PageLimits(fault["most"], fault["most"])
                if (_whole_number(query.get("limit")) or 0) > fault["most"]:
                    return json_response({"limit": ["is too large"]}, fault["status"])
        limit, offset = page_window(query, limits)
        if bare := named(faults, "bare-list"):
            offset = first_entry(bare["by"], query, limit, offset)
            return json_response([shown(entry) for entry in entries[offset : offset + limit]])
        entries = _shifted(entries, offset, faults)
        envelope = page(entries, request.base_url, path, query, limits)
        envelope["results"] = [shown(entry) for entry in envelope["results"]]
        following = {"limit": limit, "offset": offset + limit}
        headers: dict[str, str] = {}
        for fault in faults:
            match fault.name:
                case "endless-next":
                    envelope["next"] = page_url(request.base_url, path, query, following)
                    if entries:
                        envelope["results"] = _renumbered(shown(entries[0]), offset, limit)
                case "page-loop" if envelope["next"] is None:
                    envelope["next"] = page_url(request.base_url, path, query, {"offset": 0})
                case "foreign-next" if envelope["next"]:
                    path_sent = fault["path"] or path
                    envelope["next"] = page_url(fault["base"], path_sent, query, following)
                case "empty-pages":
                    n_empty = _whole_number(query.get("empty")) or 0
                    if n_empty < fault["pages"]:
                        envelope["results"] = []
                        here = {"limit": limit, "offset": offset, "empty": n_empty + 1}
                        envelope["next"] = page_url(request.base_url, path, query, here)
                    elif envelope["next"]:
                        after = {**following, "empty": 0}
                        envelope["next"] = page_url(request.base_url, path, query, after)
                case "relative-next" if envelope["next"]:
                    envelope["next"] = envelope["next"].removeprefix(request.base_url)
                case "wrong-count":
                    envelope["count"] = fault["value"]
                case "link-header":
                    first = page_url(request.base_url, path, query, {"offset": 0})
                    headers["link"] = f'<{first}>; rel="first"'
                    if next_url := envelope.pop("next"):
                        headers["link"] += f', <{next_url}>; title="more"; rel="next"'
                    del envelope["count"]
        return json_response(envelope).with_headers(**headers)


def _no_route(request: Request) -> Response:
    with_slash = request.raw_path + "/"
    if route(with_slash)[0] != "other":
        query = f"?{request.raw_query}" if request.raw_query else ""
        return Response(301, {"Location": f"{with_slash}{query}"})
    text = "Missing Authentication Token"
    return gateway_error(403, "MissingAuthenticationTokenException", text)


def _shifted(entries: Sequence[Any], offset: int, faults: Sequence[Fault]) -> Sequence[Any]:
    """Return the listing as it is when later pages are requested."""
    for fault in faults:
        if fault.name == "listing-grows" and offset > 0:
            entries = [*entries[-fault["entries"] :], *entries]
        if fault.name == "listing-shrinks" and offset > 0:
            entries = entries[fault["entries"] :]
    return entries


def _renumbered(entry: Any, offset: int, limit: int) -> list[Any]:
    """Return a page of entries that no earlier page had, in the shape of *entry*."""
    if not isinstance(entry, dict):
        return [entry]
    text = json.dumps(entry)
    page_of_copies = []
    for n in range(offset, offset + limit):
        copy = json.loads(text)
        for name in ("task_id", "capture_id", "scene_id"):
            if name in copy:
                copy[name] = f"endless-{n}"
        page_of_copies.append(copy)
    return page_of_copies
