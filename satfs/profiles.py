"""Profiles: named sets of settings in two `config.toml` files, and which origin's value counts.

A file holds values for every profile at its top, and those of one profile in a table of its own:

    cache_bytes = "50GB"

    [profiles.harbour]
    client_id = "kQ3v0example"
    contract_id = "cont.3f0c2a7e"

Of single settings it knows only which ones identify the account; `satfs.settings` knows the rest.
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import platformdirs
from msgspec import Struct

from satfs.errors import BadSettings

DEFAULT_PROFILE: Final = "default"
#: These lead to other files than the usual ones; they are variables, and no settings.
USER_FILE_VARIABLE: Final = "SATFS_CONFIG_FILE"
SYSTEM_FILE_VARIABLE: Final = "SATFS_SYSTEM_CONFIG_FILE"
SYSTEM_FILE: Final = Path("/etc/satfs/config.toml")

#: Set by systemd for a unit with LoadCredential= or SetCredential= (systemd.exec(5)).
CREDENTIALS_VARIABLE: Final = "CREDENTIALS_DIRECTORY"
#: Settings that may come as files `satfs.NAME`. A token is read again when it changes.
UNIT_CREDENTIALS: Final = ("client_id", "client_secret", "contract_id", "token")

#: Each is enough to log in with, for the modes named; they exclude each other.
_SOURCES: Final[Mapping[str, frozenset[str]]] = {
    "token": frozenset({"auto", "token"}),
    "token_file": frozenset({"auto", "token"}),
    "token_command": frozenset({"auto", "token"}),
    "client_secret": frozenset({"auto", "oauth", "legacy"}),
    "secret_store": frozenset({"auto", "oauth", "legacy", "token"}),
}


class OriginKind(StrEnum):
    """Where a value may come from; the first that has one wins."""

    FLAG = "flag"
    ENVIRONMENT = "environment"
    UNIT = "systemd credential"
    USER = "user file"
    SYSTEM = "system file"
    DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Layer:
    """The values of one origin, by setting. Not shown: it may hold secrets."""

    kind: OriginKind
    values: Mapping[str, Any] = field(repr=False)
    #: The file's or directory's path, and the table in it; empty for flags and environment.
    place: str = ""


class Origin(Struct, frozen=True):
    """Where the value of one setting came from."""

    kind: OriginKind
    #: The file and its table, or the directory of credentials; empty for flags and environment.
    place: str


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """One `config.toml`, read."""

    kind: OriginKind
    path: Path
    shared: Mapping[str, Any] = field(default_factory=dict, repr=False)
    profiles: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)

    def layers(self, profile: str) -> tuple[Layer, ...]:
        """Return its layers for *profile*, the more particular one first."""
        return (
            Layer(self.kind, self.profiles.get(profile, {}), f"{self.path} [profiles.{profile}]"),
            Layer(self.kind, self.shared, str(self.path)),
        )

    def unknown(self, known: Collection[str]) -> tuple[str, ...]:
        """Return the keys that are not in *known*, each with its table."""
        tables = {"": self.shared} | {f"profiles.{n}.": t for n, t in self.profiles.items()}
        return tuple(
            f"{prefix}{key}"
            for prefix, table in tables.items()
            for key in table
            if key not in known
        )


def is_name(text: str) -> bool:
    """Return whether a profile may be called *text*: it names files and units, too."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", text) is not None


def user_file(environment: Mapping[str, str]) -> Path:
    """Return where the user's own `config.toml` is, or would be (XDG base directories)."""
    named = environment.get(USER_FILE_VARIABLE)
    if named:
        return Path(os.path.expanduser(named)).absolute()
    return Path(platformdirs.user_config_path("satfs")) / "config.toml"


def system_file(environment: Mapping[str, str]) -> Path:
    """Return where the `config.toml` for all users is, or would be."""
    named = environment.get(SYSTEM_FILE_VARIABLE) or SYSTEM_FILE
    return Path(os.path.expanduser(named)).absolute()


def read_files(
    environment: Mapping[str, str], *, private: Collection[str], paths: Collection[str]
) -> tuple[ConfigFile, ...]:
    """Return the files that there are, the user's before the system's.

    Settings named in *paths* are seen from the directory of the file that sets them. A system file
    that we may not read is one for others (for root's mounts, say), and passed over.

    Raises:
        BadSettings: a file cannot be read, is no TOML, or lets others at what it should not: one
            that sets any of *private* must be its owner's alone.
    """
    found = [
        _read(OriginKind.USER, user_file(environment), private, paths),
        _read(OriginKind.SYSTEM, system_file(environment), private, paths),
    ]
    return tuple(file for file in found if file is not None)


