"""Send work to the background, and wait until it is ready or has failed.

The command in the terminal ends with success only once the work reports that it is ready. If the
work fails before that, the command prints the failure and ends with its exit code. Both reports
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
from contextlib import suppress
from typing import Any

from msgspec.structs import asdict

from satfs.cli.exit_codes import Exit, Failure


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


def detach(*descriptors: int) -> None:
    """Point *descriptors* at nothing, for reading and writing."""
    nothing = os.open(os.devnull, os.O_RDWR)
    try:
        for descriptor in descriptors:
            os.dup2(nothing, descriptor)
    finally:
        if nothing not in descriptors:
            os.close(nothing)


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
        "Run it with --foreground to see what happens.",
    )
