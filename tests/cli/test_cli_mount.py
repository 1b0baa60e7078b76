"""`satfs mount` and `satfs umount` as people use them, through the real program and the kernel."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from cli.conftest import Program, is_mounted, mount_processes
from fakes.processes import is_running, wait_until

from satfs.control.client import ServingProcess
from satfs.mountpoints import satfs_mounts

pytestmark = pytest.mark.mounts


def test_a_mount_in_the_background_works_when_the_command_returns(
    aleph: Program, place: Path
) -> None:
    done = aleph("mount", place)

    assert (done.returncode, done.stdout) == (0, "")
    assert f"satfs is mounted at {place}; to unmount it: satfs umount {place}" in done.stderr
    assert "tasks" in os.listdir(place)
    assert list((place / "tasks").iterdir())


def test_a_mount_starts_although_the_kernel_keeps_no_attributes(
    aleph: Program, place: Path
) -> None:
    """The process never calls its own mount: a `stat` of its mountpoint would wait for itself."""
    done = aleph("mount", place, SATFS_ATTR_TIMEOUT_S="0.000001")
    assert done.returncode == 0, done.stderr


def test_the_kernel_knows_it_as_satfs(aleph: Program, place: Path) -> None:
    """Type and source are what findmnt, df and updatedb's PRUNEFS go by."""
    aleph("mount", "-o", "fsname=satfs:prod,noatime,noexec", place)

    line = next(
        line for line in Path("/proc/mounts").read_text().splitlines() if f" {place} " in line
    )
    source, _, fs_type, options, *_ = line.split()
    assert (source, fs_type) == ("satfs:prod", "fuse.satfs")
    assert {"ro", "nosuid", "nodev", "noatime", "noexec"} <= set(options.split(","))


def test_what_stays_in_the_background_has_let_go_of_the_terminal(
    aleph: Program, place: Path
) -> None:
    """In a session of its own, leading nothing, keeping no directory busy, reading nothing."""
    aleph("mount", place)

    (pid,) = mount_processes(place)
    process = Path(f"/proc/{pid}")
    session = int((process / "stat").read_text().rpartition(")")[2].split()[3])
    assert session not in (os.getsid(0), pid)
    assert os.readlink(process / "cwd") == "/"
    assert {os.readlink(process / "fd" / str(n)) for n in range(3)} == {os.devnull}


def test_quiet_says_nothing(aleph: Program, place: Path) -> None:
    done = aleph("mount", "-q", place)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_umount_takes_it_away_and_ends_the_process(aleph: Program, place: Path) -> None:
    aleph("mount", place)
    (pid,) = mount_processes(place)

    done = aleph("umount", place)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not is_mounted(place)
    assert not is_running(pid), "umount waits for the process: its cache is free then"


def test_who_mounts_again_at_once_finds_the_cache_free(aleph: Program, place: Path) -> None:
    """As a script does that takes a mount away and makes another one on the same cache."""
    for _ in range(3):
        assert aleph("mount", place).returncode == 0
        (pid,) = mount_processes(place)
        assert os.listdir(place / "tasks")
        (mounted,) = (each for each in satfs_mounts() if each.mountpoint == place)
        with closing(ServingProcess(mounted)) as process:
            assert not process.wait(0.05)
            assert aleph("umount", place).returncode == 0
            assert process.wait(0)
        assert not is_running(pid)


def test_umount_of_a_killed_mount_waits_for_nobody(aleph: Program, place: Path) -> None:
    aleph("mount", place)
    (pid,) = mount_processes(place)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_running(pid))
    started_s = time.monotonic()

    assert aleph("umount", place).returncode == 0

    assert time.monotonic() - started_s < 5
    assert not is_mounted(place)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_mount_in_the_foreground_stays_until_told(
    aleph: Program, place: Path, number: signal.Signals
) -> None:
    """Ctrl-C and SIGTERM unmount cleanly within seconds, also while a process looks in."""
    process = aleph.start("mount", "--foreground", place)
    assert process.stderr is not None
    assert "Ctrl-C unmounts it" in process.stderr.readline()
    directory = os.open(place, os.O_RDONLY)
    started_s = time.monotonic()

    process.send_signal(number)
    _, said = process.communicate(timeout=10)
    os.close(directory)

    assert time.monotonic() - started_s < 5
    assert process.returncode == 0
    assert said == ""
    assert not is_mounted(place)


