"""Where a mount's control socket is, derived from the mountpoint alone.

A directory of the user's own, closed to all others, that goes when the machine is shut down:
`$XDG_RUNTIME_DIR/satfs` (XDG Base Directory Specification); without that variable `/run/satfs` for
root and `/tmp/satfs-UID` for others. The socket's name is a digest of the mountpoint, since the
address of a socket is at most 107 bytes long (unix(7)).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Final

#: sizeof(sun_path) - 1 (unix(7)).
ADDRESS_BYTES: Final = 107
_NAME: Final = "satfs"


def socket_name(mountpoint: Path) -> str:
    """Return the file name of the socket of the mount at *mountpoint*, an absolute path."""
    return blake2b(os.fsencode(mountpoint), digest_size=10).hexdigest() + ".sock"


def directories(user: int, environment: Mapping[str, str]) -> tuple[Path, ...]:
    """Return where sockets of *user* may be, the best place first.

    *environment* is that of this process, and counts for its own user only.
    """
    found = []
    runtime_dir = environment.get("XDG_RUNTIME_DIR", "")
    if user == os.geteuid() and os.path.isabs(runtime_dir):
        found.append(Path(runtime_dir) / _NAME)
    found.append(Path(f"/run/user/{user}") / _NAME)
    found.append(Path("/run") / _NAME if user == 0 else Path(f"/tmp/{_NAME}-{user}"))  # noqa: S108
    return tuple(dict.fromkeys(found))


def socket_path(mountpoint: Path, environment: Mapping[str, str] | None = None) -> Path:
    """Return where a mount at *mountpoint* that this process serves has its control socket.

    The same for the same environment; looks at directories, and makes none.
    """
    places = directories(os.geteuid(), os.environ if environment is None else environment)
    fitting = [place for place in places if _is_ours(place.parent) or place is places[-1]]
    path = fitting[0] / socket_name(mountpoint)
    return path if len(os.fsencode(path)) <= ADDRESS_BYTES else places[-1] / path.name


def candidates(mountpoint: Path, users: tuple[int, ...]) -> tuple[Path, ...]:
    """Return where the socket of a mount that one of *users* serves may be."""
    return tuple(
        directory / socket_name(mountpoint)
        for user in dict.fromkeys(users)
        for directory in directories(user, os.environ)
    )


def is_trusted(path: Path, users: tuple[int, ...]) -> bool:
    """Return whether only one of *users* can have put the socket at *path*."""
    try:
        found = path.parent.lstat()
    except OSError:
        return False
    is_closed = stat.S_ISDIR(found.st_mode) and not stat.S_IMODE(found.st_mode) & 0o022
    return is_closed and found.st_uid in users


def _is_ours(directory: Path) -> bool:
    try:
        found = directory.stat()
    except OSError:
        return False
    return found.st_uid == os.geteuid()
