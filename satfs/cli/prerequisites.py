"""What FUSE needs of a machine; each absence is a sentence with its remedy."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from satfs.errors import FuseMissing
from satfs.mountpoints import FUSERMOUNT

DEVICE: Final = Path("/dev/fuse")
CONFIGURATION: Final = Path("/etc/fuse.conf")

_INSTALL: Final = "install it: sudo apt install fuse3"


def check_fuse(
    *,
    for_others: bool,
    auto_unmount: bool,
    device: Path = DEVICE,
    configuration: Path = CONFIGURATION,
    user: int | None = None,
    find_program: Callable[[str], str | None] = shutil.which,
) -> None:
    """Return if *user* (us) can mount here; *for_others* says that others shall have access.

    Raises:
        FuseMissing: something is missing or not allowed; says what to do.
    """
    is_root = (os.geteuid() if user is None else user) == 0
    if not device.exists():
        raise FuseMissing(
            f"{device} is missing; load the kernel module: sudo modprobe fuse. In a container, "
            "start it with --device /dev/fuse --cap-add SYS_ADMIN"
        )
    # Root mounts without help, but for the process that watches over an automatic unmount.
    if (not is_root or auto_unmount) and find_program(FUSERMOUNT) is None:
        raise FuseMissing(f"{FUSERMOUNT} is missing; {_INSTALL}")
    _open(device)
    if not is_root and for_others and "user_allow_other" not in _lines(configuration):
        raise FuseMissing(
            "allow_other and allow_root need the line `user_allow_other` in "
            f"{configuration}, which root has to add"
        )


@contextmanager
def fuse_library_explained() -> Iterator[None]:
    """Import in the body what needs the FUSE library.

    Raises:
        FuseMissing: it is not there; says what to do.
    """
    try:
        yield
    except ImportError as failure:
        if (failure.name or "").partition(".")[0] != "pyfuse3":
            raise
        raise FuseMissing(
            f"the FUSE library cannot be loaded ({failure}); install it: sudo apt install fuse3"
        ) from failure


def _open(device: Path) -> None:
    try:
        os.close(os.open(device, os.O_RDWR))
    except OSError as failure:
        raise FuseMissing(
            f"{device} cannot be opened ({failure.strerror}); everybody should be allowed to read "
            "and write it, and a container needs --device /dev/fuse --cap-add SYS_ADMIN"
        ) from failure


def _lines(file: Path) -> Iterator[str]:
    try:
        text = file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    return (line.split("#")[0].strip() for line in text.splitlines())