def test_paths_may_be_relative_and_links(aleph: Program, place: Path, tmp_path: Path) -> None:
    """The mount works from / in the background, and all its options still hold."""
    (tmp_path / "link").symlink_to(place)

    done = aleph(
        *("mount", "--log-file", "satfs.log", "--log-format", "json", "-v", "link"),
        SATFS_CACHE_DIR="kept",
    )

    assert done.returncode == 0, done.stderr
    assert is_mounted(place)
    assert (tmp_path / "kept").is_dir()
    wait_until(lambda: "mounted" in (tmp_path / "satfs.log").read_text())
    lines = (tmp_path / "satfs.log").read_text().splitlines()
    assert {"mounted"} <= {json.loads(line)["event"] for line in lines}
    assert aleph("umount", "link").returncode == 0


def test_owner_and_permissions_are_as_told(aleph: Program, place: Path) -> None:
    aleph("mount", "-o", f"uid={os.getuid()},gid=4711,umask=027", place)

    status = (place / "README.txt").stat()
    assert (status.st_uid, status.st_gid) == (os.getuid(), 4711)
    assert status.st_mode & 0o777 == 0o640
    assert place.stat().st_mode & 0o777 == 0o750


def test_flags_win_over_mount_options_and_these_over_the_environment(
    aleph: Program, place: Path
) -> None:
    """Each of the two wrong addresses would fail; the flag has the last word."""
    wrong = "http://127.0.0.1:9"

    right = aleph.environment["SATFS_API_URL"]
    done = aleph(
        *("mount", "-o", f"api_url={wrong}", "--api-url", right, place), SATFS_API_URL=f"{wrong}/x"
    )

    assert done.returncode == 0, done.stderr


def test_a_misspelt_variable_is_remarked_on(aleph: Program, place: Path) -> None:
    done = aleph("mount", place, SATFS_CONTRACT="x")

    assert done.returncode == 0
    assert "Note: SATFS_CONTRACT is set, and is not a setting of satfs" in done.stderr


# -- what goes wrong before it works ---------------------------------------------------------------


def test_a_wrong_secret_is_refused_on_the_terminal(aleph: Program, place: Path) -> None:
    done = aleph("mount", place, SATFS_CLIENT_SECRET="not-the-secret")

    assert done.returncode == 3
    assert "SATFS_CLIENT_SECRET" in done.stderr
    assert "not-the-secret" not in done.stderr
    assert "Traceback" not in done.stderr
    assert not is_mounted(place)
    assert mount_processes(place) == []


def test_no_credentials_at_all_are_explained(aleph: Program, place: Path) -> None:
    done = aleph("mount", place, SATFS_CLIENT_ID=None, SATFS_CLIENT_SECRET=None)

    assert done.returncode == 3
    assert "SATFS_CLIENT_ID" in done.stderr
    assert "SATFS_TOKEN" in done.stderr


def test_a_contract_of_somebody_else_is_refused(aleph: Program, place: Path) -> None:
    done = aleph("mount", "--contract", "cont.somebody-elses", place)

    assert done.returncode == 3
    assert "SATFS_CONTRACT_ID" in done.stderr


