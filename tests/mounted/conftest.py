"""Real mounts: the demo origin in this process, satfs in a process of its own, the kernel between.

Skipped with a reason where FUSE is missing. A fixture removes all that a test leaves behind.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from mounted.mounting import RealMount

from satfs.demo.catalogue import Catalogue
from satfs.demo.server import DemoOrigin

MountIt = Callable[..., RealMount]
StartOrigin = Callable[..., DemoOrigin]


def _missing() -> str | None:
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "/dev/fuse cannot be opened"
    if os.geteuid() != 0 and shutil.which("fusermount3") is None:
        return "fusermount3 is not installed"
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is here as mounting, and skip it where nothing can be mounted."""
    reason = _missing()
    for item in items:
        if Path(__file__).parent in Path(item.path).parents:
            item.add_marker(pytest.mark.mounts)
            if reason is not None:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture
def start_origin() -> Iterator[StartOrigin]:
    """Return a function that starts a demo origin; all are stopped in the end."""
    with ExitStack() as stack:

        def start(catalogue: Catalogue | None = None, **options: object) -> DemoOrigin:
            return stack.enter_context(DemoOrigin(catalogue, **options))  # type: ignore[arg-type]

        yield start


@pytest.fixture
def origin(start_origin: StartOrigin) -> DemoOrigin:
    """Return the demo origin with its small catalogue."""
    return start_origin()


@pytest.fixture
def mount_it(tmp_path: Path) -> Iterator[MountIt]:
    """Return a function that mounts an origin: `mount_it(origin, listing_ttl_s=1)`.

    Keywords are settings; `options` are those of `MountOptions`. All mounts of a test share one
    cache directory, and each is unmounted in the end, also when the test failed.
    """
    with ExitStack() as stack:
        n_mounts = 0

        def mount(
            origin: DemoOrigin,
            *,
            options: dict[str, object] | None = None,
            cache: Path | None = None,
            sabotage: str = "",
            may_be_forked: bool = True,
            **settings: object,
        ) -> RealMount:
            nonlocal n_mounts
            n_mounts += 1
            environment = {
                "SATFS_CACHE_DIR": str(cache or tmp_path / "cache"),
                **origin.environment(),
                **{f"SATFS_{name.upper()}": str(value) for name, value in settings.items()},
            }
            real = RealMount(
                tmp_path / f"mnt{n_mounts}",
                environment,
                tmp_path / f"mount{n_mounts}.log",
                options or {},
                sabotage,
                may_be_forked,
            )
            return stack.enter_context(real)

        yield mount


@pytest.fixture
def mount(mount_it: MountIt, origin: DemoOrigin) -> RealMount:
    """Return a mount of the small catalogue."""
    return mount_it(origin)
