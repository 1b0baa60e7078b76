"""The control socket: accepted users, the ends of requests, and that none ends the mount."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from satfs.atomic_file import make_own_directory
from satfs.control import protocol, server
from satfs.control.client import messages_of, result_of
from satfs.control.protocol import (
    Alive,
    ControlRequest,
    Done,
    Failed,
    LineSplitter,
    Message,
    Notice,
    message_of,
    peer_credentials,
    request_line,
)
from satfs.control.server import Command, SendNotice, serve_control
from satfs.errors import BadMountpoint, NotThere
from satfs.mountpoints import FS_TYPE, Mounted


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the user's directory for sockets; its path is short, as an address must be."""
    directory = Path(tempfile.mkdtemp(prefix="satfs-"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(directory))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def path(runtime: Path) -> Path:
    """Return where a mount at /mnt/x has its socket."""
    return protocol.socket_path(Path("/mnt/x"))


@asynccontextmanager
async def serving(path: Path, **commands: Command) -> AsyncIterator[Path]:
    async with trio.open_nursery() as nursery:
        served = await nursery.start(serve_control, path, commands)
        assert served == path
        yield path
        nursery.cancel_scope.cancel()


async def say(path: Path, line: bytes) -> list[Message]:
    """Send a line and return all that comes back but signs of life."""
    came: list[Message] = []
    lines = LineSplitter(1 << 20)
    async with await trio.open_unix_socket(os.fspath(path)) as stream:
        await stream.send_all(line)
        while data := await stream.receive_some():
            came += map(message_of, lines.feed(bytes(data)))
    return [message for message in came if not isinstance(message, Alive)]


async def request(path: Path, do: str, **given: Any) -> list[Message]:
    return await say(path, request_line(ControlRequest(do, given)))


def mode(path: Path) -> int | None:
    """Return the permissions of what is at *path*; None when nothing is."""
    return stat.S_IMODE(path.stat().st_mode) if path.exists() else None


def replace(path: Path) -> None:
    """Put something else where the socket was."""
    path.rename(path.with_suffix(".before"))  # which keeps its inode number from coming again
    path.touch()
    path.chmod(0o644)


async def echo(given: Mapping[str, Any], send: SendNotice) -> Mapping[str, Any]:
    await send({"halfway": True})
    return given


async def test_a_request_is_answered_on_the_way_and_in_the_end(path: Path) -> None:
    async with serving(path, echo=echo):
        assert await request(path, "echo", x=1) == [Notice({"halfway": True}), Done({"x": 1})]


async def test_the_socket_is_ours_alone_and_goes_with_us(path: Path) -> None:
    """Mode 0600 in a directory of mode 0700."""
    async with serving(path, echo=echo):
        assert mode(path) == 0o600
        assert mode(path.parent) == 0o700
    assert mode(path) is None


async def test_what_a_dead_mount_left_is_replaced(path: Path) -> None:
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    async with serving(path, echo=echo):
        assert (await request(path, "echo"))[-1] == Done({})


async def test_what_killed_mounts_left_goes_with_the_next(path: Path) -> None:
    """Sockets without a listener are removed; those of living mounts, and other files, stay."""
    async with serving(path):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
            dead.bind(os.fspath(path.with_name("dead.sock")))
        path.with_name("note.txt").touch()
        other = path.with_name("other.sock")
        async with serving(other):
            left = sorted(each.name for each in path.parent.iterdir())
    assert left == sorted([path.name, other.name, "note.txt"])


async def test_a_mount_that_came_after_us_keeps_its_socket(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when we find that ours is gone, and when we end."""
    monkeypatch.setattr(server, "_LOOK_S", 0.01)
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_control, path, {"echo": echo})
        replace(path)
        await trio.sleep(0.1)
        nursery.cancel_scope.cancel()
    assert mode(path) == 0o644


async def test_an_error_is_told_by_its_class(path: Path) -> None:
    async def fail(_given: Mapping[str, Any], _send: SendNotice) -> Mapping[str, Any]:
        raise NotThere("there is no such task")

    async with serving(path, fail=fail):
        assert await request(path, "fail") == [Failed("NotThere", "there is no such task")]


async def test_a_bug_in_a_command_ends_the_command_only(
    path: Path, expect_log: Callable[..., None]
) -> None:
    """Its words stay in the log; the next one is served."""
    expect_log("control request failed by a bug in satfs", do="break_")

    async def break_(_given: Mapping[str, Any], _send: SendNotice) -> Mapping[str, Any]:
        raise ZeroDivisionError("a secret")

    async with serving(path, break_=break_, echo=echo):
        (failure,) = await request(path, "break_")
        assert isinstance(failure, Failed)
        assert "secret" not in failure.message
        assert (await request(path, "echo"))[-1] == Done({})


async def test_a_result_that_is_no_json_ends_the_connection_only(
    path: Path, expect_log: Callable[..., None]
) -> None:
    expect_log("control connection broken by a bug in satfs")

    async def odd(_given: Mapping[str, Any], _send: SendNotice) -> Mapping[str, Any]:
        return {"x": object()}

    async with serving(path, odd=odd, echo=echo):
        assert await request(path, "odd") == []
        assert (await request(path, "echo"))[-1] == Done({})


@pytest.mark.parametrize("line", [b"\n", b"GET / HTTP/1.1\n", b'{"satfs": 9}\n', b"\xff\n"])
async def test_nonsense_is_answered_with_a_failure(path: Path, line: bytes) -> None:
    async with serving(path, echo=echo):
        (failure,) = await say(path, line)
        assert isinstance(failure, Failed)
        assert (await request(path, "echo"))[-1] == Done({})


async def test_a_command_nobody_knows_is_another_versions(path: Path) -> None:
    async with serving(path, echo=echo):
        (failure,) = await request(path, "no-such")
        assert isinstance(failure, Failed)
        assert "version" in failure.message


async def test_who_hangs_up_ends_what_he_asked_for(path: Path) -> None:
    started, ended = trio.Event(), trio.Event()

    async def last(_given: Mapping[str, Any], _send: SendNotice) -> Mapping[str, Any]:
        started.set()
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    async with serving(path, last=last, echo=echo):
        async with await trio.open_unix_socket(os.fspath(path)) as stream:
            await stream.send_all(request_line(ControlRequest("last")))
            await started.wait()
        with trio.fail_after(5):
            await ended.wait()
        assert (await request(path, "echo"))[-1] == Done({})


async def test_whoever_says_nothing_is_sent_away(path: Path, autojump_clock: object) -> None:
    async with serving(path, echo=echo):
        assert [type(message) for message in await say(path, b"")] == [Failed]


async def test_too_many_at_once_are_told_so(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "_MAX_CONNECTIONS", 1)
    begun = trio.Event()

    async def last(_given: Mapping[str, Any], _send: SendNotice) -> Mapping[str, Any]:
        begun.set()
        await trio.sleep_forever()
        raise AssertionError

    async with serving(path, last=last), await trio.open_unix_socket(os.fspath(path)) as stream:
        await stream.send_all(request_line(ControlRequest("last")))
        await begun.wait()
        (failure,) = await request(path, "last")
        assert isinstance(failure, Failed)
        assert failure.error == "Throttled"


async def test_another_user_is_not_heard(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With any modes of socket and directory."""
    monkeypatch.setattr(server, "peer_credentials", lambda _: (1, os.geteuid() + 1, 1))
    async with serving(path, echo=echo):
        (failure,) = await request(path, "echo")
    assert isinstance(failure, Failed)
    assert failure.error == "NotAllowed"


async def test_the_kernel_says_who_is_there() -> None:
    ours, theirs = trio.socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs:
        assert peer_credentials(ours)[:2] == (os.getpid(), os.geteuid())


async def test_a_socket_that_was_taken_away_is_made_anew(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logged out and in again: the runtime directory is another, and a request goes on."""
    monkeypatch.setattr(server, "_LOOK_S", 0.02)
    begun, may_end = trio.Event(), trio.Event()

    async def last(_given: Mapping[str, Any], _send: SendNotice) -> Mapping[str, Any]:
        begun.set()
        await may_end.wait()
        return {}

    answers: list[list[Message]] = []

    async def ask_for_long() -> None:
        answers.append(await request(path, "last"))

    async with serving(path, last=last, echo=echo), trio.open_nursery() as nursery:
        nursery.start_soon(ask_for_long)
        await begun.wait()
        shutil.rmtree(path.parent)
        with trio.fail_after(5):
            while mode(path) is None:  # noqa: ASYNC110 - it happens on the disk
                await trio.sleep(0.02)
        assert (await request(path, "echo"))[-1] == Done({})
        may_end.set()
    assert answers == [[Done({})]]


async def test_without_a_place_for_the_socket_the_mount_goes_on(
    runtime: Path, expect_log: Callable[..., None]
) -> None:
    """The directory may be another user's, or a file."""
    expect_log("no control socket")
    os.close(os.open(runtime / "satfs", os.O_CREAT))
    async with trio.open_nursery() as nursery:
        path = protocol.socket_path(Path("/mnt/x"))
        assert await nursery.start(serve_control, path, {}) is None
        nursery.cancel_scope.cancel()


# -- the other end ---------------------------------------------------------------------------------


def mounted_at(mountpoint: str) -> Mounted:
    ours = frozenset({f"user_id={os.geteuid()}"})
    return Mounted(Path(mountpoint), FS_TYPE, "satfs:default", (0, 50), frozenset(), ours)


async def test_a_command_finds_its_mount_by_the_mountpoint(path: Path) -> None:
    async with serving(path, echo=echo):
        result = await trio.to_thread.run_sync(result_of, mounted_at("/mnt/x"), "echo", {"x": 2})
    assert result == {"x": 2}


def test_a_mount_that_does_not_listen_is_told(runtime: Path) -> None:
    with pytest.raises(BadMountpoint, match="does not listen"):
        result_of(mounted_at("/mnt/other"), "echo", {})


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become an ordinary user")
@pytest.mark.parametrize(
    ("owner", "message"), [(65534, "does not listen"), (0, "is another user's")]
)
def test_an_ordinary_user_after_root_has_used_satfs(owner: int, message: str) -> None:
    """Root's directory for sockets is closed; that says nothing about the user's own mount."""
    make_own_directory(Path("/run/satfs"))
    # The modules are imported as root: the source may be in a home that others may not enter.
    program = f"""
import os
from pathlib import Path
from satfs.control.client import result_of
from satfs.errors import BadMountpoint
from satfs.mountpoints import FS_TYPE, Mounted
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
mounted = Mounted(
    Path("/mnt/x"), FS_TYPE, "satfs:default", (0, 50), frozenset(), frozenset({{"user_id={owner}"}})
)
try:
    result_of(mounted, "refresh", {{}})
except BadMountpoint as failure:
    print(failure)
"""
    environment = {k: v for k, v in os.environ.items() if k != "XDG_RUNTIME_DIR"}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True
    )
    assert message in done.stdout


def test_a_mount_that_does_not_answer_is_not_waited_for(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("satfs.control.client.SILENCE_S", 0.1)
    path.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as stuck:
        stuck.bind(str(path))
        stuck.listen(1)
        with pytest.raises(BadMountpoint, match="does not answer"):
            result_of(mounted_at("/mnt/x"), "echo", {})


def test_a_socket_that_anybody_may_have_put_there_is_not_trusted(path: Path) -> None:
    """A user who may write to a directory may listen in it, and would receive paths."""
    path.parent.mkdir(mode=0o700)
    path.parent.chmod(0o777)
    with socket.socket(socket.AF_UNIX) as foreign:
        foreign.bind(str(path))
        foreign.listen(1)
        with pytest.raises(BadMountpoint, match="does not listen"):
            result_of(mounted_at("/mnt/x"), "echo", {})


async def test_hanging_up_is_closing_the_iterator(path: Path) -> None:
    ended = trio.Event()

    async def last(_given: Mapping[str, Any], send: SendNotice) -> Mapping[str, Any]:
        try:
            await send({"x": 1})
            await trio.sleep_forever()
        finally:
            ended.set()
        raise AssertionError

    def hear_one() -> Message:
        messages = messages_of(mounted_at("/mnt/x"), "last", {})
        try:
            return next(messages)
        finally:
            messages.close()  # type: ignore[attr-defined]  # a generator

    async with serving(path, last=last):
        assert await trio.to_thread.run_sync(hear_one) == Notice({"x": 1})
        with trio.fail_after(5):
            await ended.wait()


def test_addresses_are_never_too_long() -> None:
    """A socket's address has 107 bytes (unix(7)), however long $XDG_RUNTIME_DIR is."""
    path = protocol.socket_path(Path("/m"), {"XDG_RUNTIME_DIR": "/" + "x" * 200})
    assert len(os.fsencode(path)) <= protocol.ADDRESS_BYTES


def test_where_a_mount_listens_is_where_a_command_looks(runtime: Path) -> None:
    for mountpoint in (Path("/mnt/a"), Path("/mnt/\udcff")):
        assert protocol.socket_path(mountpoint) in protocol.candidates(mountpoint, (os.geteuid(),))
    assert protocol.socket_name(Path("/mnt/a")) != protocol.socket_name(Path("/mnt/b"))
