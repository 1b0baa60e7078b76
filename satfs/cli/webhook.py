"""Sends what `satfs watch` reports to an address of the user's own (`--webhook`)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from urllib.parse import urlsplit

from satfs.errors import BadSettings, SatfsError
from satfs.model import Json
from satfs.net.http import Http

#: Times in seconds: to connect, and of silence. A receiver that takes longer is sent it again.
_CONNECT_S: Final = 5.0
_PROGRESS_S: Final = 30.0
#: Longest response that is read, in bytes: only its status counts.
_MAX_RESPONSE_BYTES: Final = 64 * 1024


class Poster:
    """POSTs JSON to one address, which may hold a secret and is shown nowhere."""

    def __init__(self, http: Http, url: str) -> None:
        self._http = http
        self._url = url

    async def post(self, content: Json) -> str | None:
        """Return None when the receiver responds with 2xx, else why it did not take *content*."""
        try:
            response = await self._http.request(
                "POST",
                self._url,
                headers={"Content-Type": "application/geo+json"},
                content=json.dumps(content).encode(),
                max_bytes=_MAX_RESPONSE_BYTES,
            )
        except SatfsError as failure:
            return type(failure).__name__
        return None if 200 <= response.status < 300 else f"HTTP {response.status}"


def check_address(url: str) -> None:
    """Accept an address of the web.

    Raises:
        BadSettings: it is none.
    """
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        is_address = False
    if not is_address:
        raise BadSettings("--webhook takes an address that begins with http:// or https://")


@asynccontextmanager
async def poster(url: str | None) -> AsyncIterator[Poster | None]:
    """Yield a `Poster` to *url*; None without one."""
    if url is None:
        yield None
        return
    http = Http(connect_timeout_s=_CONNECT_S, progress_timeout_s=_PROGRESS_S, max_connections=1)
    async with http:
        yield Poster(http, url)
