"""Report the state of a mount to the service manager: ready, alive, busy, ending.

The protocol is sd_notify(3): a datagram of `NAME=value` lines to the socket that the environment
names. Without one, all of this does nothing. No call waits for a manager that does not listen:
lines that could not be sent go along with the next message.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from pathlib import Path
from typing import Final

import structlog
import trio

log = structlog.get_logger(__name__)

#: The variables of the protocol. A child that inherited them would speak in our name.
VARIABLES: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
#: How often the status is looked at, in seconds: a person who reloads a status page is not misled.
_STATUS_S: Final = 2.0
#: Signs of life within the time of the watchdog; sd_watchdog_enabled(3) recommends two.
_BEATS: Final = 2
#: Limit of characters of a status line; it is shown on one line of a terminal.
_STATUS_CHARACTERS: Final = 400


class Notifier:
    """Sends the state of the mount to the service manager at *address*; nothing when that is None.

    *watchdog_s* is the longest silence that it allows, in seconds; None if it does not watch.
    None of the methods waits, and none raises.
    """

    def __init__(self, address: str | None = None, watchdog_s: float | None = None) -> None:
        self._address = address
        self._unsent: dict[str, str] = {}
        self._status = ""
        self._has_failed = False
        self.watchdog_s = watchdog_s if address else None

    @property
    def has_listener(self) -> bool:
        """Return whether a service manager has requested reports."""
        return self._address is not None

    def ready(self) -> None:
        """Report that the mount works: it is mounted, and the first listing has come."""
        self._send({"READY": "1"})

    def status(self, sentence: str) -> None:
        """Report in *sentence* what the mount does, for `systemctl status`, if it changed."""
        line = " ".join(sentence.split())[:_STATUS_CHARACTERS]
        if line != self._status:
            self._status = line
            self._send({"STATUS": line})

    def alive(self) -> None:
        """Send that the event loop turns, and what could not be sent before."""
        self._send({} if self.watchdog_s is None else {"WATCHDOG": "1"})

    def stopping(self) -> None:
        """Report that the mount is being taken down."""
        self._status = "unmounting"
        self._send({"STOPPING": "1", "STATUS": self._status})

    async def run(self, describe: Callable[[], str]) -> None:
        """Report that we are alive, and what *describe* returns, until cancelled; then the end.

        Runs on the loop that serves the mount: when that stands still, so does this, and the
        manager's watchdog ends the process and starts another.
        """
        if not self.has_listener:
            await trio.sleep_forever()
        pause_s = min(_STATUS_S, (self.watchdog_s or _STATUS_S) / _BEATS)
        try:
            while True:
                self.status(describe())
                self.alive()
                await trio.sleep(pause_s)
        finally:
            self.stopping()

    def _send(self, fields: Mapping[str, str]) -> None:
        if self._address is None:
            return
        self._unsent.update(fields)
        if not self._unsent:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ours:
                ours.setblocking(False)
                ours.sendto(encode(self._unsent), socket_address(self._address))
        except OSError as failure:
            if not self._has_failed:
                log.warning("service manager not notified", errno=failure.errno)
            self._has_failed = True
            return
        self._has_failed = False
        self._unsent.clear()


def take_notifier(environment: MutableMapping[str, str]) -> Notifier:
    """Return the notifier that *environment* requests, and remove its variables there.

    A watchdog meant for another process is not ours to feed. A variable that cannot be parsed
    counts as not set.
    """
    found = {name: environment.pop(name, "") for name in VARIABLES}
    address = found["NOTIFY_SOCKET"]
    return Notifier(
        address if address.startswith(("/", "@")) and len(address) > 1 else None,
        watchdog_s(found["WATCHDOG_USEC"], found["WATCHDOG_PID"], os.getpid()),
    )


def watchdog_s(usec: str, for_pid: str, pid: int) -> float | None:
    """Return the watchdog's time limit in seconds; None without one for the process *pid*.

    The texts are those of `WATCHDOG_USEC` and `WATCHDOG_PID` (sd_watchdog_enabled(3)).
    """
    # A limit of 16 digits is 300 years; int() refuses thousands of them.
    if not (usec.isascii() and usec.isdecimal() and len(usec) <= 16 and int(usec) > 0):
        return None
    if for_pid and for_pid != str(pid):
        return None
    return int(usec) / 1e6


def encode(fields: Mapping[str, str]) -> bytes:
    """Return the datagram with *fields*, a line each; line breaks in values are spaces."""
    lines = (f"{name}={' '.join(value.splitlines())}" for name, value in fields.items())
    return "\n".join(lines).encode("utf-8", "replace")


def socket_address(address: str) -> str:
    """Return *address* as socket(2) wants it: an `@` stands for the NUL of an abstract name."""
    return "\0" + address[1:] if address.startswith("@") else address


def describe_mount(source: str, mountpoint: Path, unreachable: Iterable[str]) -> str:
    """Return the status of a mount that works; *unreachable* are origins out of reach."""
    origins = ", ".join(sorted(unreachable))
    return f"{source} at {mountpoint}" + (f"; cannot be reached: {origins}" if origins else "")
