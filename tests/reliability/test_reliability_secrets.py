"""Nothing that satfs writes or shows holds a token, a secret, or the query of a signed link."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fakes import forking
from reliability.conftest import MakeStand
from reliability.stand import KIB, MIB, Stand, refused

#: Parameters in the query of each signed link.
SIGNATURES = (b"X-Amz-Signature", b"X-Amz-Credential", b"X-Amz-Security-Token", b"AKIADEMO")


def words(stand: Stand) -> tuple[bytes, ...]:
    """Return everything that must not be found anywhere."""
    origin = stand.origin
    secrets = [origin.account.client_secret, *origin.office.given_out]
    # A token in parts is a token: its signature alone is looked for as well.
    secrets += [token.rpartition(".")[2] for token in origin.office.given_out]
    return (*SIGNATURES, *(secret.encode() for secret in secrets))


def found(stand: Stand, where: str, data: bytes) -> list[str]:
    return [f"{where}: {word[:16]!r}…" for word in words(stand) if word in data]


def files_below(directory: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the content of every file, holes left out."""
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            yield str(path), str(path).encode() + path.read_bytes()


class Satfs:
    """The program itself on the stand's origin, in the foreground."""

    def __init__(self, stand: Stand, *flags: str) -> None:
        stand.current.stop()
        self.root = stand.root
        self.terminal = stand.directory / "terminal.txt"
        with self.terminal.open("ab") as terminal:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "satfs", "mount", "-f", *flags, str(stand.root)],
                stdin=subprocess.DEVNULL,
                stdout=terminal,
                stderr=terminal,
                env={**os.environ, **stand.environment()},
            )
        deadline_s = time.monotonic() + 20
        while not os.path.ismount(stand.root):
            assert time.monotonic() < deadline_s, self.terminal.read_text()
            assert self.process.poll() is None, self.terminal.read_text()
            time.sleep(0.05)

    def children(self) -> list[int]:
        """Return the ids of the worker processes."""
        tasks = Path(f"/proc/{self.process.pid}/task").glob("*/children")
        return [int(word) for path in tasks for word in path.read_text().split()]

    def end(self, number: int = signal.SIGTERM) -> None:
        """End it by a signal."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        self.process.wait(10)


def misbehave(stand: Stand, scene: str) -> None:
    """Have every kind of failure happen that is reported."""
    faults = stand.origin.faults
    for name, endpoint in (
        *((name, "object") for name in ("forbidden", "html", "server-error", "not-found", "reset",
                                        "wrong-content-range", "precondition-failed")),
        *((name, "api") for name in ("html", "broken-json", "server-error")),
    ):  # fmt: skip
        other = stand.publish(64 * KIB)
        fault = faults.add(name, endpoint)
        with contextlib.suppress(OSError):
            stand.read_at(other, 0, KIB)
        assert fault.hits, name
        faults.remove(fault)
    for url in (
        "file:///etc/passwd?X-Amz-Signature=1",
        "http://169.254.169.254/latest?X-Amz-Signature=1",
        "http://user:X-Amz-Signature@127.0.0.1:9/x?X-Amz-Signature=1",
        "http://127.0.0.1:9/x?X-Amz-Signature=1&X-Amz-Date=20260101T000000Z&X-Amz-Expires=1",
        "http://no such host/?X-Amz-Signature=1",
    ):
        other = stand.publish(64 * KIB)
        fault = faults.add("foreign-link", "sign", url=url)
        with contextlib.suppress(OSError):
            stand.read_at(other, 0, KIB)
        assert fault.hits, url
        faults.remove(fault)
    stand.origin.expire_links()
    with stand.origin_breaks("unauthorized", "api"), contextlib.suppress(OSError):
        stand.read_at(scene, 3 * MIB, KIB)
    stand.origin.revoke_tokens()
    stand.origin.stop_listening()
    with contextlib.suppress(OSError):
        stand.read_at(scene, 2 * MIB, KIB)
    stand.origin.resume_listening()


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_nothing_that_is_written_or_shown_holds_a_secret(
    make_stand: MakeStand, log_format: str
) -> None:
    """Logs at debug level, the terminal, ps, xattrs, sidecars, the cache: all searched."""
    # Some of the failures are those of a deadline: no more is waited for than a busy machine takes.
    stand = make_stand(workers=2, read_deadline_s=4)
    log_file = stand.directory / "satfs.log"
    satfs = Satfs(stand, "-vv", "--log-format", log_format, "--log-file", str(log_file))
    leaks: list[str] = []
    try:
        scene = stand.publish(24 * MIB)
        content = stand.content(scene)
        with stand.opened(scene) as descriptor:
            stand.compare(descriptor, content, 0, 16 * MIB)
            workers = satfs.children()
            assert workers, "no worker was started, and so none was looked at"
            for pid in (satfs.process.pid, *workers):
                leaks += found(stand, f"ps {pid}", Path(f"/proc/{pid}/cmdline").read_bytes())
            for pid in workers:
                environment = Path(f"/proc/{pid}/environ").read_bytes()
                leaks += found(stand, f"environment of worker {pid}", environment)
                assert b"SATFS_" not in environment
        for directory, names, files in os.walk(stand.root) if log_format == "json" else ():
            for name in (*names, *files):
                path = os.path.join(directory, name)
                for attribute in os.listxattr(path):
                    leaks += found(stand, f"{path} {attribute}", os.getxattr(path, attribute))
                if not name.endswith(".zip") and name in files:
                    leaks += found(stand, path, Path(path).read_bytes())
        misbehave(stand, scene)
        cache = b"".join(data for _, data in files_below(stand.cache_dir))
        leaks += found(stand, "the cache while it is in use", cache)
    finally:
        satfs.end()
    assert satfs.process.returncode == 0
    written = satfs.terminal.read_bytes() + log_file.read_bytes()
    assert b"call failed" in written, "the log has no failure, and so proves nothing"
    leaks += found(stand, "log", written)
    for name, data in files_below(stand.cache_dir):
        leaks += found(stand, name, data)
    assert leaks == []
    assert stand.origin.leaks == []


def test_a_mount_that_cannot_be_says_so_without_secrets(make_stand: MakeStand) -> None:
    """Refused, unreachable, garbled: the terminal and the traceback of -vv hold no secret."""
    stand = make_stand()
    stand.current.stop()
    for fault, endpoint in (("unauthorized", "token"), ("html", "token"), ("redirect", "tasks")):
        where = {"location": "http://127.0.0.2:9/elsewhere?token=1"} if fault == "redirect" else {}
        stand.origin.faults.clear()
        stand.origin.faults.add(fault, endpoint, **where)
        done = forking.satfs("mount", "-f", "-vv", stand.root, environment=stand.environment())
        assert done.returncode != 0, fault
        assert found(stand, fault, (done.stdout + done.stderr).encode()) == []
        assert "Error:" in done.stderr
    assert stand.origin.leaks == []


def test_settings_are_shown_without_secrets(make_stand: MakeStand) -> None:
    """`satfs config show` shows that a secret is set, and not which."""
    stand = make_stand()
    token = "eyJ-a-token-that-nobody-may-see"
    done = forking.satfs("settings", environment=stand.environment() | {"SATFS_TOKEN": token})
    assert done.returncode == 0
    assert found(stand, "settings", (done.stdout + done.stderr).encode()) == []
    assert token not in done.stdout + done.stderr
    assert "SATFS_CLIENT_SECRET" in done.stdout


def test_a_crash_leaves_no_secret(make_stand: MakeStand) -> None:
    """A mount that is aborted in mid read logs no secret, not even in its last line."""
    stand = make_stand(workers=2)
    satfs = Satfs(stand, "-vv")
    scene = stand.publish(16 * MIB)
    try:
        with stand.opened(scene) as descriptor, stand.origin_breaks("stall", "object", at_byte=0):
            call = stand.calls.start("read", stand.read_call_s, os.pread, descriptor, 8 * MIB, 0)
            time.sleep(0.3)
            satfs.end(signal.SIGABRT)
            with refused(errno.ENOTCONN, errno.ECONNABORTED, errno.EIO):
                stand.calls.end("read", stand.read_call_s, call)
    finally:
        satfs.end(signal.SIGKILL)
    subprocess.run(["umount", "-l", str(stand.root)], check=True)
    leaks = found(stand, "terminal", satfs.terminal.read_bytes())
    for name, data in files_below(stand.cache_dir):
        leaks += found(stand, name, data)
    assert leaks == []


def test_a_crash_leaves_no_core(make_stand: MakeStand, tmp_path: Path) -> None:
    """Not where others leave one, neither of the mount nor of its workers."""
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))
    try:
        stand = make_stand(workers=2)
        other = subprocess.Popen(
            [sys.executable, "-c", "import os; os.abort()"], cwd=tmp_path, stderr=subprocess.DEVNULL
        )
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, before)
    _, status = os.waitpid(other.pid, 0)  # Popen forgets whether there was a core
    other.wait()
    others_leave_one = os.WCOREDUMP(status)
    scene = stand.publish(32 * MIB)
    with stand.opened(scene) as descriptor:
        stand.compare(descriptor, stand.content(scene), 0, 16 * MIB)
    mount = stand.current.process.pid
    processes = [mount, *_children(mount)]
    assert len(processes) > 1
    limits = {resource.prlimit(pid, resource.RLIMIT_CORE)[0] for pid in processes}
    assert limits <= {0, 1}
    os.kill(mount, signal.SIGABRT)
    stand.tally.n_kills += 1
    _, status = os.waitpid(mount, 0)
    assert os.WTERMSIG(status) == signal.SIGABRT
    assert not os.WCOREDUMP(status), f"a core was left; others leave one: {others_leave_one}"


def _children(pid: int) -> list[int]:
    """Return what any thread of a process has started."""
    texts = (path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children"))
    return [int(child) for each in texts for child in each.split()]


# -- where credentials go ----------------------------------------------------------------------


def test_a_foreign_next_page_gets_no_credential(make_stand: MakeStand) -> None:
    """A listing that goes on at another host fails; that host gets no request."""
    stand = make_stand()
    with contextlib.closing(_Trap()) as trap:
        stand.origin.faults.add("endless-next", "captures")
        stand.origin.faults.add("foreign-next", "captures", base=trap.url, path="/elsewhere/")
        with refused(errno.EIO):
            stand.list(stand.root / "tasks" / "1")
        assert trap.n_connections() == 0


@pytest.mark.parametrize("endpoint", ["captures", "sign", "token"])
def test_a_redirect_to_another_host_gets_no_credential(
    make_stand: MakeStand, endpoint: str
) -> None:
    """An API that redirects elsewhere is refused, and so is a token endpoint that does.

    A link may lead elsewhere, without credential.
    """
    stand = make_stand()
    scene = stand.publish(KIB)
    with contextlib.closing(_Trap()) as trap:
        fault = stand.origin.faults.add("redirect", endpoint, location=f"{trap.url}/elsewhere")
        with refused(errno.EIO, errno.EACCES, errno.ETIMEDOUT):
            if endpoint == "token":
                stand.origin.revoke_tokens()
            if endpoint in ("captures", "token"):
                stand.list(stand.root / "tasks" / "1")
            else:
                stand.read_at(scene, 0, 10)
        assert fault.hits
        received = trap.received()
    for word in (*words(stand), b"uthorization", b"ontract"):
        assert word not in received


def test_a_redirecting_store_passes_the_rules_for_links(make_stand: MakeStand) -> None:
    """The target of a store's redirect is judged like a link: file: and link-local are refused."""
    stand = make_stand(workers=0)
    for location in ("file:///etc/passwd", "http://169.254.169.254/latest/meta-data"):
        scene = stand.publish(KIB)
        fault = stand.origin.faults.add(
            "redirect", "object", path_contains=scene, location=location
        )
        with refused(errno.EIO, errno.EACCES):
            stand.read_at(scene, 0, 10)
        assert fault.hits


