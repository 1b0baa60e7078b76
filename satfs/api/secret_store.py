"""The secrets that `satfs login` stores between mounts: in the keyring, or in a file.

Each is stored for one profile, together with the host it is for: a secret that was checked against
one host is never sent to another because an address has changed. Nothing here waits for the
network, but a keyring may prompt the user for a password: call from a thread.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from satfs.atomic_file import write_atomically
from satfs.errors import BadSettings, NeedsLogin
from satfs.net.addresses import origin_of
from satfs.profiles import user_file
from satfs.setting_values import SecretStr
from satfs.settings import AuthMode, SecretPlace, Settings

#: The service name of our entries in the keyring; the profile is the user name.
SERVICE: Final = "satfs"
#: Keyrings below it are no place for secrets (`keyring.backend.recommended`).
_MIN_PRIORITY: Final = 1
_MAX_BYTES: Final = 64 * 1024


class StoredLogin(Struct, frozen=True):
    """A secret and its account. *mode* is the way it logs in: oauth, token or legacy."""

    mode: AuthMode
    secret: SecretStr
    client_id: str | None
    api_url: str
    auth_url: str

    def mismatch(self, settings: Settings, mode: AuthMode) -> str | None:
        """Return what *settings*, which log in by *mode*, require and this is not; else None."""
        if origin_of(self.api_url) != origin_of(settings.api_url):
            return f"is for {origin_of(self.api_url)}, not for {origin_of(settings.api_url)}"
        if self.mode is not mode:
            return f"is for auth_mode {self.mode}, not for {mode}"
        if mode is AuthMode.OAUTH and self.auth_url != settings.auth_url:
            return f"is for the token endpoint {self.auth_url}, not for {settings.auth_url}"
        if mode is not AuthMode.TOKEN and self.client_id != settings.client_id:
            return f"is for the client id {self.client_id}, not for {settings.client_id}"
        return None


def secret_file(profile: str) -> Path:
    """Return where the secret of *profile* is kept when there is no keyring."""
    return user_file(os.environ).parent / "secrets" / f"{profile}.json"


def _keyring() -> Any:
    """Return the library `keyring`, which reads its configuration when it is imported.

    The configuration names Python modules to run. Root therefore uses it only where no other user
    can have written it: `sudo -E` leaves `HOME` and `XDG_CONFIG_HOME` as the user has them.

    Raises:
        PermissionError: we are root, and another user may have written the configuration.
    """
    if os.geteuid() == 0:
        place = os.environ.get("XDG_CONFIG_HOME") or Path("~/.config").expanduser()
        file = Path(place, "python_keyring", "keyringrc.cfg").absolute()
        foreign = _foreign(file) or _foreign(Path(os.path.realpath(file)))
        if foreign is not None:
            raise PermissionError(f"{foreign} is not root's")
    import keyring

    return keyring


def _foreign(file: Path) -> Path | None:
    """Return *file* or the directory above it that another user than root may write, if any."""
    for place in (file, *file.parents):
        try:
            status = place.stat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            return place
        is_open = status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX
        if status.st_uid != 0 or is_open:
            return place
    return None


def keyring_name() -> str | None:
    """Return the name of the system's keyring, or None without one that can be trusted."""
    try:
        backend: Any = _keyring().get_keyring()
        # A chain of keyrings writes to its first one; the chain's own priority does not matter.
        first: Any = next(iter(getattr(backend, "backends", ())), backend)
        return str(first.name) if first.priority >= _MIN_PRIORITY else None
    except Exception:  # a backend that raises anything does not work
        return None


def keep(profile: str, login: StoredLogin, place: SecretPlace) -> None:
    """Keep *login* for *profile* at *place*, instead of what was kept before.

    Raises:
        BadSettings: it cannot be kept there; the message has the reason.
    """
    text = msgspec.json.encode(login, enc_hook=SecretStr.get_secret_value).decode()
    if place is SecretPlace.FILE:
        path = secret_file(profile)
        try:
            write_atomically(path, text, mode=0o600)
        except OSError as failure:
            raise BadSettings(f"{path} cannot be written: {failure.strerror}") from failure
        return
    try:
        _keyring().set_password(SERVICE, profile, text)
    except Exception as failure:
        # The kind only: the text of a backend may quote the secret.
        raise BadSettings(
            f"the keyring does not take the secret ({type(failure).__name__}); unlock it, or log in"
            " with --secret-store file"
        ) from None


def fetch(profile: str, place: SecretPlace) -> StoredLogin:
    """Return the login that is stored for *profile* at *place*.

    Raises:
        NeedsLogin: none is stored, it cannot be read, or other users could have read it.
    """
    if place is SecretPlace.FILE:
        text = _read(secret_file(profile))
    else:
        try:
            text = _keyring().get_password(SERVICE, profile)
        except Exception as failure:
            raise NeedsLogin(
                f"the keyring does not give the secret of profile {profile}"
                f" ({type(failure).__name__}); is it locked? With `satfs login --secret-store"
                " file` none is needed"
            ) from None
    login = None if text is None else _parsed(text)
    if login is None:
        raise NeedsLogin(f"no login is kept for profile {profile} in the {place}; {again(profile)}")
    return login


def forget(profile: str, *, but: SecretPlace | None = None) -> tuple[SecretPlace, ...]:
    """Forget what is kept for *profile* everywhere *but* there; return where there was something.

    Raises:
        BadSettings: there is something that cannot be removed.
    """
    found = []
    if but is not SecretPlace.FILE:
        try:
            secret_file(profile).unlink()
            found.append(SecretPlace.FILE)
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as failure:
            path = secret_file(profile)
            raise BadSettings(f"{path} cannot be removed: {failure.strerror}") from failure
    if but is not SecretPlace.KEYRING and keyring_name() is not None:
        try:
            keyring = _keyring()
            if keyring.get_password(SERVICE, profile) is not None:
                keyring.delete_password(SERVICE, profile)
                found.append(SecretPlace.KEYRING)
        except Exception as failure:
            raise BadSettings(
                f"the keyring does not remove the secret ({type(failure).__name__}); unlock it"
            ) from None
    return tuple(found)


def again(profile: str) -> str:
    """Return how people log in again."""
    return f"log in: satfs login --profile {profile}"


def _parsed(text: str) -> StoredLogin | None:
    try:
        return msgspec.json.decode(text, type=StoredLogin, dec_hook=lambda kind, given: kind(given))
    except (ValueError, RecursionError):
        return None


def _read(path: Path) -> str | None:
    try:
        with path.open("rb") as stream:
            status = os.fstat(stream.fileno())
            if status.st_uid not in (os.geteuid(), 0):
                raise NeedsLogin(f"{path} belongs to another user; it must be yours")
            if stat.S_IMODE(status.st_mode) & (stat.S_IRWXG | stat.S_IRWXO):
                raise NeedsLogin(
                    f"{path} holds a secret and is open to others; run: chmod 600 {path}"
                )
            return stream.read(_MAX_BYTES).decode("utf-8", "replace")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as failure:
        raise NeedsLogin(f"{path} cannot be read: {failure.strerror}") from failure
