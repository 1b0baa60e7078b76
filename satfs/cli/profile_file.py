"""Change one profile in the user's `config.toml`, and leave everything else there as it is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import tomlkit
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import Table

from satfs.atomic_file import write_atomically
from satfs.errors import BadSettings

_FIRST_LINES = (
    "Settings of satfs: for every profile at the top, for one in its table.",
    "`satfs config show --describe` lists them; `satfs config show --origin` shows their values.",
)


def change_profile(path: Path, profile: str, changes: Mapping[str, str | None]) -> None:
    """Set the keys of *changes* in the table of *profile*, and take away those that are None.

    The file is made when it is missing, for its owner alone; a table that becomes empty goes away.
    Either all is changed or nothing.

    Raises:
        BadSettings: the file cannot be read or written.
    """
    path = Path(os.path.realpath(path))  # a link stays one
    try:
        before = path.read_text("utf-8")
    except (FileNotFoundError, NotADirectoryError):
        before = None
    except (OSError, UnicodeDecodeError) as failure:
        why = failure.strerror if isinstance(failure, OSError) else "it is no UTF-8"
        raise BadSettings(f"{path} cannot be read: {why}") from None
    after = changed_text(before, profile, changes, path)
    if after == (before or ""):
        return
    try:
        write_atomically(path, after)
    except OSError as failure:
        raise BadSettings(f"{path} cannot be written: {failure.strerror}") from failure


def changed_text(
    text: str | None, profile: str, changes: Mapping[str, str | None], path: Path
) -> str:
    """Return *text*, the file's, with *changes* made to *profile*; None: there is no file yet.

    Raises:
        BadSettings: *text* is no TOML, or its profiles are no tables.
    """
    wanted = {key: value for key, value in changes.items() if value is not None}
    try:
        document = tomlkit.parse(text or "")
        if text is None and wanted:
            for line in _FIRST_LINES:
                document.add(tomlkit.comment(line))
        if "profiles" not in document:
            if not wanted:
                return text or ""
            document["profiles"] = tomlkit.table(is_super_table=True)
        profiles = document["profiles"]
        if profile not in profiles:
            if not wanted:
                return text or ""
            profiles[profile] = tomlkit.table()
        table: Table = profiles[profile]
        for key in changes.keys() - wanted.keys():
            table.pop(key, None)
        for key, value in wanted.items():
            table[key] = value
        if not table:
            del profiles[profile]
        if not profiles:
            del document["profiles"]
        return tomlkit.dumps(document)
    except (TOMLKitError, TypeError, AttributeError) as failure:
        raise BadSettings(f"{path} cannot be changed: {type(failure).__name__}") from None
