"""A desktop without a screen: an X server, a session bus, and programs that believe in both."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fakes.processes import wait_until

#: Services that the session bus may start: settings and thumbnails of Xfce. Not the document
#: portal, for instance, which would mount a file system of its own.
_SERVICES = ("org.xfce.Xfconf.service", "org.xfce.Tumbler*.service")
_SERVICE_DIRECTORY = Path("/usr/share/dbus-1/services")
_BUS = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><type>session</type><listen>unix:dir={directory}</listen>
<auth>EXTERNAL</auth><servicedir>{services}</servicedir>
<policy context="default"><allow send_destination="*" eavesdrop="true"/>
<allow eavesdrop="true"/><allow own="*"/></policy></busconfig>
"""
#: The programs of a desktop without a screen.
PROGRAMS = ("Xvfb", "dbus-daemon", "xdotool")
#: How long a window may take, on a machine that does something else as well, in seconds.
PATIENCE_S = 30.0
#: Longest wait for a file manager to show a directory whose path was typed, before that is typed
#: again.
GOING_S = 6.0


def missing(*programs: str) -> str | None:
    """Return what is not installed, for a person; None when all is."""
    absent = [name for name in (*PROGRAMS, *programs) if shutil.which(name) is None]
    return f"not installed: {', '.join(absent)}" if absent else None


@dataclass
class Desktop:
    """A running desktop; its programs keep their settings and thumbnails below *home*."""

    home: Path
    environment: dict[str, str] = field(default_factory=dict)
    #: The user of the programs, as arguments of `subprocess`; empty: the user of the tests.
    owner: dict[str, Any] = field(default_factory=dict)

    def run(self, *command: str | Path, timeout_s: float = PATIENCE_S) -> str:
        """Run a program to its end, and return what it prints."""
        done = subprocess.run(
            [str(word) for word in command],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            **self.owner,
        )
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return str(done.stdout)

    @contextmanager
    def running(self, *command: str | Path) -> Iterator[subprocess.Popen[bytes]]:
        """Run a program for as long as the body takes."""
        process = subprocess.Popen(
            [str(word) for word in command],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            **self.owner,
        )
        try:
            yield process
        finally:
            end(process)

    @contextmanager
    def window(self, program: str, directory: Path) -> Iterator[Window]:
        """Open a file manager at *directory*."""
        with self.running(program, directory):
            window = Window(self, program)
            window.wait_until_at(directory)
            yield window


@dataclass
class Window:
    """The window of a file manager."""

    desktop: Desktop
    program: str

    def titles(self) -> dict[str, str]:
        """Return the titles of the windows that are shown, by window."""
        found = subprocess.run(
            ["xdotool", "search", "--onlyvisible", "--class", self.program],
            env=self.desktop.environment,
            capture_output=True,
            text=True,
            check=False,
        ).stdout.split()
        titles = {}
        for window in found:
            named = subprocess.run(
                ["xdotool", "getwindowname", window],
                env=self.desktop.environment,
                capture_output=True,
                text=True,
                check=False,
            )
            titles[window] = named.stdout.strip()
        return titles

    def is_at(self, directory: Path) -> bool:
        """Return whether a window shows *directory*, by its title."""
        return any(title.startswith(directory.name) for title in self.titles().values())

    def wait_until_at(self, directory: Path) -> None:
        """Wait until a window shows *directory*."""
        wait_until(lambda: self.is_at(directory), PATIENCE_S, f"{self.program} at {directory.name}")

    def press(self, *keys: str) -> None:
        """Press keys in the window."""
        window = next(iter(self.titles()))
        self.desktop.run("xdotool", "windowfocus", "--sync", window, "key", *keys)

    def go(self, directory: Path) -> None:
        """Go to *directory*, by typing where it is.

        Typed again like a person would when nothing comes of it: a file manager completes what is
        typed while it is typed, and on a busy machine what comes out is another path.
        """
        until_s = time.monotonic() + PATIENCE_S
        while not self.is_at(directory):
            assert time.monotonic() < until_s, f"{self.program} did not go to {directory.name}"
            self.press("Escape", "ctrl+l")
            time.sleep(0.3)
            self.desktop.run("xdotool", "key", "ctrl+a", "type", "--delay", "4", str(directory))
            time.sleep(0.3)
            self.desktop.run("xdotool", "key", "Return")
            with suppress(AssertionError):
                wait_until(lambda: self.is_at(directory), GOING_S, "the way there")

    def copy(self, file: Path, target: Path) -> None:
        """Copy *file* to the directory *target*, by keyboard; returns when something is there.

        Done again when nothing comes of it: a window that is still being filled takes the first
        letters of a name for nothing, and copies what happens to be selected then: nothing.
        """
        copied = target / file.name
        until_s = time.monotonic() + 2 * PATIENCE_S
        while not copied.exists():
            assert time.monotonic() < until_s, f"{self.program} did not copy {file.name}"
            self.go(file.parent)
            self.press("Escape")
            self.desktop.run("xdotool", "type", "--delay", "40", file.stem)
            time.sleep(1.0)
            self.desktop.run("xdotool", "key", "Escape", "key", "ctrl+c")
            time.sleep(0.5)
            self.go(target)
            self.desktop.run("xdotool", "key", "Escape")
            time.sleep(0.5)
            self.press("ctrl+v")
            with suppress(AssertionError):
                wait_until(copied.exists, GOING_S, "the copy")