def _read(
    kind: OriginKind, path: Path, private: Collection[str], paths: Collection[str]
) -> ConfigFile | None:
    try:
        with path.open("rb") as stream:
            status = os.fstat(stream.fileno())
            document = tomllib.load(stream)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except PermissionError as failure:
        if kind is OriginKind.SYSTEM:
            return None
        raise BadSettings(f"{path} cannot be read: {failure.strerror}") from failure
    except OSError as failure:
        raise BadSettings(f"{path} cannot be read: {failure.strerror}") from failure
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as failure:
        # The text of a TOMLDecodeError names a place, and at most a character there.
        reason = failure if isinstance(failure, tomllib.TOMLDecodeError) else "it is no UTF-8"
        if isinstance(failure, RecursionError):
            reason = "it is nested too deeply"
        raise BadSettings(f"{path} is no TOML: {reason}") from None
    tables = document.pop("profiles", {})
    if not isinstance(tables, dict) or not all(isinstance(t, dict) for t in tables.values()):
        raise BadSettings(f"{path}: profiles are tables, such as [profiles.{DEFAULT_PROFILE}]")
    for table in (document, *tables.values()):
        _check_values(path, table)
        for name in table.keys() & set(paths):
            if isinstance(table[name], str):
                table[name] = path.parent / os.path.expanduser(table[name])
    is_private = any(key in private for table in (document, *tables.values()) for key in table)
    _check_permissions(path, status, is_private=is_private)
    return ConfigFile(kind, path, document, tables)


def _check_values(path: Path, table: Mapping[str, Any]) -> None:
    for key, value in table.items():
        if isinstance(value, dict | list):
            raise BadSettings(
                f"{path}: {key} must be a single value; tables are called [profiles.NAME]"
            )


def _check_permissions(path: Path, status: os.stat_result, *, is_private: bool) -> None:
    mode = stat.S_IMODE(status.st_mode)
    if status.st_uid not in (os.geteuid(), 0):
        raise BadSettings(f"{path} belongs to another user; it must be yours, or root's")
    if mode & stat.S_IWOTH:
        raise BadSettings(f"{path} may be changed by everybody; run: chmod go-w {path}")
    if is_private and mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise BadSettings(
            f"{path} holds a secret, or a command that is run, and is open to others;"
            f" run: chmod 600 {path}"
        )


def unit_layer(environment: Mapping[str, str]) -> Layer | None:
    """Return what systemd hands to this unit, or None when there is nothing of ours.

    Raises:
        BadSettings: a credential is there and cannot be read.
    """
    directory = environment.get(CREDENTIALS_VARIABLE)
    if not directory:
        return None
    values: dict[str, Any] = {}
    for name in UNIT_CREDENTIALS:
        path = Path(directory) / f"satfs.{name}"
        try:
            if name == "token":
                values |= {"token_file": path} if path.exists() else {}
            else:
                values[name] = path.read_text("utf-8").strip()
        except FileNotFoundError:
            continue
        except (OSError, UnicodeDecodeError) as failure:
            why = failure.strerror if isinstance(failure, OSError) else "it is no UTF-8"
            raise BadSettings(f"systemd credential satfs.{name} cannot be read: {why}") from None
    return Layer(OriginKind.UNIT, values, directory) if values else None


# -- which origin counts ------------------------------------------------------------------------


def chosen(given: Sequence[Layer], files: Sequence[ConfigFile]) -> Any:
    """Return the profile that *given* names, else at the top of a file, else default."""
    tables = (*(layer.values for layer in given), *(file.shared for file in files))
    return next((table["profile"] for table in tables if "profile" in table), DEFAULT_PROFILE)


def merged(
    layers: Sequence[Layer], known: Collection[str]
) -> tuple[dict[str, Any], dict[str, Origin]]:
    """Return the value of each setting that any of *layers* gives, and where it came from."""
    values: dict[str, Any] = {}
    origins: dict[str, Origin] = {}
    for layer in settled(layers):
        for name in layer.values.keys() & set(known) - values.keys():
            values[name] = layer.values[name]
            origins[name] = Origin(layer.kind, layer.place)
    return values, origins


def settled(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """Return *layers*, the first before all others, so that no two credentials are mixed.

    A secret, a token file and a token command exclude each other. So the first layer that has one
    (fit for `auth_mode`) decides, and those of later layers are left out: a variable set for one
    run wins over a login that was stored, for any kind of the two. An `auth_mode` that comes after
    a credential which it does not fit is left out as well.
    """
    layers = tuple(layers)
    rank, mode = _mode(layers)
    first = _first_with(layers, _SOURCES)
    if first is not None and first < rank and not _fitting(mode) & set(layers[first].values):
        layers = _without(layers, {"auth_mode"}, after=first)
        rank, mode = _mode(layers)
    fitting = _fitting(mode)
    first = _first_with(layers, fitting)
    return layers if first is None else _without(layers, set(_SOURCES), after=first)


def _mode(layers: Sequence[Layer]) -> tuple[int, str]:
    rank = _first_with(layers, ("auth_mode",))
    return (len(layers), "auto") if rank is None else (rank, str(layers[rank].values["auth_mode"]))


def _fitting(mode: str) -> set[str]:
    return {source for source, modes in _SOURCES.items() if mode in modes}


def _first_with(layers: Sequence[Layer], names: Iterable[str]) -> int | None:
    wanted = set(names)
    for rank, layer in enumerate(layers):
        if wanted & set(layer.values):
            return rank
    return None


def _without(layers: Sequence[Layer], names: set[str], *, after: int) -> tuple[Layer, ...]:
    return tuple(
        layer
        if rank <= after
        else replace(layer, values={k: v for k, v in layer.values.items() if k not in names})
        for rank, layer in enumerate(layers)
    )
