"""An explanation of the reads of one file: whether they were slow, and why.

*Pure*: a trace and what is known besides go in, text comes out, 80 columns wide where names allow.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from statistics import median
from typing import Final

from satfs.humanize import format_bytes, format_count, format_duration
from satfs.introspection.status import UnreachableHost
from satfs.read_trace import (
    BYTES,
    CONFIRM,
    DONE,
    LINK,
    SIZE,
    UNDER_WAY,
    ReadTrace,
    TracedRequest,
    TraceTotals,
)

#: A wait shorter than this is nothing that a person notices, in seconds.
NOTICED_S: Final = 0.25
#: A first byte that takes this share of a request shows that the way is long, and not narrow.
MOSTLY_LATENCY: Final = 0.5
#: A program that reads this little at a time waits for round trips, and not for bytes.
SMALL_BYTES: Final = 1024 * 1024

#: The width of a terminal's line, in columns.
_COLUMNS: Final = 80

#: The purpose of each kind of request, in singular and plural.
_KINDS: Final = {
    LINK: ("link from the API", "links from the API"),
    SIZE: ("request for size and version", "requests for size and version"),
    CONFIRM: ("check of the version", "checks of the version"),
    BYTES: ("range of bytes", "ranges of bytes"),
}
_CELLS: Final = "{:<8} {:<7} {:<30} {:>6} {:>6} {:>8} "
_HEADER: Final = _CELLS.format("time UTC", "what", "bytes wanted", "begun", "took", "received")


def explain_object(
    trace: ReadTrace | None,
    *,
    link_left_s: float | None = None,
    away: Sequence[UnreachableHost] = (),
    clean: Callable[[str], str] = str,
) -> str:
    """Return what is known of reading the object of *trace*.

    *clean* takes out of a text from outside what may not be shown.
    """
    if trace is None:
        return "No program has read it lately: nothing is noted about it.\n"
    lines = [_wrapped(sentence, "  ") for sentence in _summary(trace.own, link_left_s)]
    lines += ["", "Was it slow, and why?"]
    for sentence in reasons(trace, away):
        lines += textwrap.wrap(
            clean(sentence), _COLUMNS, initial_indent="- ", subsequent_indent="  "
        )
    if trace.failures:
        lines += ["", "Errors that programs got instead of bytes, oldest first:"]
        lines += [
            _wrapped(f"{_time(each.at_s)}  {each.kind}: {clean(each.words)}", " " * 10)
            for each in trace.failures
        ]
    if trace.requests:
        n_all = sum(trace.own.requests.values())
        left_out = n_all - len(trace.requests)
        some = f"the last {len(trace.requests)} of {n_all}, " if left_out > 0 else ""
        lines += ["", f"Requests, {some}oldest first:", f"{_HEADER}outcome"]
        lines += [_row(each, clean) for each in trace.requests]
    return "\n".join(lines) + "\n"


def reasons(trace: ReadTrace, away: Sequence[UnreachableHost] = ()) -> Iterator[str]:
    """Yield, in sentences, why reading was as slow as it was."""
    own = trace.own
    for host in away:
        yield f"{host.origin} has not responded for {host.for_s:.0f} s ({host.reason})."
    if own.n_failures:
        last = trace.failures[-1]
        yield f"{_times(own.n_failures)} a read ended with an error; the last was {last.kind}."
    waiting = [each for each in trace.requests if each.outcome == UNDER_WAY]
    if waiting:
        yield f"{format_count(len(waiting), 'request is', 'requests are')} under way now."
    if not own.n_reads and not own.n_waits:
        yield "No program has read it since it was noted first."
        return
    if own.longest_wait_s < NOTICED_S:
        yield (
            f"No: the longest wait was {_seconds(own.longest_wait_s)}. All else came from the"
            " cache, or was read ahead in time."
        )
        return
    yield f"The longest wait was {_seconds(own.longest_wait_s)}."
    if own.unlucky:
        how = ", ".join(f"{n} {outcome}" for outcome, n in own.unlucky.most_common(4))
        yield f"{format_count(sum(own.unlucky.values()), 'request')} ended early ({how})."
    yield from _pace([each for each in trace.requests if each.what == BYTES and each.took_s])
    for what in (LINK, SIZE, CONFIRM):
        slowest = max(
            (each.took_s or 0.0 for each in trace.requests if each.what == what), default=0
        )
        if slowest >= NOTICED_S:
            yield f"A {_KINDS[what][0]} took {_seconds(slowest)}."


def _pace(ranges: Sequence[TracedRequest]) -> Iterator[str]:
    """Yield what set the pace of the *ranges* that ended: latency, or bandwidth."""
    done = [each for each in ranges if each.outcome == DONE and each.first_byte_s is not None]
    if not done:
        return
    first_s = median(each.first_byte_s or 0.0 for each in done)
    took_s = sum(each.took_s or 0.0 for each in done)
    first_share = sum(each.first_byte_s or 0.0 for each in done) / took_s if took_s else 0.0
    usual_bytes = median(each.received_bytes for each in done)
    if first_share >= MOSTLY_LATENCY:
        yield (
            f"A first byte took {_seconds(first_s)} as a rule, {first_share:.0%} of the time of"
            " all requests: the way to the store, or the store, is slow to begin."
        )
        if usual_bytes < SMALL_BYTES:
            yield (
                f"Ranges were small, {format_bytes(usual_bytes)} as a rule: reads here and there in"
                " the file pay that way each time; reading in order pays it seldom."
            )
        return
    flowing_s = took_s - sum(each.first_byte_s or 0.0 for each in done)
    if flowing_s > 0:
        speed = sum(each.received_bytes for each in done) / flowing_s
        yield f"Bytes came at {format_bytes(speed)}/s on each connection: the line sets the pace."


def _summary(own: TraceTotals, link_left_s: float | None) -> Iterator[str]:
    n_ready = max(0, own.n_reads - own.n_waits)
    yield (
        f"Opened {_times(own.n_opens)}; {format_count(own.n_reads, 'read')} of"
        f" {format_bytes(own.served_bytes)} in all."
    )
    if own.n_waits:
        yield (
            f"{n_ready} had the bytes here already; {own.n_waits} waited,"
            f" {_seconds(own.waited_s)} in all, {_seconds(own.longest_wait_s)} at most."
        )
    elif own.n_reads:
        yield "All of them had the bytes here already."
    if own.predicted_bytes or own.unread_bytes:
        yield (
            f"Of raster blocks, {format_bytes(own.predicted_bytes)} were fetched before they were"
            f" read, and {format_bytes(own.unread_bytes)} were never read."
        )
    requested = [
        format_count(n, *_KINDS[what]) for what, n in own.requests.items() if what in _KINDS
    ]
    if requested:
        yield f"Requests: {', '.join(requested)}; {format_bytes(own.received_bytes)} received."
    if link_left_s is not None and link_left_s != float("inf"):
        yield f"Its link is good for {format_duration(link_left_s)} more."


def _row(each: TracedRequest, clean: Callable[[str], str]) -> str:
    span = "" if each.span is None else f"[{each.span.start}, {each.span.stop})"
    first = "" if each.first_byte_s is None else _seconds(each.first_byte_s)
    took = "" if each.took_s is None else _seconds(each.took_s)
    got = format_bytes(each.received_bytes) if each.received_bytes else ""
    cells = _CELLS.format(_time(each.at_s), each.what, span, first, took, got)
    # An outcome with its reason may be long: it goes on below itself.
    return _wrapped(f"{cells}{clean(each.outcome)}", " " * len(cells)).rstrip()


def _wrapped(text: str, indent: str) -> str:
    return textwrap.fill(
        text,
        _COLUMNS,
        subsequent_indent=indent,
        replace_whitespace=False,
        drop_whitespace=True,
        break_on_hyphens=False,
    )


def _time(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%H:%M:%S")


def _times(count: int) -> str:
    return {0: "never", 1: "once", 2: "twice"}.get(count, f"{count} times")


def _seconds(value: float) -> str:
    if value < 1:
        return f"{value * 1000:.0f} ms"
    return f"{value:.1f} s" if value < 100 else f"{value:.0f} s"
