"""`satfs status`: the state of mounts, for people and for scripts."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from datetime import datetime
from typing import Any, Final

import click
from rich.console import Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from satfs.cli.exit_codes import Exit
from satfs.cli.flags import json_flag, mounted_argument, verbosity_flags
from satfs.cli.hints import hint
from satfs.cli.mount_status import (
    MountReport,
    State,
    mount_of,
    mounts_of_user,
    query_mounts,
    remedy_of,
)
from satfs.cli.output import console, new_table, print_json, print_table, show, user_name
from satfs.humanize import format_bytes, format_count, format_duration

#: Transfers and errors shown for each mount; the rest is a number.
_TRANSFERS_SHOWN: Final = 5
_ERRORS_SHOWN: Final = 3
#: How often a watch looks, in seconds.
_INTERVAL_S: Final = 2.0

_STYLES: Final = {State.WORKS: "green", State.OFFLINE: "yellow"}


@click.command(
    epilog="""\b
Examples:
  satfs status                           the state of every mount of yours
  satfs status --short                   … a line for each
  satfs status ~/aleph --watch           … this one, again every two seconds
  satfs status --json | jq '.[].status.cache'

The exit code is 5 if a mount does not answer; with --short it is 0. The mount sends its state over
its control socket; `.satfs/status.json` in the mount has the same. `.satfs/explain/PATH` shows what
reading one file took.
"""
)
@mounted_argument
@click.option(
    "-s", "--short", is_flag=True, help="One line for each mount: place, owner and state."
)
@click.option("-a", "--all", "with_others", is_flag=True, help="Mounts of other users, too.")
@json_flag
@click.option("-w", "--watch", is_flag=True, help="Repeat it until Ctrl-C.")
@click.option(
    "--interval",
    "interval_s",
    type=click.FloatRange(min=0.2),
    metavar="SECONDS",
    help=f"With --watch: how often [default: {_INTERVAL_S:g}].",
)
@verbosity_flags
def status(
    mountpoint: str | None,
    short: bool,
    with_others: bool,
    as_json: bool,
    watch: bool,
    interval_s: float | None,
) -> int:
    """Show the state of all your mounts, or of the mount at MOUNTPOINT.

    It shows whether the API responds, the age of the listings, the content of the cache, the
    transfers in flight, and the last error. A mount that hangs is reported within seconds.
    """
    if interval_s is not None and not watch:
        raise click.UsageError("--interval goes with --watch")
    if watch:
        every_s = interval_s or _INTERVAL_S
        return _watch(mountpoint, as_json, every_s, short=short, with_others=with_others)
    reports = _reports(mountpoint, with_others=with_others)
    _print(reports, as_json=as_json, short=short)
    return Exit.DONE if short else code_of(reports)


def json_of(report: MountReport) -> dict[str, Any]:
    """Return the report of one mount, for scripts."""
    return {
        "mountpoint": report.place,
        "source": report.mounted.source,
        "state": str(report.state),
        "status": report.status,
    }


def short_json_of(report: MountReport) -> dict[str, Any]:
    """Return the report of one mount in short, for scripts."""
    return {
        "mountpoint": report.place,
        "source": report.mounted.source,
        "user": _user(report),
        "state": str(report.state),
        "pid": None if report.status is None else report.status.get("pid"),
    }


def code_of(reports: Sequence[MountReport]) -> Exit:
    """Return the exit code: success only if each mount returned its status."""
    return Exit.DONE if all(each.status is not None for each in reports) else Exit.MOUNTPOINT


def _reports(mountpoint: str | None, *, with_others: bool) -> list[MountReport]:
    if mountpoint is not None:
        return query_mounts([mount_of(mountpoint)])
    return query_mounts(mounts_of_user(with_others=with_others))


def _watch(
    mountpoint: str | None, as_json: bool, interval_s: float, *, short: bool, with_others: bool
) -> int:
    reports = _reports(mountpoint, with_others=with_others)
    is_screen = sys.stdout.isatty() and not as_json
    try:
        with Live(console=console(), auto_refresh=False) if is_screen else nullcontext() as live:
            while True:
                if live is None:
                    _print(reports, as_json=as_json, short=short, is_line=True)
                    sys.stdout.flush()
                else:
                    live.update(_shown(reports, short=short), refresh=True)
                time.sleep(interval_s)
                reports = _reports(mountpoint, with_others=with_others)
    except KeyboardInterrupt:  # how a watch ends
        return Exit.DONE if short else code_of(reports)


def _print(
    reports: Sequence[MountReport], *, as_json: bool, short: bool, is_line: bool = False
) -> None:
    if as_json:
        query = short_json_of if short else json_of
        print_json([query(each) for each in reports], is_line=is_line)
        return
    if short and reports:
        print_table(_table(reports))
        return
    screen = console()
    if sys.stdout.isatty():
        screen.print(_shown(reports, short=short))
        return
    with screen.capture() as text:
        screen.print(_shown(reports, short=short))
    for line in text.get().splitlines():
        click.echo(line.rstrip())  # columns are filled up with blanks


# -- for people ---------------------------------------------------------------------------------


def _shown(reports: Sequence[MountReport], *, short: bool) -> RenderableType:
    if not reports:
        mount = f"mkdir -p ~/aleph; {hint('satfs mount')} ~/aleph"
        return Text(f"Nothing is mounted. To mount: {mount}")
    if short:
        return _table(reports)
    parts: list[RenderableType] = []
    for each in reports:
        if parts:
            parts.append(Text())
        head = Table.grid(padding=(0, 2), expand=True)
        head.add_column(overflow="fold", ratio=1)
        head.add_column(justify="right", no_wrap=True)
        state = Text(str(each.state), _STYLES.get(each.state, "bold red"))
        head.add_row(Text(f"{show(each.place)}  ({show(each.mounted.source)})", "bold"), state)
        parts.append(head)
        grid = Table.grid(padding=(0, 2))
        grid.add_column(style="dim", no_wrap=True, min_width=10)
        grid.add_column(overflow="fold")
        for label, text in _rows(each):
            grid.add_row(f"  {label}", Text(show(text)))
        parts.append(grid)
    return Group(*parts)


def _table(reports: Sequence[MountReport]) -> Table:
    """Return a line for each mount."""
    table = new_table("mountpoint", "source", "user", "state", whole=("user", "state"))
    for each in reports:
        table.add_row(
            Text(show(each.place)),
            Text(show(each.mounted.source)),
            Text(_user(each)),
            Text(str(each.state), "green" if each.state is State.WORKS else "yellow"),
        )
    return table


def _user(report: MountReport) -> str:
    return "" if report.mounted.user is None else user_name(report.mounted.user)


def _rows(report: MountReport) -> Iterator[tuple[str, str]]:
    """Yield what is shown of one mount, as label and text."""
    if report.status is None:
        yield "remedy", remedy_of(report.state, report.place)
        return
    try:
        yield from rows_of(report.status)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError):
        # A satfs of another version, whose record has another shape.
        yield "note", "its report is of another version of satfs; --json shows it"


def rows_of(status: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what is shown of a status record, as label and text. Pure."""
    if status["why_offline"]:
        yield "offline", status["why_offline"]
    since = datetime.fromisoformat(status["since"]).strftime("%Y-%m-%d %H:%M UTC")
    yield "up", f"{format_duration(status['up_s'])}, since {since}, process {status['pid']}"
    yield "account", _account(status)
    if refused := status["credential"]["refused"]:
        yield "refused", refused
    yield "listings", _listings(status["listings"])
    yield "cache", _cache(status["cache"])
    yield "reading", _reading(status["reading"])
    if n_waiting := status["calls"]["waiting"]:
        yield "calls", f"{format_count(n_waiting, 'call')} of programs in progress"
    yield "today", _egress(status["egress"])
    transfers = status["transfers"]
    yield "transfers", _transfers(transfers)
    for each in transfers["items"][:_TRANSFERS_SHOWN]:
        yield "", _transfer(each)
    if (more := transfers["n"] - _TRANSFERS_SHOWN) > 0:
        yield "", f"and {more} more"
    for number, each in enumerate(status["errors"][:_ERRORS_SHOWN]):
        yield "" if number else "errors", _error(each)
    if status["kernel"]["read_ahead_kb"] is None:
        yield "kernel", "read-ahead is as the kernel chose it; only root may set more"


