"""The named faults of a store and of an API, and a read of a file that meets one of them.

Every fault breaks the requests about one scene, or one whole side, and is mended in the end: then
the same file must read right again, unless what happened to it is for good.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from reliability.stand import MIB, RECOVERY_S, Stand

Break = Callable[[Stand, str], object]

RIGHT: frozenset[int] = frozenset()
FAILS = frozenset({errno.EIO, errno.ETIMEDOUT})
STALE = frozenset({errno.ESTALE})
DENIED = frozenset({errno.EACCES})
ABSENT = frozenset({errno.ENOENT})


@dataclass(frozen=True)
class Fault:
    """One row: what breaks, once the file is open or before anybody looked, and what is seen.

    *sees*: `RIGHT` bytes, or one of these errnos.
    """

    name: str
    breaks: Break
    sees: frozenset[int] = RIGHT
    is_before: bool = False
    is_about_links: bool = False
    size_bytes: int = 3 * MIB


def store(name: str, **how: object) -> Break:
    """Break requests for a scene's object."""
    return lambda stand, scene: stand.origin.faults.add(
        name,
        "object",
        path_contains=scene,
        **how,
    )


def api(name: str, endpoint: str = "api", **how: object) -> Break:
    """Break requests to the API."""
    return lambda stand, scene: stand.origin.faults.add(
        name,
        endpoint,
        **how,
    )


def both(*breaks: Break) -> Break:
    """Break several things."""

    def break_all(stand: Stand, scene: str) -> None:
        for each in breaks:
            each(stand, scene)

    return break_all


def stops_listening(*sides: str) -> Break:
    return lambda stand, scene: stand.origin.stop_listening(*sides)


def calls(name: str, *args: object) -> Break:
    """Call a method of the origin."""
    return lambda stand, scene: getattr(stand.origin, name)(*args)


def link_leads(url: str) -> Break:
    """Have every new link lead elsewhere for five seconds, and the present ones refused."""

    def lead(stand: Stand, scene: str) -> None:
        signed_at = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        query = f"?X-Amz-Date={signed_at}&X-Amz-Expires=5"
        stand.origin.faults.add("foreign-link", "sign", url=url + query)
        stand.origin.expire_links()

    return lead


