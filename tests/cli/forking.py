"""Start commands by fork(2) of a process that has imported the program already.

A command takes a few milliseconds then in place of the half second in which Python imports what it
needs. It is a process of its own all the same: arguments, environment, working directory, standard
streams and exit code are those of execve(2). What the interpreter itself reads at its start cannot
be given to it (`serves`).
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

#: Commands that leave a process behind. Tests look it up by its command line in /proc.
_LEAVE_A_PROCESS = frozenset({"mount", "demo"})
#: Commands that start the program again.
_NEVER_FORKED = frozenset({"service", "completion"})
#: Space for the command line of a fork in that of its template, in bytes.
_COMMAND_LINE_BYTES = 16384
#: The place of `arg_start` in /proc/self/stat, behind the name (proc(5)), and prctl(2)'s option.
_ARG_START = 48 - 3
_PR_SET_NAME = 15

#: Variables that Python, its C library or its loader read once, when a process starts.
_READ_AT_START = ("PYTHON", "LD_", "LC_", "LANG", "_SATFS_COMPLETE", "TMPDIR")


def serves(arguments: Sequence[str], environment: Mapping[str, str]) -> bool:
    """Return whether a fork behaves as a new process would."""

    def relevant(variables: Mapping[str, str]) -> dict[str, str]:
        return {k: v for k, v in variables.items() if k.startswith(_READ_AT_START)}

    is_help = not {"-h", "--help"}.isdisjoint(arguments)
    return (
        bool(arguments)
        and (is_help or arguments[0] not in _NEVER_FORKED)
        and relevant(environment) == relevant(os.environ)
    )


def run(
    command: Sequence[str], environment: Mapping[str, str], directory: Path, timeout_s: float
) -> subprocess.CompletedProcess[str]:
    """Run *command*, the program's path and its arguments, to its end.

    Raises:
        subprocess.TimeoutExpired: it was killed after *timeout_s*.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        with theirs, tempfile.TemporaryFile() as order, open(os.devnull) as nothing:
            order.write(json.dumps([list(command), dict(environment), str(directory)]).encode())
            order.seek(0)
            files: list[IO[bytes] | IO[str] | socket.socket] = [theirs, order, nothing, out, err]
            orders, _ = _template()
            socket.send_fds(orders, [b"x"], [file.fileno() for file in files])
        ours.settimeout(timeout_s)
        pid = int(ours.recv(64))
        try:
            status = int(ours.recv(64))
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            raise subprocess.TimeoutExpired(list(command), timeout_s) from None
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(
            list(command),
            os.waitstatus_to_exitcode(status),
            _text(out.read()),
            _text(err.read()),
        )


def _text(printed: bytes) -> str:
    """Return what was printed as `subprocess` does with `text=True`."""
    return printed.decode().replace("\r\n", "\n").replace("\r", "\n")


@functools.cache
def _template() -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """Start the process that forks, and return it after the socket for orders to it.

    It ends when that socket is closed, with this process at the latest.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno()), " " * _COMMAND_LINE_BYTES],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            cwd="/",
        )
    return ours, process


def _serve(orders: socket.socket) -> None:
    """Fork for each order; return in the processes that are to run the program."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who wait
    while True:
        message, files, _, _ = socket.recv_fds(orders, 16, 5)
        if not message:
            os._exit(0)
        if os.fork() != 0:
            for file in files:
                os.close(file)
            continue
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        reply, order, *streams = files
        if (pid := os.fork()) == 0:
            _become(order, streams)
            return
        with socket.socket(fileno=reply) as asker, contextlib.suppress(BrokenPipeError):
            asker.send(str(pid).encode())
            asker.send(str(os.waitpid(pid, 0)[1]).encode())
        os._exit(0)


def _become(order: int, streams: Sequence[int]) -> None:
    """Take over what execve(2) would give a new process."""
    with open(order, "rb") as file:
        command, environment, directory = json.load(file)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.closerange(3, 1024)
    if command[1:2] and command[1] in _LEAVE_A_PROCESS:
        _show_as([sys.executable, *command])
    sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - until the process ends
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    sys.argv = command
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(directory)
    time.tzset()


def _show_as(command: Sequence[str]) -> None:
    """Have /proc show *command* as the command line of this process.

    It replaces that of the template, which has space for it: /proc shows these bytes of memory.
    """
    words = b"".join(os.fsencode(word) + b"\0" for word in command)
    assert len(words) < _COMMAND_LINE_BYTES
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    ctypes.memmove(
        int(fields[_ARG_START]), words.ljust(_COMMAND_LINE_BYTES, b"\0"), _COMMAND_LINE_BYTES
    )
    ctypes.CDLL(None).prctl(_PR_SET_NAME, os.fsencode(Path(command[1]).name))


def _main(orders: int) -> None:
    main = importlib.import_module("satfs.cli.main")
    for name in main.COMMANDS:
        importlib.import_module(f"satfs.cli.commands.{name}")
    for name in ("httpx", "trio", "satfs.api", "satfs.components", "satfs.mount"):
        importlib.import_module(name)
    gc.freeze()
    _serve(socket.socket(fileno=orders))
    main.main()


if __name__ == "__main__":
    _main(int(sys.argv[1]))