def _account(status: Mapping[str, Any]) -> str:
    credential = status["credential"]
    words = [f"profile {status['profile']}", credential["mode"]]
    left_s = credential["token_left_s"]
    if left_s is not None:
        words.append("token spent" if left_s <= 0 else f"token for {format_duration(left_s)} more")
    if credential["contract_id"]:
        words.append(f"contract {credential['contract_id']}")
    return ", ".join(words)


def _listings(listings: Mapping[str, Any]) -> str:
    if not listings["n"]:
        return "none requested yet"
    text = f"{listings['n']} known, the oldest is {format_duration(listings['oldest_age_s'])} old"
    if listings["n_stale"]:
        text += f"; {listings['n_stale']} STALE: no host responds"
    return text


def _cache(cache: Mapping[str, Any]) -> str:
    place, where = ("disk", "on disk") if cache["disk_limit_bytes"] else ("memory", "in memory")
    used, limit = cache[f"{place}_bytes"], cache[f"{place}_limit_bytes"]
    share = f" ({used / limit:.0%})" if limit else ""
    return f"{format_bytes(used)} of {format_bytes(limit)}{share} {where}"


def _reading(reading: Mapping[str, Any]) -> str:
    files = format_count(reading["open_files"], "file")
    text = f"{files} open; {format_bytes(reading['served_bytes'])} read"
    if reading["waits"]:
        text += f", {format_count(reading['waits'], 'wait')}"
        text += f", {format_duration(reading['longest_wait_s'])} at most"
    return text


def _egress(egress: Mapping[str, Any]) -> str:
    text = f"{format_bytes(egress['fetched_bytes'])} fetched"
    if egress["limit_bytes"] is not None:
        text += f" of {format_bytes(egress['limit_bytes'])} allowed"
        text += "; SPENT: only what is cached can be read" if egress["is_over"] else ""
    return text


def _transfers(transfers: Mapping[str, Any]) -> str:
    if not transfers["n"] and not transfers["n_queued"]:
        return "none"
    text = f"{format_bytes(transfers['bytes_per_s'])}/s on {transfers['n']} connections"
    if transfers["n_queued"]:
        text += f", {transfers['n_queued']} more wait"
    return text


def _transfer(each: Mapping[str, Any]) -> str:
    length = each["stop"] - each["start"]
    share = f"{each['received_bytes'] / length:.0%}" if length else "100%"
    speed = "not begun" if each["bytes_per_s"] is None else f"{format_bytes(each['bytes_per_s'])}/s"
    return f"{share:>4} of {format_bytes(length)}, {speed}: {each['object']}"


def _error(each: Mapping[str, Any]) -> str:
    times = f", {each['times']} times" if each["times"] > 1 else ""
    return (
        f"{each['errno']} {each['operation']} {each['path']},"
        f" {format_duration(each['age_s'])} ago{times}: {each['why']}"
    )
