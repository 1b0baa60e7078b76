"""Commands while the API does not respond."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from functools import partial

import pytest
from cli.conftest import Program

from satfs.cli import waiting
from satfs.demo.server import DemoOrigin
from satfs.settings import load_settings


class DueAtOnce:
    """A timer whose time is over when it starts."""

    daemon = False

    def __init__(self, _: float, function: Callable[..., object], arguments: list[object]) -> None:
        self._due = partial(function, *arguments)

    def start(self) -> None:
        self._due()

    def cancel(self) -> None:
        """Nothing is waited for."""


@pytest.mark.parametrize("command", ["ls", "whoami", "watch --once"])
def test_what_is_waited_for_is_told(aleph: Program, origin: DemoOrigin, command: str) -> None:
    origin.faults.add("hang", "token")
    try:
        done = aleph(*command.split(), SATFS_METADATA_DEADLINE_S="2")
    finally:
        origin.faults.clear()

    assert done.returncode == 4
    assert done.stderr.startswith("Waiting for 127.0.0.1…\nError: ")
    assert "--offline" not in done.stderr


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "Waiting for api.example or login.example…\n"),
        ({"SATFS_TOKEN": "abc"}, "Waiting for api.example…\n"),
        ({"SATFS_AUTH_URL": "https://api.example/token"}, "Waiting for api.example…\n"),
    ],
)
def test_each_host_that_may_be_waited_for_is_told(
    given: dict[str, str],
    told: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    addresses = {
        "SATFS_API_URL": "https://api.example",
        "SATFS_AUTH_URL": "https://login.example/oauth/token",
    }
    monkeypatch.setattr("threading.Timer", DueAtOnce)

    with waiting.waiting_shown(load_settings(addresses | given)):
        pass

    assert capsys.readouterr().err == told


@pytest.mark.parametrize("command", ["ls", "whoami", "watch"])
def test_ctrl_c_ends_a_command_that_waits(aleph: Program, origin: DemoOrigin, command: str) -> None:
    """With the exit code of an interrupt, and no traceback."""
    origin.faults.add("hang", "token")
    try:
        running = aleph.start(command)
        assert running.stderr is not None
        assert running.stderr.readline() == "Waiting for 127.0.0.1…\n"
        running.send_signal(signal.SIGINT)
        _, rest = running.communicate(timeout=20)
    finally:
        origin.faults.clear()

    assert (running.returncode, rest.strip()) == (130, "")


def test_without_a_route_the_deadline_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy may lead where this machine cannot: with one the deadline stays."""
    settings = load_settings({"SATFS_API_URL": "https://api.example"})
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(waiting, "has_route", lambda: False)

    assert waiting.hurried(settings).metadata_deadline_s == waiting.NO_ROUTE_S
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:3128")
    assert waiting.hurried(settings) == settings
    monkeypatch.delenv("https_proxy")
    monkeypatch.setattr(waiting, "has_route", lambda: True)
    assert waiting.hurried(settings) == settings


def test_what_the_kernel_does_not_refuse_counts_as_a_route(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: object) -> None:
        raise PermissionError(1, "not permitted")

    monkeypatch.setattr(socket.socket, "connect", refuse)

    assert waiting.has_route()