class _Trap:
    """A port that listens, sends no response, and keeps what it receives."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.setblocking(False)
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def _accepted(self) -> list[bytes]:
        received: list[bytes] = []
        while True:
            try:
                connection, _ = self._socket.accept()
            except BlockingIOError:
                return received
            with connection:
                connection.settimeout(0.5)
                with contextlib.suppress(OSError):
                    received.append(connection.recv(64 * KIB))

    def n_connections(self) -> int:
        return len(self._accepted())

    def received(self) -> bytes:
        return b"".join(self._accepted())

    def close(self) -> None:
        self._socket.close()


# -- whose the files are -----------------------------------------------------------------------


def test_the_cache_is_for_its_owner_alone(make_stand: MakeStand) -> None:
    """Directories are 0700 and files 0600, for any umask and any earlier mode."""
    before = os.umask(0)
    try:
        stand = make_stand()
        scene = stand.publish(2 * MIB)
        with stand.opened(scene) as descriptor:
            stand.compare(descriptor, stand.content(scene))
        stand.list(stand.root / "tasks" / "1")
        stand.current.stop()
    finally:
        os.umask(before)
    modes = {
        str(path): stat.S_IMODE(path.lstat().st_mode)
        for path in (stand.cache_dir, *stand.cache_dir.rglob("*"))
    }
    assert len(modes) > 5
    wrong = {
        path: oct(mode)
        for path, mode in modes.items()
        if mode != (0o700 if Path(path).is_dir() else 0o600)
    }
    assert wrong == {}


@pytest.mark.parametrize("kind", ["a symlink", "somebody else's"])
def test_a_cache_directory_that_is_not_ours_is_refused(tmp_path: Path, kind: str) -> None:
    """Nobody else can have us write where they like, or read what we keep."""
    from mounted.mounting import MountFailed

    cache_dir = tmp_path / "cache"
    if kind == "a symlink":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        cache_dir.symlink_to(tmp_path / "elsewhere")
    else:
        if os.geteuid() != 0:
            pytest.skip("only root can give a directory away")
        cache_dir.mkdir(mode=0o700)
        os.chown(cache_dir, 12345, 12345)
    with pytest.raises(MountFailed, match="cache_dir"), Stand(tmp_path):
        pass
    if kind == "a symlink":
        assert list((tmp_path / "elsewhere").iterdir()) == []
