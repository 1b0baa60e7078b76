"""`satfs status`, through the real entry point, on mounts in every state."""

from __future__ import annotations

import errno
import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import trio
from cli.conftest import Program, mount_processes
from fakes.processes import wait_until
from hypothesis import given
from hypothesis import strategies as st

from satfs.cli.mount_status import (
    REMEDIES,
    MountReport,
    State,
    query_mounts,
    remedy_of,
    report_of,
)
from satfs.control.protocol import socket_path
from satfs.control.server import Command, SendNotice, serve_control
from satfs.demo.server import DemoOrigin
from satfs.demo.tokens import DemoAccount
from satfs.humanize import format_bytes, format_duration
from satfs.model import Json
from satfs.mountpoints import Mounted

NOWHERE = Mounted(Path("/nowhere"), "fuse.satfs", "satfs:default", (0, 1), frozenset())
SOMEWHERE = Mounted(Path("/mnt"), "fuse.satfs", "satfs:default", (0, 1), frozenset())


@pytest.fixture
def mounted(aleph: Program, place: Path) -> Path:
    """A mount in the background."""
    done = aleph("mount", place)
    assert done.returncode == 0, done.stderr
    return place


def only(done: subprocess.CompletedProcess[str], place: Path) -> dict[str, object]:
    """Return the report of the mount at *place*: others may be there besides."""
    found = [each for each in json.loads(done.stdout) if each["mountpoint"] == str(place)]
    assert len(found) == 1
    return dict(found[0])


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the user's directory for sockets; its path is short, as an address must be."""
    with tempfile.TemporaryDirectory(prefix="satfs-") as directory:
        monkeypatch.setenv("XDG_RUNTIME_DIR", directory)
        yield Path(directory)


@pytest.fixture
def record() -> dict[str, object]:
    return {"is_online": True, "pid": 1}


def answered_by(runtime: Path, commands: Mapping[str, Mapping[str, Json] | None]) -> MountReport:
    """Return the report of a mount of which there is but a socket; None never ends a command."""

    async def main() -> MountReport:
        async def never(_given: Mapping[str, Json], _send: SendNotice) -> Mapping[str, Json]:
            await trio.sleep_forever()
            raise AssertionError

        def command(result: Mapping[str, Json] | None) -> Command:
            async def give(_given: Mapping[str, Json], _send: SendNotice) -> Mapping[str, Json]:
                return result or {}

            return never if result is None else give

        async with trio.open_nursery() as nursery:
            path = socket_path(NOWHERE.mountpoint)
            assert path.is_relative_to(runtime)
            served = {name: command(result) for name, result in commands.items()}
            await nursery.start(serve_control, path, served)
            (report,) = await trio.to_thread.run_sync(query_mounts, [NOWHERE], 0.5)
            nursery.cancel_scope.cancel()
            return report

    return trio.run(main)


def test_a_mount_that_works(aleph: Program, mounted: Path) -> None:
    """Status shows on 80 columns what the mount says, and exits with 0."""
    shown = aleph("status", mounted)
    assert shown.returncode == 0, shown.stderr
    assert max(len(line) for line in shown.stdout.splitlines()) <= 80
    for label in ("works", "up", "account", "listings", "cache", "reading", "transfers"):
        assert label in shown.stdout
    assert "token for" in shown.stdout

    done = aleph("status", mounted, "--json")
    assert done.returncode == 0
    query = only(done, mounted)
    assert query["state"] == "works"
    assert query["status"] == json.loads((mounted / ".satfs/status.json").read_text()) | {
        name: query["status"][name]  # type: ignore[index]
        for name in ("now", "up_s", "credential", "listings", "calls", "links", "connections")
    }
    listed = aleph("list", "--json")
    assert only(listed, mounted)["pid"] in mount_processes(mounted)
    assert str(mounted)[:20] in aleph("list").stdout


def test_the_status_comes_over_the_control_socket(runtime: Path, record: dict[str, object]) -> None:
    """No process reads in the mount: the state comes over its socket alone."""
    report = answered_by(runtime, {"status": record})
    assert (report.state, report.status) == (State.WORKS, record)


