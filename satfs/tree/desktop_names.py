"""Names that desktops, shells and tools probe for in every directory; answered from memory.

A file manager that opens a directory looks up a handful of names that a delivery never holds, and
repeats itself every few seconds; a shell prompt probes each directory for a repository. A request
for each look-up would cost more than the browsing itself (s3fs issue 858, libfuse issue 651). The
names below never exist in a mount: `satfs.tree.names` gives a vendor's text that equals one of them
another spelling.
"""

from __future__ import annotations

import re
from typing import Final

_NAMES: Final = frozenset(
    {
        # freedesktop.org, GNOME, KDE, Xfce: trash, hidden files, icons and volume names
        ".Trash",
        ".hidden",
        ".directory",
        ".xdg-volume-info",
        ".VolumeIcon.icns",
        ".volume.icns",
        ".autorun",
        "autorun",
        "autorun.sh",
        "autorun.inf",
        "AUTORUN.INF",
        # thumbnails beside the files, and pictures for a folder
        ".sh_thumbnails",
        ".thumbnails",
        ".folder.png",
        "folder.jpg",
        "Folder.jpg",
        "cover.jpg",
        # leave to index, or not
        ".trackerignore",
        ".nomedia",
        ".nobackup",
        ".metadata_never_index",
        ".fseventsd",
        ".Spotlight-V100",
        ".TemporaryItems",
        # Windows and macOS, through Samba
        "desktop.ini",
        "Desktop.ini",
        "Thumbs.db",
        ".DS_Store",
        ".localized",
        ".apdisk",
        # version control and project probes of shells, editors and desktops
        ".git",
        ".hg",
        ".svn",
        ".bzr",
        "_darcs",
        "CVS",
        "HEAD",
        ".editorconfig",
        ".envrc",
        # backup tools at the top of a volume
        ".snapshot",
        ".snapshots",
        ".zfs",
    }
)
#: `.Trash-1000` (one per user), AppleDouble files, and what NFS clients and FUSE rename to.
_PATTERN: Final = re.compile(r"\.Trash-\d+|\._.*|\.nfs[0-9a-f]{8,}|\.fuse_hidden[0-9a-f]+", re.S)


def is_polled(name: str) -> bool:
    """Return whether *name* is one that programs look for everywhere, and that is never there."""
    return name in _NAMES or (name.startswith(".") and _PATTERN.fullmatch(name) is not None)