def test_an_api_that_is_not_there_is_a_matter_of_the_network(aleph: Program, place: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    done = aleph(
        "mount", "-o", "metadata_deadline_s=1", "--api-url", f"http://127.0.0.1:{port}", place
    )

    assert done.returncode == 4
    assert f"127.0.0.1:{port}" in done.stderr
    assert "Check the network" in done.stderr


class _AnotherServer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<html>Welcome to nginx!</html>")

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_an_api_that_is_something_else_is_told_apart(aleph: Program, place: Path) -> None:
    """Any web server may answer at a wrong address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _AnotherServer) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        done = aleph("mount", "--api-url", f"http://127.0.0.1:{server.server_port}", place)
        server.shutdown()

    assert done.returncode == 8
    assert "Check that SATFS_API_URL" in done.stderr
    assert "Traceback" not in done.stderr


def test_giving_up_while_waiting_leaves_nothing_behind(aleph: Program, place: Path) -> None:
    """Ctrl-C in front of a mount that waits for an API which does not answer."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        process = aleph.start(
            "mount", "--api-url", f"http://127.0.0.1:{silent.getsockname()[1]}", place
        )
        connection, _ = silent.accept()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=10)
        connection.close()

    assert process.returncode == 130
    wait_until(lambda: mount_processes(place) == [])
    assert not is_mounted(place)


