"""Presigned URLs kept fresh: one renewal of each for all range requests that wait for it."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from itertools import islice
from typing import Final

import trio

from satfs import read_trace
from satfs.model import AttachmentName, Link, SceneId
from satfs.net.refused_credentials import CredentialHistory, Refusals
from satfs.read_trace import ReadTrace, ReadTraces
from satfs.refreshable import Refreshable

Sign = Callable[[SceneId, AttachmentName], Awaitable[Link]]

#: A link is renewed this long before its end, so that a request made with it starts in time; but
#: never more than a quarter of its life, for links that live seconds.
MARGIN_S: Final = 60.0
#: How long a link without an expiry is used.
UNTOLD_LIFETIME_S: Final = 300.0
#: How long a link is used that seems to have expired when it comes: then the local clock is ahead
#: of the vendor's. The store refuses the link when it has really expired.
DOUBTED_LIFETIME_S: Final = 10.0
#: Codes of S3 for refusals that another link cannot change: the object is in an archive, or access
#: to it is disabled.
LASTING_CODES: Final = frozenset({"InvalidObjectState", "AllAccessDisabled"})
#: How long such a refusal is used without a request, in seconds, and how long any other one is
#: checked with a single link and a single request. Programs `stat` a file many times; restoring one
#: from an archive takes hours.
REFUSED_S: Final = 60.0
#: How long any other refusal of the object is used without a request, in seconds: programs look up
#: a file several times in a row, and a permission that was just granted should take effect at once.
BELIEVED_S: Final = 2.0
#: Attachments of which the link is kept, the least recently used forgotten first.
MAX_LINKS: Final = 100_000


def usable_for_s(link: Link, now_s: float) -> float:
    """Return for how many seconds from *now_s* (wall clock) a link may be used for new requests."""
    if link.expires_at_s is None:
        return UNTOLD_LIFETIME_S
    left_s = link.expires_at_s - now_s
    if left_s <= 0:
        return DOUBTED_LIFETIME_S
    return left_s - min(MARGIN_S, left_s / 4)


class LinkCache:
    """The link to one attachment. *trace_of_it* finds the place to note how it was got."""

    def __init__(
        self,
        sign: Sign,
        scene: SceneId,
        attachment: AttachmentName,
        trace_of_it: Callable[[], ReadTrace],
    ) -> None:
        self._standing = CredentialHistory()

        async def renew() -> tuple[Link, float]:
            with trace_of_it().request(read_trace.LINK):
                link = await sign(scene, attachment)
            self._standing.received(link.url, trio.current_time())
            return link, usable_for_s(link, time.time())

        self._fresh: Refreshable[Link] = Refreshable(renew)
        self._refused_for: str | None = None
        self._refused_until_s = self._believed_until_s = 0.0

    async def get(self) -> Link:
        """Return a link that can be used now; waits for the vendor without one.

        Raises:
            SatfsError: the sign request failed.
        """
        return await self._fresh.get()

    def peek(self) -> Link | None:
        """Return a link that can be used now, if there is one. Never waits."""
        return self._fresh.peek()

    def accepted(self, link: Link) -> None:
        """Note that the store accepted *link*; forgets a refusal."""
        self._standing.accepted(link.url)
        self.forget_refusal()

    def spent(self, link: Link) -> None:
        """Note that *link* is not to be used again: the next `get` requests another."""
        self._fresh.invalidate(link)

    def wait_after_refusal_s(
        self, link: Link, refusals: Refusals, *, is_over: bool
    ) -> float | None:
        """Note that the store refused *link*; return the seconds to wait before the next `get`.

        *refusals* are those that the operation has met. *is_over*: according to the response the
        link has expired, so that another one will be accepted. The same holds for a link that was
        accepted before, or whose stated expiry has passed: an API with a cache of its own returns
        such a link for a while. None: another try is useless.
        """
        has_expired = link.expires_at_s is not None and link.expires_at_s <= time.time()
        again = self._standing.again(
            refusals,
            link.url,
            trio.current_time(),
            is_proven=is_over or has_expired or self._standing.was_accepted(link.url),
        )
        if again is None or again.is_another:
            self._fresh.invalidate(link)
        return None if again is None else again.wait_s

    def refused(self, code: str, *, is_over: bool) -> None:
        """Remember for a while that the object is refused with any link.

        *is_over*: the links had expired, which is no refusal of the object: it is requested again
        at once.
        """
        now_s = trio.current_time()
        self._refused_for, self._refused_until_s = code, now_s + REFUSED_S
        believed_s = REFUSED_S if code in LASTING_CODES else 0.0 if is_over else BELIEVED_S
        self._believed_until_s = now_s + believed_s

    def forget_refusal(self) -> None:
        """Forget a refusal: the object was served, or is to be requested again."""
        self._refused_for = None

    @property
    def refusal(self) -> str | None:
        """Return the code of a refusal that is remembered, or None."""
        is_recent = trio.current_time() < self._refused_until_s
        return self._refused_for if is_recent else None

    @property
    def believed_refusal(self) -> str | None:
        """Return the code of a refusal that is used without a request, or None."""
        return self._refused_for if trio.current_time() < self._believed_until_s else None

    def left_s(self) -> float | None:
        """Return the seconds that the present link has left, or None without a link."""
        link = self._fresh.peek()
        if link is None:
            return None
        return math.inf if link.expires_at_s is None else link.expires_at_s - time.time()


class LinkCaches:
    """The links to all attachments. *traces* are those of the reads, by label."""

    def __init__(
        self,
        sign: Sign,
        label_of: Callable[[SceneId, AttachmentName], str],
        traces: ReadTraces,
    ) -> None:
        self._sign = sign
        self._label_of = label_of
        self._traces = traces
        #: The link used last at the end. `cachetools.LRUCache` does not give that order (`left_s`).
        self._links: OrderedDict[tuple[SceneId, AttachmentName], LinkCache] = OrderedDict()

    def of(self, key: tuple[SceneId, AttachmentName]) -> LinkCache:
        """Return the link to an attachment, which need not have been requested yet."""
        links = self._links.get(key)
        if links is None:
            trace_of_it = partial(self._traces.of, self._label_of(*key))
            links = self._links[key] = LinkCache(self._sign, *key, trace_of_it)
        self._links.move_to_end(key)
        while len(self._links) > MAX_LINKS:
            self._links.popitem(last=False)
        return links

    def forget_refusal(self, key: tuple[SceneId, AttachmentName]) -> None:
        """Forget that the store refused an attachment, if it did."""
        if (links := self._links.get(key)) is not None:
            links.forget_refusal()

    def left_s(self, max_links: int) -> Iterator[tuple[str, float]]:
        """Yield the labels of objects whose links can be used now, and for how many seconds.

        Of the *max_links* links used last. A link without an expiry has infinitely many.
        """
        for key, links in islice(reversed(self._links.items()), max_links):
            left_s = links.left_s()
            if left_s is not None:
                yield self._label_of(*key), left_s
