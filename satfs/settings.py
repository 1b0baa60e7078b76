"""Every setting, with its unit, its default and the reason for it; the only reader of environment.

Longer than 400 lines, since each setting stands with its unit and its reason.

Each field `x_y` is set by the environment variable `SATFS_X_Y`, and by `x_y` in a `config.toml`
(`satfs.profiles`). Numbers of bytes may carry a unit (`20GB`, `512MiB`). Secrets are held as
`SecretStr`: only `api/credential.py` opens them.
"""

from __future__ import annotations

import difflib
import itertools
import os
import shlex
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias
from urllib.parse import urlsplit

import platformdirs
from msgspec import Struct
from pydantic import (
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    SecretStr,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from satfs import profiles
from satfs.errors import BadSettings
from satfs.model import MIB
from satfs.profiles import DEFAULT_PROFILE, ConfigFile, Layer, Origin, OriginKind

ENV_PREFIX: Final = "SATFS_"
GB: Final = 10**9


def _parse_size(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return int(_byte_size.validate_python(value))
    except ValidationError:  # its text quotes what was given
        raise ValueError("must be a number of bytes, such as 20GB or 512MiB") from None


_byte_size = TypeAdapter(ByteSize)
#: A number of bytes, or text such as `20GB` (powers of ten) or `512MiB` (powers of two).
Bytes: TypeAlias = Annotated[int, BeforeValidator(_parse_size)]


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


class Settings(BaseModel):
    """All settings of one mount. Built by `load_settings`, which explains what is wrong."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        validate_default=True,
        allow_inf_nan=False,
    )

    # -- the vendor ------------------------------------------------------------------------------
    profile: str = DEFAULT_PROFILE
    """The named set of settings in config.toml that is used."""
    api_url: str = "https://api.satellogic.com"
    """Base of the Aleph API. Credentials go to this host and no other."""
    auth_url: str = "https://auth.platform.satellogic.com/oauth/token"
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
    token_file: Path | None = None
    """A file that holds a token; read again when it changes."""
    token_command: str | None = None
    """A command that prints a token; run without a shell whenever another token is needed."""
    secret_store: SecretPlace | None = None
    """Where `satfs login` has kept the secret: keyring or file."""
    contract_id: str | None = None
    """The contract to act for; when unset, an account's only contract is taken."""
    ca_file: Path | None = None
    """PEM file of the authorities to trust besides the system's."""
    tls_strict: bool = True
    """Refuse certificates that depart from RFC 5280; False checks as curl and browsers do."""
    allow_private_store: bool = False
    """Accept object links that lead to private addresses though the API is a public host."""

    # -- time ------------------------------------------------------------------------------------
    connect_timeout_s: float = Field(5.0, gt=0)
    """Time to open one connection, TLS included."""
    progress_timeout_s: float = Field(15.0, gt=0)
    """Longest silence of a connection in use; below the kernel's 20 s suspend limit."""
    metadata_deadline_s: float = Field(15.0, gt=0)
    """Time within which every call but a read is answered, error or not."""
    read_deadline_s: float = Field(60.0, gt=0)
    """Time within which every read is answered, error or not."""

    # -- listings --------------------------------------------------------------------------------
    listing_ttl_s: float = Field(60.0, ge=0)
    """How long a listing is used before it is requested again."""
    negative_ttl_s: float = Field(5.0, ge=0)
    """How long the kernel remembers that a name is not there."""
    entry_timeout_s: float = Field(60.0, gt=0)
    """How long the kernel believes a name. Never 0: each `stat` would walk the whole path again."""
    attr_timeout_s: float = Field(60.0, gt=0)
    """How long the kernel believes attributes. Never 0, for the same reason."""
    page_limit: int = Field(100, ge=1, le=10_000)
    """Entries requested per page (the documentation uses 100)."""
    max_entries: int = Field(1_000_000, ge=1)
    """Most entries of one listing; more is taken for a broken pager."""
    listing_memory_bytes: Bytes = Field(96 * MIB, ge=16 * MIB)
    """Most bytes of listings in memory, compressed; others are on disk. A larger one is refused."""
    api_concurrency: int = Field(16, ge=1, le=256)
    """API requests in flight at once: 100 pages of 100 ms each then take under a second."""

    # -- transfers -------------------------------------------------------------------------------
    max_connections: int = Field(64, ge=1, le=256)
    """Connections to the object store at once; how many are used is measured as we go."""
    range_bytes: Bytes = Field(8 * MIB, ge=64 * 1024)
    """Bytes of one request in bulk (measured: docs/PERFORMANCE.md, AWS advises 8 to 16 MB)."""
    workers: int = Field(2, ge=0, le=8)
    """Processes that receive bulk data; 0 receives everything in the mount's own process."""
    worker_idle_s: float = Field(60.0, gt=0)
    """Idle time after which a worker process ends."""
    egress_limit: Bytes | None = Field(None, ge=0)
    """Most bytes fetched a day (UTC), such as 50GB; what is not cached is EDQUOT beyond it."""

    # -- the cache -------------------------------------------------------------------------------
    cache_dir: Path = Field(default_factory=lambda: Path(platformdirs.user_cache_path("satfs")))
    """Where fetched blocks and listings are kept."""
    cache_bytes: Bytes | None = Field(None, ge=0)
    """Most bytes kept on disk; default: the smaller of 20 GB and 10 % of the disk. 0: no disk."""
    cache_free_fraction: float = Field(0.05, ge=0, lt=1)
    """Share of the disk that is always left free."""
    memory_bytes: Bytes = Field(256 * MIB, ge=16 * MIB)
    """Most bytes of content kept in memory when there is no disk to keep them on."""

    # -- metrics ---------------------------------------------------------------------------------
    metrics_port: int | None = Field(None, ge=1, le=65535)
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
    unpack_bytes: Bytes = Field(4 * GB, ge=0)
    """Largest member that is unpacked as a whole into the cache (bzip2, LZMA, xz, zstandard)."""

    @field_validator("api_url", "auth_url")
    @classmethod
    def _is_web_address(cls, value: str) -> str:
        try:
            parts = urlsplit(value)
            is_address = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:  # a port or a bracket that cannot be; its text may quote a password
            is_address = False
        if not is_address:
            raise ValueError("must be an http or https address")
        if parts.query or parts.fragment or any(map(str.isspace, value)):
            raise ValueError("must be an address without a query, a fragment or blanks")
        if parts.username or parts.password:
            raise ValueError("must not contain a user name or password")
        return value.rstrip("/") if value.endswith("/") and parts.path == "/" else value

    @field_validator("profile")
    @classmethod
    def _is_profile_name(cls, value: str) -> str:
        if not profiles.is_name(value):
            raise ValueError("must be a name of letters, digits, - and _, 64 characters at most")
        return value

    @field_validator("token_command")
    @classmethod
    def _is_command(cls, value: str | None) -> str | None:
        try:
            is_command = value is None or bool(shlex.split(value))
        except ValueError:  # a quote that does not end
            is_command = False
        if not is_command:
            raise ValueError("must be a command and its arguments, quoted as in a shell")
        return value

    @field_validator("ca_file", "cache_dir", "token_file")
    @classmethod
    def _is_found_from_anywhere(cls, value: Path | None) -> Path | None:
        # A mount in the background works from another directory than the one it was started in.
        # Not `Path.expanduser`, which raises for a `~name` that is no user's.
        return None if value is None else Path(os.path.expanduser(value)).absolute()

    @model_validator(mode="after")
    def _secrets_travel_encrypted(self) -> Settings:
        for name in ("api_url", "auth_url"):
            parts = urlsplit(getattr(self, name))
            if parts.scheme == "http" and not _is_loopback_name(parts.hostname or ""):
                raise ValueError(
                    f"{name} must be https: credentials would cross the network unencrypted"
                )
        return self


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
    environment: Mapping[str, str] | None = None,
    /,
    *,
    profile: str | None = None,
    **overrides: Any,
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
        private = {"token_command", *filter(is_secret, Settings.model_fields)}
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
    values, origins = profiles.merged(layers, Settings.model_fields.keys())
    try:
        settings = Settings(**{**values, "profile": chosen})
    except ValidationError as failure:
        problems += _explain(failure, origins)
    if problems:
        raise BadSettings("; ".join(problems))
    remarks = [
        f"{file.path}: {key} is set, and is not a setting of satfs"
        f"{did_you_mean(key.rpartition('.')[2], Settings.model_fields)}."
        for file in files
        for key in file.unknown(Settings.model_fields.keys())
    ]
    return Resolved(settings, origins, known, tuple(remarks))


_PATHS: Final = frozenset(
    name for name, field in Settings.model_fields.items() if "Path" in str(field.annotation)
)


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
    named = {name: upper.get(variable_of(name), "") for name in Settings.model_fields}
    return {name: value for name, value in named.items() if value}


def _explain(failure: ValidationError, origins: Mapping[str, Origin]) -> list[str]:
    sentences = []
    # Without the input: it may be a secret, or a secret in the wrong place.
    for problem in failure.errors(include_input=False, include_url=False, include_context=False):
        text = problem["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
        name = ".".join(str(part) for part in problem["loc"])
        origin = origins.get(name)
        in_file = origin is not None and origin.kind in (OriginKind.USER, OriginKind.SYSTEM)
        where = origin.place if origin is not None and in_file else variable_of(name)
        sentences.append(f"{name} ({where}): {text}" if name else text)
    return sentences


def meanings() -> dict[str, str]:
    """Return what each setting means: the text below its field, with the line breaks it has.

    Read from this module's source. Pydantic can do it as well (`use_attribute_docstrings`), at each
    start of a mount, which is a twentieth of its processor time.
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
    return "SecretStr" in str(Settings.model_fields[setting].annotation)


def unknown_variables(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the names in *environment* that look like settings of ours and are not, sorted."""
    known = {variable_of(name) for name in Settings.model_fields}
    known |= {profiles.USER_FILE_VARIABLE, profiles.SYSTEM_FILE_VARIABLE}
    return tuple(
        sorted(
            name
            for name in environment
            if name.upper().startswith(ENV_PREFIX) and name.upper() not in known
        )
    )


def unknown_remarks(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return a sentence on each of `unknown_variables`."""
    known = tuple(variable_of(name) for name in Settings.model_fields)
    return tuple(
        f"{name} is set, and is not a setting of satfs{did_you_mean(name.upper(), known)}."
        for name in unknown_variables(environment)
    )


def worker_environment() -> dict[str, str]:
    """Return the environment for a child process: ours without anything of satfs.

    No child gets a setting or a secret by its environment.
    """
    return {
        name: value for name, value in os.environ.items() if not name.upper().startswith(ENV_PREFIX)
    }
