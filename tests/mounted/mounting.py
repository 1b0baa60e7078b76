"""A real mount of satfs in a process of its own, and its removal in every state."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from fakes import forking

#: The child's program: settings from its environment, options from its argument, a word when ready.
_CHILD = """
import ctypes, json, logging, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG: unmount when the tests have crashed
from pathlib import Path
import structlog
structlog.configure(
    processors=[
        structlog.processors.add_log_level,
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(default=repr),
    ],
    logger_factory=structlog.WriteLoggerFactory(sys.stderr),
)
logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
from satfs.mount import MountOptions, run_mount
from satfs.settings import load_settings
after_ready = lambda: None
exec(sys.argv[2])
def on_ready():
    after_ready()
    print("ready", flush=True)
options = json.loads(sys.argv[1])
options["mountpoint"] = Path(options["mountpoint"])
options["extra"] = tuple(options.get("extra", ()))
try:
    run_mount(load_settings(), MountOptions(**options), on_ready)
except Exception as failure:
    print(f"{type(failure).__name__}: {failure}", flush=True)
    raise SystemExit(1)
"""


class MountFailed(AssertionError):
    """The mount did not start; the message is its output."""


@dataclass
class RealMount:
    """A satfs mount at *path*; a context manager."""

    path: Path
    environment: Mapping[str, str]
    log_path: Path
    options: Mapping[str, object] = field(default_factory=dict)
    #: Code for the mount's process; may define `after_ready`, which then runs in its event loop.
    sabotage: str = ""
    #: False: a new interpreter, whose memory is its own: no fork has what its template had freed.
    may_be_forked: bool = True
    process: forking.Process | subprocess.Popen[bytes] = field(init=False)

    def start(self) -> None:
        """Mount and wait until it works."""
        self.path.mkdir(exist_ok=True)
        options = {"mountpoint": str(self.path), **self.options}
        with self.log_path.open("ab") as log:
            environment = {**os.environ, **self.environment}
            arguments = [json.dumps(options), self.sabotage]
            if self.may_be_forked and forking.takes(environment):
                self.process = forking.start(_CHILD, arguments, environment, log)
            else:
                self.process = subprocess.Popen(
                    [sys.executable, "-c", _CHILD, *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env=environment,
                )
        assert self.process.stdout is not None
        word = self.process.stdout.readline().decode().strip()
        if word != "ready":
            self.process.wait(20)
            raise MountFailed(word or self.log())

    def log(self) -> str:
        """Return everything the mount has logged."""
        return self.log_path.read_text(errors="replace")

    def events(self, name: str | None = None) -> list[dict[str, object]]:
        """Return the log's lines, those with one event only if *name* is given."""
        lines = [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]
        return [line for line in lines if name in (None, line["event"])]

    def stop(self, number: int = signal.SIGTERM, timeout_s: float = 10) -> float:
        """Send a signal and wait for the end; return how long that took, in seconds."""
        started_s = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(timeout_s)
        return time.monotonic() - started_s

    def is_mounted(self) -> bool:
        """Return whether the kernel lists the mount."""
        with open("/proc/self/mountinfo") as file:
            return any(line.split()[4] == str(self.path) for line in file)

    def clean(self) -> None:
        """End the process and remove the mount, in any state."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(8)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        while self.is_mounted():
            subprocess.run(["umount", "-l", str(self.path)], check=True)
        if isinstance(self.process, forking.Process):
            self.process.close()
        elif self.process.stdout is not None:
            self.process.stdout.close()
        with contextlib.suppress(OSError):
            self.path.rmdir()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.clean()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.clean()
