"""The account: the credential, the contract, and whether a signed link leads to bytes.

The store's host is known from links only, so one is signed, of the first scene that is found. It
is used once, for one byte, and shown nowhere.
"""

from __future__ import annotations

import math
import shlex
import time
from contextlib import suppress
from typing import Final

import trio

from satfs.api.client import Aleph
from satfs.api.token_sources import source_of
from satfs.doctor.connection_steps import Host, reach
from satfs.doctor.findings import Area, Check, Finding, Report, Severity
from satfs.errors import NeedsContract, NeedsLogin, NotAllowed, NotThere, SatfsError, Unreachable
from satfs.model import DELIVERY_ZIP, Contract, ContractId, Link, Task
from satfs.net.http import Http
from satfs.net.proxies import Proxies
from satfs.settings import Settings

#: Time to find a scene to sign, in seconds; three requests in most accounts. A single one has a
#: second more (`examination`), so that a slow search is not reported as a failed request.
SEARCH_LIMIT_S: Final = 5.0
#: Tasks and captures looked into for a scene: an account may have thousands that hold none yet.
_MAX_TASKS: Final = 8
_MAX_CAPTURES: Final = 4
#: Statuses by which a store grants a request for one byte; the last for an object without bytes.
_DELIVERED: Final = frozenset({200, 206, 416})

#: A token that is not renewed is worth a note when it ends within this, in seconds: a mount is
#: meant to live for longer.
TOKEN_NOTE_S: Final = 3600.0
_SOURCES: Final = {
    "client_secret": "client id and secret",
    "secret_store": "kept by satfs login",
    "token": "a token",
    "token_file": "a token from a file",
    "token_command": "a token from a command",
}

_CREDENTIAL = Check(Area.ACCOUNT, "credential")
_CONTRACT = Check(Area.ACCOUNT, "contract", NeedsContract)
_STORE_LINK = Check(Area.STORE, "store-link")
_STORE_CONNECTION = Check(Area.STORE, "store-connection", Unreachable)
_TASKS = Check(Area.ACCOUNT, "tasks")


async def account(aleph: Aleph, settings: Settings, report: Report) -> tuple[Task, ...] | None:
    """Check credential and contract at the API; return the first tasks, None if refused.

    Waits for the API, at most the metadata deadline for each of three requests.
    """
    contracts: tuple[Contract, ...] | None = None
    try:
        await aleph.credential.headers()
        if aleph.credential.needs_contract:
            # The one request without a contract: it distinguishes a bad credential from a bad
            # contract.
            contracts = await _listed(aleph, report)
    except SatfsError as failure:
        report(refusal("credential", failure))
        return None
    accepted = credential_finding(settings, aleph.credential.token_expires_at_s, time.time())
    if contracts is not None:
        report(accepted)
        named = contract_finding(contracts, settings.contract_id)
        report(named)
        if named.severity is Severity.FAILURE:
            return None
    try:
        tasks = tuple(await aleph.check())
    except SatfsError as failure:
        # Where the contracts show nothing, this is the first request that proves the credential.
        report(refusal("tasks" if contracts is not None else "credential", failure))
        return None
    if contracts is None:
        report(accepted)
    some = "there are some" if tasks else "there is none yet"
    report(_TASKS.fine(f"Tasks are listed; {some}."))
    return tasks


async def _listed(aleph: Aleph, report: Report) -> tuple[Contract, ...] | None:
    """Return the contracts; None, and a note of it, where the API does not list them."""
    try:
        return tuple(await aleph.contracts())
    except (NeedsLogin, Unreachable):
        raise
    except SatfsError as failure:
        report(
            _CONTRACT.note(
                f"The contracts cannot be listed: {failure}.",
                "satfs needs the list only where no contract is named.",
                "If the next line fails, name the contract:",
                "export SATFS_CONTRACT_ID=ID",
            )
        )
        return None


def credential_finding(settings: Settings, expires_at_s: float | None, now_s: float) -> Finding:
    """Return that the credential is accepted, and for how long where no program renews it.

    *expires_at_s* is when the token in use expires, None where the token does not state it; both by
    the wall clock.
    """
    source = source_of(settings)
    left_s = math.inf if expires_at_s is None else expires_at_s - now_s
    if source == "token" and left_s < TOKEN_NOTE_S:
        return _CREDENTIAL.note(
            f"The token is accepted, and good for {max(left_s, 0) / 60:.0f} minutes more.",
            "No program renews a token that was set directly: afterwards the API refuses it.",
            "Log in, or name a file or a command that supplies new tokens:",
            "satfs login",
        )
    return _CREDENTIAL.fine(f"The credential is accepted ({_SOURCES.get(source, source)}).")


