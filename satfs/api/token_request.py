"""One request for a token (OAuth 2.0, RFC 6749 §4.4), and the meaning of its response.

The request holds the client secret. So only the host, port and scheme of the configured address
get it, wherever a redirect leads.
"""

from __future__ import annotations

import time
from typing import Final

from satfs.api import error_text, tokens
from satfs.api.json_document import document
from satfs.api.presigned import REDIRECTS
from satfs.api.tokens import ReceivedToken
from satfs.errors import Garbled, NeedsLogin, SatfsError
from satfs.net.addresses import is_same_resource, origin_of, resolved, shown
from satfs.net.http import Http
from satfs.net.responses import Response
from satfs.net.retry import RETRIED_STATUSES, failure_for
from satfs.redaction import for_people

#: Longest response of the token endpoint; tokens are a few kilobytes.
MAX_TOKEN_RESPONSE_BYTES: Final = 256 * 1024
#: Redirects that are followed; a moved path takes one, a missing slash another.
MAX_REDIRECTS: Final = 5
#: The response to a POST that made a token: 201 of frameworks that know no other, 203 of a proxy.
_COMPLETE: Final = frozenset({200, 201, 203})


async def exchange(
    http: Http, auth_url: str, body: bytes, *, secrets: tuple[str, ...], advice: str
) -> ReceivedToken:
    """Return the token that the endpoint at *auth_url* sends for *body*.

    *secrets* are left out of messages; *advice* ends that of a refusal.

    Raises:
        NeedsLogin: the credential is refused.
        Unreachable: the endpoint is busy or broken.
        Garbled: the response is no token, or a redirect that is not followed.
    """
    url = auth_url
    for _ in range(MAX_REDIRECTS + 1):
        response = await http.request(
            "POST",
            url,
            headers={"Content-Type": "application/json", "Accept": "application/json"},
            content=body,
            max_bytes=MAX_TOKEN_RESPONSE_BYTES,
        )
        if response.status not in REDIRECTS:
            return _token_in(response, url, secrets, advice)
        reference = response.headers.get("location", "").strip()
        target = resolved(url, reference) if reference else ""
        if not may_follow(auth_url, url, response.status, target):
            to = for_people(shown(target), secrets) if target else "no address"
            raise Garbled(
                f"request a token: {shown(url)} redirects to {to}, which does not get the client "
                "secret; is SATFS_AUTH_URL the token endpoint?"
            )
        url = target
    raise Garbled(f"request a token: {shown(auth_url)} redirects without end")


def may_follow(auth_url: str, url: str, status: int, target: str) -> bool:
    """Return whether a request to *url* for a token is sent to *target*, as *status* redirects it.

    307 and 308 keep method and body (RFC 9110 §15.4.8, §15.4.9). With 301 and 302 many clients
    send a GET: they are followed to the same resource alone, where frameworks add a slash.
    """
    try:
        is_same_origin = origin_of(target) == origin_of(auth_url)
    except Garbled:
        return False
    keeps_body = status in (307, 308) or (status in (301, 302) and is_same_resource(url, target))
    return is_same_origin and keeps_body


def _token_in(response: Response, url: str, secrets: tuple[str, ...], advice: str) -> ReceivedToken:
    if response.status not in _COMPLETE:
        raise _refusal(response, url, secrets, advice)
    stored = document(response.body)
    received = tokens.of_record(stored) if isinstance(stored, dict) else None
    if received is None:
        raise Garbled(f"{shown(url)} responded without a token")
    return received


def _refusal(response: Response, url: str, secrets: tuple[str, ...], advice: str) -> SatfsError:
    text = error_text.response_text(shown(url), response.status, response.body, secrets)
    message = f"request a token: {text}"
    if response.status == 403 and error_text.is_page(response.headers, response.body):
        return error_text.RefusedByPage(message)
    if response.status in (400, 401, 403):
        return NeedsLogin(f"{message}; {advice}")
    if response.status in RETRIED_STATUSES or response.status >= 500:
        return failure_for(response.status, response.headers, message, now_s=time.time())
    return Garbled(f"{message}; is SATFS_AUTH_URL the token endpoint?")
