"""The text of a bug report: versions, findings, settings and log lines, without secrets.

A report shows findings, and logs of mounts that other profiles or an earlier environment have
started. So none of the secrets that satfs finds on this machine for this user may be in it, also
those that no mount would use at the moment.
"""

from __future__ import annotations

import base64
import ctypes
import os
import platform
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from msgspec.structs import asdict

from satfs import __version__
from satfs.api import secret_store, tokens
from satfs.atomic_file import for_owner
from satfs.cli.commands.config import shown_value
from satfs.cli.output import show
from satfs.doctor.findings import Finding, Severity
from satfs.errors import BadSettings, SatfsError
from satfs.profiles import DEFAULT_PROFILE, read_files
from satfs.redaction import redact
from satfs.setting_values import SecretStr
from satfs.settings import Resolved, SecretPlace, Settings, is_secret, values_of

#: libfuse by its soname: 3.0 to 3.16, and from 3.17 on.
_LIBFUSE: Final = ("libfuse3.so.3", "libfuse3.so.4")
#: Libraries whose version decides how satfs behaves.
_LIBRARIES: Final = ("pyfuse3", "trio", "httpx", "httpcore", "h11", "msgspec", "isal")
#: They are no secrets; with them a reader of a public issue would know the account.
_IDENTITIES: Final = ("client_id", "contract_id")
#: These values name an account or a file; a report for the public shows only that they are set.
_PERSONAL: Final = (*_IDENTITIES, "token_file", "token_command")
_SHOWN_NEVER: Final = (*filter(is_secret, Settings.__struct_fields__), *_IDENTITIES)
#: Longest token file that is read, as `satfs.api.token_sources` does, in bytes.
_MAX_BYTES: Final = 64 * 1024
#: Shorter values are no secrets, and are part of many words.
_MIN_LENGTH: Final = 4
#: Lines of each mount's log, the latest.
MAX_LOG_LINES: Final = 200


def versions() -> dict[str, str]:
    """Return the version of satfs and of each part of the machine that it depends on, by name."""
    found = {
        "satfs": __version__,
        "Python": platform.python_version(),
        "libfuse": _libfuse_version(),
        "kernel": f"{platform.release()} {platform.machine()}",
        "distribution": _distribution(),
    }
    for name in _LIBRARIES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def versions_text() -> str:
    """Return `versions` as lines; the first is that of `satfs --version`."""
    return "\n".join(f"{name} {version}" for name, version in versions().items())


def _libfuse_version() -> str:
    for name in _LIBFUSE:
        with suppress(OSError, AttributeError):
            pkgversion = ctypes.CDLL(name).fuse_pkgversion
            pkgversion.restype = ctypes.c_char_p
            return str(pkgversion().decode("ascii", "replace"))
    return "not found"


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return "unknown"


def report_text(
    findings: Iterable[Finding],
    resolved: Resolved | None,
    logs: Mapping[str, str],
    environment: Mapping[str, str] = os.environ,
) -> str:
    """Return the report as text: versions, *findings*, settings that are not the default, *logs*.

    *logs* are the lines of each mount by its mountpoint. The report never has a secret of any
    profile (`secrets_of_user`, which may wait for the keyring), the query of a link, a token, or
    the user in a URL; the user's home directory is `~`.
    """
    day = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    parts = [f"# A report of satfs doctor, {day}", "## Versions", versions_text(), "## Findings"]
    parts += [_finding_text(each) for each in findings]
    parts += ["## Settings that are not the default", _settings_text(resolved)]
    for mountpoint, lines in logs.items():
        tail = lines.splitlines()[-MAX_LOG_LINES:]
        parts += [f"## Log of {show(mountpoint)}", "\n".join(map(show, tail)) or "(empty)"]
    return without_secrets("\n\n".join(parts) + "\n", secrets_of_user(resolved, environment))


