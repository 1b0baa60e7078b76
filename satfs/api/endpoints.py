"""The API's requests as data: path and query of each, every id encoded.

*Pure*. Paths end in a slash, as Django's do: the response to one without is a redirect.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote, urlencode

from msgspec import Struct

from satfs.errors import NotThere
from satfs.model import AttachmentName, CaptureId, SceneId, TaskId

#: Longest page, and longest record that is requested by itself. The vendor's gateway caps responses
#: at 10 MB (AWS API Gateway quotas); the rest is for other gateways.
MAX_PAGE_BYTES: Final = 32 * 1024 * 1024
#: Longest response in which a link is looked for. A vendor that sends the delivery itself in its
#: place would have `ls` fetch it.
MAX_LINK_BYTES: Final = 1024 * 1024
#: Longest response about contracts; an account has a handful.
MAX_CONTRACTS_BYTES: Final = 256 * 1024


class ApiRequest(Struct, frozen=True):
    """A GET under the API's base address. *what* names it in messages.

    A redirect is followed, or with *takes_redirect* is the response; a response longer than
    *max_bytes* is a failure.
    """

    path: str
    query: tuple[tuple[str, str], ...] = ()
    what: str = ""
    with_contract: bool = True
    takes_redirect: bool = False
    max_bytes: int = MAX_PAGE_BYTES

    def url(self, api_url: str) -> str:
        """Return the whole address."""
        query = f"?{urlencode(self.query, quote_via=quote)}" if self.query else ""
        return f"{api_url.rstrip('/')}{self.path}{query}"


def contracts() -> ApiRequest:
    """Build the request for the account's contracts; the one that takes no contract header."""
    return ApiRequest(
        "/contracts", what="list contracts", with_contract=False, max_bytes=MAX_CONTRACTS_BYTES
    )


def tasks(limit: int) -> ApiRequest:
    """Build the request for the first page of tasks."""
    return ApiRequest("/tasking/tasks/", (("limit", str(limit)), ("offset", "0")), "list tasks")


def task(task_id: TaskId) -> ApiRequest:
    """Build the request for one task."""
    return ApiRequest(f"/tasking/tasks/{_segment(task_id)}/", what=f"look up task {task_id!r}")


def captures(task_id: TaskId, limit: int) -> ApiRequest:
    """Build the request for the first page of a task's captures."""
    return ApiRequest(
        f"/tasking/tasks/{_segment(task_id)}/captures/",
        (("limit", str(limit)), ("offset", "0")),
        f"list captures of task {task_id!r}",
    )


def scenes(capture_id: CaptureId, limit: int) -> ApiRequest:
    """Build the request for the first page of a capture's scenes.

    The documentation shows only `sceneset_id`; `limit` is what clients of the older service sent.
    """
    return ApiRequest(
        "/telluric/scenes/",
        (("sceneset_id", _value(capture_id)), ("limit", str(limit))),
        f"list scenes of capture {capture_id!r}",
    )


def scene(scene_id: SceneId) -> ApiRequest:
    """Build the request for one scene by its path, which is inferred, not documented."""
    return ApiRequest(f"/telluric/scenes/{_segment(scene_id)}/", what=f"look up scene {scene_id!r}")


def scene_search(scene_id: SceneId) -> ApiRequest:
    """Build the request for one scene by a filter, which older clients used."""
    return ApiRequest(
        "/telluric/scenes/", (("scene_id", _value(scene_id)),), f"look up scene {scene_id!r}"
    )


def sign(scene_id: SceneId, attachment: AttachmentName) -> ApiRequest:
    """Build the request for a presigned link to an attachment."""
    return ApiRequest(
        f"/telluric/scenes/{_segment(scene_id)}/attachments/{_segment(attachment)}/download/",
        (("redirect", "false"),),
        f"sign {attachment!r} of scene {scene_id!r}",
        takes_redirect=True,
        max_bytes=MAX_LINK_BYTES,
    )


def _segment(text: str) -> str:
    """Return *text* as one path segment.

    Raises:
        NotThere: it cannot be one. A segment `.` or `..` is resolved by every HTTP library, also
            when percent-encoded, and would be another request.
    """
    if text in ("", ".", ".."):
        raise NotThere(f"nothing can have the id {text!r}")
    return quote(_value(text), safe="")


def _value(text: str) -> str:
    """Return *text* if it can be encoded at all."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise NotThere("nothing can have an id that is no Unicode text") from None
    return text
