"""The tree in this process, over a demo origin; what is started here ends with the test."""

from __future__ import annotations

import io
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from satfs import mountpoints
from satfs.demo.catalogue import Catalogue, make_capture, make_delivery, make_scene, make_task
from satfs.demo.server import DemoOrigin
from satfs.fsspec import SatfsFileSystem
from satfs.mountpoints import Mounted

StartOrigin = Callable[..., DemoOrigin]
OpenFs = Callable[..., SatfsFileSystem]


def catalogue_with(members: Mapping[str, bytes], *, method: int = zipfile.ZIP_STORED) -> Catalogue:
    """Return one task whose only scene has a zip with *members*, in `scenes/one/contents`."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    scene = make_scene("one", [make_delivery("one", buffer.getvalue())])
    return Catalogue([make_task(1, [make_capture("capture", [scene])])])


@pytest.fixture(autouse=True)
def mounts_of_these_tests(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Show this process the mounts of its own tests alone: others run beside them."""
    ours, listed = tmp_path_factory.getbasetemp(), mountpoints.satfs_mounts

    def satfs_mounts() -> tuple[Mounted, ...]:
        return tuple(each for each in listed() if each.mountpoint.is_relative_to(ours))

    monkeypatch.setattr(mountpoints, "satfs_mounts", satfs_mounts)


@pytest.fixture
def start_origin(monkeypatch: pytest.MonkeyPatch) -> Iterator[StartOrigin]:
    """Return a function that starts a demo origin, to which this process's settings then lead."""
    with ExitStack() as stack:

        def start(catalogue: Catalogue | None = None, **options: object) -> DemoOrigin:
            origin = stack.enter_context(DemoOrigin(catalogue, **options))  # type: ignore[arg-type]
            for name, value in origin.environment().items():
                monkeypatch.setenv(name, value)
            return origin

        yield start


@pytest.fixture
def cache_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the cache directory that this process's settings name."""
    place = tmp_path / "cache"
    monkeypatch.setenv("SATFS_CACHE_DIR", str(place))
    return place


@pytest.fixture
def open_fs(cache_dir: Path) -> Iterator[OpenFs]:
    """Return a function that opens a filesystem without a mount; all are closed in the end."""
    opened: list[SatfsFileSystem] = []

    def open_it(**options: Any) -> SatfsFileSystem:
        fs = SatfsFileSystem(**{"mount": "never", "skip_instance_cache": True, **options})
        opened.append(fs)
        return fs

    yield open_it
    for fs in opened:
        fs.close()


def satfs_threads() -> list[str]:
    """Return the names of the threads that serve a tree in this process."""
    return [each.name for each in threading.enumerate() if each.name.startswith("satfs-")]
