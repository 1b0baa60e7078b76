"""systemd's user manager, reached through systemctl(1)."""

from __future__ import annotations

import shutil
import subprocess
from typing import Final

from satfs.cli.output import show
from satfs.errors import BadSettings

#: systemctl(1) answers at once, or its manager is stuck.
_TIMEOUT_S: Final = 30


class UserManager:
    """The manager of our user; `is_there` is false where none answers.

    Each method waits for systemctl, thirty seconds at most.
    """

    def __init__(self) -> None:
        found = shutil.which("systemctl")
        self._systemctl = found or ""
        self.is_there = found is not None and self._call("show-environment").returncode == 0

    def run(self, *words: str, timeout_s: float = _TIMEOUT_S) -> None:
        """Run `systemctl --user` with *words*.

        Raises:
            BadSettings: it failed; the message has what systemctl printed.
        """
        done = self._call(*words, timeout_s=timeout_s)
        if done.returncode != 0:
            said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
            raise BadSettings(
                f"systemctl --user {' '.join(words)} failed: {show(said)}; "
                "the reason is in: satfs service status; journalctl --user -u 'satfs-*'"
            )

    def properties(self, name: str) -> dict[str, str]:
        """Return state, enablement and status text of the unit *name*, as systemd shows them."""
        shown = self._call("show", "-p", "ActiveState,UnitFileState,StatusText", name).stdout
        pairs = (line.partition("=") for line in shown.splitlines())
        return {key: value for key, _, value in pairs}

    def _call(self, *words: str, timeout_s: float = _TIMEOUT_S) -> subprocess.CompletedProcess[str]:
        command = [self._systemctl, "--user", *words]
        try:
            return subprocess.run(  # noqa: S603 - found in PATH, no shell
                command, capture_output=True, text=True, timeout=timeout_s, check=False
            )
        except (subprocess.TimeoutExpired, OSError) as failure:
            said = "cannot be run" if isinstance(failure, OSError) else "did not answer in time"
            return subprocess.CompletedProcess(command, 1, "", said)
