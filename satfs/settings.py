"""Every setting, with its unit, its default and the reason for it; the only reader of environment.

Each field `x_y` is set by the environment variable `SATFS_X_Y`, and by `x_y` in a `config.toml`
(`satfs.profiles`). Its type decides what is accepted (`satfs.setting_values`). Secrets are held as
`SecretStr`: only `api/credential.py` opens them.
"""

from __future__ import annotations

import difflib
import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Final, get_type_hints
from urllib.parse import urlsplit

import platformdirs
from msgspec import Meta, Struct, field

from satfs import profiles
from satfs.errors import BadSettings
from satfs.model import MIB
from satfs.profiles import DEFAULT_PROFILE, ConfigFile, Layer, Origin, OriginKind
from satfs.setting_values import (
    Bytes,
    SecretStr,
    command,
    found_from_anywhere,
    header_text,
    value_of,
    web_address,
)

ENV_PREFIX: Final = "SATFS_"
GB: Final = 10**9


class AuthMode(StrEnum):
    """The way of authentication at the API."""

    AUTO = "auto"  #: a token if one is set or looked for, else client credentials
    OAUTH = "oauth"  #: client credentials exchanged for a token
    TOKEN = "token"  #: a ready-made token  # noqa: S105 - a word, not a secret
    LEGACY = "legacy"  #: the deprecated `Key,Secret` header; needs no contract


class SecretPlace(StrEnum):
    """Where `satfs login` keeps what it was given."""

    KEYRING = "keyring"  #: the system's: Secret Service, KWallet
    FILE = "file"  #: one for the profile, which only its owner may read


class ContentsView(StrEnum):
    """Whether a scene directory shows the members of its zip (`contents/`)."""

    VISIBLE = "visible"
    HIDDEN = "hidden"  #: reachable by name, not listed: `cp -r` fetches nothing twice
    OFF = "off"


class StacView(StrEnum):
    """The STAC files that a mount shows (`catalog.json`, `collection.json`, `item.json`)."""

    FULL = "full"  #: items with the facts of the zip: projection, shape, bands
    RECORDS = "records"  #: items made of the API's records alone, which read nothing of a zip
    OFF = "off"


class Views(StrEnum):
    """Whether a mount has `views/`: links by name and date, a map, mosaics, a QGIS project."""

    ON = "on"  #: listed at the top
    HIDDEN = "hidden"  #: not listed, but there when looked up by name
    OFF = "off"


def _profile_name(value: str) -> str:
    if not profiles.is_name(value):
        raise ValueError("must be a name of letters, digits, - and _, 64 characters at most")
    return value


