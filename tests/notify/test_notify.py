"""The service manager's protocol, spoken to real sockets (sd_notify(3))."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import structlog
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock

from satfs.notify import (
    VARIABLES,
    Notifier,
    describe_mount,
    encode,
    socket_address,
    take_notifier,
    watchdog_s,
)


class Manager:
    """A service manager: binds the socket, and receives messages."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(socket_address(address))
        self.socket.setblocking(False)

    def heard(self) -> list[dict[str, str]]:
        """Return the messages that have come since the last time, each as its fields."""
        messages: list[dict[str, str]] = []
        while True:
            try:
                text = self.socket.recv(65536).decode()
            except BlockingIOError:
                return messages
            messages.append(dict(line.split("=", 1) for line in text.split("\n")))


@pytest.fixture(params=["path", "abstract"])
def start_manager(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[Callable[[], Manager]]:
    """Return a function that starts a manager, always at the same address."""
    address = {"path": str(tmp_path / "notify"), "abstract": f"@satfs-{secrets.token_hex(8)}"}
    with ExitStack() as stack:

        def start() -> Manager:
            manager = Manager(address[request.param])
            stack.callback(manager.socket.close)
            return manager

        yield start


@pytest.fixture
def manager(start_manager: Callable[[], Manager]) -> Manager:
    """Return a manager that listens."""
    return start_manager()


def test_a_mount_says_when_it_is_ready_and_when_it_ends(manager: Manager) -> None:
    notifier = take_notifier({"NOTIFY_SOCKET": manager.address})

    notifier.ready()
    notifier.status("satfs:prod at /mnt")
    notifier.stopping()

    assert manager.heard() == [
        {"READY": "1"},
        {"STATUS": "satfs:prod at /mnt"},
        {"STOPPING": "1", "STATUS": "unmounting"},
    ]


def test_a_status_is_said_when_it_changes(manager: Manager) -> None:
    notifier = Notifier(manager.address)

    for sentence in ("one", "one", "two\nREADY=1"):
        notifier.status(sentence)

    assert manager.heard() == [{"STATUS": "one"}, {"STATUS": "two READY=1"}]


async def test_a_loop_that_turns_feeds_the_watchdog(
    manager: Manager, autojump_clock: MockClock
) -> None:
    """Twice in the time that the watchdog allows; and the end is said, however it comes."""
    notifier = Notifier(manager.address, watchdog_s=3.0)

    with trio.move_on_after(8.9):
        await notifier.run(lambda: "fine")

    messages = manager.heard()
    assert [m for m in messages if "WATCHDOG" in m] == [{"WATCHDOG": "1"}] * 6
    assert messages[0] == {"STATUS": "fine"}
    assert messages[-1] == {"STOPPING": "1", "STATUS": "unmounting"}


async def test_a_loop_that_stands_still_feeds_nobody(
    manager: Manager, autojump_clock: MockClock
) -> None:
    """Notifications depend on the loop, not on a thread: else the manager would not see a stall."""
    notifier = Notifier(manager.address, watchdog_s=3.0)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(notifier.run, lambda: "fine")
        await trio.sleep(1)
        manager.heard()

        autojump_clock.jump(60)  # and no checkpoint
        assert manager.heard() == []

        nursery.cancel_scope.cancel()


async def test_what_the_mount_does_is_told_as_it_changes(
    manager: Manager, autojump_clock: MockClock
) -> None:
    notifier = Notifier(manager.address)
    away: list[str] = []

    with trio.move_on_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(
                notifier.run, lambda: describe_mount("satfs:prod", Path("/mnt"), away)
            )
            await trio.sleep(3)
            away.append("https://api.example")

    assert [message.get("STATUS") for message in manager.heard()] == [
        "satfs:prod at /mnt",
        "satfs:prod at /mnt; cannot be reached: https://api.example",
        "unmounting",
    ]


def test_what_could_not_be_said_is_said_with_the_next_word(
    start_manager: Callable[[], Manager],
) -> None:
    """A manager that restarts, or whose queue is full, gets READY all the same."""
    first = start_manager()
    notifier = Notifier(first.address, watchdog_s=30.0)
    first.socket.close()
    if not first.address.startswith("@"):
        os.unlink(first.address)
    with structlog.testing.capture_logs() as logged:
        notifier.ready()
        notifier.status("fine")
    second = start_manager()

    notifier.alive()

    assert second.heard() == [{"READY": "1", "STATUS": "fine", "WATCHDOG": "1"}]
    assert [line["event"] for line in logged] == ["service manager not notified"], "once"


def test_nobody_waits_for_a_manager_that_does_not_read(manager: Manager) -> None:
    notifier = Notifier(manager.address)

    with structlog.testing.capture_logs():
        for number in range(10_000):  # far more than a socket holds
            notifier.status(f"at {number}")
    manager.heard()
    notifier.alive()

    assert manager.heard() == [{"STATUS": "at 9999"}]


def test_children_do_not_inherit_the_voice(manager: Manager) -> None:
    environment = {
        "NOTIFY_SOCKET": manager.address,
        "WATCHDOG_USEC": "30000000",
        "WATCHDOG_PID": str(os.getpid()),
        "HOME": "/root",
    }

    notifier = take_notifier(environment)

    assert environment == {"HOME": "/root"}
    assert notifier.has_listener
    assert notifier.watchdog_s == 30.0


@pytest.mark.parametrize("address", [None, "", "@", "relative", "vsock:2:1234"])
async def test_without_a_manager_nothing_is_said(
    address: str | None, autojump_clock: MockClock
) -> None:
    environment = {"WATCHDOG_USEC": "1000000"}
    notifier = take_notifier(environment | ({} if address is None else {"NOTIFY_SOCKET": address}))

    with structlog.testing.capture_logs() as logged, trio.move_on_after(60):
        notifier.ready()
        await notifier.run(lambda: "fine")

    assert not notifier.has_listener
    assert notifier.watchdog_s is None
    assert logged == []


@given(st.dictionaries(st.sampled_from(VARIABLES), st.text(st.characters(exclude_characters="\0"))))
def test_whatever_the_environment_holds_is_understood_or_ignored(
    environment: dict[str, str],
) -> None:
    notifier = take_notifier(environment)

    assert environment == {}
    assert notifier.watchdog_s is None or notifier.watchdog_s > 0


def test_a_watchdog_of_thousands_of_digits_is_none() -> None:
    assert watchdog_s("9" * 5000, "", 1) is None


@given(st.integers(1, 10**15), st.integers(1, 2**22), st.integers(1, 2**22))
def test_the_watchdog_is_fed_by_whom_it_watches(usec: int, for_pid: int, pid: int) -> None:
    assert watchdog_s(str(usec), "", pid) == usec / 1e6
    assert watchdog_s(str(usec), str(pid), pid) == usec / 1e6
    assert (watchdog_s(str(usec), str(for_pid), pid) is None) == (for_pid != pid)


@given(
    st.dictionaries(
        st.text(st.characters(codec="ascii", categories=["Lu"]), min_size=1), st.text(), min_size=1
    )
)
def test_no_value_can_say_more_than_its_line(fields: dict[str, str]) -> None:
    lines = encode(fields).decode().split("\n")

    assert [line.split("=", 1)[0] for line in lines] == list(fields)
