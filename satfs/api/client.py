"""The questions we ask the vendor, and the answers as records.

Credentials are sent to the origin of `api_url` and nowhere else: every address that comes out of an
answer (a `next`, a redirect) is compared with it before it is asked. Every operation as a whole,
pages and retries and a new token included, ends within `metadata_deadline_s`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urljoin

import structlog
import trio

from satfs.api import pages, questions, said, signed, wire
from satfs.api.auth import REFUSAL_MEMORY_S, Credential, Deadline
from satfs.api.paging import Chain
from satfs.api.questions import Question
from satfs.api.scrub import for_people
from satfs.errors import (
    DeadlineReached,
    Garbled,
    NeedsContract,
    NeedsLogin,
    NotAllowed,
    NotThere,
    SatfsError,
    Unreachable,
)
from satfs.fresh import Fresh
from satfs.model import (
    AttachmentName,
    Capture,
    CaptureId,
    Contract,
    ContractId,
    Json,
    Link,
    Scene,
    SceneId,
    Task,
    TaskId,
)
from satfs.net.addresses import LinkRule, origin_of, shown
from satfs.net.http import Answer, Http
from satfs.net.retry import RETRIED_STATUSES, failure_for
from satfs.net.retrying import Retries
from satfs.settings import Settings

R = TypeVar("R")
log = structlog.get_logger(__name__)

CONTRACT_HEADER = "X-Satellogic-Contract-Id"
#: Redirects followed within the API's own origin, for one request (a missing slash, a moved path).
MAX_REDIRECTS = 3
_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class Aleph:
    """The vendor's API.

    Every method waits for the network, and raises:

        NeedsLogin, NeedsContract: the credential, or the contract, is refused or missing.
        NotAllowed: the vendor says no to this one thing.
        Unreachable, DeadlineReached, Throttled: no (useful) answer within the deadline.
        Garbled: an answer that cannot be what was meant, twice in a row.
    """

    def __init__(
        self,
        http: Http,
        settings: Settings,
        *,
        retries: Retries | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._http = http
        self._settings = settings
        self._retries = retries or Retries(http.reachability)
        self._wall_clock = wall_clock
        self._origin = origin_of(settings.api_url)
        self._link_rule = LinkRule(settings.api_url, settings.allow_private_store)
        self._slots = trio.Semaphore(settings.api_concurrency)
        self._refusal: tuple[NotAllowed, float] | None = None
        self._contract: Fresh[ContractId] = Fresh(self._choose_contract)
        self.credential = Credential(http, self._retries, settings, wall_clock=wall_clock)

    # -- the questions -----------------------------------------------------------------------------

    async def tasks(self) -> tuple[Task, ...]:
        """Return every task that the contract shows, in the vendor's order, each id once."""
        return await self._list(
            questions.tasks(self._settings.page_limit), wire.task, lambda task: task.task_id
        )

    async def task(self, task_id: TaskId) -> Task:
        """Return one task; raises NotThere when there is none."""
        question = questions.task(task_id)
        return await self._one(question, wire.task, lambda task: task.task_id == task_id)

    async def captures(self, task_id: TaskId) -> tuple[Capture, ...]:
        """Return every capture of a task, whatever its status, each id once.

        Raises NotThere when there is no such task.
        """
        return await self._list(
            questions.captures(task_id, self._settings.page_limit),
            wire.capture,
            lambda capture: capture.capture_id,
        )

    async def scenes(self, capture_id: CaptureId) -> tuple[Scene, ...]:
        """Return every scene of a capture, each id once; none when there is no such capture."""
        return await self._list(
            questions.scenes(capture_id, self._settings.page_limit),
            wire.scene,
            lambda scene: scene.scene_id,
        )

    async def scene(self, scene_id: SceneId) -> Scene:
        """Return one scene; raises NotThere when there is none.

        That a scene has a path of its own is inferred, so a refusal is no proof: then a filtered
        listing is asked, which is inferred as well. Only an exact id counts in either.
        """
        deadline = self._deadline()
        question = questions.scene(scene_id)
        try:
            return await self._one(
                question, wire.scene, lambda scene: scene.scene_id == scene_id, deadline
            )
        except (NeedsLogin, NeedsContract):
            raise
        except (NotThere, NotAllowed, Garbled) as refusal:
            return await self._search_scene(scene_id, deadline, refusal)

    async def sign(self, scene_id: SceneId, attachment: AttachmentName) -> Link:
        """Return a new presigned link to an attachment; raises NotThere when there is none.

        Raises NotAllowed when the link leads where links may not lead
        (`satfs.net.addresses.LinkRule`).
        """
        question = questions.sign(scene_id, attachment)
        url = question.url(self._settings.api_url)

        def read(answer: Answer) -> Link:
            link = signed.link(answer.status, answer.headers, answer.body, asked_url=url)
            self._link_rule.check(link.url)
            return link

        return await self._ask(url, read, question.what, self._deadline(), takes_redirect=True)

    async def contracts(self) -> tuple[Contract, ...]:
        """Return the account's contracts. The one question that names no contract."""
        return await self._list(
            questions.contracts(),
            wire.contract,
            lambda contract: contract.contract_id,
            with_contract=False,
        )

    async def check(self) -> None:
        """Return when the credential is accepted and the first page of tasks was answered."""
        question = questions.tasks(self._settings.page_limit)
        url = question.url(self._settings.api_url)
        await self._ask(url, lambda a: wire.page(a.body), question.what, self._deadline())

    # -- the shapes of a question ------------------------------------------------------------------

    def _deadline(self) -> Deadline:
        return Deadline.within(self._settings.metadata_deadline_s)

    async def _list(
        self,
        question: Question,
        reader: Callable[[Json], R | None],
        key: Callable[[R], str],
        *,
        with_contract: bool = True,
    ) -> tuple[R, ...]:
        """Return the records of all pages, each key once: the first that came."""
        deadline = self._deadline()
        found: dict[str, R] = {}
        n_unusable = 0

        def keep(entries: tuple[Json, ...]) -> int:
            nonlocal n_unusable
            records, n_skipped = wire.records(entries, reader)
            n_unusable += n_skipped
            n_before = len(found)
            for record in records:
                found.setdefault(key(record), record)
            return len(found) - n_before

        async def get_page(url: str) -> wire.Page:
            return await self._ask(
                url,
                lambda answer: wire.page(answer.body),
                question.what,
                deadline,
                with_contract=with_contract,
            )

        chain = Chain(question.url(self._settings.api_url), self._settings.max_entries)
        try:
            await pages.follow(chain, get_page, keep, n_ahead=self._settings.api_concurrency)
        except Garbled as failure:
            raise Garbled(_prefixed(question.what, failure)) from failure
        if n_unusable:
            log.warning("entries without id skipped", what=question.what, n=n_unusable)
        return tuple(found.values())

    async def _one(
        self,
        question: Question,
        reader: Callable[[Json], R | None],
        is_it: Callable[[R], bool],
        deadline: Deadline | None = None,
    ) -> R:
        """Return the one record that a question has for an answer."""

        def read(answer: Answer) -> R:
            value = wire.one(answer.body)
            # An envelope of one, as filtered listings have it.
            entries = value["results"] if isinstance(value.get("results"), list) else [value]
            records, _ = wire.records(entries, reader)
            for record in records:
                if is_it(record):
                    return record
            raise Garbled("the answer is about something else")

        url = question.url(self._settings.api_url)
        return await self._ask(url, read, question.what, deadline or self._deadline())

    async def _search_scene(
        self, scene_id: SceneId, deadline: Deadline, refusal: SatfsError
    ) -> Scene:
        """Return the scene by a filtered listing; only its first page is looked at."""
        question = questions.scene_search(scene_id)
        url = question.url(self._settings.api_url)
        try:
            page = await self._ask(url, lambda a: wire.page(a.body), question.what, deadline)
        except (NeedsLogin, NeedsContract):
            raise
        except (NotThere, NotAllowed, Garbled):
            raise refusal from None
        records, _ = wire.records(page.entries, wire.scene)
        for scene in records:
            if scene.scene_id == scene_id:
                return scene
        raise NotThere(f"{question.what}: there is none")

    # -- one request -------------------------------------------------------------------------------

    async def _ask(
        self,
        url: str,
        read: Callable[[Answer], R],
        what: str,
        deadline: Deadline,
        *,
        with_contract: bool = True,
        takes_redirect: bool = False,
    ) -> R:
        """Return what *read* makes of the answer to one GET, with retries and one new token.

        *read* sees answers of status 200 (with *takes_redirect* also redirects), and may raise
        `Garbled`, which is tried once more.
        """
        self._raise_remembered(with_contract)
        try:
            headers = await self._headers(with_contract, what, deadline)
            result = await self._tried(url, headers, read, what, deadline, takes_redirect)
            if isinstance(result, _Refused) and self.credential.refused(headers):
                headers = await self._headers(with_contract, what, deadline)
                result = await self._tried(url, headers, read, what, deadline, takes_redirect)
            if isinstance(result, _Refused):
                raise await self._explained(result.answer, headers, what, deadline)
        except (NeedsLogin, NeedsContract) as refusal:
            self._refusal = (refusal, trio.current_time() + REFUSAL_MEMORY_S)
            log.error("request refused", what=what, reason=type(refusal).__name__)
            raise
        self._refusal = None
        return result

    def _raise_remembered(self, with_contract: bool) -> None:
        """Raise the refusal of a moment ago: what is refused is not asked at the speed of `ls`."""
        if self._refusal is None:
            return
        refusal, until = self._refusal
        if isinstance(refusal, NeedsContract) and not with_contract:
            return
        if trio.current_time() < until:
            raise copy(refusal)

    async def _headers(self, with_contract: bool, what: str, deadline: Deadline) -> dict[str, str]:
        """Return the headers of a request, waiting for token and contract until the deadline.

        Asked for before the request, not within its retries: that the token endpoint is away says
        nothing about the API.
        """
        with trio.CancelScope(deadline=deadline.at_s):
            headers = {"Accept": "application/json", **await self.credential.headers()}
            if with_contract and self.credential.needs_contract:
                configured = self._settings.contract_id
                headers[CONTRACT_HEADER] = configured or await self._contract.get()
            return headers
        raise DeadlineReached(f"{what}: no token or contract in time")

    async def _tried(
        self,
        url: str,
        headers: Mapping[str, str],
        read: Callable[[Answer], R],
        what: str,
        deadline: Deadline,
        takes_redirect: bool,
    ) -> R | _Refused:
        """Return what *read* makes of the answer, with retries; a 401 as it is."""

        async def attempt() -> R | _Refused:
            answer = await self._get(url, headers, takes_redirect)
            if answer.status == 401:
                return _Refused(answer)
            return self._judged(answer, read, what, takes_redirect)

        return await self._retries.run(
            attempt,
            origin=self._origin,
            deadline_at=deadline.at_s,
            since_s=deadline.since_s,
            what=what,
        )

    async def _get(self, url: str, headers: Mapping[str, str], takes_redirect: bool) -> Answer:
        """Return the answer of the API's own origin, following redirects inside of it."""
        for _ in range(MAX_REDIRECTS + 1):
            if origin_of(url) != self._origin:
                raise Garbled(f"the API leads to another host: {shown(url)}")
            async with self._slots:
                answer = await self._http.request("GET", url, headers=headers)
            if answer.status not in _REDIRECTS or takes_redirect:
                return answer
            url = urljoin(url, answer.headers.get("location", ""))
        raise Garbled("the API redirects in circles")

    def _judged(
        self, answer: Answer, read: Callable[[Answer], R], what: str, takes_redirect: bool
    ) -> R:
        """Return what *read* makes of a good answer; raise what the status of another means."""
        status = answer.status
        if status == 200 or (takes_redirect and status in _REDIRECTS):
            try:
                return read(answer)
            except Garbled as failure:
                raise Garbled(_prefixed(what, failure)) from failure
            except NotAllowed as failure:
                raise NotAllowed(_prefixed(what, failure)) from failure
        message = f"{what}: {self._words(answer)}"
        match status:
            case 403:
                raise NotAllowed(message)
            case 404 | 410:
                raise NotThere(message)
            case _ if status in RETRIED_STATUSES or status >= 500:
                raise failure_for(status, answer.headers, message, now_s=self._wall_clock())
            case _:
                raise Garbled(message)

    def _words(self, answer: Answer) -> str:
        told = said.words(answer.body, self.credential.secrets())
        return f"the vendor answered {answer.status}" + (f": {told}" if told else "")

    # -- contracts and refusals --------------------------------------------------------------------

    async def _choose_contract(self) -> tuple[ContractId, float]:
        """Return the account's only contract."""
        try:
            contracts = await self.contracts()
        except NeedsLogin:
            raise
        except (NotThere, NotAllowed, Garbled) as failure:
            raise NeedsContract(
                f"set SATFS_CONTRACT_ID: the account's contracts cannot be listed ({failure})"
            ) from failure
        if len(contracts) == 1:
            return contracts[0].contract_id, math.inf
        if not contracts:
            raise NeedsContract("the account has no contract; the credential was made without one")
        raise NeedsContract(
            "the account has several contracts; set SATFS_CONTRACT_ID to one of: "
            + _listed(contracts)
        )

    async def _explained(
        self, answer: Answer, headers: Mapping[str, str], what: str, deadline: Deadline
    ) -> NotAllowed:
        """Return what a 401 means that a new token did not cure.

        The vendor answers 401 to a wrong contract as well as to a wrong token. Which one it is,
        `/contracts` tells, which is asked with the token only.
        """
        told = f"{what}: {self._words(answer)}"
        refused = NeedsLogin(f"{told}; {self.credential.advice()}")
        sent = headers.get(CONTRACT_HEADER)
        if sent is None:
            return refused
        self._contract.invalidate()
        url = questions.contracts().url(self._settings.api_url)
        only_token = {name: value for name, value in headers.items() if name != CONTRACT_HEADER}
        contracts: tuple[Contract, ...] | None = None
        with trio.CancelScope(deadline=deadline.at_s):
            try:
                answer = await self._get(url, only_token, takes_redirect=False)
                if answer.status == 200:
                    contracts, _ = wire.records(wire.page(answer.body).entries, wire.contract)
            except (Garbled, Unreachable):
                return refused
        if contracts is None or any(contract.contract_id == sent for contract in contracts):
            return refused
        return NeedsContract(
            f"{told}; the contract {sent!r} is not one of this account's"
            + (f"; set SATFS_CONTRACT_ID to one of: {_listed(contracts)}" if contracts else "")
        )


@dataclass(frozen=True, slots=True)
class _Refused:
    """A 401."""

    answer: Answer


def _listed(contracts: tuple[Contract, ...]) -> str:
    return ", ".join(
        for_people(f"{contract.contract_id} ({contract.name})") for contract in contracts
    )


def _prefixed(what: str, failure: SatfsError) -> str:
    text = str(failure)
    return text if text.startswith(what) else f"{what}: {text}"
