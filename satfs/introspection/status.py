"""The state of a mount at one moment, and the record made from it (`status.json`).

*Pure*: the caller gathers the values. Secrets are removed from every foreign text once more here.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from msgspec import Struct, field

from satfs import __version__
from satfs.api.cached_listing import ListingState
from satfs.content.fetch.egress_limit import DayUsage
from satfs.content.fetch.range_request import TransferStatus
from satfs.fuse.error_reporting import FailureReport
from satfs.model import Json
from satfs.read_trace import TraceTotals
from satfs.redaction import for_people
from satfs.views.indexer import IndexState

#: Entries of each list in the record; beside the number of all. The record stays one that
#: a person can read and a program parses in a millisecond.
MAX_LISTINGS: Final = 100
MAX_LINKS: Final = 20
MAX_TRANSFERS: Final = 100
MAX_ERRORS: Final = 20

_NOTHING_SPENT: Final = DayUsage("1970-01-01", 0, None)


class UnreachableHost(Struct, frozen=True):
    """A host that does not answer: which, for how long, and what was met last."""

    origin: str
    for_s: float
    reason: str


class Identity(Struct, frozen=True):
    """The constant part of a mount's status. *since_s* is wall clock."""

    pid: int
    mountpoint: str
    source: str
    profile: str
    api_url: str
    mode: str
    credential_source: str
    contract_id: str | None
    cache_dir: str
    since_s: float


class MountStatus(Struct, frozen=True):
    """The state at *now_s* (wall clock), as the packages report it."""

    now_s: float
    identity: Identity
    away: Sequence[UnreachableHost] = ()
    token_expires_at_s: float | None = None
    refusal: str | None = None
    links: Sequence[tuple[str, float]] = ()
    listings: Sequence[ListingState] = ()
    transfers: Sequence[TransferStatus] = ()
    content: Mapping[str, float] = field(default_factory=dict)
    #: Of the pools of this process: in use, idle; opened, reused and abandoned so far.
    connections: Mapping[str, int] = field(default_factory=dict)
    reading: TraceTotals = field(default_factory=TraceTotals)
    spent: DayUsage = _NOTHING_SPENT
    api: Mapping[str, int] = field(default_factory=dict)
    calls: Mapping[str, int] = field(default_factory=dict)
    n_calls_waiting: int = 0
    errnos: Mapping[str, int] = field(default_factory=dict)
    failures: Sequence[FailureReport] = ()
    read_ahead_kb: int | None = None
    max_background: int | None = None
    control: str | None = None
    #: How complete the index behind `views/` is; None where there are no views.
    index: IndexState | None = None


def status_record(status: MountStatus, secrets: Iterable[str] = ()) -> dict[str, Json]:
    """Return the record as JSON can hold it; none of *secrets* is in it.

    Moments are ISO 8601 in UTC, other times seconds; a null is what is not known.
    """
    known = tuple(secrets)

    def clean(text: str) -> str:
        return for_people(text, known)

    identity, now_s = status.identity, status.now_s
    return {
        "satfs": __version__,
        "pid": identity.pid,
        "mountpoint": identity.mountpoint,
        "source": identity.source,
        "profile": identity.profile,
        "now": moment(now_s),
        "since": moment(identity.since_s),
        "up_s": _rounded(now_s - identity.since_s),
        "is_online": not status.away,
        "why_offline": "; ".join(clean(_why(each)) for each in status.away) or None,
        "away": [
            {"host": clean(each.origin), "for_s": _rounded(each.for_s), "why": clean(each.reason)}
            for each in status.away
        ],
        "credential": {
            "mode": identity.mode,
            "source": identity.credential_source,
            "refused": None if status.refusal is None else clean(status.refusal),
            "token_left_s": _left_s(status.token_expires_at_s, now_s),
            "contract_id": identity.contract_id and clean(identity.contract_id),
            "api_url": clean(identity.api_url),
        },
        "links": _links(status.links, clean),
        "listings": _listings(status.listings, now_s, clean),
        "cache": _cache(status, clean),
        "transfers": _transfers(status, clean),
        "connections": {
            name: status.connections.get(f"n_{name}", 0)
            for name in ("in_use", "idle", "opened", "reused", "abandoned")
        },
        "reading": _reading(status),
        "egress": {
            "day": status.spent.day,
            "fetched_bytes": status.spent.spent_bytes,
            "limit_bytes": status.spent.limit_bytes,
            "is_over": status.spent.is_over,
        },
        "requests": _requests(status),
        "views": None if status.index is None else _index(status.index, clean),
        "calls": {
            "waiting": status.n_calls_waiting,
            "asked": dict(sorted(status.calls.items())),
            "errnos": dict(sorted(status.errnos.items())),
        },
        "errors": [
            {
                "at": moment(each.at_s),
                "age_s": _rounded(now_s - each.at_s),
                "operation": each.operation,
                "path": clean(each.path),
                "errno": each.errno,
                "error": each.kind,
                "why": clean(each.reason),
                "times": each.times,
            }
            for each in list(status.failures)[: -MAX_ERRORS - 1 : -1]
        ],
        "kernel": {
            "read_ahead_kb": status.read_ahead_kb,
            "max_background": status.max_background,
            "is_tuned": status.read_ahead_kb is not None,
        },
        "control": status.control,
    }