def without_secrets(text: str, secrets: Iterable[str]) -> str:
    """Return *text* without *secrets*, and what `redact` removes; home is `~`."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "…")
    text = redact(text)
    home = str(Path.home())
    return text if home == "/" else re.sub(re.escape(home) + r"(?![\w.-])", "~", text)


def write_report(path: Path, text: str) -> None:
    """Write the report to *path*, for its owner alone. A file that exists is not replaced.

    Raises:
        BadSettings: it cannot be written; the message has the reason.
    """
    try:
        with open(path, "x", encoding="utf-8", opener=for_owner) as file:
            file.write(text)
    except OSError as failure:
        raise BadSettings(
            f"the report cannot be written to {show(str(path))}: {failure.strerror}"
        ) from failure


def _finding_text(finding: Finding) -> str:
    lines = [f"{finding.severity.word} [{finding.area.value}: {finding.check}] {finding.statement}"]
    if finding.severity is not Severity.OK:
        lines += [
            f"  {text}" for text in (finding.explanation, finding.remedy, *finding.commands) if text
        ]
    return "\n".join(map(show, lines))


def _settings_text(resolved: Resolved | None) -> str:
    if resolved is None:
        return "(they cannot be read; see the findings)"
    lines = []
    for name in Settings.__struct_fields__:
        if name in resolved.origins:
            hidden = name in _PERSONAL and getattr(resolved.settings, name) is not None
            value = "(set, not shown)" if hidden else shown_value(resolved.settings, name)
            lines.append(show(f"{name} = {value}  # {resolved.origins[name].kind}"))
    return "\n".join(lines) or "(none)"


def secrets_of_user(resolved: Resolved | None, environment: Mapping[str, str]) -> set[str]:
    """Return the secrets and identities of *resolved*, *environment*, files and stored logins.

    Of both `config.toml` for each profile in them, with the token in a token file and the login in
    a secret store; and the passwords of proxies. Waits for the disk, and for the keyring where a
    profile uses it. Secrets that cannot be read are left out; satfs cannot have shown them either.
    """
    found = set(_of_proxies(environment))
    stored = set()
    for profile, values in _tables(resolved, environment):
        for name in _SHOWN_NEVER:
            found.add(_text(values.get(name)))
        if (path := values.get("token_file")) is not None:
            found.add(_token_in(Path(str(path))))
        with suppress(ValueError):
            stored.add((profile, SecretPlace(str(values.get("secret_store")))))
    for profile, place in stored:
        with suppress(SatfsError):
            login = secret_store.fetch(profile, place)
            found |= {login.secret.get_secret_value(), login.client_id or ""}
    return {value for value in found if len(value) >= _MIN_LENGTH}


def _tables(
    resolved: Resolved | None, environment: Mapping[str, str]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the values of each origin by setting, with the profile for which they are."""
    profile = DEFAULT_PROFILE if resolved is None else resolved.settings.profile
    yield profile, values_of(environment)
    if resolved is not None:
        yield profile, asdict(resolved.settings)
    with suppress(BadSettings):
        files = read_files(environment, private=(), paths=("token_file",))
        for name in {profile, *(name for file in files for name in file.profiles)}:
            for file in files:
                yield from ((name, layer.values) for layer in file.layers(name))


def _text(value: Any) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return "" if value is None else str(value)


def _token_in(path: Path) -> str:
    with suppress(OSError):
        if path.is_file():  # a pipe could keep us waiting
            with path.open("rb") as stream:
                text = stream.read(_MAX_BYTES).decode("utf-8", "replace")
            parsed = tokens.parse(text, now_s=0.0)
            return "" if parsed is None else parsed.token
    return ""


def _of_proxies(environment: Mapping[str, str]) -> Iterator[str]:
    """Yield the password of each proxy, as it is written and as it is sent (RFC 7617)."""
    for name, address in environment.items():
        if name.lower().endswith("_proxy"):
            with suppress(ValueError):
                parts = urlsplit(address if "://" in address else f"http://{address}")
                if parts.password:
                    user, password = unquote(parts.username or ""), unquote(parts.password)
                    yield from (parts.password, password)
                    yield base64.b64encode(f"{user}:{password}".encode()).decode()
