"""The page about containers, tried with namespaces, which containers are made of."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from satfs.demo.server import DemoOrigin
from satfs.mountpoints import satfs_mounts

pytestmark = pytest.mark.mounts

#: No namespace takes longer to be made, used and left; in seconds.
TIMEOUT_S = 60
MOUNT = ("satfs", "mount", "mnt")


@pytest.fixture(scope="module")
def origin() -> Iterator[DemoOrigin]:
    with DemoOrigin() as origin:
        yield origin


@pytest.fixture
def environment(origin: DemoOrigin, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Return an environment that leads to a vendor; what it mounts is taken away again."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK) or shutil.which("fusermount3") is None:
        pytest.skip("nothing can be mounted here: /dev/fuse or fusermount3 is missing")
    (tmp_path / "mnt").mkdir()
    kept = {k: v for k, v in os.environ.items() if not k.upper().startswith(("SATFS_", "XDG_"))}
    yield {
        **kept,
        **origin.environment(),
        "HOME": str(tmp_path),
        "SATFS_CACHE_DIR": str(tmp_path / "cache"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    for mounted in satfs_mounts():
        if mounted.mountpoint.is_relative_to(tmp_path):
            subprocess.run(["fusermount3", "-uz", str(mounted.mountpoint)], check=True)


def run(
    namespaces: list[str], code: str, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run bash in new namespaces; skip where the system refuses them."""
    tried = subprocess.run(["unshare", *namespaces, "true"], capture_output=True, check=False)
    if tried.returncode != 0:
        pytest.skip(f"no such namespaces here: {tried.stderr.decode().strip()}")
    return subprocess.run(
        ["unshare", *namespaces, "bash", "-c", code],
        env=environment,
        cwd=environment["HOME"],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def test_a_container_without_root_can_mount(environment: dict[str, str]) -> None:
    """A user namespace of its own, as rootless Docker and Podman give."""
    done = run(
        ["--user", "--map-root-user", "--mount"],
        "satfs mount mnt && ls mnt && satfs umount mnt",
        environment,
    )

    assert done.returncode == 0, done.stderr
    assert "tasks" in done.stdout.splitlines()


def test_a_container_sees_what_the_host_mounts_later(environment: dict[str, str]) -> None:
    """With `rslave` mounts of the host arrive, also after the container was started."""
    done = run(
        ["--mount", "--propagation", "shared"],  # a host whose mounts are shared, as with systemd
        "mkfifo started mounted; "
        "unshare --mount --propagation slave"
        " bash -c 'echo > started; read < mounted; ls mnt' & "
        "read < started; satfs mount mnt && echo > mounted && wait && satfs umount mnt",
        environment,
    )

    assert done.returncode == 0, done.stderr
    assert "tasks" in done.stdout.splitlines()


def test_a_container_without_the_right_to_mount_is_told_so(environment: dict[str, str]) -> None:
    """Without `--cap-add SYS_ADMIN`: a sentence and its exit code, no traceback."""
    if os.geteuid() != 0:
        pytest.skip("only root can give up a capability of root")
    done = subprocess.run(
        ["setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin", *MOUNT],
        env=environment,
        cwd=environment["HOME"],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )

    assert done.returncode == 6
    assert "Operation not permitted" in done.stderr
    assert "Traceback" not in done.stderr