def _index(index: IndexState, clean: Callable[[str], str]) -> Json:
    return {
        "tasks": index.n_tasks,
        "indexed_tasks": index.n_indexed,
        "scenes": index.n_scenes,
        "is_running": index.is_running,
        "completed": None if index.completed_at_s is None else moment(index.completed_at_s),
        "reason": None if index.reason is None else clean(index.reason),
    }


def moment(at_s: float) -> str:
    """Return a moment of the wall clock as people and programs read it (RFC 3339, UTC)."""
    try:
        return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="seconds")
    except (OverflowError, ValueError, OSError):  # a clock that was never set
        return datetime.fromtimestamp(0, UTC).isoformat(timespec="seconds")


def _why(away: UnreachableHost) -> str:
    reason = f": {away.reason}" if away.reason else ""
    return f"{away.origin} has not responded for {away.for_s:.0f} s{reason}"


def _links(links: Sequence[tuple[str, float]], clean: Callable[[str], str]) -> Json:
    soonest = heapq.nsmallest(MAX_LINKS, links, key=lambda each: each[1])
    return {
        "n": len(links),
        "items": [
            {"object": clean(label), "left_s": _rounded(left_s)} for label, left_s in soonest
        ],
    }


def _listings(listings: Sequence[ListingState], now_s: float, clean: Callable[[str], str]) -> Json:
    # The stale ones first, then those requested last.
    shown = heapq.nsmallest(
        MAX_LISTINGS, listings, key=lambda each: (not each.is_stale, -each.requested_at_s)
    )
    ages_s = [now_s - each.requested_at_s for each in listings]
    return {
        "n": len(listings),
        "n_stale": sum(each.is_stale for each in listings),
        "n_records": sum(each.n_records for each in listings),
        "oldest_age_s": _rounded(max(ages_s, default=None)),
        "items": [
            {
                "kind": each.kind,
                "id": clean(each.id),
                "n_records": each.n_records,
                "age_s": _rounded(now_s - each.requested_at_s),
                "is_stale": each.is_stale,
            }
            for each in shown
        ],
    }


def _cache(status: MountStatus, clean: Callable[[str], str]) -> Json:
    content = status.content
    names = ("disk_bytes", "disk_limit_bytes", "memory_bytes", "memory_limit_bytes", "open_objects")
    return {
        "directory": clean(status.identity.cache_dir),
        **{name: int(content.get(name, 0)) for name in names},
    }


def _transfers(status: MountStatus, clean: Callable[[str], str]) -> Json:
    speeds = [each.bytes_per_s for each in status.transfers if each.bytes_per_s is not None]
    return {
        "n": len(status.transfers),
        "n_queued": int(status.content.get("queued", 0)),
        "workers": int(status.content.get("workers", 0)),
        "connections_wanted": int(status.content.get("target_connections", 0)),
        "bytes_per_s": _rounded(math.fsum(speeds)),
        "items": [
            {
                "object": clean(each.label),
                "start": each.span.start,
                "stop": each.span.stop,
                "received_bytes": each.held_until - each.span.start,
                "bytes_per_s": _rounded(each.bytes_per_s),
                "is_waited_for": each.is_urgent,
            }
            for each in list(status.transfers)[:MAX_TRANSFERS]
        ],
    }


def _reading(status: MountStatus) -> Json:
    sums = status.reading
    return {
        "open_files": int(status.content.get("open_handles", 0)),
        "opens": sums.n_opens,
        "reads": sums.n_reads,
        "served_bytes": sums.served_bytes,
        "predicted_bytes": sums.predicted_bytes,
        "unread_bytes": sums.unread_bytes,
        "waits": sums.n_waits,
        "waited_s": _rounded(sums.waited_s),
        "longest_wait_s": _rounded(sums.longest_wait_s),
        "failures": sums.n_failures,
    }


def _requests(status: MountStatus) -> Json:
    sums, content = status.reading, status.content
    return {
        "api": dict(sorted(status.api.items())),
        "store": dict(sorted(sums.requests.items())),
        "unlucky": dict(sorted(sums.unlucky.items())),
        "retries": int(content.get("retries", 0)),
        "restarts": int(content.get("restarts", 0)),
        "reissued": int(content.get("reissued", 0)),
        "received_bytes": int(content.get("received_bytes", 0)),
    }


def _left_s(at_s: float | None, now_s: float) -> float | None:
    return None if at_s is None else _rounded(max(0.0, at_s - now_s))


def _rounded(value: Any) -> float | None:
    """Return *value* with milliseconds; None for what is not known, or has no end."""
    if value is None or not math.isfinite(value):
        return None
    return round(float(value), 3)
