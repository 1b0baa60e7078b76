"""Start commands and mounts by fork(2) of a process that has imported the program already.

A command takes a few milliseconds then in place of the half second in which Python imports what it
needs. It is a process of its own all the same: arguments, environment, working directory, standard
streams and exit code are those of execve(2). Settings that the interpreter itself reads at its
start cannot be given to it (`takes`).
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import gc
import importlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

#: Commands that leave a process behind. Tests look it up by its command line in /proc.
_LEAVE_A_PROCESS = frozenset({"mount", "demo"})
#: Space for the command line of a fork in that of its template, in bytes.
_COMMAND_LINE_BYTES = 16384
#: The place of `arg_start` in /proc/self/stat, behind the name (proc(5)), and prctl(2)'s option.
_ARG_START = 48 - 3
_PR_SET_NAME = 15
_PR_SET_PDEATHSIG = 1

#: Variables that Python, its C library or its loader read once, when a process starts.
_READ_AT_START = ("PYTHON", "LD_", "LC_", "LANG")
#: Variables that are called so, and are read by a library whenever it is used.
_READ_LATER = frozenset({"PYTHON_KEYRING_BACKEND"})
_LIMITS = (resource.RLIMIT_CORE, resource.RLIMIT_AS, resource.RLIMIT_FSIZE)
#: Of unshare(2), mount(2) and umount2(2).
_CLONE_NEWNS = 0x20000
_MS_REC, _MS_PRIVATE, _MNT_DETACH = 0x4000, 1 << 18, 2


def takes(environment: Mapping[str, str]) -> bool:
    """Return whether a fork with *environment* is as a new process would be.

    Not where the interpreter read something else at the template's start, nor where this process
    has other limits by now.
    """
    template = _template()
    return (_read_at_start(environment), _limits()) == (template.environment, template.limits)


def _read_at_start(variables: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in variables.items()
        if name.startswith(_READ_AT_START) and name not in _READ_LATER
    }


def _limits() -> list[tuple[int, int]]:
    """Return the limits of this process that the processes it starts inherit."""
    return [resource.getrlimit(each) for each in _LIMITS]


def run(
    command: Sequence[str],
    environment: Mapping[str, str],
    directory: Path,
    timeout_s: float,
    *,
    text: str = "",
    seen_mounts: Sequence[str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run *command*, the program's path and its arguments, to its end; it reads *text* from a pipe.

    With *seen_mounts* it sees no mounts of satfs but those, in a mount namespace of its own.

    Raises:
        subprocess.TimeoutExpired: it was killed after *timeout_s*.
    """
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        with standard_input(text) as given:
            process = _fork(command, environment, directory, given, out, err, None, seen_mounts)
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        finally:
            process.close()
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(
            list(command), code, _text(out.read()), _text(err.read())
        )


def satfs(
    *arguments: object, environment: Mapping[str, str], timeout_s: float = 30
) -> subprocess.CompletedProcess[str]:
    """Run the installed `satfs` to its end; *environment* is added to that of this process."""
    command = [str(Path(sys.executable).with_name("satfs")), *map(str, arguments)]
    return run(command, {**os.environ, **environment}, Path("/"), timeout_s)


def standard_input(text: str) -> IO[bytes]:
    """Return a pipe with *text* and its end; /dev/null without a text."""
    if not text:
        return open(os.devnull, "rb")
    reading, writing = os.pipe()
    with open(writing, "wb") as given:
        given.write(text.encode())
    return open(reading, "rb")


def start(
    code: str, arguments: Sequence[str], environment: Mapping[str, str], err: IO[bytes]
) -> Process:
    """Run *code* as `python -c` does, with *arguments*; its standard output is `Process.stdout`."""
    assert takes(environment), "the interpreter reads some of this when it starts"
    reading, writing = os.pipe()
    with open(writing, "wb") as out, open(os.devnull, "rb") as nothing:
        process = _fork(["-c", *arguments], environment, Path.cwd(), nothing, out, err, code)
    process.stdout = open(reading, "rb")  # noqa: SIM115 - until `Process.close`
    return process


class Process:
    """A forked process, with the members of `subprocess.Popen` that tests use."""

    def __init__(self, command: Sequence[str], reply: socket.socket) -> None:
        self._command = list(command)
        self._reply = reply
        self.pid = int(reply.recv(64))
        self.returncode: int | None = None
        self.stdout: IO[bytes] | None = None

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end and return the exit code.

        Raises:
            subprocess.TimeoutExpired: it still runs after *timeout* seconds.
        """
        if self.returncode is None:
            self._reply.settimeout(timeout)
            try:
                status = int(self._reply.recv(64))
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired(self._command, timeout or 0) from None
            self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            # It may end between the two calls, as in `subprocess.Popen`.
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM, unless it has ended."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL, unless it has ended."""
        self.send_signal(signal.SIGKILL)

    def close(self) -> None:
        """Close what this process has open of it."""
        self._reply.close()
        if self.stdout is not None:
            self.stdout.close()


