"""One small question to the store about an object: how long is it, and which version.

HEAD is not asked: a link is signed for GET alone, and answers 403 to anything else. A suffix range
tells the length, the ETag and the end of the object in one round trip (RFC 9110 §14.1.2).
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, NoReturn, TypeVar

import trio

from satfs.content.links import LinkKeeper, Refusals
from satfs.content.transfer.inloop import MOST_REDIRECTS, Streams, answer_s
from satfs.content.transfer.interface import Refusal
from satfs.content.verdicts import (
    Meaning,
    Verdict,
    judge_error,
    judge_tail,
    total_if_unsatisfied,
    version_of,
)
from satfs.errors import Garbled, NotAllowed, NotThere, Throttled, Unreachable
from satfs.model import Version
from satfs.net.addresses import origin_of, resolved
from satfs.net.http import StreamedAnswer
from satfs.net.retry import parse_retry_after
from satfs.net.retrying import Retries

T = TypeVar("T")

#: A zip's directory ends the file, and for nearly every delivery fits in this many bytes, as does
#: the longest possible archive comment.
TAIL_BYTES: Final = 64 * 1024


#: How the length is asked for, one after the other, as long as the answer tells nothing: some
#: stores know no suffixes. The last one asks for all of it, and reads the head alone.
_QUESTIONS: Final = (f"bytes=-{TAIL_BYTES}", "bytes=0-0", None)
#: What is said to a question that is not understood.
_NOT_UNDERSTOOD: Final = frozenset({400, 501})


class _TellsNothing(Exception):
    """An answer to the question, perhaps, but none from which a length can be had."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(verdict.code)
        self.verdict = verdict


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of an object: `data` are the bytes from `start` on, perhaps none."""

    version: Version
    start: int
    data: bytes


class Probe:
    """Asks the store, with retries within `deadline_s`.

    *heard* is told how long each answer took, in seconds, on a connection that was open: for many a
    transfer that is the first that is known of the line.
    """

    def __init__(
        self,
        http: Streams,
        retries: Retries,
        check_url: Callable[[str], None],
        *,
        deadline_s: float,
        heard: Callable[[float], None] = lambda answer_s: None,
    ) -> None:
        self._http = http
        self._retries = retries
        self._check_url = check_url
        self._deadline_s = deadline_s
        self._heard = heard

    async def tail(self, links: LinkKeeper, label: str) -> Tail:
        """Return the version of an object, and its last bytes.

        Raises:
            NotThere: no such object.
            NotAllowed: refused, with a new link too.
            Unreachable: no answer in time.
            Garbled: an answer that makes no sense.
        """
        return await self._tail(links, label, trio.current_time() + self._deadline_s)

    async def _tail(self, links: LinkKeeper, label: str, deadline_at: float) -> Tail:
        verdict = Verdict(Meaning.GARBLED)
        for asked in _QUESTIONS:
            headers = {"Accept-Encoding": "identity"}
            if asked is not None:
                headers["Range"] = asked
            try:
                return await self._ask(links, label, headers, _read_tail, deadline_at)
            except _TellsNothing as nothing:
                verdict = nothing.verdict
        _raise(verdict, label, None)

    async def confirm(self, links: LinkKeeper, label: str, version: Version) -> Version:
        """Return the version that the store serves now; costs no content when it is *version*.

        Raises: as `tail`.
        """
        deadline_at = trio.current_time() + self._deadline_s
        if not version.size_bytes:
            return (await self._tail(links, label, deadline_at)).version
        headers = {"Range": "bytes=0-0", "Accept-Encoding": "identity"}
        if version.is_strong:
            headers["If-None-Match"] = version.etag

        async def read(answer: StreamedAnswer, label: str) -> Version:
            if answer.status == 304:
                await answer.read_error_body()  # empty; its end gives the connection back
                return version
            return (await _read_tail(answer, label)).version

        try:
            return await self._ask(links, label, headers, read, deadline_at)
        except _TellsNothing:
            return (await self._tail(links, label, deadline_at)).version

    async def _ask(
        self,
        links: LinkKeeper,
        label: str,
        headers: dict[str, str],
        read: Callable[[StreamedAnswer, str], Awaitable[T]],
        deadline_at: float,
    ) -> T:
        refusals = Refusals()
        while True:
            link = await links.get()

            async def attempt(url: str = link.url) -> T:
                return await self._attempt(url, label, headers, read)

            try:
                return await self._retries.run(
                    attempt,
                    origin=origin_of(link.url),
                    deadline_at=deadline_at,
                    what=f"asking the object store for {label}",
                    about=label,
                )
            except Refusal as refusal:
                links.spent(link)
                wait_s = refusals.wait_s(link)
                if wait_s is None or trio.current_time() + wait_s >= deadline_at:
                    code = refusal.verdict.code
                    raise NotAllowed(f"the object store refuses {label}: {code}") from None
            await trio.sleep(wait_s)

    async def _attempt(
        self,
        url: str,
        label: str,
        headers: dict[str, str],
        read: Callable[[StreamedAnswer, str], Awaitable[T]],
    ) -> T:
        for _ in range(MOST_REDIRECTS + 1):
            asked_at = trio.current_time()
            async with self._http.stream(url, headers=headers) as answer:
                self._heard(answer_s(answer, trio.current_time() - asked_at))
                if answer.status in (200, 206, 304, 416):
                    return await read(answer, label)
                verdict = judge_error(answer.status, await answer.read_error_body())
                location = answer.headers.get("location")
                if verdict.meaning is Meaning.REDIRECT and location is not None:
                    url = resolved(url, location)
                    self._check_url(url)
                    continue
                if answer.status in _NOT_UNDERSTOOD and verdict.meaning in (
                    Meaning.REFUSED,
                    Meaning.GARBLED,
                ):
                    raise _TellsNothing(verdict)
                _raise(verdict, label, answer.headers.get("retry-after"))
        raise Garbled(f"the object store redirects {label} without end")


def _raise(verdict: Verdict, label: str, retry_after: str | None) -> NoReturn:
    match verdict.meaning:
        case Meaning.RENEW:
            raise Refusal(verdict)
        case Meaning.GONE:
            raise NotThere(f"the object store has no {label}")
        case Meaning.REFUSED:
            raise NotAllowed(f"the object store refuses {label}: {verdict.code}")
        case Meaning.RETRY | Meaning.SLOW_DOWN:
            asked_s = parse_retry_after(retry_after, now_s=time.time())
            text = f"the object store is busy: {label}: {verdict.code}"
            if asked_s is None:
                raise Unreachable(text)
            raise Throttled(text, retry_after_s=asked_s)
        case _:
            raise Garbled(f"the object store's answer for {label} makes no sense: {verdict.code}")


async def _read_tail(answer: StreamedAnswer, label: str) -> Tail:
    """Return what a 200, 206 or 416 tells; a whole body in place of its tail is not read."""
    if answer.status == 416:
        # An empty object has no byte to give, and is the only one that may say so. Silence about
        # the length is no length of 0.
        body = await answer.read_error_body()  # its end gives the connection back
        if total_if_unsatisfied(answer.headers, body) == 0:
            return Tail(version_of(answer.headers, 0), 0, b"")
        raise _TellsNothing(judge_error(answer.status, body))
    found = judge_tail(answer.status, answer.headers)
    if isinstance(found, Verdict):
        raise Garbled(f"the object store's answer for {label} makes no sense: {found.code}")
    version, start, length = found
    if length > TAIL_BYTES:
        return Tail(version, version.size_bytes, b"")
    data = bytearray()
    # To its end, so that the connection may be used again: for the first bytes, most likely, and a
    # new one would cost three round trips.
    async for chunk in answer.chunks():
        data += chunk
        if len(data) > length:
            break
    if len(data) < length:
        raise Unreachable(f"the object store broke off in the middle of {label}")
    return Tail(version, start, bytes(data[:length]))
