"""One authorised request: with credential, contract and retries, and the meaning of refusals.

Credentials are sent to the origin of `api_url` and nowhere else: an address from a response (a
`next`, a redirect) is compared with it before it is requested.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from copy import copy
from typing import TypeVar

import structlog
import trio
from msgspec import Struct

from satfs.api import contracts, endpoints, error_text, wire
from satfs.api.credential import REFUSAL_MEMORY_S, Credential
from satfs.api.endpoints import ApiRequest
from satfs.api.json_document import is_quick_to_parse
from satfs.api.presigned import REDIRECTS
from satfs.api.tokens import is_header_text
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
from satfs.model import Contract, ContractId
from satfs.net.addresses import is_same_resource, origin_of, resolved, shown
from satfs.net.http import Http
from satfs.net.refused_credentials import Refusals
from satfs.net.responses import Response
from satfs.net.retry import RETRIED_STATUSES, failure_for
from satfs.net.retry_loop import Retries
from satfs.redaction import for_people
from satfs.refreshable import Refreshable
from satfs.request_slots import Deadline, RequestSlots, Slots
from satfs.settings import Settings

R = TypeVar("R")
log = structlog.get_logger(__name__)

#: Responses above `net.responses.LARGE_RESPONSE_BYTES` that are held at once, from their first
#: megabyte until they have been read. A page of 100 records of 10 kB is below it.
MAX_LARGE_RESPONSES = 2
#: Statuses of an API that refuses the parameters of a request.
_REFUSES_PARAMETERS = frozenset({400, 422})
#: Statuses of responses that are what was requested: 201 of frameworks that know no other, 203 of a
#: proxy that has changed headers (RFC 9110 §15.3.4), 206 of one that serves from what it keeps.
_COMPLETE = frozenset({200, 201, 203, 206})
#: Redirects followed within the API's own origin, for one request (a missing slash, a moved path).
MAX_REDIRECTS = 10


class _Refused(Struct, frozen=True):
    """A 401, or a 403 to a token that was never accepted and may not be valid yet."""

    response: Response


class _Failed(Struct, frozen=True):
    """A failure to raise."""

    failure: SatfsError


class ParametersRefused(Garbled):
    """The API does not take the parameters of a request."""


class ApiSession:
    """Sends single requests to the API at `settings.api_url`, at most `api_concurrency` at once."""

    def __init__(
        self, http: Http, settings: Settings, retries: Retries | None, shared: Slots | None = None
    ) -> None:
        self._http = http
        self._settings = settings
        self._retries = retries or Retries(http.reachability)
        self._origin = origin_of(settings.api_url)
        self._slots = RequestSlots(settings.api_concurrency, shared)
        self._large_slots = trio.Semaphore(MAX_LARGE_RESPONSES)
        self._reading = trio.CapacityLimiter(1)
        self._refusal: tuple[NotAllowed, float] | None = None
        self._sends_standard_header = False  # as well, in requests for contracts
        self._contract: Refreshable[ContractId] = Refreshable(self._choose_contract)
        self.counters: Counter[str] = Counter()  # requests, and responses by status, for people
        self.credential = Credential(http, self._retries, settings)
        #: Awaited when the credential is refused, before the request is tried again.
        self.on_refusal: Callable[[], Awaitable[None]] | None = None

    async def fetch(
        self,
        request: ApiRequest,
        read: Callable[[Response], R],
        deadline: Deadline,
        *,
        page_url: str | None = None,
    ) -> R:
        """Return what *read* makes of the response to *request*, or to its page at *page_url*.

        *read* gets responses of status 200 (or the redirects that *request* takes) and may raise
        `Garbled`, which is tried once more: a load balancer's HTML page is gone a moment later; one
        with status 403 is tried again until the deadline.
        After a 401 it is sent again, as `net/refused_credentials.py` decides.

        Raises:
            NeedsLogin, NeedsContract: refused until the end; remembered for a few seconds.
            NotAllowed, NotThere: by the status of the response.
            Unreachable, Garbled: retries or time are spent.
        """
        self._raise_remembered(request)
        url, what = page_url or request.url(self._settings.api_url), request.what
        refusals, is_contract_good = Refusals(), False
        try:
            while True:
                headers = await self._headers(request, deadline)
                result = await self._tried(request, url, headers, read, deadline)
                if not isinstance(result, _Refused):
                    break
                if not (request.with_contract or self._sends_standard_header):
                    # Perhaps the service for contracts reads another header than the others do.
                    self._sends_standard_header = True
                    continue
                if self.on_refusal is not None and refusals.is_first:
                    await self.on_refusal()
                if not is_contract_good and not refusals.is_first:
                    # The vendor also responds with 401 to a wrong contract, which no wait cures.
                    explanation = await self._explained(result.response, headers, what, deadline)
                    if isinstance(explanation, NeedsContract):
                        raise explanation
                    is_contract_good = True
                wait_s = self._wait_before_next_s(result, headers, refusals)
                if wait_s is None or trio.current_time() + wait_s >= deadline.at_s:
                    self.credential.standing.given_up()
                    raise self._refused(result.response, what)
                await trio.sleep(wait_s)
        except (NeedsLogin, NeedsContract) as refusal:
            self._refusal = (refusal, trio.current_time() + REFUSAL_MEMORY_S)
            log.error("request refused", what=what, reason=type(refusal).__name__)
            raise
        except Unreachable as failure:
            # Also where the deadline has cut off the try after it.
            page = failure if isinstance(failure, error_text.RefusedByPage) else failure.__cause__
            if isinstance(page, error_text.RefusedByPage):
                raise NotAllowed(str(page)) from page
            raise
        self._refusal = None
        return result

    def _wait_before_next_s(
        self, refused: _Refused, headers: Mapping[str, str], refusals: Refusals
    ) -> float | None:
        """Return the seconds until the next try; None: give up. Has the token renewed if need be.

        A 403 is about one thing, unless the token is so young that it may not be valid yet: so it
        is no reason for another token.
        """
        again = self.credential.again(headers, refusals)
        if again is None or (again.is_another and refused.response.status == 403):
            return None
        is_renewable = not again.is_another or self.credential.refused(headers)
        is_hopeless = not is_renewable or refusals.is_repeated
        return None if is_hopeless and not self.credential.standing.is_proven else again.wait_s

    def _refused(self, response: Response, what: str) -> NotAllowed:
        sentence = f"{what}: {self._error_text(response)}"
        if response.status == 403:
            return NotAllowed(sentence)
        return NeedsLogin(f"{sentence}; {self.credential.advice()}")

    def refusal(self) -> str | None:
        """Return why the credential was refused at the last request; None: it was not."""
        return None if self._refusal is None else str(self._refusal[0])

    def _raise_remembered(self, request: ApiRequest) -> None:
        """Raise the refusal of a moment ago: refused requests are not sent at the speed of `ls`."""
        if self._refusal is None:
            return
        refusal, until = self._refusal
        if isinstance(refusal, NeedsContract) and not request.with_contract:
            return
        if trio.current_time() < until:
            raise copy(refusal)

    async def _headers(self, request: ApiRequest, deadline: Deadline) -> dict[str, str]:
        """Return the headers of a request, waiting for token and contract until the deadline.

        They are made before the request, not within its retries: a token endpoint that is away
        shows nothing about the API.
        """
        with trio.CancelScope(deadline=deadline.at_s):
            headers = {"Accept": "application/json", **await self.credential.headers()}
            if not request.with_contract:
                return contracts.headers_for(headers, with_standard=self._sends_standard_header)
            if self.credential.needs_contract:
                contract = (self._settings.contract_id or await self._contract.get()).strip()
                if not is_header_text(contract):
                    sentence = for_people(contract)
                    raise NeedsContract(f"the contract's id cannot be sent: {sentence!r}")
                headers[contracts.CONTRACT_HEADER] = contract
            return headers
        raise DeadlineReached(f"{request.what}: no token or contract in time")

    async def _tried(
        self,
        request: ApiRequest,
        url: str,
        headers: Mapping[str, str],
        read: Callable[[Response], R],
        deadline: Deadline,
    ) -> R | _Refused:
        """Return what *read* makes of the response, with retries, or a refusal of the token."""

        async def attempt() -> R | _Refused:
            async with AsyncExitStack() as held:
                response = await self._get(request, url, headers, held)
                if response.status == 401 or (
                    response.status == 403
                    and self.credential.is_young(headers)
                    and not error_text.is_page(response.headers, response.body)
                ):
                    return _Refused(response)
                if response.status < 400 or response.status == 404:
                    self.credential.accepted(headers)
                if is_quick_to_parse(response.body):
                    result = self._outcome(request, response, read)
                else:
                    # Abandoned at the deadline, the thread ends by itself: what it does is bounded.
                    result = await trio.to_thread.run_sync(
                        self._outcome,
                        *(request, response, read),
                        abandon_on_cancel=True,
                        limiter=self._reading,
                    )
                del response
            if isinstance(result, _Failed):
                raise result.failure
            return result

        return await self._retries.run(
            attempt,
            origin=self._origin,
            deadline_at=deadline.at_s,
            since_s=deadline.since_s,
            what=request.what,
        )

    async def _get(
        self, request: ApiRequest, url: str, headers: Mapping[str, str], held: AsyncExitStack
    ) -> Response:
        """Return the response of the API's own origin, following redirects inside of it.

        A large response takes one of the places for such, which is free when *held* is closed.
        """
        has_place = False

        async def take_place() -> None:
            nonlocal has_place
            if not has_place:
                await self._large_slots.acquire()
                has_place = True
                held.callback(self._large_slots.release)

        for _ in range(MAX_REDIRECTS + 1):
            if origin_of(url) != self._origin:
                raise Garbled(f"the API leads to another host: {shown(url)}")
            async with self._slots.held():
                self.counters["requests"] += 1
                response = await self._http.request(
                    "GET",
                    url,
                    headers=headers,
                    max_bytes=request.max_bytes,
                    before_large=take_place,
                )
                self.counters[f"status_{response.status}"] += 1
            if response.status not in REDIRECTS:
                return response
            reference = response.headers.get("location", "").strip()
            if not reference:
                raise Garbled(f"{request.what}: {response.status} redirects to no address")
            location = resolved(url, reference)
            if request.takes_redirect and not is_same_resource(location, url):
                return response
            url = location
        raise Garbled("the API redirects in circles")

    def _outcome(
        self, request: ApiRequest, response: Response, read: Callable[[Response], R]
    ) -> R | _Failed:
        """Return what `_checked` returns, or the failure that it raises, without its traceback.

        A failure is remembered until its page's turn comes, and its traceback would hold the body.
        """
        try:
            return self._checked(request, response, read)
        except SatfsError as failure:
            failure.__traceback__ = failure.__cause__ = failure.__context__ = None
            return _Failed(failure)

    def _checked(self, request: ApiRequest, response: Response, read: Callable[[Response], R]) -> R:
        """Return what *read* makes of a good response; raise what the status of another means."""
        what, status = request.what, response.status
        if status in _COMPLETE or (request.takes_redirect and status in REDIRECTS):
            try:
                return read(response)
            except (Garbled, NotAllowed) as failure:
                raise type(failure)(error_text.prefixed(what, failure)) from failure
        message = f"{what}: {self._error_text(response)}"
        match status:
            case 403 if error_text.is_page(response.headers, response.body):
                raise error_text.RefusedByPage(message)
            case 403:
                raise NotAllowed(message)
            case 404 | 410:
                raise NotThere(message)
            case _ if status in _REFUSES_PARAMETERS:
                raise ParametersRefused(message)
            case _ if status in RETRIED_STATUSES or status >= 500:
                raise failure_for(status, response.headers, message, now_s=time.time())
            case _:
                raise Garbled(message)

    def _error_text(self, response: Response) -> str:
        secrets = self.credential.secrets()
        return error_text.response_text("the vendor", response.status, response.body, secrets)

    # -- contracts and refusals --------------------------------------------------------------------

    async def _choose_contract(self) -> tuple[ContractId, float]:
        """Return the account's only contract, for as long as it is not refused."""
        # A request waits for it, and a call for that.
        deadline = Deadline.within(self._settings.metadata_deadline_s, n_waiting=2)
        request = endpoints.contracts()

        async def get_page(url: str) -> wire.Page:
            return await self.fetch(request, contracts.page_of, deadline, page_url=url)

        try:
            found = await self._all_contracts(request, get_page)
        except NeedsLogin:
            raise
        except (NotThere, NotAllowed, Garbled) as failure:
            raise NeedsContract(
                f"set SATFS_CONTRACT_ID: the account's contracts cannot be listed ({failure})"
            ) from failure
        return contracts.only_one(found), math.inf

    async def _all_contracts(
        self, request: ApiRequest, get_page: Callable[[str], Awaitable[wire.Page]]
    ) -> tuple[Contract, ...]:
        url = request.url(self._settings.api_url)
        return await contracts.all_pages(url, self._settings.max_entries, get_page)

    async def _explained(
        self, response: Response, headers: Mapping[str, str], what: str, deadline: Deadline
    ) -> NotAllowed:
        """Return what a 401 means that another try did not cure.

        The vendor responds 401 to a wrong contract as well as to a wrong token. A request for
        `/contracts` with the token alone shows which one it is.
        """
        sentence = f"{what}: {self._error_text(response)}"
        refused = self._refused(response, what)
        sent = headers.get(contracts.CONTRACT_HEADER)
        if sent is None:
            return refused
        self._contract.invalidate()
        request = endpoints.contracts()
        only_token = contracts.headers_for(headers, with_standard=self._sends_standard_header)

        async def get_page(url: str) -> wire.Page:
            async with AsyncExitStack() as held:
                response = await self._get(request, url, only_token, held)
            if response.status != 200:
                raise Garbled("the account's contracts cannot be listed")
            return contracts.page_of(response)

        found: tuple[Contract, ...] | None = None
        with trio.CancelScope(deadline=deadline.at_s):
            try:
                found = await self._all_contracts(request, get_page)
            except (Garbled, Unreachable):
                return refused
        if found is None or any(contract.contract_id == sent for contract in found):
            return refused
        return NeedsContract(
            f"{sentence}; the contract {sent!r} is not one of this account's"
            + (f"; set SATFS_CONTRACT_ID to one of: {contracts.listed(found)}" if found else "")
        )