def _fork(
    command: Sequence[str],
    environment: Mapping[str, str],
    directory: Path,
    given: IO[bytes],
    out: IO[bytes],
    err: IO[bytes],
    code: str | None = None,
    seen_mounts: Sequence[str] | None = None,
) -> Process:
    """Have the template fork; the fork runs *code*, or the program."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs, tempfile.TemporaryFile() as order:
        fields = [list(command), dict(environment), str(directory), code, seen_mounts]
        order.write(json.dumps(fields).encode())
        order.seek(0)
        files: list[IO[bytes] | socket.socket] = [theirs, order, given, out, err]
        socket.send_fds(_template().orders, [b"x"], [file.fileno() for file in files])
    return Process(command, ours)


def _text(printed: bytes) -> str:
    """Return what was printed as `subprocess` does with `text=True`."""
    return printed.decode().replace("\r\n", "\n").replace("\r", "\n")


@dataclass(frozen=True)
class _Template:
    """The process that forks, the socket for orders to it, and what its forks inherit."""

    orders: socket.socket
    process: subprocess.Popen[bytes]
    environment: Mapping[str, str]
    limits: Sequence[tuple[int, int]]

    def end(self) -> None:
        """End the process that forks."""
        self.orders.close()
        self.process.wait()


@functools.cache
def _template() -> _Template:
    """Return the process that forks, started once."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno()), " " * _COMMAND_LINE_BYTES],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            cwd="/",
        )
    template = _Template(ours, process, _read_at_start(os.environ), _limits())
    atexit.register(template.end)
    return template


def _serve(orders: socket.socket) -> str | None:
    """Fork for each order; return in the forks, with the code to run, or None for the program."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no process waits for the waiting ones
    while True:
        message, files, _, _ = socket.recv_fds(orders, 16, 5)
        if not message:
            os._exit(0)
        if os.fork() != 0:
            for file in files:
                os.close(file)
            continue
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        # Ends with the template, so that a fork which ends with its parent does.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        reply, order, *streams = files
        if (pid := os.fork()) == 0:
            return _become(order, streams)
        with socket.socket(fileno=reply) as asker, contextlib.suppress(BrokenPipeError):
            asker.send(str(pid).encode())
            asker.send(str(os.waitpid(pid, 0)[1]).encode())
        os._exit(0)


def _become(order: int, streams: Sequence[int]) -> str | None:
    """Take over what execve(2) would give a new process, and return the code to run, if any."""
    with open(order, "rb") as file:
        command, environment, directory, code, seen_mounts = json.load(file)
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
    tempfile.tempdir = None  # by the new TMPDIR
    if seen_mounts is not None:
        _hide_mounts(seen_mounts)
    return cast("str | None", code)


def _hide_mounts(seen: Sequence[str]) -> None:
    """Enter a mount namespace without mounts of satfs but those at *seen*."""
    libc = ctypes.CDLL(None, use_errno=True)

    def call(name: str, *arguments: object) -> None:
        if getattr(libc, name)(*arguments) != 0:
            raise OSError(ctypes.get_errno(), name)

    call("unshare", _CLONE_NEWNS)
    call("mount", b"none", b"/", None, _MS_REC | _MS_PRIVATE, None)
    for line in Path("/proc/self/mountinfo").read_bytes().splitlines():
        place = line.split()[4].decode("unicode_escape").encode("latin-1")
        if b" - fuse.satfs " in line and os.fsdecode(place) not in seen:
            call("umount2", place, _MNT_DETACH)


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
    del sys.path[0]  # this directory: no program is started in it
    main = importlib.import_module("satfs.cli.main")
    for name in main.COMMANDS:
        importlib.import_module(f"satfs.cli.commands.{name}")
    for name in ("httpx", "trio", "satfs.api", "satfs.components", "satfs.mount"):
        importlib.import_module(name)
    gc.freeze()
    code = _serve(socket.socket(fileno=orders))
    try:
        if code is None:
            main.main()
        else:
            exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
    except SystemExit as end:
        if not isinstance(end.code, int | None):
            raise
        _end(end.code or 0)
        raise
    _end(0)


def _end(code: int) -> None:
    """End with *code* as the interpreter does, but leave the memory to the kernel.

    Python frees each object at the end, which costs a fork a tenth of a second of processor time:
    it copies the memory that it shares with its template. Returns where output cannot be written,
    which is for the interpreter to report.
    """
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        return
    os._exit(code)


if __name__ == "__main__":
    _main(int(sys.argv[1]))
