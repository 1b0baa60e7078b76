"""Where a token comes from; those of other programs, in a file or printed by a command.

Neither what a file holds nor what a command prints is ever logged or quoted, not even when it is
no token.
"""

from __future__ import annotations

import os
import shlex
import signal
import stat
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

import structlog
import trio

from satfs.api import tokens
from satfs.api.json_document import in_utf8
from satfs.api.tokens import ReceivedToken
from satfs.errors import NeedsLogin
from satfs.settings import AuthMode, Settings, worker_environment

log = structlog.get_logger(__name__)

#: How long the result of a look at the file is used: a new token counts a second later at most.
LOOK_S: Final = 1.0
#: Longest run of a command, in seconds. Below the 15 s in which a listing must come.
COMMAND_S: Final = 10.0
#: Longest text that is looked at for a token. The vendor's are about a kilobyte.
MAX_BYTES: Final = 64 * 1024


class TokenFile:
    """The token in a file, read again when the file changes or when its token was refused.

    A file that cannot be read for a while, because it is just being replaced, does no harm as long
    as the token that was read before is not refused.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: tuple[int, ...] | None = None
        self._received: ReceivedToken | None = None
        self._warned_of: tuple[str, ...] = ()

    async def look(self) -> ReceivedToken:
        """Return the token that is there now, waiting for the disk.

        Raises:
            NeedsLogin: the file is missing or holds no token, and there was none before, either;
                or others may change it.
        """
        return await trio.to_thread.run_sync(self._look, abandon_on_cancel=True)

    def refused(self) -> None:
        """Note that the token was refused: the next look reads the file in any case."""
        self._seen = None
        self._received = None

    def _look(self) -> ReceivedToken:
        try:
            status = self.path.stat()
            seen = (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)
            received = self._received
            if received is None or seen != self._seen:
                received = self._read()
            self._seen, self._received = seen, received
            return received
        except (OSError, NeedsLogin) as failure:
            why = failure.strerror if isinstance(failure, OSError) else str(failure)
            if self._received is not None:
                self._warn("token file unusable; going on with the token read before", str(why))
                return self._received
            raise NeedsLogin(f"token_file {self.path}: {why}") from None

    def _read(self) -> ReceivedToken:
        # O_NONBLOCK: opening a pipe without a writer would wait for ever.
        descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise NeedsLogin("not a regular file")
            if status.st_mode & stat.S_IWOTH:
                raise NeedsLogin(f"may be changed by everybody; run: chmod 600 {self.path}")
            if status.st_mode & (stat.S_IRGRP | stat.S_IROTH) and status.st_uid == os.geteuid():
                self._warn("token file open to others", f"run: chmod 600 {self.path}")
            text = os.read(descriptor, MAX_BYTES + 1)
        finally:
            os.close(descriptor)
        received = _parsed(text, time.time())
        if received is None:
            raise NeedsLogin("holds no token")
        return received

    def _warn(self, event: str, why: str) -> None:
        """Log it, once for each change of what is wrong."""
        if (event, why) != self._warned_of:
            self._warned_of = (event, why)
            log.warning(event, path=str(self.path), reason=why)


class TokenCommand:
    """The token that a command prints on its standard output.

    The command is run without a shell, without input, in a session of its own, with our environment
    except the settings of satfs; `SATFS_PROFILE` is there. Its standard error is discarded: it may
    quote secrets.
    """

    def __init__(self, command: str, profile: str) -> None:
        self._command = shlex.split(command)
        self._profile = profile

    async def run(self) -> ReceivedToken:
        """Run the command and return the token.

        Raises:
            NeedsLogin: it cannot be run, fails, takes too long or prints no token. It does not run
                any more then.
        """
        name = f"token_command {Path(self._command[0]).name}"
        with trio.move_on_after(COMMAND_S):
            try:
                code, text = await self._output()
            except OSError as failure:
                raise NeedsLogin(f"{name} cannot be run: {failure.strerror}") from None
            if code != 0:
                ended = f"exit code {code}" if code > 0 else f"signal {-code}"
                raise NeedsLogin(f"{name} failed with {ended}; run it by hand to see why")
            received = _parsed(text, time.time())
            if received is None:
                raise NeedsLogin(f"{name} printed no token")
            return received
        raise NeedsLogin(f"{name} did not end within {COMMAND_S:g} s")

    async def _output(self) -> tuple[int, bytes]:
        process = await trio.lowlevel.open_process(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**worker_environment(), "SATFS_PROFILE": self._profile},
            start_new_session=True,
            cwd="/",
        )
        text = bytearray()
        try:
            assert process.stdout is not None  # noqa: S101 - requested three lines above
            async with process.stdout as stdout:
                async for piece in stdout:
                    text += piece
                    if len(text) > MAX_BYTES:
                        return 0, bytes(text)
            return await process.wait(), bytes(text)
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                with trio.CancelScope(shield=True):
                    await process.wait()


def _parsed(text: bytes, now_s: float) -> ReceivedToken | None:
    """Return the token in *text*; None when it has none, or far more than a token."""
    if len(text) > MAX_BYTES:
        return None
    # Redirections of PowerShell write UTF-16.
    return tokens.parse(in_utf8(text).decode("utf-8", "replace"), now_s=now_s)


def mode_of(settings: Settings) -> AuthMode:
    """Return how `settings` want us to log in: `auto` is a token if there is one, else OAuth."""
    if settings.auth_mode is not AuthMode.AUTO:
        return settings.auth_mode
    tokens_given = (settings.token, settings.token_file, settings.token_command)
    return AuthMode.OAUTH if tokens_given == (None, None, None) else AuthMode.TOKEN


def source_of(settings: Settings) -> str:
    """Return the setting that the secret or token comes from.

    One of `token`, `token_file`, `token_command`, `client_secret` and `secret_store`.
    """
    if mode_of(settings) is AuthMode.TOKEN:
        names = ["token", "token_file", "token_command", "secret_store"]
    else:
        names = ["client_secret", "secret_store"]
    return next((name for name in names if getattr(settings, name) is not None), names[0])
