"""Any vendor text as a legal, stable, unique file name, and back.

A name is the text itself wherever a file name can hold it. Other characters are written as the
percent-escaped bytes of their UTF-8 form, as in a URL: `a/b` is `a%2Fb`. Escaped are

- `/` and NUL, which no name can hold; `.` and `..` as a whole, which mean something else;
- control characters, line and paragraph separators and bidirectional overrides: they make a
  terminal or a listing show a wrong name;
- lone surrogates, which JSON can carry and UTF-8 cannot;
- a percent sign, where it would otherwise read as an escape, so that no two texts share a name;
- the first character of a text that is a name of our own beside it (`task.json` among captures),
  or one that programs look for everywhere (`is_polled`).

Nothing else is touched. Unicode normalisation, in particular, stays as sent: two texts that differ
only in it are two files. The empty text is `%`.

A name longer than a directory entry may be is cut, keeps its extension and gets a digest of the
whole text (`….%~0123….zip`). Only that is irreversible: `text_of` returns None, and the caller
compares the name with the names of a listing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable
from hashlib import blake2b
from typing import Final

import xxhash

from satfs.humanize import CONTROLS, SURROGATES

#: The directories at the top of a mount in which everything has a record of the vendor's.
RECORD_DIRECTORIES: Final = ("tasks", "captures", "scenes")
#: Names that desktops, shells and tools probe for in every directory; answered from memory. A file
#: manager that opens a directory looks up a handful of names that a delivery never holds, and
#: repeats itself every few seconds; a shell prompt probes each directory for a repository. Requests
#: for these look-ups would cost more than the browsing itself (s3fs issue 858, libfuse issue 651).
_POLLED: Final = frozenset(
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
_POLLED_FORM: Final = re.compile(
    r"\.Trash-\d+|\._.*|\.nfs[0-9a-f]{8,}|\.fuse_hidden[0-9a-f]+", re.S
)


def is_polled(name: str) -> bool:
    """Return whether *name* is one that programs look for everywhere, and that is never there."""
    return name in _POLLED or (name.startswith(".") and _POLLED_FORM.fullmatch(name) is not None)


#: See `order_of`. Positions in a directory are positive numbers of 63 bits (off_t).
MAX_ORDER: Final = 2**62 - 3

#: The longest file name on Linux, in bytes (NAME_MAX, limits.h). FUSE allows more (1024), but
#: programs, and the disks that people copy to, do not.
NAME_MAX_BYTES: Final = 255

#: The mark before the digest of a text that was cut. No uncut name holds it: there, a percent sign
#: before a tilde is escaped.
_CUT: Final = "%~"
_DIGEST_BYTES: Final = 16
#: An extension is kept up to this length, dot included, in bytes; a longer one is not an extension.
_EXTENSION_BYTES: Final = 16

#: The name of the empty text. A lone percent sign is escaped.
_EMPTY: Final = "%"

_PLAIN: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")
_UNSAFE: Final = re.compile(
    f"[/{CONTROLS}{SURROGATES}]"
    "|%(?=[0-9A-Fa-f]{2}|~)"  # what would read as an escape, or as the mark of a cut
)
_ESCAPE: Final = re.compile(rb"%([0-9A-F]{2})")


def name_of(text: str, reserved: Collection[str] = ()) -> bytes:
    """Return the file name of *text* in a directory whose own names are *reserved*.

    Different texts have different names, and none has a reserved or polled one. The name is valid
    UTF-8, 1 to 255 bytes long, and depends on nothing but the arguments.
    """
    if _is_plain(text, reserved):
        return text.encode()  # most ids by far; the rules below would give the same
    escaped = _UNSAFE.sub(lambda found: _escape(found[0]), text)
    if text in ("", "%"):
        escaped = _EMPTY if not text else _escape("%")
    elif escaped in (".", ".."):
        escaped = _escape(".") * len(escaped)
    elif escaped in reserved or is_polled(escaped):
        escaped = _escape(escaped[0]) + escaped[1:]
    name = escaped.encode()
    return name if len(name) <= NAME_MAX_BYTES else _cut(escaped, text)


def text_of(name: bytes, reserved: Collection[str] = ()) -> str | None:
    """Return the text whose name is *name*; None when no text has it, or when it was cut.

    The exact inverse of `name_of` with the same *reserved*, on names that were not cut.
    """
    if name == _EMPTY.encode():
        return ""
    try:
        plain = _ESCAPE.sub(lambda found: bytes.fromhex(found[1].decode()), name)
        text = plain.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return None
    # One text has one name: `%61` is not another spelling of `a`.
    return text if name_of(text, reserved) == name else None


def plain_text_of(name: bytes, reserved: Collection[str] = ()) -> str | None:
    """Return the text whose name is *name*, where that is of letters, digits, `.`, `_` and `-`.

    Most ids are of these. None for every other text, and where no text has that name.
    """
    text = name.decode("ascii", "replace")
    return text if _is_plain(text, reserved) else None


def _is_plain(text: str, reserved: Collection[str]) -> bool:
    is_free = text not in reserved and not is_polled(text)
    return is_free and _PLAIN.fullmatch(text) is not None


def order_of(name: bytes) -> int:
    """Return a number below `MAX_ORDER` that depends on *name* alone: `readdir` goes by it.

    The numbers are spread evenly, and few names have the same.
    """
    return xxhash.xxh3_64_intdigest(name) % MAX_ORDER


def is_cut(name: bytes) -> bool:
    """Return whether *name* may be cut from a text that is too long for a name."""
    return _CUT.encode() in name


def file_names(
    wanted: Iterable[tuple[str, str]], reserved: Collection[str] = ()
) -> dict[tuple[str, str], bytes]:
    """Return a file name for each *(text, key)* of one directory, all of them different.

    A text that is wanted once is its own name. Where several want the same, each has its key before
    the extension (`a~preview.zip`), the same in every order of the listing. Equal pairs have one
    name.
    """
    pairs = sorted(set(wanted))
    counts = Counter(text for text, _ in pairs)
    names = {pair: name_of(pair[0], reserved) for pair in pairs if counts[pair[0]] == 1}
    taken = set(names.values())
    for text, key in pairs:
        if counts[text] == 1:
            continue
        stem, extension = _split_extension(text)
        name = name_of(f"{stem}~{key}{extension}", reserved)
        if name in taken:  # this very name was chosen on purpose
            name = _cut(name_of(text, reserved).decode(), f"{len(text)}:{text}{key}")
        names[text, key] = name
        taken.add(name)
    return names


def _escape(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))


def _split_extension(text: str) -> tuple[str, str]:
    stem, dot, extension = text.rpartition(".")
    if stem and dot and 0 < len(extension.encode("utf-8", "replace")) < _EXTENSION_BYTES:
        return stem, dot + extension
    return text, ""


def _cut(escaped: str, text: str) -> bytes:
    """Return a name for *text* that fits, beginning and ending as *escaped* does."""
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_BYTES).hexdigest()
    stem, extension = _split_extension(escaped)
    tail = f"{_CUT}{digest}{extension}".encode()
    # Not in the middle of a character, nor of an escape.
    head = stem.encode()[: NAME_MAX_BYTES - len(tail)].decode("utf-8", "ignore")
    return re.sub(r"%[0-9A-F]?$", "", head).encode() + tail
