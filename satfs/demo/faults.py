"""Faults by name: the requests that a fault meets, how often, and with which parameters.

`KINDS` is the list of names. `effects` has what each of them does to a response.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

#: The endpoints a fault may be limited to. `api` means all of them but `object`.
ENDPOINTS: Final = frozenset(
    {
        "token", "contracts", "products", "clients", "tasks", "task", "captures", "scenes", "scene",
        "sign", "object", "other",
    }
)  # fmt: skip


@dataclass(frozen=True)
class FaultKind:
    """The meaning of a name, and its parameters with their defaults."""

    sentence: str
    parameters: Mapping[str, Any] = field(default_factory=dict)


#: How a connection beyond the limit is treated.
LIMIT_MODES: Final = frozenset({"reset", "close", "503", "queue"})

KINDS: Final[Mapping[str, FaultKind]] = {
    # in place of a response
    "server-error": FaultKind(
        "A 5xx of the endpoint's dialect.", {"status": 503, "retry_after": None}
    ),
    "throttled": FaultKind(
        "429 (503 SlowDown at the store). Retry-After: seconds, or those as a date, or none.",
        {"retry_after": 1, "as_date": False},
    ),
    "unauthorized": FaultKind(
        "401 in the gateway's form; *seconds* end it that long after the first request it meets.",
        {"seconds": None},
    ),
    "forbidden": FaultKind(
        "403: an explicit deny; at the store *code*, with *status*.",
        {"status": 403, "code": "AccessDenied"},
    ),
    "not-found": FaultKind("404 of the endpoint's dialect."),
    "error-as-object": FaultKind(
        "An error document with status 200, ETag and date, as a server of files sends it. As: "
        "json, html, xml (store).",
        {"form": "json"},
    ),
    "html": FaultKind("A maintenance page as text/html.", {"status": 200}),
    "refused-agent": FaultKind(
        "A firewall's page with 403 for programs whose name (User-Agent) contains *agent*.",
        {"agent": "", "status": 403},
    ),
    "broken-json": FaultKind("The right response, its second half missing, framing correct."),
    "wrong-types": FaultKind(
        "JSON of another shape. As: null, list, string, number, results-null, results-object, "
        "results-strings, fields-scrambled.",
        {"shape": "fields-scrambled"},
    ),
    "costly-page": FaultKind(
        "A page of *size_bytes* that takes far more time and memory to parse. As: lists, objects, "
        "records, numbers, keys, depth, text; *gzip* compresses it, unrequested.",
        {"shape": "lists", "size_bytes": 31 * 2**20, "gzip": True},
    ),
    "short-gzip": FaultKind(
        "The right response, compressed by gzip unrequested, its second half missing."
    ),
    "redirect": FaultKind(
        "A redirect to *location*, or to no address.", {"location": "", "status": 307}
    ),
    "expired-link": FaultKind("403 AccessDenied, Request has expired (store)."),
    "expired-token": FaultKind("400 ExpiredToken (store)."),
    "expired-request": FaultKind("400 ExpiredRequest (store)."),
    "precondition-failed": FaultKind("412 (store)."),
    "range-not-satisfiable": FaultKind("416 (store).", {"size_bytes": 0}),
    # headers about the bytes are wrong
    "whole-for-range": FaultKind("200 with the whole body for a range (store)."),
    "range-as-whole": FaultKind(
        "A proxy makes the 206 a 200 without Content-Range: it looks like a shorter object (store)."
    ),
    "wrong-content-range": FaultKind("Content-Range is shifted by *shift* bytes.", {"shift": 1}),
    "wrong-total": FaultKind("Content-Range has another total length.", {"by": 1}),
    "no-content-range": FaultKind("206 without Content-Range."),
    "no-etag": FaultKind("No ETag."),
    "weak-etag": FaultKind("A weak ETag."),
    "suffixed-etag": FaultKind(
        "The ETag of a server that might have compressed (store).", {"suffix": "-gzip"}
    ),
    "other-etag": FaultKind("Another ETag than the object's.", {"etag": '"0123456789abcdef"'}),
    "no-last-modified": FaultKind("No Last-Modified."),
    "flipping-etag": FaultKind(
        "A replica that gives the object another ETag, and judges If-Match by it (store).",
        {"etag": '"fedcba9876543210"'},
    ),
    "refused-condition": FaultKind(
        "412 to each If-Match, as of a server that has another ETag than it shows; with *status* "
        "501 or 400, as of one that knows no conditions (store).",
        {"status": 412},
    ),
    "archived": FaultKind("403 InvalidObjectState: the object is in an archive (store)."),
    "labelled-encoding": FaultKind(
        "A Content-Encoding that nothing was done for: the bytes are the object's (store).",
        {"value": "aws-chunked"},
    ),
    "encoded-body": FaultKind("The body is compressed by gzip, and labelled so (store)."),
    "compressed-representation": FaultKind(
        "Ranges are those of the object compressed by gzip, as RFC 9110 allows (store)."
    ),
    "empty-object": FaultKind(
        "The object has no bytes. As: no-content (204), negative (206 with bytes 0--1/0), zero "
        "(206 with bytes 0-0/0), whole (200), chunked (likewise), unsized (416 without the "
        "length for a range) (store).",
        {"shape": "no-content"},
    ),
    "unknown-total": FaultKind("Content-Range has * for the total length (store)."),
    "no-length": FaultKind("No Content-Length: chunked transfer encoding."),
    "short-body": FaultKind("The body ends early, and Content-Length agrees.", {"bytes": 100}),
    "short-range": FaultKind(
        "A part of the range is sent, and Content-Range states it (store).", {"bytes": 300_000}
    ),
    "wide-range": FaultKind(
        "More than the range is sent, and Content-Range states it: whole pieces of *bytes*, as a "
        "cache keeps them (store).",
        {"bytes": 65_536},
    ),
    "odd-response": FaultKind(
        "The right response, oddly written, and the connection closed after it. As: interim (103 "
        "before it), continue (100 before it), http-1.0, close (announced), unannounced, folded, "
        "capitals, long-head, bare-lf, no-reason, twice (Content-Length), listed-length (twice in "
        "one header), two-lengths (that differ), trailer, several-parts (multipart/byteranges), "
        "until-close (no length), short-until-close (likewise, 1,000 bytes are missing).",
        {"shape": "unannounced"},
    ),
    # on the way
    "latency": FaultKind("The response starts later.", {"seconds": 1.0}),
    "held": FaultKind("The response starts when the fault is switched off."),
    "hang": FaultKind("No response is ever sent; the connection stays open."),
    "cut": FaultKind(
        "The connection closes at the n-th byte of the body; *announced*: with TLS's close_notify.",
        {"at_byte": 100, "announced": False},
    ),
    "reset": FaultKind("The connection is reset at the n-th byte of the body.", {"at_byte": 100}),
    "large-lost": FaultKind(
        "Large packets are lost on the way: of a body longer than *bytes* nothing comes.",
        {"bytes": 1300},
    ),
    "stall": FaultKind(
        "After the n-th byte of the body comes no byte for so long; then the rest.",
        {"at_byte": 100, "seconds": 3600.0},
    ),
    "drip": FaultKind("The body comes slowly.", {"bytes_per_s": 1000.0}),
    "few-responses": FaultKind(
        "A connection gets *responses* responses, and is kept open and silent from then on.",
        {"responses": 1},
    ),
    # connections: `object` means the store's port, `api` that of the API
    "connection-limit": FaultKind(
        "Further connections are not served. How: reset or close (as they come), 503 (to each "
        "of their requests), queue (they wait until another one closes).",
        {"connections": 4, "how": "reset"},
    ),
    # listings
    "endless-next": FaultKind("Every page names a next one, with new entries on it for ever."),
    "page-loop": FaultKind("The last page names the first one as its next."),
    "foreign-next": FaultKind(
        "`next` leads to another host, with the same path or with the one given.",
        {"base": "http://127.0.0.2:9", "path": ""},
    ),
    "limit-refused": FaultKind(
        "A `limit` above *most* is refused with *status*; without one, pages have that many.",
        {"most": 5, "status": 422},
    ),
    "relative-next": FaultKind("`next` is relative."),
    "link-header": FaultKind("The next page is in the header `Link` (RFC 8288), not in the body."),
    "short-pages": FaultKind(
        "Pages have so many entries at most, and those of contracts as well.", {"entries": 1}
    ),
    "page-form": FaultKind(
        "Pages in the form of another service. As: items, json-api, hal, stac, tastypie, counted "
        "(a count, and no address of the next page).",
        {"form": "items"},
    ),
    "bare-list": FaultKind(
        "Pages are lists alone. The next one is requested by offset, page (from 1), page-from-0 or "
        "nothing: then each request gets the first one.",
        {"by": "offset"},
    ),
    "encoding": FaultKind("JSON in another encoding than UTF-8.", {"encoding": "utf-16"}),
    "empty-pages": FaultKind(
        "*pages* pages without an entry come before each page: the filter is applied last.",
        {"pages": 5},
    ),
    "wrong-count": FaultKind("`count` is this instead.", {"value": None}),
    "listing-grows": FaultKind("From the second page on, entries are inserted in front.",
                          {"entries": 1}),
    "listing-shrinks": FaultKind("From the second page on, entries in front are gone.",
                            {"entries": 1}),
    # links
    "short-link": FaultKind("The link expires after so long.", {"seconds": 2}),
    "stale-link": FaultKind("The link has expired already when it is handed out."),
    "repeated-link": FaultKind(
        "For so long the link that was handed out before is handed out again, from a cache.",
        {"seconds": 2.0},
    ),
    "link-not-yet-valid": FaultKind(
        "The signer's clock is ahead: the store refuses the link for so long, with 403 and *code*.",
        {"seconds": 1.0, "code": "AccessDenied"},
    ),
    "token-not-yet-valid": FaultKind(
        "The issuer's clock is ahead: the token is refused for so long (endpoint `token`).",
        {"seconds": 1.0, "status": 401},
    ),
    "temporary-credentials": FaultKind(
        "The link is signed with a session that ends before the time that the link states.",
        {"seconds": 2.0},
    ),
    "link-by-name": FaultKind(
        "The link names the store by *host*, which has to be resolved.",
        {"host": "localhost"},
    ),
    "foreign-link": FaultKind("The link is this instead.", {"url": "file:///etc/passwd"}),
    "no-link": FaultKind("The response names no link."),
}  # fmt: skip


@dataclass
class Fault:
    """One thing that is broken, for as long as it is.

    *endpoint*: one of `ENDPOINTS`, `api`, or `*`. Of the requests it could meet, the first *skip*
    pass, then each *every*-th is met with *probability* (drawn from *seed*), at most *count* times.
    *path_contains* and *ranged* (has or has no Range header) narrow it down further.
    """

    name: str
    endpoint: str = "*"
    count: int | None = None
    skip: int = 0
    every: int = 1
    probability: float = 1.0
    seed: int = 0
    path_contains: str = ""
    ranged: bool | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    #: How many requests it has met so far.
    hits: int = 0
    #: When it met the first one, by the origin's clock, where that matters.
    since_s: float | None = None

    def __post_init__(self) -> None:
        kind = KINDS.get(self.name)
        if kind is None:
            raise ValueError(f"no fault is called {self.name!r}; there are {sorted(KINDS)}")
        if self.endpoint not in ENDPOINTS | {"api", "*"}:
            raise ValueError(f"no endpoint is called {self.endpoint!r}; there are {ENDPOINTS}")
        unknown = set(self.parameters) - set(kind.parameters)
        if unknown:
            raise ValueError(f"{self.name} takes {set(kind.parameters)}, not {unknown}")
        self.parameters = {**kind.parameters, **self.parameters}
        if self.parameters.get("how", "reset") not in LIMIT_MODES:
            raise ValueError(f"how: one of {sorted(LIMIT_MODES)}")
        self._rng = random.Random(self.seed)
        self._seen = 0

    def __getitem__(self, parameter: str) -> Any:
        return self.parameters[parameter]

    def lasts(self, now_s: float) -> bool:
        """Return whether less than its *seconds*, if any, have passed since its first hit."""
        if self.since_s is None:
            self.since_s = now_s
        return self["seconds"] is None or now_s - self.since_s < self["seconds"]

    def meets(self, endpoint: str, path: str, *, ranged: bool) -> bool:
        """Return whether the next request is met, and count it."""
        if self.name == "connection-limit":
            return False
        in_scope = self.endpoint in ("*", endpoint) or (
            self.endpoint == "api" and endpoint != "object"
        )
        if not in_scope or self.path_contains not in path or self.ranged not in (None, ranged):
            return False
        if self.count is not None and self.hits >= self.count:
            return False
        self._seen += 1
        turn = self._seen - self.skip
        if turn <= 0 or turn % self.every or self._rng.random() >= self.probability:
            return False
        self.hits += 1
        return True


#: The fields of `Fault` that state which requests it meets.
_LIMITS: Final = frozenset(
    {"count", "skip", "every", "probability", "seed", "path_contains", "ranged"}
)


class FaultTable:
    """The faults switched on at the moment. Safe to change from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[Fault] = []

    def __iter__(self) -> Iterator[Fault]:
        return iter(list(self._faults))

    def __len__(self) -> int:
        return len(self._faults)

    def add(self, name: str, endpoint: str = "*", **given: Any) -> Fault:
        """Switch a fault on; *given* are fields of `Fault`, and parameters of its kind (`KINDS`).

        Raises:
            ValueError: no fault, endpoint or parameter has that name.
        """
        limits = {key: given.pop(key) for key in _LIMITS & given.keys()}
        fault = Fault(name, endpoint, **limits, parameters=given)
        with self._lock:
            self._faults.append(fault)
        return fault

    def remove(self, fault: Fault) -> None:
        """Switch one fault off; it may be off already."""
        with self._lock:
            self._faults = [other for other in self._faults if other is not fault]

    def clear(self) -> None:
        """Switch all faults off."""
        with self._lock:
            self._faults = []

    def connection_limit(self, side: str) -> Fault | None:
        """Return the limit on connections to one *side*, `api` or `store`, if there is one."""
        endpoint = "object" if side == "store" else side
        limits = (fault for fault in list(self._faults) if fault.name == "connection-limit")
        return next((fault for fault in limits if fault.endpoint in ("*", endpoint)), None)

    def drawn(self, endpoint: str, path: str, *, ranged: bool) -> list[Fault]:
        """Return the faults that meet the next request, in the order they were switched on."""
        with self._lock:
            return [fault for fault in self._faults if fault.meets(endpoint, path, ranged=ranged)]


def named(faults: Sequence[Fault], name: str) -> Fault | None:
    """Return the first fault of that name among those drawn."""
    return next((fault for fault in faults if fault.name == name), None)