def end(process: subprocess.Popen[bytes]) -> None:
    """End a program that was started in a session of its own, and what it has started there."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            break
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            continue
    process.wait()


@contextmanager
def desktop(home: Path, *, size: str = "1000x700", user_id: int | None = None) -> Iterator[Desktop]:
    """Start a desktop below *home*, of another user if need be; it ends with the body."""
    owner = {} if user_id is None else {"user": user_id, "group": user_id, "extra_groups": []}
    directories = {name: home / name for name in ("run", "cache", "config", "data", "services")}
    for directory in directories.values():
        directory.mkdir(parents=True, exist_ok=True)
    directories["run"].chmod(0o700)
    for pattern in _SERVICES:
        for service in _SERVICE_DIRECTORY.glob(pattern):
            (directories["services"] / service.name).symlink_to(service)
    if user_id is not None:
        for path in (home, *directories.values()):
            os.chown(path, user_id, user_id)
    environment = {
        **{name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ},
        "HOME": str(home),
        "XDG_RUNTIME_DIR": str(directories["run"]),
        "XDG_CACHE_HOME": str(directories["cache"]),
        "XDG_CONFIG_HOME": str(directories["config"]),
        "XDG_DATA_HOME": str(directories["data"]),
        "GIO_USE_VFS": "local",  # no gvfsd, which would mount something itself
        "GIO_USE_VOLUME_MONITOR": "unix",
        "GTK_USE_PORTAL": "0",
        "NO_AT_BRIDGE": "1",
        "LC_ALL": "C.UTF-8",
    }
    with ExitStack() as stack:
        started = Desktop(home, environment, owner)
        environment["DISPLAY"] = stack.enter_context(_x_server(environment, size))
        bus = home / "bus.conf"
        bus.write_text(_BUS.format(directory=directories["run"], services=directories["services"]))
        environment["DBUS_SESSION_BUS_ADDRESS"] = stack.enter_context(_bus(started, bus))
        yield started


@contextmanager
def _x_server(environment: dict[str, str], size: str) -> Iterator[str]:
    readable, writable = os.pipe()
    process = subprocess.Popen(
        [
            "Xvfb",
            "-displayfd",
            str(writable),
            "-screen",
            "0",
            f"{size}x24",
            "-nolisten",
            "tcp",
            "-noreset",
        ],
        env=environment,
        pass_fds=[writable],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(writable)
    try:
        with os.fdopen(readable) as pipe:
            number = pipe.readline().strip()
        assert number, "Xvfb did not start"
        yield f":{number}"
    finally:
        end(process)


@contextmanager
def _bus(desktop: Desktop, config: Path) -> Iterator[str]:
    process = subprocess.Popen(
        ["dbus-daemon", f"--config-file={config}", "--nofork", "--print-address=1"],
        env=desktop.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        **desktop.owner,
    )
    assert process.stdout is not None
    try:
        address = process.stdout.readline().decode().strip()
        assert address, "dbus-daemon did not start"
        yield address
    finally:
        end(process)
        process.stdout.close()