class Settings(Struct, frozen=True, kw_only=True):
    """All settings of one mount. Built by `load_settings`, which explains what is wrong."""

    # -- the vendor ------------------------------------------------------------------------------
    profile: Annotated[str, _profile_name] = DEFAULT_PROFILE
    """The named set of settings in config.toml that is used."""
    api_url: Annotated[str, web_address] = "https://api.satellogic.com"
    """Base of the Aleph API. Credentials go to this host and no other."""
    auth_url: Annotated[str, web_address] = "https://auth.platform.satellogic.com/oauth/token"
    """The OAuth token endpoint."""
    audience: str = "https://api.satellogic.com/"
    """The audience of a token, as requested (the final slash belongs to it)."""
    auth_mode: AuthMode = AuthMode.AUTO
    """How satfs authenticates at the API: auto, oauth, token or legacy."""
    client_id: str | None = None
    """The OAuth client id (or the key id, in legacy mode)."""
    client_secret: SecretStr | None = None
    """The OAuth client secret. Never accepted on the command line."""
    token: SecretStr | None = None
    """A ready-made access token. Never accepted on the command line."""
    token_file: Annotated[Path, found_from_anywhere] | None = None
    """A file that holds a token; read again when it changes."""
    token_command: Annotated[str, command] | None = None
    """A command that prints a token; run without a shell whenever another token is needed."""
    secret_store: SecretPlace | None = None
    """Where `satfs login` has kept the secret: keyring or file."""
    contract_id: str | None = None
    """The contract to act for; when unset, an account's only contract is taken."""
    ca_file: Annotated[Path, found_from_anywhere] | None = None
    """PEM file of the authorities to trust besides the system's."""
    tls_strict: bool = True
    """Refuse certificates that depart from RFC 5280; False checks as curl and browsers do."""
    user_agent: Annotated[str, header_text] | None = None
    """The name that satfs gives to hosts (`User-Agent`); unset: satfs and its version."""
    allow_private_store: bool = False
    """Accept object links that lead to private addresses though the API is a public host."""

    # -- time ------------------------------------------------------------------------------------
    connect_timeout_s: Annotated[float, Meta(gt=0)] = 5.0
    """Time to open one connection, TLS included."""
    progress_timeout_s: Annotated[float, Meta(gt=0)] = 15.0
    """Longest silence of a connection in use; below the kernel's 20 s suspend limit."""
    metadata_deadline_s: Annotated[float, Meta(gt=0)] = 15.0
    """Time within which every call but a read is answered, error or not."""
    read_deadline_s: Annotated[float, Meta(gt=0)] = 60.0
    """Time within which every read is answered, error or not."""

    # -- listings --------------------------------------------------------------------------------
    listing_ttl_s: Annotated[float, Meta(ge=0)] = 60.0
    """How long a listing is used before it is requested again."""
    negative_ttl_s: Annotated[float, Meta(ge=0)] = 5.0
    """How long the kernel remembers that a name is not there."""
    entry_timeout_s: Annotated[float, Meta(gt=0)] = 60.0
    """How long the kernel believes a name. Never 0: each `stat` would walk the whole path again."""
    attr_timeout_s: Annotated[float, Meta(gt=0)] = 60.0
    """How long the kernel believes attributes. Never 0, for the same reason."""
    page_limit: Annotated[int, Meta(ge=1, le=10_000)] = 100
    """Entries requested per page (the documentation uses 100)."""
    max_entries: Annotated[int, Meta(ge=1)] = 1_000_000
    """Most entries of one listing; more is taken for a broken pager."""
    listing_memory_bytes: Annotated[Bytes, Meta(ge=16 * MIB)] = 96 * MIB
    """Most bytes of listings in memory, compressed; others are on disk. A larger one is refused."""
    api_concurrency: Annotated[int, Meta(ge=1, le=256)] = 16
    """API requests in flight at once: 100 pages of 100 ms each then take under a second."""

    # -- transfers -------------------------------------------------------------------------------
    max_connections: Annotated[int, Meta(ge=1, le=256)] = 64
    """Connections to the object store at once; how many are used is measured as we go."""
    range_bytes: Annotated[Bytes, Meta(ge=64 * 1024)] = 8 * MIB
    """Bytes of one request in bulk (measured: docs/PERFORMANCE.md, AWS advises 8 to 16 MB)."""
    workers: Annotated[int, Meta(ge=0, le=8)] = 2
    """Processes that receive bulk data; 0 receives everything in the mount's own process."""
    worker_idle_s: Annotated[float, Meta(gt=0)] = 60.0
    """Idle time after which a worker process ends."""
    egress_limit: Annotated[Bytes, Meta(ge=0)] | None = None
    """Most bytes fetched a day (UTC), such as 50GB; what is not cached is EDQUOT beyond it."""

    # -- the cache -------------------------------------------------------------------------------
    cache_dir: Annotated[Path, found_from_anywhere] = field(
        default_factory=lambda: Path(platformdirs.user_cache_path("satfs"))
    )
    """Where fetched blocks and listings are kept."""
    cache_bytes: Annotated[Bytes, Meta(ge=0)] | None = None
    """Most bytes kept on disk; default: the smaller of 20 GB and 10 % of the disk. 0: no disk."""
    cache_free_fraction: Annotated[float, Meta(ge=0, lt=1)] = 0.05
    """Share of the disk that is always left free."""
    memory_bytes: Annotated[Bytes, Meta(ge=16 * MIB)] = 256 * MIB
    """Most bytes of content kept in memory when there is no disk to keep them on."""

    # -- metrics ---------------------------------------------------------------------------------
    metrics_port: Annotated[int, Meta(ge=1, le=65535)] | None = None
    """Serve metrics for Prometheus on this port of 127.0.0.1; unset: in `.satfs/metrics` only."""

    # -- the tree --------------------------------------------------------------------------------
    contents: ContentsView = ContentsView.VISIBLE
    """Show the members of each zip as `contents/`: visible, hidden or off."""
    stac: StacView = StacView.FULL
    """Show STAC catalogues and items: full, records (nothing of a zip is read for them) or off."""
    views: Views = Views.ON
    """Have `views/` with links, maps, mosaics and QGIS projects: on, hidden or off."""
    crawlers: str = "default"
    """Programs given what is cached only: `default`, more names or patterns beside it, `none`."""
    unpack_bytes: Annotated[Bytes, Meta(ge=0)] = 4 * GB
    """Largest member that is unpacked as a whole into the cache (bzip2, LZMA, xz, zstandard)."""

    @property
    def body_timeout_s(self) -> float:
        """Return the longest silence in a body that the event loop receives.

        A call has time for two more tries then: a listing, or the directory of a zip.
        """
        return min(self.progress_timeout_s, self.metadata_deadline_s / 3)


