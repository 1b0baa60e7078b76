"""Run a mount in the foreground or background, and wait until it works.

The command in the terminal ends with success only once the mount reports that it is ready. If the
mount fails before that, the command prints the failure and ends with its exit code. Both reports
travel over one pipe, a JSON object a line:

    {"pid": 4711}                                   the background process is there
    {"ready": true}                                 it is ready: the command may end
    {"code": 4, "sentence": "...", "remedy": "..."} it failed; an end without either is a crash

Forks, so it must come before any thread and any event loop.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import Any, TypeAlias

import structlog
from msgspec.structs import asdict

from satfs.cli.exit_codes import Exit, Failure, failure_of
from satfs.cli.flags import OutputOptions
from satfs.cli.log_setup import logging_as
from satfs.cli.output import print_error
from satfs.cli.process_start import detach
from satfs.mount import MountOptions, run_mount
from satfs.notify import take_notifier
from satfs.redaction import redact
from satfs.settings import Settings

log = structlog.get_logger(__name__)

#: Entered in the process that will mount: yields the settings of the mount, and lives as long.
Preparation: TypeAlias = Callable[[], AbstractContextManager[Settings]]


class Waiter:
    """The background's end: reports to the command that waits in front, once."""

    def __init__(self, pipe: int, *, leaves_late: bool = False) -> None:
        self._pipe: int | None = pipe
        self._leaves_late = leaves_late
        self._send({"pid": os.getpid()})

    @property
    def is_waiting(self) -> bool:
        """Return whether neither readiness nor a failure was reported yet."""
        return self._pipe is not None

    def report_ready(self) -> None:
        """Detach from the terminal, and have the command there end with success.

        In this order: a program that reads the command's output to its end would otherwise wait
        for this process.

        Raises:
            BrokenPipeError: the command in the terminal has ended: it waits no more.
        """
        if self._leaves_late:
            os.setsid()
        detach(0, 1, 2)
        self._send({"ready": True})
        self._close()

    def report_failure(self, failure: Failure) -> None:
        """Let the command in front end with *failure*, if it still waits."""
        with suppress(BrokenPipeError):
            self._send(asdict(failure))
        self._close()

    def _send(self, message: dict[str, Any]) -> None:
        if self._pipe is not None:
            view = memoryview(json.dumps(message).encode() + b"\n")
            while view:
                view = view[os.write(self._pipe, view) :]

    def _close(self) -> None:
        if self._pipe is not None:
            os.close(self._pipe)
            self._pipe = None


def in_background(work: Callable[[Waiter], int], *, leaves_late: bool = False) -> Failure | None:
    """Run *work* in a process of its own, in a session of its own, and wait until it is ready.

    With *leaves_late* it moves to its session only then, and is in our process group until then. An
    automounter (systemd.automount(5), autofs(5)) that runs satfs makes every other process group
    wait at the mountpoint until the mount is there: a process that mounts in another group would
    wait for itself.

    Returns twice over, as fork(2) does: in the caller, None once the work is ready, or how it
    failed; in the background this call never returns, but raises SystemExit with what *work*
    returned.

    Raises:
        KeyboardInterrupt: in the caller; the work was sent SIGTERM.
        SystemExit: in the background.
    """
    sys.stdout.flush()  # what is still buffered would come out twice
    sys.stderr.flush()
    ours, theirs = os.pipe()  # not inherited by programs that the work starts
    child = os.fork()
    if child == 0:
        os.close(ours)
        raise SystemExit(_work_alone(work, theirs, leaves_late))
    os.close(theirs)
    try:
        os.waitpid(child, 0)
        return _wait(ours)
    finally:
        os.close(ours)


def _work_alone(work: Callable[[Waiter], int], pipe: int, leaves_late: bool) -> int:
    if not leaves_late:
        os.setsid()
    # Not the session's leader any more, so that opening a terminal never makes it ours.
    if os.fork() != 0:
        os._exit(0)
    os.chdir("/")  # keeps no other filesystem busy
    detach(0)
    return work(Waiter(pipe, leaves_late=leaves_late))


def _wait(pipe: int) -> Failure | None:
    pid: int | None = None
    try:
        with open(pipe, "rb", closefd=False) as messages:
            for line in messages:
                if not line.endswith(b"\n"):
                    break  # killed while it wrote
                message = json.loads(line)
                if "ready" in message:
                    return None
                if "code" in message:
                    return Failure(**message)
                pid = message["pid"]
    except KeyboardInterrupt:
        if pid is not None:
            os.kill(pid, signal.SIGTERM)
        raise
    return Failure(
        Exit.FAILED,
        "the mount process ended before it was ready, and reported nothing",
        "Run it with --foreground to see its log.",
    )


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

    *leaves_late* is for those who mount on behalf of an automounter (`in_background`).
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

    with logging_as(output_options, in_background=False):
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
        with logging_as(output_options, in_background=True):
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
