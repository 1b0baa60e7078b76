"""Sends what `satfs watch` reports to an address that the user gives (`--webhook`)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

import trio

from satfs.errors import DeadlineReached, SatfsError, Unreachable
from satfs.model import Json
from satfs.net.http import Http
from satfs.settings import Settings, load_settings

#: Longest time to connect, and longest silence of a receiver, in seconds.
_CONNECT_S: Final = 5.0
_PROGRESS_S: Final = 30.0
#: Longest time for one request and its response, in seconds: a receiver that sends a byte now and
#: then must not hold up the watch.
_TOTAL_S: Final = 60.0
#: Longest response that is read, in bytes: only its status counts.
_MAX_RESPONSE_BYTES: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a receiver did not take something, for people.

    `is_absent`: the receiver did not respond at all, and will not respond to the next request
    either.
    """

    reason: str
    is_absent: bool = False


class Poster:
    """POSTs JSON to one address, which may hold a secret and is shown nowhere.

    A request has no header but its content type and length: no cookie, no credential. A redirect is
    not followed. *total_s* bounds one request and its response, in seconds.
    """

    def __init__(self, http: Http, url: str, *, total_s: float = _TOTAL_S) -> None:
        self._http = http
        self._url = url
        self._total_s = total_s

    async def post(self, content: Json) -> Refusal | None:
        """Return None when the receiver responds with 2xx, else why it did not take *content*."""
        try:
            with trio.fail_after(self._total_s):
                response = await self._http.request(
                    "POST",
                    self._url,
                    headers={"Content-Type": "application/geo+json"},
                    content=json.dumps(content).encode(),
                    max_bytes=_MAX_RESPONSE_BYTES,
                )
        except trio.TooSlowError:
            return Refusal("no response in time", is_absent=True)
        except Unreachable as failure:
            is_slow = isinstance(failure, DeadlineReached)
            return Refusal("no response in time" if is_slow else "no connection", is_absent=True)
        except SatfsError as failure:
            return Refusal(type(failure).__name__)
        return None if 200 <= response.status < 300 else Refusal(f"HTTP {response.status}")


@asynccontextmanager
async def poster(url: str | None, settings: Settings | None) -> AsyncIterator[Poster | None]:
    """Yield a `Poster` to *url*; None without one.

    It trusts the authorities of *settings*, by default those of the user's profile.
    """
    if url is None:
        yield None
        return
    settings = settings or load_settings()
    async with Http(
        connect_timeout_s=_CONNECT_S,
        progress_timeout_s=_PROGRESS_S,
        max_connections=1,
        ca_file=settings.ca_file,
        tls_strict=settings.tls_strict,
        user_agent=settings.user_agent,
    ) as http:
        yield Poster(http, url)