def contract_finding(contracts: tuple[Contract, ...], chosen: str | None) -> Finding:
    """Return whether *chosen*, or the only one if it is None, is a contract of the account."""
    names = {each.contract_id: each.name for each in contracts}
    choices = tuple(
        f"export SATFS_CONTRACT_ID={shlex.quote(each.contract_id)}" for each in contracts[:5]
    )

    def failed(statement: str, explanation: str, remedy: str) -> Finding:
        return _CONTRACT.failure(statement, explanation, remedy, *choices)

    if chosen is not None:
        if chosen not in names:
            return failed(
                f"{chosen} is not a contract of this account.",
                "The API refuses every request that names it.",
                "Name a contract of the account:" if choices else "The account has none.",
            )
        return _CONTRACT.fine(f"{chosen} ({names[ContractId(chosen)]}) is the contract.")
    match contracts:
        case ():
            return failed(
                "The account has no contract.",
                "Nothing is delivered without one.",
                "Make a credential with a contract, in Aleph under My Profile.",
            )
        case (only,):
            return _CONTRACT.fine(f"{only.contract_id} ({only.name}) is the only contract.")
        case _:
            return failed(
                f"The account has {len(contracts)} contracts, and none is chosen.",
                "Each shows other tasks.",
                "Choose one:",
            )


def refusal(check: str, failure: SatfsError, area: Area = Area.ACCOUNT) -> Finding:
    """Return the finding for a request to the API that failed with *failure*."""
    commands: tuple[str, ...] = ()
    match failure:
        case NeedsContract():
            explanation, remedy = "The API requires the id of a contract.", ""
        case NeedsLogin():
            explanation = "The API does not accept the credential; nothing is listed or fetched."
            remedy = "Credentials are made in Aleph (aleph.satellogic.com), under My Profile. Then:"
            commands = ("satfs login",)
        case NotAllowed():
            explanation = "The API accepts the credential, and refuses the request."
            remedy = "Ask the owner of the account for the rights, or log in as another user:"
            commands = ("satfs login",)
        case Unreachable():
            explanation = "The API responded a moment ago, and fails or is slow now."
            remedy = "Wait, and try again."
        case _:
            explanation = "A server responds at this address, but it is not the API."
            remedy = "Check SATFS_API_URL and SATFS_AUTH_URL:"
            commands = ("satfs config show --origin",)
    return Check(area, check).failure(
        f"{str(failure).rstrip('.') or type(failure).__name__}.",
        explanation,
        remedy,
        *commands,
        cause=type(failure),
    )


async def store(
    aleph: Aleph, http: Http, tasks: tuple[Task, ...], proxies: Proxies, report: Report
) -> None:
    """Report whether the store sends bytes for a signed link. Waits for the API and the store.

    *http* is used for the store alone, and knows no credential.
    """
    try:
        with trio.fail_after(SEARCH_LIMIT_S):
            link = await _sign_any(aleph, tasks)
    except trio.TooSlowError:
        report(
            _STORE_LINK.warning(
                f"Finding a scene and signing a link took more than {SEARCH_LIMIT_S:.0f} s.",
                "The API is slow or stuck; opening a file waits for both.",
                "Try again; if it lasts, report it to the vendor's support.",
            )
        )
        return
    except NotAllowed as failure:
        report(
            _STORE_LINK.failure(
                f"{str(failure).rstrip('.')}.",
                "Either the account may not fetch what it may list, or the link leads where satfs "
                "must not follow.",
                "Ask the owner of the account, or of the network.",
                cause=type(failure),
            )
        )
        return
    except SatfsError as failure:
        report(refusal("store-link", failure, Area.STORE))
        return
    if link is None:
        report(
            _STORE_LINK.note(
                "No scene was found for which a link could be requested.",
                "Only links name the host of the object store, so no connection to it was tried.",
            )
        )
        return
    host = Host("store", "the object store", link.url, Area.STORE)
    way = await reach(http, host, proxies, {"Range": "bytes=0-0"})
    status = 0 if way.reply is None else way.reply.status
    if way.reply is None or status in _DELIVERED:
        for finding in way.findings:
            report(finding)
    else:
        report(way.findings[0])
        expires_at_s = link.expires_at_s
        is_spent = expires_at_s is not None and expires_at_s <= way.reply.sent_at_s
        report(_refused(status, is_spent=is_spent))


async def _sign_any(aleph: Aleph, tasks: tuple[Task, ...]) -> Link | None:
    """Return a link to the first thing that can be fetched; None when nothing is found."""
    # Those that are completed have something to deliver, most likely.
    for task in sorted(tasks, key=lambda task: task.status != "completed")[:_MAX_TASKS]:
        with suppress(NotThere):  # withdrawn since it was listed
            captures = await aleph.captures(task.task_id)
            published = [each.capture_id for each in captures if each.is_published]
            for capture_id in published[:_MAX_CAPTURES]:
                for scene in await aleph.scenes(capture_id):
                    names = [attachment.name for attachment in scene.attachments]
                    if names:
                        name = DELIVERY_ZIP if DELIVERY_ZIP in names else names[0]
                        return await aleph.sign(scene.scene_id, name)
    return None


def _refused(status: int, *, is_spent: bool) -> Finding:
    explanation = "The store does not take the link that the API signed a moment ago."
    remedy, commands = "If it lasts, report it to the vendor's support.", tuple[str, ...]()
    if is_spent:
        explanation = (
            "By this machine's clock the link was over before it was used: one of them is wrong."
        )
        remedy, commands = "Have the clock synchronised:", ("sudo timedatectl set-ntp true",)
    elif status == 404:
        explanation = "The object is listed, but is not in the store; others may be there."
    return _STORE_CONNECTION.finding(
        Severity.FAILURE if status != 404 else Severity.WARNING,
        f"The object store refuses a link signed a moment ago ({status}).",
        explanation,
        remedy,
        *commands,
    )