STORE_FAULTS = [
    # -- connections
    Fault("refused", stops_listening("store"), FAILS),
    Fault("refused before", stops_listening("store"), FAILS, is_before=True),
    Fault("reset at a byte", store("reset", at_byte=200_000, count=4)),
    Fault("reset at every byte 1000", store("reset", at_byte=1000), FAILS),
    Fault("cut at a byte", store("cut", at_byte=200_000, count=4)),
    Fault("stall in mid body", store("stall", at_byte=100_000, count=2)),
    Fault("stall for good", store("stall", at_byte=1000), FAILS),
    Fault("no response once", store("hang", count=1)),
    Fault("no response ever", store("hang"), FAILS),
    Fault("one response for each connection", store("few-responses")),
    Fault("two responses for each connection", store("few-responses", responses=2)),
    Fault("one response for each connection before", store("few-responses"), is_before=True),
    Fault("slow drip", store("drip", bytes_per_s=500_000), size_bytes=MIB),
    Fault("dropped connections", calls("drop_connections")),
    Fault(
        "name that resolves to nothing",
        link_leads("http://no-such-host.invalid/x"),
        FAILS,
        is_about_links=True,
    ),
    # -- heads, and connections that end
    *(
        Fault(f"odd response: {shape}", store("odd-response", shape=shape))
        for shape in (
            "interim",
            "continue",
            "http-1.0",
            "close",
            "unannounced",
            "folded",
            "capitals",
            "long-head",
            "twice",
            "trailer",
            "bare-lf",
            "no-reason",
            "listed-length",
            "until-close",
        )
    ),
    *(
        Fault(f"odd response before: {shape}", store("odd-response", shape=shape), is_before=True)
        for shape in ("http-1.0", "folded", "bare-lf", "no-reason", "listed-length", "until-close")
    ),
    Fault("short body until close", store("odd-response", shape="short-until-close", count=3)),
    Fault("short body until close ever", store("odd-response", shape="short-until-close"), FAILS),
    Fault(
        "short body until close before",
        store("odd-response", shape="short-until-close", count=3),
        is_before=True,
    ),
    Fault("two lengths once", store("odd-response", shape="two-lengths", count=1)),
    Fault("two lengths ever", store("odd-response", shape="two-lengths"), FAILS),
    Fault("large packets lost for a moment", store("large-lost", count=2)),
    Fault("large packets lost", store("large-lost"), FAILS),
    Fault("several parts once", store("odd-response", shape="several-parts", count=1)),
    Fault("several parts ever", store("odd-response", shape="several-parts")),
    Fault("several parts before", store("odd-response", shape="several-parts"), is_before=True),
    Fault("304 once", store("redirect", status=304, count=1)),
    Fault("304 ever", store("redirect", status=304), FAILS),
    # -- wrong bodies --
    Fault(
        "truncated with correct framing",
        store("short-body", bytes=200_000, count=4),
        is_about_links=True,
    ),
    Fault("truncated ever", store("short-body", bytes=1000), FAILS),
    Fault("small parts of ranges", store("short-range", bytes=12_000), size_bytes=500_000),
    Fault("parts of ranges", store("short-range", bytes=300_000)),
    Fault("more than each range", store("wide-range")),
    Fault("more than each range, by far", store("wide-range", bytes=900_001)),
    Fault("the whole object as a range", store("wide-range", bytes=4 * MIB)),
    Fault("more than each range before", store("wide-range"), is_before=True),
    Fault("wrong Content-Range once", store("wrong-content-range", count=1)),
    Fault("wrong Content-Range ever", store("wrong-content-range"), FAILS),
    Fault("wrong total", store("wrong-total"), STALE | FAILS, is_about_links=True),
    Fault("no Content-Range", store("no-content-range"), FAILS, is_about_links=True),
    Fault("200 for a range once", store("whole-for-range", count=1)),
    Fault("200 for every range", store("whole-for-range"), size_bytes=MIB),
    Fault(
        "200 for every range, chunked",
        both(store("whole-for-range"), store("no-length")),
        size_bytes=4 * MIB,
    ),
    Fault(
        "200 for every range, chunked, before",
        both(store("whole-for-range"), store("no-length")),
        size_bytes=4 * MIB,
        is_before=True,
    ),
    Fault("200 for every range of a longer file", store("whole-for-range"), size_bytes=8 * MIB),
    Fault("200 with the range alone once", store("range-as-whole", count=1)),
    Fault("200 with the range alone ever", store("range-as-whole"), FAILS),
    Fault(
        "200 with the range alone, chunked",
        both(store("range-as-whole"), store("no-length")),
        FAILS,
    ),
    Fault("200 with the range alone before", store("range-as-whole"), FAILS, is_before=True),
    Fault("HTML for a range once", store("html", count=1), is_about_links=True),
    Fault("HTML for every range", store("html"), FAILS),
    Fault("HTML before", store("html"), FAILS, is_before=True),
    Fault("an error as JSON for a range twice", store("error-as-object", count=2)),
    Fault("an error as XML for a range twice", store("error-as-object", form="xml", count=2)),
    Fault("an error as JSON for every range", store("error-as-object"), FAILS),
    Fault("an error as JSON before, twice", store("error-as-object", count=2), is_before=True),
    Fault("an error as JSON before", store("error-as-object"), FAILS, is_before=True),
    Fault(
        "no ETag, no date", both(store("no-etag"), store("no-last-modified")), is_about_links=True
    ),
    Fault("chunked body", store("no-length"), is_about_links=True),
    # -- labels
    *(
        Fault(
            f"intact, labelled {label}{when}",
            store("labelled-encoding", value=label),
            is_before=bool(when),
            is_about_links=label != "aws-chunked",
        )
        for label in ("aws-chunked", "gzip", "br", "deflate", "gzip, aws-chunked")
        for when in ("", " before")
    ),
    Fault("coded body", store("encoded-body"), FAILS),
    Fault("coded body before", store("encoded-body"), FAILS, is_before=True),
    Fault("coded form of the object", store("compressed-representation"), FAILS, is_before=True),
    Fault("no total length", store("unknown-total")),
    Fault("no total length before", store("unknown-total"), is_before=True),
    *(
        Fault(
            f"empty object: {shape}",
            store("empty-object", shape=shape),
            is_before=True,
            size_bytes=0,
        )
        for shape in ("no-content", "negative", "zero", "whole", "chunked", "unsized")
    ),
    Fault("204 for a range once", store("server-error", status=204, count=1), is_before=True),
    Fault("204 for ranges ever", store("server-error", status=204), FAILS),
    Fault("weak ETag in turn", store("weak-etag", every=2)),
    Fault("ETag with a suffix in turn", store("suffixed-etag", every=2)),
    Fault("ETag with a suffix before", store("suffixed-etag", every=2), is_before=True),
    Fault("ETag that no condition matches", store("refused-condition")),
    Fault("conditions that the store does not know", store("refused-condition", status=501)),
    # -- another version
    Fault("416", store("range-not-satisfiable", size_bytes=5), STALE),
    Fault("412", store("precondition-failed"), STALE),
    Fault("another ETag", store("other-etag"), STALE),
    Fault("404 of the object", store("not-found"), STALE),
    Fault("400 to each condition", store("refused-condition", status=400), is_before=True),
    Fault("404 twice", store("not-found", count=2)),
    # The file takes some 13 requests: a third 404, which is final, would meet one range by chance.
    Fault("404 now and then", store("not-found", every=6), size_bytes=8 * MIB),
    Fault("404 before", store("not-found"), ABSENT, is_before=True),
    # -- links
    Fault("expired link once", store("expired-link", count=1)),
    Fault("keys changed twice", store("forbidden", count=2), is_about_links=True),
    Fault("expired link ever", store("expired-link"), DENIED),
    Fault("all links expired", calls("expire_links"), is_about_links=True),
    Fault("403 for good", store("forbidden"), DENIED),
    Fault("403 before", store("forbidden"), DENIED, is_before=True),
    Fault("refused by the program's name", store("refused-agent", agent="satfs"), DENIED),
    Fault("403 with a new code, twice", store("forbidden", code="ANewCode", count=2)),
    Fault("400 InvalidToken twice", store("forbidden", status=400, code="InvalidToken", count=2)),
    Fault("403 to later ranges", store("forbidden", skip=2, count=3), size_bytes=16 * MIB),
    Fault("ExpiredToken once", store("expired-token", count=1), is_about_links=True),
    Fault("ExpiredRequest once", store("expired-request", count=1), is_about_links=True),
    Fault(
        "link without a url",
        both(api("no-link", "sign"), calls("expire_links")),
        FAILS,
        is_about_links=True,
    ),
    Fault("link to a file", link_leads("file:///etc/passwd"), FAILS | DENIED, is_about_links=True),
    Fault(
        "link to a link-local host",
        link_leads("http://169.254.169.254/x"),
        DENIED,
        is_about_links=True,
    ),
    Fault("redirect to an invalid address", store("redirect", location="https://[x"), FAILS),
    *(
        Fault(f"{status} to no address", store("redirect", status=status), FAILS)
        for status in (301, 307)
    ),
    Fault("302 to no address once", store("redirect", status=302, count=1)),
    # -- busy
    Fault("SlowDown, Retry-After 1", store("throttled", retry_after=1, count=1)),
    Fault("SlowDown, Retry-After date", store("throttled", retry_after=1, as_date=True, count=1)),
    Fault(
        "SlowDown, Retry-After date, clock an hour ahead",
        both(
            calls("advance_clock", 3600.0),
            store("throttled", retry_after=1, as_date=True, count=1),
        ),
    ),
    *(
        Fault(f"SlowDown, Retry-After {value}", store("throttled", retry_after=value, count=1))
        for value in ("-5", "NaN", "inf", "soon", "1e-9")
    ),
    Fault("SlowDown, Retry-After 30 years", store("throttled", retry_after=10**9), FAILS),
    Fault("SlowDown, a tenth", store("throttled", retry_after=None, every=10), size_bytes=16 * MIB),
    Fault("a status that no store has", store("forbidden", status=418, code="Odd", every=3)),
    Fault("202 in a burst", store("server-error", status=202, count=3)),
    Fault("202 before", store("server-error", status=202, count=3), is_before=True),
    Fault("409 in a burst", store("forbidden", status=409, code="OperationAborted", count=2)),
    Fault("500 in a burst", store("server-error", status=500, count=2)),
    Fault("502 in a burst", store("server-error", status=502, count=2)),
    Fault("503 in a burst", store("server-error", status=503, count=2)),
    Fault("504 in a burst", store("server-error", status=504, count=2)),
    Fault("520 in a burst", store("server-error", status=520, count=2)),
    Fault("599 in a burst", store("server-error", status=599, count=3)),
    Fault("500 ever", store("server-error", status=500), FAILS),
]

