"""Which version an attachment has: remembered, learnt from its tail, or confirmed.

A version is learnt by one ranged GET of the object's tail, which is where a zip keeps its central
directory; it is remembered with the record's revision, in memory and in the cache's index, and
confirmed again when a file is opened after `confirm_after_s`.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from typing import Final

import structlog
import trio

from satfs import read_trace
from satfs.content.cache.index import KnownVersion
from satfs.content.cache.open_objects import alone_with
from satfs.content.fetch.first_reads import FirstReads
from satfs.content.known_versions import KnownVersions
from satfs.content.open_fetchers import Key, label_of
from satfs.content.transfer.etags import is_same
from satfs.content.version_request import Learning, RequestParts, VersionRequest
from satfs.errors import (
    Changed,
    Garbled,
    NotAllowed,
    NotThere,
    SatfsError,
    Unreachable,
)
from satfs.model import DELIVERY_ZIP, AttachmentName, SceneId, Version
from satfs.node_locks import NodeLocks
from satfs.refreshable import Refreshable
from satfs.request_slots import RequestSlots

log = structlog.get_logger(__name__)

#: Objects of which versions are being learnt at once.
PROBES_AT_ONCE: Final = 16
#: Versions that are learnt before a program looks them up, at once, and for how long one is tried,
#: in seconds.
MAX_LEARNT_AHEAD: Final = 64
LEARN_AHEAD_S: Final = 10.0


class Versions:
    """The versions of all attachments of one *account*.

    An object that is not there is looked for again after *absent_s*.

    Invariants:
        A version is learnt once, however many callers wait for it (`_learning`).
    """

    def __init__(
        self,
        parts: RequestParts,
        *,
        account: str,
        confirm_after_s: float,
        locks: NodeLocks,
        absent_s: float,
    ) -> None:
        self._parts = parts
        self._account = account
        self._confirm_after_s = confirm_after_s
        self._locks = locks
        self._known = KnownVersions(parts.cache, parts.dispatcher, account, absent_s)
        #: The last part of a key: a version that was entered at any time will do.
        self._learning: dict[
            tuple[SceneId, AttachmentName, str, bool], Refreshable[KnownVersion]
        ] = {}
        self._n_learners: Counter[tuple[SceneId, AttachmentName, str, bool]] = Counter()
        self._confirming: dict[Key, trio.Lock] = {}
        self._probing = RequestSlots(PROBES_AT_ONCE)
        self._n_ahead = 0
        self._first_reads = FirstReads()
        self._may_sign_beside: Callable[[], bool] = lambda: False

    async def get(self, scene: SceneId, attachment: AttachmentName, revision: str) -> Version:
        """Return the version of an attachment: its ETag and exact length.

        Known from before while the record's *revision* is the same; else learnt with one request.

        Raises:
            NotThere: the vendor has no such attachment, or the store no such object (yet).
            NotAllowed: it is refused.
            Unreachable: the store does not respond now.
            Garbled: what it responds makes no sense.
            The last three only when no version is known from before.
        """
        key = (scene, attachment)
        known = await self._known.recall(key)
        if known is not None and known.revision == revision:
            return known.version
        if (why := self._known.why_absent(key, revision)) is not None:
            raise NotThere(why)
        try:
            return (await self._learn(scene, attachment, revision)).version
        except NotThere as gone:
            self._known.note_absent(key, revision, str(gone))
            raise
        except (Unreachable, NotAllowed, Garbled):
            if known is None:
                raise
            # A known version is better than no file; a newer one is noticed by a later look-up.
            return known.version

    def learn_ahead(self, scene: SceneId, attachment: AttachmentName, revision: str) -> None:
        """Learn a version in the background, for a look-up that will probably come.

        Does nothing while `MAX_LEARNT_AHEAD` versions are being learnt.
        """
        if self._n_ahead >= MAX_LEARNT_AHEAD:
            return

        async def learn() -> None:
            try:
                with trio.move_on_after(LEARN_AHEAD_S):
                    await self.get(scene, attachment, revision)
            except SatfsError as failure:
                log.debug("version not learnt ahead", scene=scene, reason=type(failure).__name__)
            finally:
                self._n_ahead -= 1

        self._n_ahead += 1
        self._parts.dispatcher.run_in_background(learn)

    async def renew(self, scene: SceneId, attachment: AttachmentName, revision: str) -> Version:
        """Return the version that the store has now; what it responded before is not believed.

        Neither an earlier version nor a refusal of a moment ago.

        Raises:
            NotThere, NotAllowed: as `get`.
            Unreachable: the store does not respond now; a version known from before stays known.
        """
        self._parts.links.forget_refusal((scene, attachment))
        now_s = self._known.now()
        return (await self._learn(scene, attachment, revision, since_s=now_s)).version

    async def _learn(
        self,
        scene: SceneId,
        attachment: AttachmentName,
        revision: str,
        *,
        since_s: float | None = None,
    ) -> KnownVersion:
        """Return what a request shows that any process of this node made since *since_s*.

        None: at any time. The caller has looked in the index, where another process may have
        entered its version since.
        """
        key = (scene, attachment, revision)
        learning_key = (*key, since_s is None)

        async def renew() -> tuple[KnownVersion, float]:
            learning = Learning()
            self._parts.dispatcher.run_in_background(self._learn_version, key, learning, since_s)
            try:
                await learning.is_settled.wait()
            except trio.Cancelled:
                learning.scope.cancel()
                raise
            return learning.result(), 0.0

        learning = self._learning.setdefault(learning_key, Refreshable(renew))
        self._n_learners[learning_key] += 1
        try:
            return await learning.get()
        finally:
            # The last task clears up: one that gives up must not hide it from the next task.
            self._n_learners[learning_key] -= 1
            if not self._n_learners[learning_key]:
                del self._learning[learning_key], self._n_learners[learning_key]

    async def _learn_version(
        self,
        wanted: tuple[SceneId, AttachmentName, str],
        learning: Learning,
        since_s: float | None,
    ) -> None:
        """Make the request for a version: settled with its headers, while the tail still comes."""
        scene, attachment, revision = wanted
        key = (scene, attachment)
        self._parts.dispatcher.expect_reads()
        is_beginning_expected = self._first_reads.looked_up(key, trio.current_time())

        async def settle(version: Version) -> Version:
            before = await self._known.recall(key)
            if before is not None and is_same(before.version, version):
                version = before.version  # under one name, or the cache would hold it twice
            learning.known = await self._known.note(key, version, revision)
            return version

        turn = contextlib.AsyncExitStack()
        request = VersionRequest(self._parts, key, learning, settle, turn)
        try:
            with learning.scope:
                async with turn:
                    async with self._probing.held():
                        if await self._is_learnt_elsewhere(wanted, learning, turn, since_s):
                            return
                        tail = await request.run(is_beginning_expected=is_beginning_expected)
                    if learning.known is None:
                        await request.deliver(tail)
        except Exception as failure:  # raised in the tasks that wait; the mount goes on
            if learning.is_settled.is_set() and not isinstance(failure, SatfsError):
                log.exception("the rest of a tail was lost", label=label_of(*key))
            learning.failure = failure
        finally:
            request.end()
            if learning.known is None and learning.failure is None:
                learning.failure = Unreachable(f"the request for {label_of(*key)} was cancelled")
            learning.is_settled.set()
            self._parts.fetchers.close_idle()

    def expect_read(self, may_sign_beside: Callable[[], bool]) -> None:
        """Expect that the first object of which the version is learnt is read.

        *may_sign_beside* returns whether a link can be requested now beside another request.
        """
        self._first_reads.expect()
        self._may_sign_beside = may_sign_beside

    def note_walk(self, scene: SceneId) -> None:
        """Note that a program walks to *scene*, whose record may not have come. Never waits.

        Where it is expected to read there, the link to the zip is requested meanwhile, which does
        not depend on the record.
        """
        if not (self._first_reads.walked() and self._may_sign_beside()):
            return
        links = self._parts.links.of((scene, DELIVERY_ZIP))

        async def sign() -> None:
            try:
                with trio.move_on_after(LEARN_AHEAD_S):
                    await links.get()
            except SatfsError as failure:  # the look-up that needs it will raise it
                log.debug("no link ahead", scene=scene, reason=type(failure).__name__)

        self._parts.dispatcher.run_in_background(sign)

    def note_listing(self) -> None:
        """Note that a program lists a directory."""
        self._first_reads.listed()

    def note_first_read(self, key: Key, start: int) -> None:
        """Note that the first read of a handle on *key* begins at the offset *start*."""
        self._first_reads.read(key, start, trio.current_time())

    async def _is_learnt_elsewhere(
        self,
        wanted: tuple[SceneId, AttachmentName, str],
        learning: Learning,
        turn: contextlib.AsyncExitStack,
        since_s: float | None,
    ) -> bool:
        """Return whether another process of this node has learnt the version since *since_s*.

        None: at any time.

        Then *learning* has it. Otherwise the others wait until *turn* is closed.
        """
        scene, attachment, revision = wanted
        if self._parts.cache.index is None or not self._locks.is_shared_now(trio.current_time()):
            return False
        name = f"version {self._account} {label_of(scene, attachment)}"
        await turn.enter_async_context(self._locks.alone(name))
        known = await self._known.indexed((scene, attachment))
        if known is None or known.revision != revision:
            return False
        if since_s is None and self._known.is_forgetting((scene, attachment)):
            return False  # the index may have the version that this process has found outdated
        if since_s is not None and known.confirmed_at_s < since_s:
            return False
        self._known.remember((scene, attachment), known)
        learning.known = known
        return True

    def forget(self, scene: SceneId, attachment: AttachmentName) -> None:
        """Forget an attachment's version: the next caller learns it with a request."""
        self._parts.links.forget_refusal((scene, attachment))
        self._known.forget((scene, attachment))

    def outdated(self, key: Key, version: Version) -> None:
        """Forget *version*, which the store serves no more: the next look-up learns the new one.

        At once, and not when the last handle is closed: a program that opens the file meanwhile
        must not get the old version as the present one.
        """
        known = self._known.peek(key)
        if known is None or known.version == version:
            self.forget(*key)

    async def confirm(self, key: Key, version: Version) -> None:
        """Return if *version* is the one that the vendor serves, as far as can be known.

        Raises:
            Changed: it is not.
        """
        if await self._is_confirmed(key, version):
            return
        # One task makes the request; others that open the file meanwhile use its result.
        async with alone_with(self._confirming, key):
            if await self._is_confirmed(key, version):
                return
            try:
                label = label_of(*key)
                async with self._probing.held():
                    with self._parts.traces.of(label).request(read_trace.CONFIRM):
                        seen = await self._parts.probe.confirm(
                            self._parts.links.of(key), label, version
                        )
            except (Unreachable, NotAllowed, Garbled):
                return  # what the cache holds of this version stays readable
            except NotThere as gone:
                self.forget(*key)
                raise Changed(str(gone)) from gone
            known = self._known.peek(key)
            revision = known.revision if known is not None else ""
            await self._known.note(key, seen, revision)
        if seen != version:
            raise Changed(f"{label_of(*key)} was replaced")

    async def _is_confirmed(self, key: Key, version: Version) -> bool:
        known = await self._known.recall(key)
        if known is None:
            return False
        if known.version != version:
            raise Changed(f"{label_of(*key)} was replaced")
        # A moment in the future is one of a clock that was set back since.
        return 0 <= self._known.now() - known.confirmed_at_s <= self._confirm_after_s
