"""The status record and the metrics: always whole, always JSON, never a secret."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import fields, replace
from prometheus_client.parser import text_string_to_metric_families

from satfs.api.cached_listing import ListingState
from satfs.cli.commands.status import rows_of
from satfs.content.fetch.egress_limit import DayUsage
from satfs.content.fetch.range_request import TransferStatus
from satfs.fuse.error_reporting import FailureReport
from satfs.introspection.metrics import exposition
from satfs.introspection.status import (
    MAX_ERRORS,
    MAX_LINKS,
    MAX_LISTINGS,
    MAX_TRANSFERS,
    Identity,
    MountStatus,
    UnreachableHost,
    moment,
    status_record,
)
from satfs.model import ByteRange
from satfs.read_trace import TraceTotals
from satfs.views.indexer import IndexState

SECRET = "s3ntinel-t0ken-that-nobody-may-see"
LINK = "https://store.test/o?X-Amz-Signature=s3ntinel"
IDENTITY = Identity(
    pid=1,
    mountpoint="/mnt/aleph",
    source="satfs:default",
    profile="default",
    api_url="https://api.test",
    mode="oauth",
    credential_source="client_secret",
    contract_id=None,
    cache_dir="/cache",
    since_s=1_000.0,
)

texts = st.text(max_size=40)
seconds = st.floats(0, 1e9)
counts = st.integers(0, 10**15)
status = st.builds(
    MountStatus,
    now_s=st.floats(1_000, 4e9),
    identity=st.just(IDENTITY),
    away=st.lists(st.builds(UnreachableHost, texts, seconds, texts), max_size=3),
    token_expires_at_s=st.none() | st.floats(0, 4e9),
    refusal=st.none() | texts,
    links=st.lists(st.tuples(texts, seconds | st.just(math.inf)), max_size=MAX_LINKS + 5),
    listings=st.lists(
        st.builds(ListingState, texts, texts, counts, st.floats(0, 4e9), st.booleans()),
        max_size=MAX_LISTINGS + 5,
    ),
    transfers=st.lists(
        st.builds(
            lambda label, start, length, share, urgent, speed: TransferStatus(
                label, ByteRange(start, start + length), start + length // share, urgent, speed
            ),
            texts,
            counts,
            counts,
            st.integers(1, 9),
            st.booleans(),
            st.none() | seconds,
        ),
        max_size=MAX_TRANSFERS + 5,
    ),
    content=st.dictionaries(st.sampled_from(["disk_bytes", "queued", "retries"]), counts),
    reading=st.builds(
        TraceTotals,
        n_reads=counts,
        n_waits=counts,
        longest_wait_s=seconds,
        requests=st.dictionaries(st.sampled_from(["link", "bytes"]), counts).map(Counter),
    ),
    spent=st.builds(DayUsage, st.just("2026-01-01"), counts, st.none() | counts),
    api=st.dictionaries(st.sampled_from(["requests", "status_200", "status_500"]), counts),
    errnos=st.dictionaries(st.sampled_from(["EIO", "ENOENT"]), counts),
    failures=st.lists(
        st.builds(
            FailureReport,
            at_s=st.floats(0, 4e9),
            operation=st.just("read"),
            path=texts,
            errno=st.just("EIO"),
            kind=st.just("Unreachable"),
            reason=texts,
            times=st.integers(1, 100),
        ),
        max_size=MAX_ERRORS + 5,
    ),
    read_ahead_kb=st.none() | st.integers(0, 10_000),
)


@given(status)
def test_whatever_is_so_makes_a_record_metrics_and_rows(now: MountStatus) -> None:
    """Any state of a mount is JSON, Prometheus text and a table, and none of them endless."""
    record = status_record(now)
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert len(record["listings"]["items"]) <= MAX_LISTINGS
    assert len(record["links"]["items"]) <= MAX_LINKS
    assert len(record["transfers"]["items"]) <= MAX_TRANSFERS
    assert len(record["errors"]) <= MAX_ERRORS
    assert record["listings"]["n"] == len(now.listings)
    assert record["is_online"] == (not now.away)
    text = exposition(lambda: record).decode()
    assert {family.name for family in text_string_to_metric_families(text)} >= {"satfs_online"}
    assert all(isinstance(label, str) and text for label, text in rows_of(record))


@given(status, st.sampled_from([f"a {SECRET} b", LINK, f"Bearer {SECRET}"]))
def test_no_secret_comes_through(now: MountStatus, text: str) -> None:
    """A secret that got into any text on the way is removed before it is shown."""
    spoilt = replace(
        now,
        away=[UnreachableHost(text, 1.0, text)],
        links=[(text, 1.0)],
        refusal=text,
        listings=[ListingState("scenes", text, 1, 0.0, True)],
        transfers=[TransferStatus(text, ByteRange(0, 1), 0, False, None)],
        failures=[FailureReport(1.0, "read", text, "EIO", "Unreachable", text, 1)],
        identity=replace(IDENTITY, contract_id=text, api_url=text, cache_dir=text),
    )
    record = status_record(spoilt, secrets=[SECRET])
    for output in (
        json.dumps(record),
        exposition(lambda: record).decode(),
        str([*rows_of(record)]),
    ):
        assert SECRET not in output
        assert "s3ntinel" not in output


def test_stale_listings_come_first() -> None:
    listings = [
        ListingState("scenes", str(n), 1, float(n), is_stale=n == 3)
        for n in range(MAX_LISTINGS + 50)
    ]
    record = status_record(MountStatus(2_000.0, IDENTITY, listings=listings))["listings"]
    assert record["items"][0] == {
        "kind": "scenes",
        "id": "3",
        "n_records": 1,
        "age_s": 1997.0,
        "is_stale": True,
    }
    assert record["items"][1]["id"] == str(MAX_LISTINGS + 49)
    assert record["n_stale"] == 1


def test_the_newest_error_comes_first() -> None:
    failures = [FailureReport(float(n), "read", f"/{n}", "EIO", "X", "why", 1) for n in range(30)]
    errors: list[dict[str, Any]] = status_record(MountStatus(2_000.0, IDENTITY, failures=failures))[
        "errors"
    ]
    assert [each["path"] for each in errors] == [f"/{n}" for n in range(29, 9, -1)]


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_any_clock_makes_a_moment(at_s: float) -> None:
    assert moment(at_s).endswith("+00:00")


def test_no_field_is_forgotten() -> None:
    """The record has each field: changing any field changes the record."""
    before = status_record(MountStatus(2_000.0, IDENTITY))
    others: dict[str, Any] = {
        "now_s": 3_000.0,
        "identity": replace(IDENTITY, pid=2),
        "away": [UnreachableHost("h", 1.0, "r")],
        "token_expires_at_s": 2_100.0,
        "refusal": "no",
        "links": [("o", 1.0)],
        "listings": [ListingState("tasks", "", 1, 0.0, False)],
        "transfers": [TransferStatus("o", ByteRange(0, 1), 0, False, None)],
        "content": {"disk_bytes": 1},
        "connections": {"n_idle": 1},
        "reading": TraceTotals(n_reads=1),
        "spent": DayUsage("1970-01-01", 1, None),
        "api": {"requests": 1},
        "calls": {"lookup": 1},
        "n_calls_waiting": 1,
        "errnos": {"EIO": 1},
        "failures": [FailureReport(1.0, "read", "/", "EIO", "X", "why", 1)],
        "read_ahead_kb": 512,
        "max_background": 512,
        "control": "/run/socket",
        "index": IndexState(2, 1, 3, 1_000.0, True, "away"),
    }
    assert {each.name for each in fields(MountStatus)} == set(others)
    for name, value in others.items():
        changed = replace(MountStatus(2_000.0, IDENTITY), **{name: value})
        assert status_record(changed) != before, name