API_FAULTS = [
    # -- before anybody looked
    Fault("next page in a header", api("link-header"), is_before=True),
    Fault("API 429, Retry-After 1", api("throttled", "scene", count=1), is_before=True),
    Fault("API 429, date", api("throttled", "scene", as_date=True, count=1), is_before=True),
    Fault("API 429, an hour", api("throttled", "scene", retry_after=3600), FAILS, is_before=True),
    *(
        Fault(
            f"API 429, Retry-After {value}",
            api("throttled", "scene", retry_after=value, count=1),
            is_before=True,
        )
        for value in ("-5", "NaN", "inf", "soon")
    ),
    Fault(
        "API 429, 30 years",
        api("throttled", "scene", retry_after=10**9, count=1),
        FAILS,
        is_before=True,
    ),
    *(
        Fault(f"API, odd response: {shape}", api("odd-response", shape=shape), is_before=True)
        for shape in (
            "interim", "continue", "http-1.0", "unannounced", "folded", "capitals", "twice",
            "trailer", "bare-lf", "no-reason", "listed-length", "until-close",
        )
    ),
    Fault(
        "API, two lengths once", api("odd-response", shape="two-lengths", count=1), is_before=True
    ),
    Fault("API, two lengths ever", api("odd-response", shape="two-lengths"), FAILS,
          is_before=True),
    Fault("API, large packets lost for a moment", api("large-lost", bytes=100, count=1),
          is_before=True),
    Fault("API, large packets lost", api("large-lost", bytes=100), FAILS, is_before=True),
    Fault("gzip that ends early once", api("short-gzip", "scene", count=1), is_before=True),
    Fault("gzip that ends early ever", api("short-gzip"), FAILS, is_before=True),
    Fault("API 301 to no address ever", api("redirect", status=301), FAILS, is_before=True),
    Fault("API 302 to no address for a link", api("redirect", "sign", status=302, count=1),
          is_before=True),
    Fault("API 304 ever", api("redirect", status=304), FAILS, is_before=True),
    Fault("HTML 403 twice", api("html", "scene", status=403, count=2), is_before=True),
    Fault("HTML 403 ever", api("html", status=403), DENIED, is_before=True),
    Fault("HTML 403 of links", api("html", "sign", status=403, count=2), is_before=True),
    Fault(
        "HTML 403 for tokens",
        both(calls("revoke_tokens"), api("html", "token", status=403, count=2)),
        is_before=True,
    ),
    Fault("API 500", api("server-error", "scene", status=500, count=2), is_before=True),
    Fault("API 502", api("server-error", "sign", status=502, count=2), is_before=True),
    Fault("API 503", api("server-error", "scene", status=503, count=2), is_before=True),
    Fault("API 521", api("server-error", "scene", status=521, count=2), is_before=True),
    Fault("API 530", api("server-error", "sign", status=530, count=2), is_before=True),
    Fault("API, one response for each connection", api("few-responses"), is_before=True),
    Fault("API 202 for a link", api("server-error", "sign", status=202, count=2), is_before=True),
    Fault("API 504 ever", api("server-error", "scene", status=504), FAILS, is_before=True),
    Fault("HTML as JSON once", api("html", "scene", count=1), is_before=True),
    Fault("HTML as JSON ever", api("html"), FAILS, is_before=True),
    Fault("broken JSON once", api("broken-json", "scene", count=1), is_before=True),
    Fault("broken JSON ever", api("broken-json", "sign"), FAILS, is_before=True),
    *(
        Fault(f"wrong types: {shape}", api("wrong-types", shape=shape), FAILS,
              is_before=True)
        for shape in ("null", "list", "string", "number")
    ),
    Fault("API that never responds", api("hang", "scene"), FAILS, is_before=True),
    # -- tokens
    Fault("token revoked", both(calls("revoke_tokens"), calls("expire_links"))),
    Fault("token revoked before", calls("revoke_tokens"), is_before=True),
    Fault(
        "token endpoint down",
        both(calls("revoke_tokens"), calls("expire_links"), api("server-error", "token")),
        FAILS,
    ),
    Fault("clock jumps ahead", calls("advance_clock", 100_000.0)),
    Fault("clock jumps back", calls("advance_clock", -100_000.0)),
]  # fmt: skip


def suffer(stand: Stand, fault: Fault) -> None:
    """Break, read, mend, read again."""
    scene = stand.publish(fault.size_bytes)
    content = stand.content(scene)
    descriptor: int | None = None
    seen: int | None = None
    try:
        if fault.is_before:
            fault.breaks(stand, scene)
            descriptor = stand.open(scene)
        else:
            descriptor = stand.open(scene)
            stand.compare(descriptor, content, content.size_bytes - 1000)
            fault.breaks(stand, scene)
        stand.compare(descriptor, content)
    except OSError as failure:
        seen = failure.errno
    finally:
        hits = [each.hits for each in stand.origin.faults]
        stand.settle()
    try:
        name = errno.errorcode[seen] if seen else "right bytes"
        assert (seen in fault.sees) if fault.sees else seen is None, f"seen: {name}"
        assert not hits or any(hits), "the fault met no request"
        stand.until(RECOVERY_S, lambda: _compare_anew(stand, scene))
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _compare_anew(stand: Stand, scene: str) -> None:
    with stand.opened(scene) as descriptor:
        stand.compare(descriptor, stand.content(scene))
