"""The status record as Prometheus metrics, through the official client library.

Names follow its conventions: base units, `_total` for what only grows. Labels are words of ours or
of the protocols, never ids or names, of which there is no end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from satfs.model import Json

Record = Mapping[str, Json]


class _StatusCollector(Collector):
    """Gets a status record for each request of metrics."""

    def __init__(self, status: Callable[[], Record]) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics as they are now."""
        yield from metrics_of(self._status())


def exposition(status: Callable[[], Record]) -> bytes:
    """Return the metrics in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_StatusCollector(status))
    return generate_latest(registry)


def metrics_of(status: Record) -> Iterator[Metric]:
    """Yield what *status* holds as metrics. Pure."""
    listings, cache = status["listings"], status["cache"]
    transfers, connections = status["transfers"], status["connections"]
    reading, requests, calls = status["reading"], status["requests"], status["calls"]
    api = requests["api"]
    yield InfoMetricFamily(
        "satfs",
        "The mount",
        {
            "version": status["satfs"],
            "mountpoint": status["mountpoint"],
            "source": status["source"],
            "profile": status["profile"],
        },
    )
    yield _gauge("up_seconds", "Time since the mount works", status["up_s"])
    yield _gauge(
        "online", "1 while every host that was requested responds", int(status["is_online"])
    )
    yield _gauge(
        "credential_refused",
        "1 if the API refused the credential at the last request",
        int(status["credential"]["refused"] is not None),
    )
    yield _gauge(
        "token_left_seconds",
        "Time until the token expires; a new one is requested before",
        status["credential"]["token_left_s"],
    )
    yield _gauge(
        "listings",
        "Listings known, by whether they could be renewed when they were wanted last",
        {"fresh": listings["n"] - listings["n_stale"], "stale": listings["n_stale"]},
        "state",
    )
    yield _gauge("listing_records", "Records in all listings", listings["n_records"])
    yield _gauge("oldest_listing_seconds", "Age of the oldest listing", listings["oldest_age_s"])
    yield _gauge(
        "cache_used_bytes",
        "Content kept",
        {"disk": cache["disk_bytes"], "memory": cache["memory_bytes"]},
        "place",
    )
    yield _gauge(
        "cache_limit_bytes",
        "Limit of the content that is kept",
        {"disk": cache["disk_limit_bytes"], "memory": cache["memory_limit_bytes"]},
        "place",
    )
    yield _gauge("transfers", "Ranges in flight", transfers["n"])
    yield _gauge("transfers_queued", "Ranges that wait for a connection", transfers["n_queued"])
    yield _gauge(
        "connections_wanted",
        "Connections that raise the throughput, as measured",
        transfers["connections_wanted"],
    )
    yield _gauge("workers", "Worker processes that move bulk data", transfers["workers"])
    yield _gauge(
        "connections",
        "Connections of the mount's own process, by what they do",
        {state: connections[state] for state in ("in_use", "idle")},
        "state",
    )
    yield _counter("connections_opened", "Connections opened so far", connections["opened"])
    yield _counter(
        "connections_reused", "Requests on a connection that was open", connections["reused"]
    )
    yield _gauge("open_files", "Attachments and members open", reading["open_files"])
    yield _counter("opens", "Times that an attachment or member was opened", reading["opens"])
    yield _counter("reads", "Reads of attachments and members", reading["reads"])
    yield _counter("read_bytes", "Bytes that these reads returned", reading["served_bytes"])
    yield _counter(
        "predicted_bytes",
        "Raster blocks fetched before they were read, by whether they were read then",
        {"read": reading["predicted_bytes"], "unread": reading["unread_bytes"]},
        "outcome",
    )
    yield _counter("read_waits", "Reads that had to wait for the network", reading["waits"])
    yield _counter("read_wait_seconds", "Time that they waited", reading["waited_s"])
    yield _counter("read_failures", "Waits that ended with an error", reading["failures"])
    yield _counter(
        "received_bytes", "Bytes received from the object store", requests["received_bytes"]
    )
    egress = status["egress"]
    yield _gauge(
        "egress_today_bytes",
        "Bytes fetched from the object store today (UTC) by every mount of the account",
        egress["fetched_bytes"],
    )
    yield _gauge("egress_limit_bytes", "Limit of the bytes fetched in a day", egress["limit_bytes"])
    yield _counter("api_requests", "Requests sent to the API", api.get("requests", 0))
    yield _counter(
        "api_answers",
        "Responses of the API, by HTTP status",
        {name.removeprefix("status_"): n for name, n in api.items() if name.startswith("status_")},
        "status",
    )
    yield _counter(
        "object_requests",
        "Requests for objects, by what they were for: link, size, confirm or bytes",
        requests["store"],
        "what",
    )
    yield _counter(
        "object_requests_unlucky",
        "Requests for objects that ended otherwise than well, by how",
        requests["unlucky"],
        "outcome",
    )
    yield _counter("retries", "Ranges requested again after a failure", requests["retries"])
    yield _gauge("calls_waiting", "Calls of the kernel that wait for a response", calls["waiting"])
    yield _counter("calls", "Calls of the kernel", calls["asked"], "operation")
    yield _counter("call_errors", "Calls that ended with an error", calls["errnos"], "errno")
    read_ahead_kb = status["kernel"]["read_ahead_kb"]
    yield _gauge(
        "kernel_read_ahead_bytes",
        "The kernel's read-ahead of the mount; absent where satfs may not set it",
        None if read_ahead_kb is None else read_ahead_kb * 1024,
    )


def _family(
    kind: type[GaugeMetricFamily | CounterMetricFamily],
    name: str,
    help: str,
    value: Any,
    label: str = "",
) -> Metric:
    """Return *value*, or with a *label* each of its values; nothing for what is not known."""
    family = kind(f"satfs_{name}", help, labels=[label] if label else [])
    for word, number in (value if label else {"": value}).items():
        if number is not None:
            family.add_metric([word] if label else [], float(number))
    return family


_gauge, _counter = partial(_family, GaugeMetricFamily), partial(_family, CounterMetricFamily)
