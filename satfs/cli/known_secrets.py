"""All secrets that satfs finds on this machine for this user: none of them may be in a bug report.

A report shows findings, and logs of mounts that other profiles or an earlier environment have
started. So the secrets of every origin count, also those that no mount would use at the moment.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr

from satfs.api import secret_store, tokens
from satfs.errors import BadSettings, SatfsError
from satfs.profiles import DEFAULT_PROFILE, read_files
from satfs.settings import Resolved, SecretPlace, Settings, is_secret, values_of

#: They are no secrets; with them a reader of a public issue would know the account.
IDENTITIES: Final = ("client_id", "contract_id")
_SHOWN_NEVER: Final = (*filter(is_secret, Settings.model_fields), *IDENTITIES)
#: Longest token file that is read, as `satfs.api.token_sources` does, in bytes.
_MAX_BYTES: Final = 64 * 1024
#: Shorter values are no secrets, and are part of many words.
_MIN_LENGTH: Final = 4


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
        yield profile, {name: getattr(resolved.settings, name) for name in Settings.model_fields}
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
