"""All checks, each within its time: local ones side by side, those of the network in their order.

Nothing is changed, and each wait is bounded: a local check has `LOCAL_LIMIT_S`, all checks of the
network together have `NETWORK_LIMIT_S`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias

import trio
from msgspec.structs import replace

from satfs.api import endpoints
from satfs.api.client import Aleph, http_for
from satfs.api.token_sources import mode_of
from satfs.doctor import cache, crawlers, fuse, mounts
from satfs.doctor.account import account, store
from satfs.doctor.authorities import authorities
from satfs.doctor.connection_steps import Host, HostFindings, clock_finding, on_the_way, reach
from satfs.doctor.findings import Area, Check, Finding, Report, Severity
from satfs.doctor.machine import Machine
from satfs.doctor.mountpoint import MOUNTPOINT
from satfs.doctor.mountpoint import mountpoint as mountpoint_findings
from satfs.errors import SatfsError
from satfs.fuse.crawlers import DEFAULT, crawler_rules
from satfs.net.addresses import LinkRule, origin_of
from satfs.net.http import Http
from satfs.net.proxies import Proxies, proxies_of_environment
from satfs.request_slots import concurrent_map
from satfs.settings import AuthMode, Settings

#: Time for a check of this machine, in seconds. They take milliseconds, or something is stuck.
LOCAL_LIMIT_S: Final = 8.0
#: Time for all requests over the network, in seconds. Together with the start of the program it
#: stays below 30 s, the longest that users were found to wait for a diagnosis.
NETWORK_LIMIT_S: Final = 22.0
#: Limits of single requests, in seconds; the settings' own where these are shorter.
_REQUEST_LIMITS: Final[Mapping[str, float]] = {
    "connect_timeout_s": 4.0,
    "progress_timeout_s": 4.0,
    "metadata_deadline_s": 6.0,
}

#: Connections of each client: one request at a time, and some that hang.
_MAX_CONNECTIONS: Final = 4

#: The check that reports what became of the network checks as a whole.
_NETWORK: Final = Check(Area.NETWORK, "network")

_Look: TypeAlias = Callable[[], Iterable[Finding]]


def local_checks(
    machine: Machine, settings: Settings | None, mountpoint: Path | None
) -> list[tuple[Check, _Look]]:
    """Return the checks of this machine alone; *mountpoint* is absolute."""
    places = [each.mountpoint for each in mounts.satfs_mounts(machine)]
    if mountpoint is not None and mountpoint not in places:
        places.append(mountpoint)
    guard = crawler_rules(DEFAULT if settings is None else settings.crawlers)
    found: list[tuple[Check, _Look]] = [
        (fuse.FUSE_DEVICE, partial(fuse.device, machine)),
        (fuse.FUSE_HELPER, partial(fuse.helper, machine)),
        (fuse.PRIVILEGES, partial(fuse.privileges, machine)),
        (fuse.USER_ALLOW_OTHER, partial(fuse.allow_other, machine)),
        (fuse.FUSE_LIBRARY, partial(fuse.library, machine)),
        (fuse.KERNEL, partial(fuse.kernel, machine)),
        (mounts.MOUNTS, partial(mounts.mounts, machine)),
        (mounts.MOUNT_HELPER, partial(mounts.mount_helper, machine)),
        (mounts.LEFTOVERS, partial(mounts.leftovers, machine)),
    ]
    if mountpoint is not None:
        found.append((MOUNTPOINT, partial(mountpoint_findings, machine, mountpoint)))
    if settings is not None:
        found += [
            (cache.CACHE_DIRECTORY, partial(cache.directory, machine, settings)),
            (cache.CACHE_SPACE, partial(cache.space, machine, settings)),
        ]
    return [
        *found,
        (crawlers.UPDATEDB, partial(crawlers.updatedb, machine, places, guard)),
        (crawlers.INDEXING, partial(crawlers.indexers, machine, places, guard)),
    ]


async def examine(
    machine: Machine, settings: Settings | None, mountpoint: Path | None, report: Report
) -> None:
    """Make all checks; pass findings to *report*, in order, each as soon as possible.

    *settings* are None where they are wrong; then only the checks that need none are made.
    """
    local = await trio.to_thread.run_sync(local_checks, machine, settings, mountpoint)
    jobs: list[Callable[[Report], Awaitable[None]]] = [
        partial(_checked_here, check, looks) for check, looks in local
    ]
    if settings is not None:
        jobs.append(partial(_checked_there, machine, settings))
    async with trio.open_nursery() as nursery:
        receivers = []
        for job in jobs:
            sender, receiver = trio.open_memory_channel[Finding](1_000)
            receivers.append(receiver)
            nursery.start_soon(_run, job, sender)
        for receiver in receivers:
            async for finding in receiver:
                report(finding)


async def _run(
    job: Callable[[Report], Awaitable[None]], sender: trio.MemorySendChannel[Finding]
) -> None:
    with sender:
        await job(sender.send_nowait)


async def _checked_here(check: Check, looks: _Look, report: Report) -> None:
    try:
        with trio.fail_after(LOCAL_LIMIT_S):
            findings = await trio.to_thread.run_sync(lambda: list(looks()), abandon_on_cancel=True)
    except trio.TooSlowError:
        report(_unfinished(check, LOCAL_LIMIT_S))
    except Exception as failure:
        report(_broken(check, failure))
    else:
        for finding in findings:
            report(finding)


async def _checked_there(machine: Machine, settings: Settings, report: Report) -> None:
    proxies = proxies_of_environment()
    with trio.move_on_after(NETWORK_LIMIT_S) as limit:
        try:
            await _network(machine, _hurried(settings), proxies, report)
        except Exception as failure:
            report(_broken(_NETWORK, failure))
    if limit.cancelled_caught:
        report(_unfinished(_NETWORK, NETWORK_LIMIT_S))


async def _network(machine: Machine, settings: Settings, proxies: Proxies, report: Report) -> None:
    hosts = hosts_of(settings)
    before: Sequence[Finding] = [
        *on_the_way(hosts, proxies),
        *await trio.to_thread.run_sync(
            lambda: list(authorities(settings, machine.environment)), abandon_on_cancel=True
        ),
    ]
    for finding in before:
        report(finding)
    if any(finding.severity is Severity.FAILURE for finding in before):
        report(_skipped(Check(Area.NETWORK, "api-connection"), "Repair the failure above first."))
        return
    # Two clients that share nothing but connections: no credential can stray to the store.
    rule = LinkRule(settings.api_url, settings.allow_private_store)
    async with (
        http_for(settings, max_connections=_MAX_CONNECTIONS) as http,
        http_for(
            settings,
            max_connections=_MAX_CONNECTIONS,
            check_peer=rule.check_peer,
            shares_pool_of=http,
        ) as store_http,
    ):
        ways = await _reach_all(http, hosts, proxies)
        for way in ways:
            for finding in way.findings:
                report(finding)
        api = ways[0].reply
        if api is not None:
            report(clock_finding(api.clock_ahead_s))
        if any(way.reply is None for way in ways):
            credential = Check(Area.ACCOUNT, "credential")
            report(_skipped(credential, "It needs a host that cannot be reached."))
            return
        aleph = Aleph(http, settings)
        tasks = await account(aleph, settings, report)
        if tasks is not None:
            await store(aleph, store_http, tasks, proxies, report)


def hosts_of(settings: Settings) -> tuple[Host, ...]:
    """Return the hosts before the object store: the API, then the one that issues tokens."""
    url = endpoints.contracts().url(settings.api_url)
    api = Host("api", "the API", url, variable="SATFS_API_URL")
    if mode_of(settings) is not AuthMode.OAUTH:
        return (api,)
    return (api, Host("auth", "the token service", settings.auth_url, variable="SATFS_AUTH_URL"))


async def _reach_all(http: Http, hosts: tuple[Host, ...], proxies: Proxies) -> list[HostFindings]:
    """Return the ways to all hosts, tried side by side, in the order of the hosts.

    Those at one host and port are tried one after the other: it may let one connection through.
    """
    turns: defaultdict[str, trio.Lock] = defaultdict(trio.Lock)

    async def find(host: Host) -> HostFindings:
        async with turns[origin_of(host.url)]:
            # Without any credential: that a refusal comes back is all that is wanted.
            return await reach(http, host, proxies, {"Accept": "application/json"})

    return await concurrent_map(find, hosts)


def _hurried(settings: Settings) -> Settings:
    shorter = {
        name: min(limit_s, getattr(settings, name)) for name, limit_s in _REQUEST_LIMITS.items()
    }
    return replace(settings, **shorter)


def _unfinished(check: Check, limit_s: float) -> Finding:
    return check.warning(
        f"No response within {limit_s:.0f} s.",
        "The check hangs, or is very slow; checks that depend on it were not made.",
        "Check it by hand, or run satfs doctor again.",
    )


def _broken(check: Check, failure: Exception) -> Finding:
    # Only the name of a foreign error: its words may quote a secret.
    details = f": {failure}" if isinstance(failure, SatfsError) else ""
    return check.warning(
        f"The check itself failed ({type(failure).__name__}{details}).",
        "So nothing is known about this. It is a bug in satfs.",
        "Please report it, with the version above.",
    )


def _skipped(check: Check, reason: str) -> Finding:
    return check.note("Not looked at.", reason)
