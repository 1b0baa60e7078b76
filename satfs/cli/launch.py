"""Run a mount in the foreground or background, and wait until it works."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TypeAlias

import structlog

from satfs.cli.background import Waiter, in_background
from satfs.cli.exit_codes import Exit, Failure, failure_of
from satfs.cli.flags import OutputOptions
from satfs.cli.log_setup import logging_as
from satfs.cli.output import print_error
from satfs.mount import MountOptions, run_mount
from satfs.notify import take_notifier
from satfs.redaction import redact
from satfs.settings import Settings

log = structlog.get_logger(__name__)

#: Entered in the process that will mount: yields the settings of the mount, and lives as long.
Preparation: TypeAlias = Callable[[], AbstractContextManager[Settings]]


def launch(
    prepare: Preparation,
    options: MountOptions,
    output_options: OutputOptions,
    *,
    foreground: bool,
    leaves_late: bool = False,
    on_ready: Callable[[], None],
) -> int:
    """Mount, and return the exit code: in the foreground when it is unmounted, else once it works.

    *leaves_late* is for those who mount on behalf of an automounter (`background`).
    In the foreground *on_ready* is called once the mount works, in the process that serves it: it
    must not look at the mount. Otherwise it is called in front of the background.

    Raises:
        SatfsError: in the foreground: it could not be mounted, or broke.
        SystemExit: in the background process, when the mount has ended.
    """
    if foreground:
        return _stay(prepare, options, output_options, on_ready)
    failure = in_background(
        lambda waiter: _serve(prepare, options, output_options, waiter), leaves_late=leaves_late
    )
    if failure is not None:
        remedy = failure.remedy
        if failure.code == Exit.NETWORK and remedy is not None:
            # For a mount alone: other commands have nothing to show without the API.
            remedy += " `satfs mount --offline` shows what earlier mounts kept."
        print_error(failure.sentence, remedy, failure.details)
        return failure.code
    on_ready()
    return Exit.DONE


def _stay(
    prepare: Preparation,
    options: MountOptions,
    output_options: OutputOptions,
    on_ready: Callable[[], None],
) -> int:
    was_ready = False

    def note() -> None:
        nonlocal was_ready
        was_ready = True
        notifier.ready()
        on_ready()

    with logging_as(output_options.log, in_background=False):
        notifier = take_notifier(os.environ)
        try:
            with prepare() as settings:
                notifier.status("waiting for the API")
                run_mount(settings, options, note, notifier)
        except Exception as error:
            notifier.status(redact(failure_of(error).sentence))
            raise
    return Exit.DONE if was_ready else Exit.INTERRUPTED


def _serve(
    prepare: Preparation, options: MountOptions, output_options: OutputOptions, waiter: Waiter
) -> int:
    """Mount in the background; return the exit code, which perhaps no process sees."""
    try:
        with logging_as(output_options.log, in_background=True):
            return _serve_and_log(prepare, options, output_options, waiter)
    except BaseException as error:  # the log itself: there is no other place to report it
        failure = failure_of(error, with_details=output_options.with_details)
        _report(failure, options, waiter)
        return failure.code


def _serve_and_log(
    prepare: Preparation, options: MountOptions, output_options: OutputOptions, waiter: Waiter
) -> int:
    try:
        with prepare() as settings:
            run_mount(settings, options, waiter.report_ready)
    except (
        BaseException
    ) as error:  # any error that ends the mount is reported; nothing goes on after it
        failure = failure_of(error, with_details=output_options.with_details)
        if not waiter.is_waiting:
            log.exception("mount ended with an error")
    else:
        if not waiter.is_waiting:
            return Exit.DONE
        failure = Failure(Exit.INTERRUPTED, "ended before the mount worked")
    _report(failure, options, waiter)
    return failure.code


def _report(failure: Failure, options: MountOptions, waiter: Waiter) -> None:
    """Report *failure* to the command in front, which may be run again as soon as it has ended.

    So the mountpoint is no longer held then, though this process ends a moment later.
    """
    if options.hold is not None:
        options.hold.close()
    waiter.report_failure(failure)
