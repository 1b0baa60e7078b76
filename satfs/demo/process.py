"""`DemoProcess`: the demo origin in a process of its own, which ends when its starter does."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import IO, Any, Self

from satfs.demo.scratch import default_directory, home_of, is_drawn
from satfs.errors import Unreachable, Unsupported

#: The packages of `pip install satfs[demo]`.
_EXTRAS = ("aiohttp", "numpy", "rasterio")
_STOP_TIMEOUT_S = 10.0


class DemoProcess:
    """A running demo origin. A context manager; `environment` is there once it has started.

    Args:
        seed: another seed, other imagery, names and places.
        large_mb: size of the one large zip, in MB.
        data_dir: where generated products are kept for the next start; None: a directory of the
            user's cache.
        arguments: more arguments of `python -m satfs.demo`, for example `--latency-ms`.
        prefix: words in front of the command, for example `nsenter` with its options.
    """

    def __init__(
        self,
        *,
        seed: int = 1,
        large_mb: int = 64,
        data_dir: Path | str | None = None,
        arguments: tuple[str, ...] = (),
        prefix: tuple[str, ...] = (),
    ) -> None:
        self.environment: dict[str, str] = {}
        kept = Path(data_dir) if data_dir else default_directory()
        self._home = home_of(kept, seed=seed, large_mb=large_mb)
        self._command = [
            *(*prefix, sys.executable, "-m", "satfs.demo", "--control"),
            *(f"--seed={seed}", f"--large-mb={large_mb}"),
            *([f"--data-dir={data_dir}"] if data_dir else []),
            *arguments,
        ]
        self._child: subprocess.Popen[str] | None = None
        self._stderr: IO[str] | None = None
        self._lock = threading.Lock()

    @property
    def has_drawings(self) -> bool:
        """Return whether an earlier start has drawn the imagery of this seed and size."""
        return is_drawn(self._home)

    @staticmethod
    def require_extras() -> None:
        """Return if the packages that the demo needs are installed.

        Raises:
            Unsupported: one is missing; the message has the command that installs it.
        """
        for name in _EXTRAS:
            if importlib.util.find_spec(name) is None:
                raise Unsupported(f"the demo origin needs {name}: install satfs[demo]")

    def start(self) -> dict[str, str]:
        """Start it and return the `SATFS_*` variables that lead to it; waits until it responds.

        The first start with a seed and size draws the imagery, which takes some seconds.

        Raises:
            Unsupported: a package that the demo needs is not installed.
            Unreachable: it did not start; the message is its standard error.
        """
        self.require_extras()
        self._stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by stop
        self._child = subprocess.Popen(  # noqa: S603 - our own interpreter, our own module
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            env={k: v for k, v in os.environ.items() if not k.startswith("SATFS_")},
            # Ctrl-C is for the program that started us: it unmounts first, and stops the origin
            # then.
            start_new_session=True,
        )
        try:
            line = self._child.stdout.readline() if self._child.stdout else ""
        except BaseException:  # Ctrl-C while it draws: no process is left behind
            self.stop()
            raise
        if not line:
            self._stderr.seek(0)
            stderr_text = self._stderr.read().strip()[-2000:]
            self.stop()
            raise Unreachable(
                f"the demo origin did not start: {stderr_text or 'it printed nothing'}"
            )
        self.environment = json.loads(line)
        return self.environment

    def call(self, do: str, **arguments: Any) -> Any:
        """Have the origin do one of `satfs.demo.program.COMMANDS`, and return the result.

        Raises:
            ValueError: the origin does not understand.
            Unreachable: it is not running.
        """
        with self._lock:
            child = self._child
            if child is None or child.stdin is None or child.stdout is None:
                raise Unreachable("the demo origin is not running")
            try:
                child.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
                child.stdin.flush()
                line = child.stdout.readline()
            except OSError:
                line = ""
        if not line:
            raise Unreachable("the demo origin has ended")
        response = json.loads(line)
        if "error" in response:
            raise ValueError(response["error"])
        return response["result"]

    def stop(self) -> None:
        """End it, gently and then not; does nothing when it is not running."""
        child, self._child = self._child, None
        if child is not None:
            with contextlib.suppress(OSError):
                if child.stdin:
                    child.stdin.close()
            child.terminate()
            try:
                child.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            if child.stdout:
                child.stdout.close()
        if self._stderr is not None:
            self._stderr.close()
            self._stderr = None

    @property
    def pid(self) -> int | None:
        """Return the process id, or None when it is not running."""
        return self._child.pid if self._child else None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
