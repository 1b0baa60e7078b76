"""`satfs watch`: report captures and scenes as they are published."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import click

from satfs.cli.exit_codes import Exit
from satfs.cli.flags import OutputOptions, complete_paths, json_flag, profile_flag, verbosity_flags
from satfs.cli.log_setup import logging_quietly
from satfs.cli.targets import OnMount, Target, anywhere, missing_explained, where_flag
from satfs.cli.waiting import run_alone, waiting_shown
from satfs.cli.watch_loop import Memory, Watch, state_file
from satfs.cli.watch_sources import OfApi, OfMount, Source
from satfs.cli.webhook import Poster, poster
from satfs.control.conditions import parse_condition
from satfs.control.records import open_listings
from satfs.errors import BadSettings
from satfs.setting_values import is_web_address

#: Pause between two looks, in seconds: deliveries take hours, and each look costs requests.
_INTERVAL_S: Final = 300


@click.command(
    epilog="""\b
Examples:
  satfs watch                            everything, from the API
  satfs watch --json ~/aleph/tasks/268095
                                         one task, through a mount
  satfs watch --once --exec 'notify-send "New imagery"'
  satfs watch --exec ./fetch.py ~/aleph
  satfs watch --stac --where 'cloud<20' --exec ./ndvi.py ~/aleph
                                         each new scene as a STAC item

\b
What a command given with --exec gets:
  WATCH_EVENT                            capture or scene
  WATCH_TASK_ID, WATCH_CAPTURE_ID, WATCH_SCENE_ID
  WATCH_PATH                             its place on the mount, if any
  standard input                         all of it and the record, as JSON,
                                         or with --stac the item
"""
)
@click.argument("path", metavar="[PATH-OR-ID]", required=False, shell_complete=complete_paths)
@click.option(
    "--exec",
    "command",
    metavar="COMMAND",
    help="Run it for each event. Its words are split as a shell does, and no shell runs it.",
)
@click.option(
    "--stac",
    "as_items",
    is_flag=True,
    help="Report each scene as its STAC item, an item a line, once its delivery is there. On a"
    " mount assets are absolute paths.",
)
@click.option(
    "--webhook",
    metavar="URL",
    help="POST the item, or the event, there as well; anything but 2xx sends it again.",
)
@where_flag
@click.option(
    "--interval",
    "interval_s",
    type=click.FloatRange(1),
    metavar="SECONDS",
    help=f"Pause between two checks [default: {_INTERVAL_S}].",
)
@click.option("--once", is_flag=True, help="Check once, and end.")
@click.option(
    "--state",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Where to remember what was reported [default: a file for each PATH-OR-ID].",
)
@profile_flag
@json_flag
@verbosity_flags
@click.pass_obj
def watch(
    output_options: OutputOptions,
    path: str | None,
    command: str | None,
    as_items: bool,
    webhook: str | None,
    where: tuple[str, ...],
    interval_s: float | None,
    once: bool,
    state: Path | None,
    profile: str | None,
    as_json: bool,
) -> int:
    """Report each capture and scene that is published, from now on, until Ctrl-C.

    PATH-OR-ID is a task, a capture, or all tasks. Reported events are kept on disk, and the next
    run does not report them again; the first run only records the present state. With --exec, an
    event counts as reported when the command has ended with 0; otherwise it is reported again after
    the next check. With --where only scenes that fulfil the condition are reported.

    Each event is reported at least once: after a run that was killed, the last one is reported
    again.
    """
    if once and interval_s is not None:
        raise click.UsageError("--once checks once: omit --interval")
    target = anywhere(path, profile)
    arguments = _arguments(command)
    conditions = [parse_condition(text) for text in where]
    if any(each.level in ("task", "capture") for each in conditions):
        raise BadSettings("`satfs watch` knows conditions on scenes alone, not on task or capture")
    if webhook is not None and not is_web_address(webhook):
        raise BadSettings("--webhook takes an address that begins with http:// or https://")

    def watch_of(source: Source, names_of_target: Sequence[str], post: Poster | None) -> Watch:
        return Watch(
            source,
            names_of_target,
            memory,
            arguments,
            as_json,
            output_options.verbosity < 0,
            as_items=as_items,
            webhook=post,
            where=where,
        )

    memory = Memory(state or state_file(target))
    interval = None if once else interval_s or _INTERVAL_S
    with missing_explained(), memory.alone(), logging_quietly(output_options):
        return run_alone(_watch, target, watch_of, interval, webhook)


async def _watch(
    target: Target,
    watch_of: Callable[[Source, Sequence[str], Poster | None], Watch],
    interval_s: float | None,
    webhook: str | None,
) -> Exit:
    settings = None if isinstance(target, OnMount) else target.settings
    async with poster(webhook, settings) as post:
        if isinstance(target, OnMount):
            return await watch_of(OfMount(target.mounted), target.words, post).run(interval_s)
        async with open_listings(target.settings, with_all=False) as listings:
            watch = watch_of(OfApi(listings), target.words, post)
            with waiting_shown(target.settings, is_quiet=watch.is_quiet) as on_response:
                watch.on_first_response = on_response
                return await watch.run(interval_s)


def _arguments(command: str | None) -> tuple[str, ...]:
    try:
        arguments = tuple(shlex.split(command or ""))
    except ValueError as failure:
        raise BadSettings(f"--exec: its quotes do not match ({failure})") from None
    if command is not None and not arguments:
        raise BadSettings("--exec names no command")
    return arguments
