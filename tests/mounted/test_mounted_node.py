"""One mount for all containers of a node: replaced after kill -9, while its readers go on.

A node's pods share the directory above the mount (docs/kubernetes). Here the node, the mounter and
the reader have a mount namespace each, and the same propagation as there.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from satfs.demo.server import DemoOrigin

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("nsenter") is None,
    reason="mount namespaces of a node's containers take root and nsenter",
)

#: The reader: one process for the whole test. It opens the file again and again, and prints the
#: digest of what it read, or the name of the errno.
_READER = """
import errno, hashlib, sys, time
while True:
    try:
        with open(sys.argv[1], "rb") as file:
            word = hashlib.sha256(file.read()).hexdigest()
    except OSError as failure:
        word = errno.errorcode[failure.errno]
    print(word, flush=True)
    time.sleep(0.1)
"""


class Node:
    """A mount namespace in which *shared* is a directory that containers mount below."""

    def __init__(self, stack: ExitStack, shared: Path) -> None:
        self._stack = stack
        self._shared = shared
        prepare = f'mount --bind "{shared}" "{shared}" && mount --make-rshared "{shared}"'
        node = self.start(
            ["unshare", "--mount", "--propagation=private"],
            ["bash", "-c", f"{prepare} && echo ready && exec sleep infinity"],
        )
        assert node.stdout is not None
        assert node.stdout.readline() == "ready\n"
        self._enter = ["nsenter", "--mount", f"--target={node.pid}"]

    def start(
        self, before: list[str], command: list[str], **environment: str
    ) -> subprocess.Popen[str]:
        """Start *command* after the words *before*; it is killed when the test ends."""
        process = self._stack.enter_context(
            subprocess.Popen(
                [*before, *command],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                env={**os.environ, **environment},
            )
        )
        self._stack.callback(process.kill)
        return process

    def container(
        self, propagation: str, command: list[str], **environment: str
    ) -> subprocess.Popen[str]:
        """Start *command* in a mount namespace of its own, below the node's."""
        before = [*self._enter, "unshare", "--mount", f"--propagation={propagation}"]
        return self.start(before, command, **environment)

    def mounts(self) -> list[str]:
        """Return the mounts of satfs below the shared directory, as the node sees them.

        The machine may have others, which every mount namespace of it inherits.
        """
        done = subprocess.run(
            [*self._enter, "findmnt", "--json", "--types", "fuse.satfs"],
            capture_output=True,
            text=True,
            check=False,
        )
        if not done.stdout.strip():
            return []
        targets = [each["target"] for each in json.loads(done.stdout)["filesystems"]]
        return [target for target in targets if Path(target).is_relative_to(self._shared)]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Return what ends all processes of the test, the last one first."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """Return the directory of the node below which the mount is made."""
    (tmp_path / "node" / "aleph").mkdir(parents=True)
    return tmp_path / "node"


@pytest.fixture
def mounter(
    stack: ExitStack, shared: Path, origin: DemoOrigin, tmp_path: Path
) -> tuple[Node, Callable[[], subprocess.Popen[str]]]:
    """Return the node, and a function that starts its mounter, as the DaemonSet does."""
    node = Node(stack, shared)
    place = shared / "aleph"
    environment = {**origin.environment(), "SATFS_CACHE_DIR": str(tmp_path / "cache")}
    stack.callback(
        lambda: subprocess.run(["umount", "-l", place], check=False, stderr=subprocess.DEVNULL)
    )

    def start() -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "satfs", "mount", "--foreground", "-o", "allow_other"]
        return node.container("unchanged", [*command, str(place)], **environment)

    return node, start


def test_a_reader_goes_on_within_ten_seconds_after_the_mounter_was_killed(
    mounter: tuple[Node, Callable[[], subprocess.Popen[str]]], origin: DemoOrigin, shared: Path
) -> None:
    """The reader is not restarted; until then it gets errors, and never a wrong byte.

    On a machine on which the first mount takes longer, the next one does, too.
    """
    node, start = mounter
    began_s = time.monotonic()
    process = start()
    name, data = an_object(origin)
    wanted = hashlib.sha256(data).hexdigest()
    path = shared / "aleph" / "tasks" / name
    reader = node.container("slave", [sys.executable, "-c", _READER, str(path)])
    words = lines_of(reader)
    wait_for(words, wanted, within_s=30)
    first_s = time.monotonic() - began_s

    os.kill(process.pid, signal.SIGKILL)
    killed_s = time.monotonic()
    process.wait()
    start()
    seen = wait_for(words, wanted, within_s=30, after="ENOTCONN")

    assert time.monotonic() - killed_s < max(10, 2 * first_s)
    assert set(seen) <= {wanted, "ENOTCONN", "ECONNABORTED", "ENOENT"}
    assert node.mounts() == [str(shared / "aleph")]


def test_a_second_mounter_is_refused_and_does_not_stack_its_mount(
    mounter: tuple[Node, Callable[[], subprocess.Popen[str]]], shared: Path
) -> None:
    node, start = mounter
    start()
    deadline_s = time.monotonic() + 30
    while not node.mounts() and time.monotonic() < deadline_s:
        time.sleep(0.1)
    second = start()

    assert second.wait(30) != 0
    assert node.mounts() == [str(shared / "aleph")]


def an_object(origin: DemoOrigin) -> tuple[str, bytes]:
    """Return the path of an attachment below `tasks/`, and its bytes."""
    return next(
        (
            f"{task.task_id}/{capture.capture_id}/{scene.scene_id}/{each.file_name}",
            bytes(each.content.read(0, each.content.size_bytes)),
        )
        for task in origin.catalogue.tasks
        for capture in task.captures
        for scene in capture.scenes
        for each in scene.attachments
        if capture.is_published and each.content is not None
    )


def lines_of(process: subprocess.Popen[str]) -> Iterator[str]:
    """Yield what *process* prints, line by line."""
    assert process.stdout is not None
    for line in process.stdout:
        yield line.strip()


def wait_for(
    words: Iterator[str], wanted: str, *, within_s: float, after: str | None = None
) -> list[str]:
    """Return the *words* up to *wanted*, at its first place behind *after*."""
    deadline_s = time.monotonic() + within_s
    seen: list[str] = []
    for word in words:
        seen.append(word)
        if word == wanted and (after is None or after in seen):
            return seen
        assert time.monotonic() < deadline_s, seen[-20:]
    raise AssertionError(f"the reader ended: {seen[-20:]}")
