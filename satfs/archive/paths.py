"""A member's name as a path inside the archive, or the reason why it cannot be one.

Names come from the maker of the archive, and are checked in every respect. A path that is
returned here stays below the directory it is shown in, and each of its parts is a name that Linux
can hold and that a terminal shows as what it is. Nothing is renamed, since programs look for
members by the names that other members hold (a VRT names its rasters); a member that cannot be
shown under its own name is not shown, but listed in a file (`unreadable.py`).
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Final

from isal.isal_zlib import crc32

from satfs.humanize import CONTROLS, SURROGATES

#: The longest file name on Linux, in bytes (NAME_MAX, limits.h).
NAME_MAX_BYTES: Final = 255
#: The longest path that a system call takes, its closing NUL included, in bytes (PATH_MAX).
PATH_MAX_BYTES: Final = 4096
#: Directories above a member. No delivery nests deeper than a handful; a hostile name of 64 KiB
#: would make 32,768 directories out of one entry.
MAX_DEPTH: Final = 64

#: Bit 11 of the general purpose flags: the name is UTF-8 (APPNOTE 4.4.4).
UTF8_FLAG: Final = 1 << 11

#: "Version made by", upper byte (APPNOTE 4.4.2).
MADE_ON_FAT: Final = 0
MADE_ON_UNIX: Final = 3
MADE_ON_NTFS: Final = 10
MADE_ON_VFAT: Final = 14
MADE_ON_MACOS: Final = 19

_WINDOWS: Final = frozenset({MADE_ON_FAT, MADE_ON_NTFS, MADE_ON_VFAT})
_UNIX: Final = frozenset({MADE_ON_UNIX, MADE_ON_MACOS})

#: Characters that make a listing show what is not there, and those that have no UTF-8.
_UNSHOWABLE: Final = re.compile(f"[{CONTROLS}{SURROGATES}]")
_DRIVE: Final = re.compile(r"[A-Za-z]:[/\\]")
#: One name without any of the above: most members by far.
_PLAIN: Final = re.compile(
    r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}(?:/[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}){0,7}"
)
#: Names of files that programs obey in any directory, without a command of the user: a shell's
#: prompt runs git, and git the program that `.git/config` names as its file system monitor; a file
#: manager draws the icon that `.directory` names; an editor runs the commands in `.vscode`. In
#: lower case: a mount that is exported to another system is read there without regard to case.
_OBEYED_NAMES: Final = frozenset(
    {
        # Version control: configuration and hooks that run commands. A directory with a file HEAD
        # may be a bare repository, which git obeys as it does a `.git`.
        ".git", "head", ".hg", ".svn", ".bzr", "_darcs", "cvs", ".jj", ".sl", ".fslckout",
        "_fossil_", ".repo", ".pijul",
        # Shells, and what sets their environment by directory.
        ".envrc", ".env", ".autoenv", ".autoenv.zsh", ".autoenv_leave.zsh", ".mise.toml",
        "mise.toml", ".tool-versions",
        # Editors: settings, tasks and code by directory.
        ".vscode", ".vs", ".idea", ".fleet", ".zed", ".devcontainer", ".devcontainer.json", ".exrc",
        ".vimrc", ".nvimrc", ".nvim.lua", ".lvimrc", ".local.vimrc", ".dir-locals.el",
        ".dir-locals-2.el", ".editorconfig",
        # Interpreters and debuggers that run a file of the directory they are started in.
        ".gdbinit", ".lldbinit", ".pdbrc", "sitecustomize.py", "usercustomize.py", ".rprofile",
        ".renviron", ".rdata", ".octaverc", "startup.m", ".pnp.cjs", ".yarnrc", ".yarnrc.yml",
        ".npmrc",
        # Web servers of a directory that is exported.
        ".htaccess", ".user.ini",
        # Desktops: how to draw a folder, what to run when a volume appears, what to hide.
        ".directory", "desktop.ini", ".hidden", ".autorun", ".autoopen", "autoopen",
        ".xdg-volume-info", ".volumeicon.icns", ".volume.icns",
    }
)  # fmt: skip
#: Programs that start when a volume appears (freedesktop.org's autostart specification; Windows).
_OBEYED_BEGINNING: Final = "autorun"
#: Launchers and links that a file manager draws and opens as what they name (freedesktop.org's
#: desktop entries); Windows fetches the icons of the others from wherever they lead.
_OBEYED_ENDINGS: Final = (".desktop", ".lnk", ".url", ".scf", ".library-ms", ".searchconnector-ms")


class NameProblem(StrEnum):
    """Why a member is not shown, in words for people."""

    OUTSIDE = "its path leads out of the archive"
    OBEYED = "programs obey a file of that name without a command of the user"
    UNNAMEABLE = "no file can be called that, or shown under that name"
    TOO_LONG = "its name or path is longer than a file's may be"
    TOO_DEEP = "it is too many directories deep"
    DUPLICATE = "a later member has the same name"
    CLASH = "a directory has the same name"
    MISPLACED = "its bytes are outside of the archive"
    OVERLAP = "its bytes are also another member's"
    CONTRADICTION = "its sizes contradict each other"
    CUT = "its size was cut to 32 bits, and the true one is not known"
    TOO_MANY = "the archive holds more names than satfs shows"


class UnsafeName(Exception):
    """A member cannot be shown. Never leaves the archive package."""

    def __init__(self, refusal: NameProblem) -> None:
        super().__init__(refusal.value)
        self.refusal = refusal


def decode_name(raw: bytes, *, flags: int, made_on: int, unicode_path: bytes = b"") -> str:
    """Return the name that the bytes *raw* of a zip spell.

    *unicode_path* is the body of extra field 0x7075, or empty. In this order: ASCII; that field,
    if by its CRC it was made for *raw* (APPNOTE 4.6.9); UTF-8 where the flag is set, or
    where the archive was made on Unix and the bytes are UTF-8 (Unix programs store names as their
    file system has them, flag or not); else code page 437 (APPNOTE appendix D), in which every
    byte means something.
    """
    if raw.isascii() and not unicode_path:
        return raw.decode("ascii")
    named = _unicode_path(raw, unicode_path)
    if named is not None:
        return named
    if flags & UTF8_FLAG or made_on in _UNIX:
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            pass
    return raw.decode("cp437")


def _unicode_path(raw: bytes, body: bytes) -> str | None:
    """Return the name in an Info-ZIP Unicode path field; None when it is not about *raw*.

    The field is a version (1), the CRC of the name it replaces, and UTF-8. A program that renames a
    member without knowing the field leaves it behind: then the CRC does not match.
    """
    if len(body) <= 5 or body[0] != 1 or int.from_bytes(body[1:5], "little") != crc32(raw):
        return None
    try:
        return body[5:].decode("utf-8")
    except UnicodeDecodeError:
        return None


def split_path(name: str, *, made_on: int) -> tuple[tuple[bytes, ...], bool]:
    """Return the parts of the path *name*, in UTF-8, and whether it names a directory.

    `.` and empty parts mean nothing and are dropped, so an absolute name loses its first slash, as
    with unzip; the archive's own root is the empty path.
    Backslashes separate where Windows made the archive and the name has no slash, as unzip has it;
    elsewhere a backslash is a character like any other.

    Raises:
        UnsafeName: the path leads outside, no file can have that name, or programs would obey it.
    """
    if _PLAIN.fullmatch(name):
        if any(map(is_obeyed, name.split("/"))):
            raise UnsafeName(NameProblem.OBEYED)
        return tuple(name.encode().split(b"/")), False
    if made_on in _WINDOWS and "/" not in name:
        name = name.replace("\\", "/")
    if _DRIVE.match(name):
        raise UnsafeName(NameProblem.OUTSIDE)
    if not name or _UNSHOWABLE.search(name):
        raise UnsafeName(NameProblem.UNNAMEABLE)
    path = name.encode()
    parts = tuple(part for part in path.split(b"/") if part not in (b"", b"."))
    if b".." in parts:
        raise UnsafeName(NameProblem.OUTSIDE)
    if len(path) >= PATH_MAX_BYTES or any(len(part) > NAME_MAX_BYTES for part in parts):
        raise UnsafeName(NameProblem.TOO_LONG)
    if len(parts) > MAX_DEPTH:
        raise UnsafeName(NameProblem.TOO_DEEP)
    is_directory = path.endswith(b"/")
    if not is_directory and (path == b"." or path.endswith(b"/.")):
        raise UnsafeName(NameProblem.UNNAMEABLE)
    if any(is_obeyed(part.decode()) for part in parts):
        raise UnsafeName(NameProblem.OBEYED)
    return parts, is_directory


def is_obeyed(name: str) -> bool:
    """Return whether *name*, one part of a path, is one that programs obey."""
    folded = name.casefold()
    return (
        folded in _OBEYED_NAMES
        or folded.startswith(_OBEYED_BEGINNING)
        or folded.endswith(_OBEYED_ENDINGS)
    )