def _unencrypted(settings: Settings) -> list[str]:
    """Return a sentence on each address to which credentials would go unencrypted."""
    return [
        f"{name} must be https: credentials would cross the network unencrypted"
        for name in ("api_url", "auth_url")
        if (parts := urlsplit(getattr(settings, name))).scheme == "http"
        and not _is_loopback_name(parts.hostname or "")
    ]


def _is_loopback_name(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:  # a name; only this one is loopback on every resolver (RFC 6761 §6.3)
        return host == "localhost"


class Resolved(Struct, frozen=True):
    """Settings, the origin of each, and remarks on them."""

    settings: Settings
    #: By setting; those that are missing have their default.
    origins: Mapping[str, Origin]
    #: Every profile that a file knows, sorted.
    profiles: tuple[str, ...]
    #: Sentences on what is set somewhere and has no effect.
    remarks: tuple[str, ...]


def load_settings(
    environment: Mapping[str, str] | None = None, /, *, profile: str | None = None, **overrides: Any
) -> Settings:
    """Return the settings of *profile* from flags, environment, user file, system file, defaults.

    *overrides* are the flags; None counts as not given. *environment* is the process's own unless
    another is given; then no file is looked at either. Waits for nothing but the disk.

    Raises:
        BadSettings: a value cannot be; the message names each setting, never what was given. Or
            the profile is in no file, or a file cannot be used.
    """
    return resolve_settings(overrides | {"profile": profile}, environment=environment).settings


def resolve_settings(
    overrides: Mapping[str, Any],
    *,
    environment: Mapping[str, str] | None = None,
    may_be_new: bool = False,
) -> Resolved:
    """Return what `load_settings` does, with the origin of each value.

    *overrides* may name the `profile`, too. With *may_be_new* it may be in no file yet. Raises as
    `load_settings` does.
    """
    files: tuple[ConfigFile, ...] = ()
    unit: Layer | None = None
    if environment is None:
        private = {"token_command", *filter(is_secret, Settings.__struct_fields__)}
        files = profiles.read_files(os.environ, private=private, paths=_PATHS)
        unit = profiles.unit_layer(os.environ)
    flags = {key: value for key, value in overrides.items() if value is not None}
    given = [
        Layer(OriginKind.FLAG, flags),
        Layer(
            OriginKind.ENVIRONMENT, values_of(os.environ if environment is None else environment)
        ),
        *([] if unit is None else [unit]),
    ]
    chosen = profiles.chosen(given, files)
    known = tuple(sorted({name for file in files for name in file.profiles}))
    problems = []
    if environment is None and not may_be_new and chosen not in (*known, DEFAULT_PROFILE):
        problems.append(_no_such_profile(flags.get("profile"), known))
    layers = [*given, *(layer for file in files for layer in file.layers(str(chosen)))]
    values, origins = profiles.merged(layers, Settings.__struct_fields__)
    settings, wrong = _settings_of({**values, "profile": chosen}, origins)
    problems += wrong
    if problems:
        raise BadSettings("; ".join(problems))
    remarks = [] if environment is not None else unknown_remarks(os.environ)
    remarks += [
        f"{file.path}: {key} is set, and is not a setting of satfs"
        f"{did_you_mean(key.rpartition('.')[2], Settings.__struct_fields__)}."
        for file in files
        for key in file.unknown(Settings.__struct_fields__)
    ]
    return Resolved(settings, origins, known, tuple(remarks))


_PATHS: Final = frozenset(name for name, kind in Settings.__annotations__.items() if "Path" in kind)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the end of a sentence that proposes what *known* has nearest to *name*, or nothing."""
    nearest = difflib.get_close_matches(name, known, n=1)
    return f" (the nearest name is {nearest[0]})" if nearest else ""


def _no_such_profile(flag: Any, known: Sequence[str]) -> str:
    """Return what is wrong with a profile; one that no *flag* named is shown by its variable.

    A value of the environment is not repeated: it may be a secret in the wrong place.
    """
    name = variable_of("profile") if flag is None else f"profile {flag}"
    there_are = f"there are: {', '.join(known)}" if known else "there is none"
    knows_none = f"{name}: config.toml knows none of that name"
    return f"{knows_none} ({there_are}); `satfs login` makes one"


def values_of(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the settings that *environment* holds, by field name; empty values count as unset."""
    upper = {name.upper(): value for name, value in environment.items()}
    named = {name: upper.get(variable_of(name), "") for name in Settings.__struct_fields__}
    return {name: value for name, value in named.items() if value}


def _settings_of(
    values: Mapping[str, Any], origins: Mapping[str, Origin]
) -> tuple[Settings, list[str]]:
    """Return settings with these *values* as far as they can be, and a sentence on each other."""
    kinds = get_type_hints(Settings, include_extras=True)
    judged, problems = {}, []
    for name, given in values.items():
        try:
            judged[name] = value_of(kinds[name], given)
        except ValueError as wrong:
            origin = origins.get(name)
            in_file = origin is not None and origin.kind in (OriginKind.USER, OriginKind.SYSTEM)
            where = origin.place if origin is not None and in_file else variable_of(name)
            problems.append(f"{name} ({where}): {wrong}")
    settings = Settings(**judged)
    return settings, problems or _unencrypted(settings)


def meanings() -> dict[str, str]:
    """Return what each setting means: the text below its field, with the line breaks it has.

    Read from this module's source, since Python keeps no text below a field.
    """
    import ast
    import inspect

    (settings,) = ast.parse(inspect.getsource(Settings)).body
    body = settings.body if isinstance(settings, ast.ClassDef) else []
    return {
        field.target.id: inspect.cleandoc(text.value.value)
        for field, text in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
        if isinstance(text.value.value, str)
    }


def variable_of(setting: str) -> str:
    """Return the name of the environment variable that sets *setting*."""
    return ENV_PREFIX + setting.upper()


def is_secret(setting: str) -> bool:
    """Return whether the value of *setting* must never be shown, nor be given on a command line."""
    return "SecretStr" in Settings.__annotations__[setting]


def unknown_remarks(environment: Mapping[str, str]) -> list[str]:
    """Return a sentence on each name in *environment* that looks like a setting of ours, sorted."""
    known = [variable_of(name) for name in Settings.__struct_fields__]
    others = {*known, profiles.USER_FILE_VARIABLE, profiles.SYSTEM_FILE_VARIABLE}
    return [
        f"{name} is set, and is not a setting of satfs{did_you_mean(name.upper(), known)}."
        for name in sorted(environment)
        if name.upper().startswith(ENV_PREFIX) and name.upper() not in others
    ]


def worker_environment() -> dict[str, str]:
    """Return the environment for a child process: ours without anything of satfs.

    No child gets a setting or a secret by its environment.
    """
    return {
        name: value for name, value in os.environ.items() if not name.upper().startswith(ENV_PREFIX)
    }
