"""Mounts whose process has limits: of address space, of file sizes, or no standard streams."""

from __future__ import annotations

import random
from contextlib import ExitStack

import pytest
from mounted.conftest import MountIt, StartOrigin

from satfs.demo.catalogue import (
    Catalogue,
    make_capture,
    make_delivery,
    make_scene,
    make_task,
)
from satfs.demo.contents import BytesContent

MIB = 1024 * 1024
CONTENT = random.Random(1).randbytes(24 * MIB)

#: Code for a mount's process that takes on a limit, once Python is up.
LIMIT = "import resource; resource.setrlimit(resource.{name}, ({n_bytes}, {n_bytes}))"


def catalogue() -> Catalogue:
    scenes = [
        make_scene(f"s{number}", [make_delivery(f"s{number}", BytesContent(CONTENT))])
        for number in range(16)
    ]
    return Catalogue([make_task(1, [make_capture("capture", scenes)])])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("name", "n_bytes"),
    [
        ("RLIMIT_AS", 300 * MIB),
        ("RLIMIT_FSIZE", 4 * MIB),
        ("RLIMIT_FSIZE", 64 * 1024),
    ],
)
def test_a_limit_of_the_process_costs_the_cache_and_no_byte(
    start_origin: StartOrigin, mount_it: MountIt, name: str, n_bytes: int, workers: int
) -> None:
    """Sixteen open files of 24 MiB are read right with 300 MiB of addresses, or files of 64 KiB."""
    mount = mount_it(
        start_origin(catalogue()),
        sabotage=LIMIT.format(name=name, n_bytes=n_bytes),
        workers=workers,
    )
    with ExitStack() as stack:
        paths = [mount.path / f"scenes/s{number}/s{number}.zip" for number in range(16)]
        files = [stack.enter_context(path.open("rb")) for path in paths]
        for file in files:
            file.seek(20 * MIB)
            assert file.read(MIB) == CONTENT[20 * MIB : 21 * MIB]
        for file in files[:3]:
            file.seek(0)
            assert file.read() == CONTENT
    assert not [line for line in mount.events() if "a bug" in str(line)]