@pytest.mark.parametrize(
    "status", [{"a": [[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]}, {"a": "x" * 2_000_000}]
)
def test_a_status_of_another_shape_over_the_socket(runtime: Path, status: dict[str, Json]) -> None:
    """Another user's process may listen there: no more is taken from it than from a file."""
    assert answered_by(runtime, {"status": status}).state is State.MUTE


def test_a_mount_that_goes_on_working_is_given_up(runtime: Path) -> None:
    """The time limit holds also when the process reports that it still works on the request."""
    assert answered_by(runtime, {"status": None}).state is State.SILENT


@pytest.mark.mounts
def test_a_mount_without_a_socket_is_read(aleph: Program, mounted: Path) -> None:
    """Where the socket cannot be reached, the status and the log come from `.satfs`."""
    Path(json.loads((mounted / ".satfs/status.json").read_text())["control"]).unlink()
    assert only(aleph("status", mounted, "--json"), mounted)["state"] == "works"
    assert aleph("log", mounted).returncode == 0


@pytest.mark.mounts
def test_old_names_of_commands_still_work(aleph: Program, mounted: Path) -> None:
    """`list`, `settings` and `unpin` are what `status`, `config` and `pin` do with an option."""
    lists = [aleph(*words).stdout.splitlines() for words in (("list",), ("status", "--short"))]
    ours = [[line for line in lines if str(mounted) in line] for lines in lists]
    assert ours[0] == ours[1] != []
    assert aleph("settings").stdout == aleph("config", "show", "--describe").stdout
    assert aleph("unpin", "--all").stdout == aleph("pin", "--remove", "--all").stdout
    assert aleph("unpin").returncode == aleph("pin", "--all").returncode == 2


def test_a_path_inside_a_mount_will_do(aleph: Program, mounted: Path) -> None:
    done = aleph("status", mounted / "tasks/341271", "--json")
    assert only(done, mounted)["state"] == "works"


def test_all_mounts_when_none_is_named(aleph: Program, mounted: Path) -> None:
    assert only(aleph("status", "--json"), mounted)["state"] == "works"


def test_where_nothing_is_mounted(satfs: Program, tmp_path: Path) -> None:
    """A place without a mount is an error that says what to look at, with a code of its own."""
    refused = satfs("status", tmp_path)
    assert refused.returncode == 5
    assert "satfs status --short" in refused.stderr


def test_a_hung_mount_keeps_nobody_waiting(aleph: Program, mounted: Path) -> None:
    """A mount that hangs is said to, within seconds, and the program ends."""
    (process,) = mount_processes(mounted)
    os.kill(process, signal.SIGSTOP)
    try:
        began_s = time.monotonic()
        with ThreadPoolExecutor(3) as threads:  # each waits as long as it waits for any mount
            commands = (("status", mounted, "--json"), ("status", mounted), ("list", "--json"))
            done, shown, listed = threads.map(lambda words: aleph(*words), commands)
        assert time.monotonic() - began_s < 8
        assert done.returncode == 5
        assert only(done, mounted)["state"] == "does not answer"
        assert shown.returncode == 5
        assert "does not answer" in shown.stdout
        assert "satfs umount -z" in " ".join(shown.stdout.split())
        assert only(listed, mounted)["state"] == "does not answer"
    finally:
        os.kill(process, signal.SIGCONT)
    wait_until(lambda: aleph("status", mounted).returncode == 0)


def test_a_dead_mount_is_told(aleph: Program, mounted: Path) -> None:
    (process,) = mount_processes(mounted)
    os.kill(process, signal.SIGKILL)
    wait_until(lambda: only(aleph("list", "--json"), mounted)["state"] == "dead")
    shown = aleph("status", mounted)
    assert shown.returncode == 5
    assert "satfs umount" in shown.stdout


def test_an_absent_vendor_is_told(aleph: Program, origin: DemoOrigin, place: Path) -> None:
    """Offline, the status says so, and why."""
    done = aleph(
        "mount",
        place,
        SATFS_LISTING_TTL_S="0.1",
        SATFS_ENTRY_TIMEOUT_S="0.1",
        SATFS_METADATA_DEADLINE_S="1",
        SATFS_READ_DEADLINE_S="2",
        SATFS_NEGATIVE_TTL_S="0.1",
    )
    assert done.returncode == 0, done.stderr
    os.listdir(place / "tasks")
    origin.stop_listening()
    try:
        time.sleep(0.3)
        os.listdir(place / "tasks")
        queried = aleph("status", place, "--json")
        assert only(queried, place)["state"] == "offline"
        assert queried.returncode == 0
        shown = aleph("status", place).stdout
        assert "has not responded" in shown
        assert "STALE" in shown
    finally:
        origin.resume_listening()


def test_a_refused_credential_is_told(aleph: Program, place: Path) -> None:
    """When the API does not accept us any more, the status says so and what to do."""
    with DemoOrigin() as other:
        settings = other.environment()
        done = aleph(
            "mount",
            place,
            **settings,
            SATFS_LISTING_TTL_S="0.1",
            SATFS_ENTRY_TIMEOUT_S="0.1",
            SATFS_ATTR_TIMEOUT_S="0.1",
        )
        assert done.returncode == 0, done.stderr
        other.office.account = DemoAccount(client_secret="another-one-now")
        other.revoke_tokens()
        time.sleep(0.3)
        with pytest.raises(PermissionError):
            os.listdir(place / "tasks" / "341271")
        assert only(aleph("status", place, "--json"), place)["state"] == "refused"
        shown = " ".join(aleph("status", place).stdout.split())
        assert "SATFS_CLIENT_SECRET" in shown
        assert settings["SATFS_CLIENT_SECRET"] not in shown


def test_a_watch_goes_on_until_ctrl_c(aleph: Program, mounted: Path) -> None:
    """A watch prints again and again, a line each in JSON, and ends well with Ctrl-C."""
    watch = aleph.start("status", mounted, "--watch", "--json", "--interval", "0.2")
    assert watch.stdout is not None
    lines = [json.loads(watch.stdout.readline()) for _ in range(3)]
    watch.send_signal(signal.SIGINT)
    _, said = watch.communicate(timeout=20)
    assert watch.returncode == 0
    assert "Traceback" not in said
    assert all(line[0]["state"] == "works" for line in lines)


def test_the_log_is_there_and_can_be_followed(aleph: Program, place: Path) -> None:
    """The last lines of the log are in `.satfs/log`, and `tail -f` shows those that come."""
    assert aleph("mount", "-v", place).returncode == 0
    log = place / ".satfs/log"
    assert "mounted" in log.read_text()
    tail = subprocess.Popen(["tail", "-n", "1", "-f", "-s", "0.1", log], stdout=subprocess.PIPE)
    try:
        assert tail.stdout is not None
        assert tail.stdout.readline()
        assert aleph("log", "--level", "debug", place).returncode == 0  # the change is logged
        lines = [tail.stdout.readline() for _ in range(2)]  # the request, then the change
        assert any(b"log level changed" in line for line in lines)
    finally:
        tail.kill()
        tail.communicate()


def test_no_secret_is_told(aleph: Program, origin: DemoOrigin, place: Path) -> None:
    """Neither a credential, a token nor the query of a link is anywhere in `.satfs`."""
    assert aleph("mount", "-vv", place).returncode == 0
    scenes = [
        path for path in (place / "tasks/341271").glob("*/*/*") if path.suffix in (".zip", ".png")
    ]
    for path in scenes[:4]:
        path.read_bytes()
    said = [(place / ".satfs" / name).read_text() for name in ("status.json", "metrics", "log")] + [
        (place / ".satfs/explain" / path.relative_to(place)).read_text() for path in scenes[:4]
    ]
    said += [aleph("status", place).stdout, aleph("status", "--json").stdout]
    output = "\n".join(said)
    environment = origin.environment()
    assert environment["SATFS_CLIENT_SECRET"] not in output
    assert origin.office.given_out
    assert all(token not in output for token in origin.office.given_out)
    assert "X-Amz-Signature" not in output
    assert "Signature=" not in output
    assert "eyJ" not in output
    assert "Bearer e" not in output


@pytest.mark.parametrize(
    ("code", "said", "state"),
    [
        (0, '{"is_online": true}', State.WORKS),
        (0, '{"is_online": false}', State.OFFLINE),
        (0, '{"is_online": true, "credential": {"refused": "no"}}', State.REFUSED),
        (0, "[]", State.MUTE),
        (errno.ENOTCONN, "", State.DEAD),
        (errno.EACCES, "", State.CLOSED),
        (errno.ETIMEDOUT, "", State.SILENT),
        (errno.ENOENT, "", State.MUTE),
    ],
)
def test_the_result_of_a_reader_is_a_state(code: int, said: str, state: State) -> None:
    assert report_of(SOMEWHERE, code, said).state is state
    assert state in REMEDIES or report_of(SOMEWHERE, code, said).status is not None


@pytest.mark.parametrize("state", [State.SILENT, State.DEAD])
def test_a_remedy_can_be_pasted_into_any_shell(
    state: State, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the program's own path where no shell finds it, and the mountpoint quoted."""
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "bin" / "satfs"), "status"])
    remedy = remedy_of(state, tmp_path / "a mount; point")
    assert f"{tmp_path / 'bin' / 'satfs'} umount" in remedy
    assert shlex.quote(str(tmp_path / "a mount; point")) in remedy


@given(st.integers(0, 255), st.text(max_size=60))
def test_any_output_of_a_reader_is_a_state(code: int, said: str) -> None:
    heard = report_of(SOMEWHERE, code, said)
    assert (heard.status is not None) == (
        heard.state in (State.WORKS, State.OFFLINE, State.REFUSED)
    )


@given(st.floats(0, 1e18))
def test_amounts_fit_a_column(value: float) -> None:
    assert len(format_bytes(min(value, 1e15))) <= 9


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 ms"), (0.25, "250 ms"), (59.6, "1 min"), (3600, "1 h"), (11530, "3 h 12 min")],
)
def test_durations_have_two_units_at_most(seconds: float, words: str) -> None:
    assert format_duration(seconds) == words