def test_a_mount_that_nobody_waits_for_any_more_is_taken_down(aleph: Program, place: Path) -> None:
    """No command has reported that it works, so it must not stay (`timeout 1 satfs mount …`)."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        api_url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        process = aleph.start("mount", "-o", "metadata_deadline_s=2", "--api-url", api_url, place)
        connection, _ = silent.accept()
        process.kill()
        process.communicate()
        connection.close()

    wait_until(lambda: mount_processes(place) == [])
    assert not is_mounted(place)


def test_a_mount_that_failed_can_be_tried_again_at_once(aleph: Program, place: Path) -> None:
    """The mountpoint is free when the command has ended, though its background ends later."""
    codes = [aleph("mount", place, SATFS_CLIENT_SECRET="wrong").returncode for _ in range(5)]
    assert codes == [3] * 5


def test_a_traceback_is_for_those_who_ask(aleph: Program, place: Path) -> None:
    plain = aleph("mount", place, SATFS_CLIENT_SECRET="wrong")
    asked = aleph("mount", "-vv", place, SATFS_CLIENT_SECRET="wrong")

    assert "Traceback" not in plain.stderr
    assert "Traceback" in asked.stderr
    assert plain.stderr in asked.stderr
    assert asked.returncode == 3


# -- where it is mounted ---------------------------------------------------------------------------


def test_a_missing_directory_is_named_with_the_command_that_makes_it(aleph: Program) -> None:
    """The command can be pasted into a shell, in any directory."""
    done = aleph("mount", "no where/at all")

    assert done.returncode == 5
    sentence, _, command = done.stderr.partition(" Make it: ")
    assert sentence == "Error: There is no directory no where/at all."
    subprocess.run(["bash", "-c", command], check=True)
    assert (aleph.directory / "no where/at all").is_dir()


def test_a_file_is_no_mountpoint(aleph: Program, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    done = aleph("mount", "file")

    sentence = "Error: file is not a directory. Choose another place.\n"
    assert (done.returncode, done.stderr) == (5, sentence)


def test_a_directory_that_holds_something_is_mounted_over_only_when_told(
    aleph: Program, place: Path
) -> None:
    (place / "mine").touch()

    refused = aleph("mount", place)
    done = aleph("mount", "--nonempty", place)

    assert refused.returncode == 5
    assert "is not empty" in refused.stderr
    assert "--nonempty" in refused.stderr
    assert done.returncode == 0
    assert not (place / "mine").exists()


def test_a_mount_is_not_mounted_over(aleph: Program, place: Path) -> None:
    aleph("mount", place)

    done = aleph("mount", "--nonempty", place)

    assert done.returncode == 5
    assert f"satfs is mounted at {place} already" in done.stderr
    assert f"satfs umount {place}" in done.stderr
    assert is_mounted(place)


@pytest.mark.parametrize("command", ["mount", "demo", "mount.satfs"])
def test_two_mounts_at_once_on_one_directory(
    aleph: Program, demo: Program, place: Path, command: str
) -> None:
    """S-179 On a directory with a mount a second one is refused; so is one of two at once."""
    words: dict[str, tuple[object, ...]] = {
        "mount": ("mount", place),
        "demo": ("demo", place),
        "mount.satfs": ("satfs:default", place, "-o", "ro"),
    }
    if command == "demo":
        pytest.importorskip("numpy")
    program = demo if command == "demo" else aleph
    program("--version")  # starts the process that forks, which two threads must not do at once
    for _ in range(1 if command == "demo" else 3):
        with ThreadPoolExecutor(2) as threads:
            both = list(threads.map(lambda run: run(*words[command]), [program, program]))
        said = [done.stderr for done in both]
        codes = sorted(done.returncode for done in both)

        n_mounts = sum(each.mountpoint == place for each in satfs_mounts())
        assert n_mounts == 1, said
        # A demo replaces one that is mounted already.
        assert codes[0] == 0, said
        assert codes[1] != 0 or command == "demo", said
        assert aleph("umount", place).returncode == 0
        assert not is_mounted(place)


def test_what_a_killed_mount_leaves_behind_is_cleaned_away(aleph: Program, place: Path) -> None:
    """A mount with "Transport endpoint is not connected" is repaired, when it is ours."""
    aleph("mount", place)
    (pid,) = mount_processes(place)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_running(pid))
    with pytest.raises(OSError, match=r"abort|not connected"):
        os.listdir(place)

    done = aleph("mount", place)

    assert done.returncode == 0
    assert f"Note: A satfs mount that had died was removed from {place}." in done.stderr
    assert "tasks" in os.listdir(place)


def test_a_cache_inside_the_mount_is_refused(aleph: Program, place: Path) -> None:
    """A mount that reads itself waits for itself."""
    done = aleph("mount", place, SATFS_CACHE_DIR=f"{place}/cache")

    assert done.returncode == 7
    assert "cache_dir" in done.stderr


def test_a_log_inside_the_mount_is_refused(aleph: Program, place: Path) -> None:
    done = aleph("mount", "--log-file", place / "log", place)

    assert done.returncode == 2
    assert "log file" in done.stderr


def test_a_log_that_cannot_be_written_is_told_from_the_background(
    aleph: Program, place: Path
) -> None:
    done = aleph("mount", "--log-file", "/nowhere/log", place)

    assert done.returncode == 2
    assert "log file /nowhere/log: No such file or directory" in done.stderr


# -- umount ----------------------------------------------------------------------------------------


def test_what_is_not_ours_is_left_alone(satfs: Program, tmp_path: Path) -> None:
    done = satfs("umount", "/proc")

    assert done.returncode == 5
    assert "satfs is not mounted at /proc" in done.stderr
    assert Path("/proc/self").exists()


def test_where_it_is_instead_is_told(aleph: Program, place: Path) -> None:
    aleph("mount", place)

    done = aleph("umount", place.parent)

    assert done.returncode == 5
    assert str(place) in done.stderr.partition("it is at")[2]


def test_who_keeps_it_busy_is_told(aleph: Program, place: Path) -> None:
    aleph("mount", place)
    sitting = subprocess.Popen(["sleep", "60"], cwd=place / "tasks")
    try:
        refused = aleph("umount", place)
        lazily = aleph("umount", "-z", place)
    finally:
        sitting.kill()
        sitting.wait()

    assert refused.returncode == 5
    assert f"sleep ({sitting.pid}) is in it" in refused.stderr
    assert "umount -z" in refused.stderr
    assert lazily.returncode == 0
    assert not is_mounted(place)


def test_a_dead_mount_can_be_unmounted(aleph: Program, place: Path) -> None:
    aleph("mount", place)
    (pid,) = mount_processes(place)
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_running(pid))

    assert aleph("umount", place).returncode == 0
    assert not is_mounted(place)


def test_several_are_unmounted_at_once(aleph: Program, place: Path, tmp_path: Path) -> None:
    aleph("mount", place)

    done = aleph("umount", place, tmp_path)

    assert done.returncode == 5, "the second is none, and that is told"
    assert not is_mounted(place)
