"""The requests and bytes that the origin counted, from the lines of its access log. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

#: The log format that `Request.parse` understands, in nginx's words.
LOG_FORMAT = (
    "$msec $request_time $server_port $connection $status $body_bytes_sent "
    '$request_method $uri "$http_range"'
)


@dataclass(frozen=True, slots=True)
class Request:
    """One request that the origin has finished with."""

    finished_s: float
    took_s: float
    port: int
    connection: int
    status: int
    body_bytes: int
    method: str
    path: str
    range: str | None

    @classmethod
    def parse(cls, line: str) -> Request:
        """Return the request of one line of the log.

        Raises:
            ValueError: the line is not in `LOG_FORMAT`.
        """
        head, _, rest = line.rstrip("\n").partition(' "')
        finished, took, port, connection, status, body, method, path = head.split(" ", 7)
        asked = rest.removesuffix('"')
        return cls(
            float(finished),
            float(took),
            int(port),
            int(connection),
            int(status),
            int(body),
            method,
            path,
            None if asked == "-" else asked,
        )

    @property
    def kind(self) -> str:
        """Return the kind of the request, in one word."""
        if self.path == "/oauth/token":
            return "token"
        if self.path == "/contracts":
            return "contracts"
        if self.path.startswith("/tasking/"):
            return "captures" if self.path.endswith("/captures/") else "tasks"
        if self.path.startswith("/telluric/"):
            return "link" if self.path.endswith("/download/") else "scenes"
        if self.method != "GET":
            return "head"
        if self.range is not None:
            return "tail" if self.range.startswith("bytes=-") else "range"
        return "listing" if self.path.endswith("/") else "whole"


#: Kinds that carry bytes of objects, as opposed to words about them.
CONTENT_KINDS = frozenset({"range", "tail", "whole"})


@dataclass(frozen=True, slots=True)
class Traffic:
    """Requests of one measurement, summed."""

    requests: int
    content_requests: int
    content_bytes: int
    connections: int
    #: Most content requests that were under way at one time.
    peak_connections: int
    kinds: dict[str, int]


def summarise(requests: Iterable[Request]) -> Traffic:
    """Return the sums over *requests*."""
    seen = list(requests)
    content = [one for one in seen if one.kind in CONTENT_KINDS]
    return Traffic(
        requests=len(seen),
        content_requests=len(content),
        content_bytes=sum(one.body_bytes for one in content),
        connections=len({one.connection for one in content}),
        peak_connections=peak_concurrency(
            [(one.finished_s - one.took_s, one.finished_s) for one in content]
        ),
        kinds=dict(Counter(one.kind for one in seen)),
    )


def peak_concurrency(spans: Iterable[tuple[float, float]]) -> int:
    """Return the largest number of *spans* (start, stop) that have a moment in common.

    A span that stops when another starts does not overlap it.
    """
    steps = sorted(step for start, stop in spans for step in ((start, 1), (max(stop, start), -1)))
    under_way = most = 0
    for _, change in steps:
        under_way += change
        most = max(most, under_way)
    return most
