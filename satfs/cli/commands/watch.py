"""`satfs watch`: report captures and scenes as they are published."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from satfs.cli.completion_values import paths as complete_paths
from satfs.cli.exit_codes import Exit
from satfs.cli.flags import Manner, json_flag, profile_flag, verbosity_flags
from satfs.cli.log_setup import logging_as
from satfs.cli.targets import OnMount, anywhere, missing, quiet_log, run_alone
from satfs.cli.waiting import waiting_told
from satfs.cli.watched import Memory, OfApi, OfMount, Source, Watch, state_file
from satfs.control.local import open_listings
from satfs.errors import BadSettings, NotThere
from satfs.settings import Settings, load_settings


@click.command(
    epilog="""\b
Examples:
  satfs watch                            everything, asked of the API
  satfs watch --json ~/aleph/tasks/268095
                                         one task, through a mount
  satfs watch --once --exec 'notify-send "New imagery"'
  satfs watch --exec ./fetch.py ~/aleph

\b
What a command given with --exec is told:
  WATCH_EVENT                            capture or scene
  WATCH_TASK_ID, WATCH_CAPTURE_ID, WATCH_SCENE_ID
  WATCH_PATH                             its place on the mount, if any
  standard input                         all of it and the record, as JSON
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
    "--interval",
    "interval_s",
    type=click.FloatRange(1),
    default=300,
    show_default=True,
    metavar="SECONDS",
    help="Pause between two looks.",
)
@click.option("--once", is_flag=True, help="Look once, and end.")
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
    manner: Manner,
    path: str | None,
    command: str | None,
    interval_s: float,
    once: bool,
    state: Path | None,
    profile: str | None,
    as_json: bool,
) -> int:
    """Report each capture and scene that is published, from now on, until Ctrl-C.

    PATH-OR-ID is a task, a capture, or all tasks. What was told is remembered on disk and not told
    again by the next run; the first run only remembers what there is. With --exec, an event counts
    as told when the command has ended with 0, and else comes again with the next look.
    """
    target = anywhere(path)
    settings = None if isinstance(target, OnMount) else load_settings(profile=profile)
    words = _words(command)
    memory = Memory(state or state_file(target, settings))
    try:
        with memory.alone(), logging_as(quiet_log(manner), in_background=False):
            return run_alone(
                _watch,
                target,
                settings,
                memory,
                words,
                None if once else interval_s,
                as_json,
                manner,
            )
    except NotThere as failure:
        raise missing(failure) from failure


async def _watch(
    target: OnMount | tuple[str, ...],
    settings: Settings | None,
    memory: Memory,
    command: tuple[str, ...],
    interval_s: float | None,
    as_json: bool,
    manner: Manner,
) -> Exit:
    if isinstance(target, OnMount):
        source: Source = OfMount(target.mounted)
        watch = Watch(source, target.words, memory, command, as_json, manner.verbosity < 0)
        return await watch.run(interval_s)
    assert settings is not None  # noqa: S101 - an id is looked up at the API of settings
    async with open_listings(settings, with_all=False) as listings:
        source = OfApi(listings)
        watch = Watch(source, target, memory, command, as_json, manner.verbosity < 0)
        with waiting_told(settings, is_quiet=manner.verbosity < 0) as answered:
            watch.on_first_answer = answered
            return await watch.run(interval_s)


def _words(command: str | None) -> tuple[str, ...]:
    try:
        words = tuple(shlex.split(command or ""))
    except ValueError as failure:
        raise BadSettings(f"--exec: its quotes do not match ({failure})") from None
    if command is not None and not words:
        raise BadSettings("--exec names no command")
    return words
