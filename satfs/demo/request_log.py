"""The log of requests and responses, to be counted, and of secrets that leaked into requests."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class LoggedRequest:
    """One request. `path` has no query: a signed link is a secret. Moments are wall-clock seconds.

    `status` is 0 until the response starts; `bytes_sent` counts the body's bytes handed to the
    kernel; `ended_s` is None while the response is being sent.
    """

    endpoint: str
    method: str
    path: str
    range: str | None
    connection: int
    started_s: float = field(default_factory=time.time)
    status: int = 0
    bytes_sent: int = 0
    ended_s: float | None = None
    faults: tuple[str, ...] = ()


@dataclass(frozen=True)
class Leak:
    """A credential that arrived where it must not. Has the place, never the credential."""

    side: str
    endpoint: str
    place: str
    path: str


class RequestLog:
    """All requests since the start or the last `clear`. Safe to read from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.requests: list[LoggedRequest] = []
        self.leaks: list[Leak] = []
        self.n_connections = {"api": 0, "store": 0, "both": 0}

    def open(self, request: LoggedRequest) -> LoggedRequest:
        """Enter a request that has just arrived."""
        with self._lock:
            self.requests.append(request)
        return request

    def clear(self) -> None:
        """Forget all requests and connections; leaks are not forgotten."""
        with self._lock:
            self.requests = []
            self.n_connections = dict.fromkeys(self.n_connections, 0)

    def of(self, endpoint: str | None = None) -> list[LoggedRequest]:
        """Return the requests of one endpoint, or all."""
        with self._lock:
            return [r for r in self.requests if endpoint in (None, r.endpoint)]

    def n_requests(self, endpoint: str | None = None) -> int:
        """Return the number of requests of one endpoint, or of all."""
        return len(self.of(endpoint))

    def counts(self) -> dict[str, int]:
        """Return the number of requests per endpoint; endpoints without requests are missing."""
        return dict(Counter(request.endpoint for request in self.of()))

    def bytes_sent(self, endpoint: str | None = "object") -> int:
        """Return the number of body bytes sent by one endpoint, or (None) by all."""
        return sum(request.bytes_sent for request in self.of(endpoint))

    def wait_until_idle(self, timeout_s: float = 5.0) -> bool:
        """Wait until no request is in flight; return whether that happened in time.

        A client has a response some microseconds before its `ended_s` is set.
        """
        deadline_s = time.monotonic() + timeout_s
        while self.n_open():
            if time.monotonic() > deadline_s:
                return False
            time.sleep(0.002)
        return True

    def n_open(self) -> int:
        """Return the number of requests still under way."""
        return sum(request.ended_s is None for request in self.of())


def as_plain(entries: Iterable[LoggedRequest | Leak]) -> list[dict[str, Any]]:
    """Return entries as JSON-able dictionaries."""
    return [asdict(entry) for entry in entries]
