"""A mount whose process may have few descriptors."""

from __future__ import annotations

import errno
import os

import pytest
from mounted.conftest import MountIt, StartOrigin

from satfs.control.client import result_of
from satfs.demo.catalogue import Catalogue, make_capture, make_delivery, make_scene, make_task
from satfs.demo.contents import RampContent
from satfs.mountpoints import mount_at

N_FILES = 400
LIMIT = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))"


def catalogue() -> Catalogue:
    scenes = [
        make_scene(f"s{n}", [make_delivery(f"s{n}", RampContent(5000, n))]) for n in range(N_FILES)
    ]
    return Catalogue([make_task(1, [make_capture("capture", scenes)])])


@pytest.mark.parametrize(("soft", "hard"), [(256, 256), (64, 64), (256, 4096)])
def test_more_open_files_than_descriptors(
    start_origin: StartOrigin, mount_it: MountIt, soft: int, hard: int
) -> None:
    """With more files open than a mount has descriptors, ENFILE; commands still get a response."""
    origin = start_origin(catalogue())
    mount = mount_it(origin, sabotage=LIMIT.format(soft=soft, hard=hard), contents="off")
    top = mount.path / "tasks/1/capture"
    os.listdir(top)
    opened: list[int] = []
    refused: list[int] = []
    try:
        for n in range(N_FILES):
            try:
                opened.append(os.open(top / f"s{n}/s{n}.zip", os.O_RDONLY))
                assert os.pread(opened[-1], 10, 100) == bytes(
                    (n + 100 + k) % 251 for k in range(10)
                )
            except OSError as failure:
                refused.append(failure.errno or 0)
        assert len(os.listdir(top)) == N_FILES + 3
        assert set(refused) == ({errno.ENFILE} if hard < N_FILES else set())
        assert len(opened) >= min(N_FILES, hard // 8)
        for fd in opened:
            assert len(os.pread(fd, 5000, 0)) == 5000
        listed = mount_at(mount.path)
        assert listed is not None
        assert result_of(listed, "refresh", {"paths": [[]]})
    finally:
        for fd in opened:
            os.close(fd)
    assert not mount.events("call failed by a bug in satfs")
    assert (top / "s399/s399.zip").read_bytes()[:1] == bytes([399 % 251])
