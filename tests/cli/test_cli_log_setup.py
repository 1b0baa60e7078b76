"""Log lines: where they go, and what they never hold."""

import io
import json
import logging
import os
import re
import socket
import stat
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from satfs.cli import log_setup
from satfs.cli.flags import LogFormat, OutputOptions
from satfs.cli.log_setup import StderrReader, logging_as, place_of
from satfs.cli.output import show
from satfs.errors import BadSettings, NeedsLogin
from satfs.redaction import redact

SIGNED = (
    "https://store.example/bucket/scene.zip?X-Amz-Algorithm=AWS4-HMAC-SHA256"
    "&X-Amz-Credential=AKIAEXAMPLE%2F20260101&X-Amz-Signature=5eedfeed5eedfeed"
)
TOKEN = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJtZSJ9.c2lnbmF0dXJl"

queries = st.text(
    st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="\"'\\<>"), min_size=8
)


@given(queries)
def test_a_link_keeps_its_place_and_loses_its_query(query: str) -> None:
    assert redact(f"get https://s.example/a.zip?{query} failed") == (
        "get https://s.example/a.zip?… failed"
    )


@pytest.mark.parametrize(
    "text",
    [
        SIGNED,
        f'"{SIGNED}"',
        f"{{'url': '{SIGNED}'}}",
        f"authorizationToken: Bearer {TOKEN}",
        f"authorization: bearer {TOKEN}",
        f"header {TOKEN} refused",
        "authorizationToken: Key,Secret my-key,5eedfeed",
        "bucket/scene.zip?x&X-Amz-Signature=5eedfeed&X-Amz-Security-Token=5eedfeed//",
    ],
)
def test_credentials_are_cut_out(text: str) -> None:
    output = redact(text)

    for secret in ("5eedfeed", "AKIA", TOKEN, TOKEN.split(".")[1]):
        assert secret not in output
    assert redact(output) == output


@given(st.text())
def test_redacting_twice_changes_nothing_more(text: str) -> None:
    assert redact(redact(text)) == redact(text)


@given(st.text())
def test_text_from_outside_stays_on_its_line_and_steers_nothing(text: str) -> None:
    output = show(text)

    assert len(output.splitlines()) <= 1
    assert not re.search(r"[\x00-\x1f\x7f-\x9f]", output)
    assert output == text or "\\x" in output


@pytest.mark.parametrize(
    ("verbosity", "level"),
    [
        (-2, logging.ERROR),
        (-1, logging.ERROR),
        (0, logging.WARNING),
        (1, logging.INFO),
        (2, logging.DEBUG),
        (7, logging.DEBUG),
    ],
)
def test_each_v_says_more_and_q_says_less(verbosity: int, level: int) -> None:
    assert OutputOptions(verbosity).level == level


def test_json_is_an_object_a_line(tmp_path: Path) -> None:
    """Fields stay fields in lines of our modules, of libraries, and of Python's warnings."""
    file = tmp_path / "log"

    with logging_as(OutputOptions(1, LogFormat.JSON, file), in_background=False):
        structlog.get_logger("satfs.test").info("link renewed", scene="S1", lifetime_s=3600)
        logging.getLogger("library").warning("pool of %d is full", 64)
        structlog.get_logger("satfs.test").debug("not asked for")

    ours, theirs = [json.loads(line) for line in file.read_text().splitlines()]
    assert (ours["event"], ours["scene"], ours["lifetime_s"]) == ("link renewed", "S1", 3600)
    assert (ours["level"], ours["logger"]) == ("info", "satfs.test")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z", ours["timestamp"])
    assert (theirs["event"], theirs["logger"]) == ("pool of 64 is full", "library")


@pytest.mark.parametrize("format", LogFormat)
def test_no_secret_and_no_forged_line_reaches_the_log(tmp_path: Path, format: LogFormat) -> None:
    file = tmp_path / "log"

    def refuse(token: str) -> None:
        raise NeedsLogin(f"refused: Bearer {token} at {SIGNED}")

    with logging_as(OutputOptions(2, format, file), in_background=False):
        log = structlog.get_logger("satfs.test")
        log.warning("odd name", scene="a\nINFO all is well\x1b[2J", link=SIGNED)
        try:
            refuse(TOKEN)
        except NeedsLogin:
            log.exception("refused")

    written = file.read_text()
    assert "5eedfeed" not in written
    assert TOKEN not in written
    assert "\x1b" not in written
    assert "\nINFO all is well" not in written
    assert "in refuse" in written, "the traceback is what a bug is found with"


def test_libraries_that_log_headers_are_kept_from_it(tmp_path: Path) -> None:
    file = tmp_path / "log"

    with logging_as(OutputOptions(2, LogFormat.JSON, file), in_background=False):
        logging.getLogger("httpcore.http11").debug("send_request_headers %r", [b"x", b"5eed"])
        logging.getLogger("httpx").info("HTTP Request: GET")

    assert file.read_text() == ""


def test_a_foreground_mount_logs_to_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)

    with logging_as(OutputOptions(), in_background=False):
        structlog.get_logger().warning("slow", waited_s=3)

    assert "slow" in stream.getvalue()
    assert "waited_s=3" in stream.getvalue()
    assert "\x1b" not in stream.getvalue(), "colours are for terminals"


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("no_color", [False, True])
def test_a_terminal_is_told_the_time_of_day_in_colours(
    monkeypatch: pytest.MonkeyPatch, no_color: bool
) -> None:
    """A date and a module's name would take half of a line of 80 columns."""
    stream = _Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")

    with logging_as(OutputOptions(), in_background=False):
        structlog.get_logger("satfs.test").warning("slow", waited_s=3)

    output = re.sub(r"\x1b\[\d*m", "", stream.getvalue())
    assert re.match(r"\d\d:\d\d:\d\d \[warning *\] slow +waited_s=3\n$", output)
    assert ("\x1b" in stream.getvalue()) is not no_color


def test_a_mount_in_the_background_logs_to_the_system_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "syslog"
    monkeypatch.setattr(log_setup, "SYSLOG_SOCKET", str(path))

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as system:
        system.bind(str(path))
        system.settimeout(5)
        with logging_as(OutputOptions(), in_background=True):
            structlog.get_logger().error("api unreachable", since_s=12)
        line = system.recv(4096).decode()

    assert re.match(r"<11>satfs\[\d+\]: ", line), "facility user, severity error (RFC 3164)"
    assert "api unreachable" in line


def test_without_a_system_log_a_mount_in_the_background_is_silent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(log_setup, "SYSLOG_SOCKET", str(tmp_path / "none"))

    with logging_as(OutputOptions(), in_background=True):
        structlog.get_logger().error("api unreachable")

    assert capfd.readouterr() == ("", "")


def test_a_log_file_is_for_its_owner(tmp_path: Path) -> None:
    """With any umask; a file that is there keeps its mode, for a group that reads it."""
    new, old = tmp_path / "new", tmp_path / "old"
    old.touch()
    old.chmod(0o640)
    before = os.umask(0)
    try:
        for file in (new, old):
            with logging_as(OutputOptions(log_file=file), in_background=False):
                pass
    finally:
        os.umask(before)
    assert stat.S_IMODE(new.stat().st_mode) == 0o600
    assert stat.S_IMODE(old.stat().st_mode) == 0o640


def test_a_log_file_that_cannot_be_is_refused_at_once(tmp_path: Path) -> None:
    choice = OutputOptions(log_file=tmp_path / "missing" / "log")

    with (
        pytest.raises(BadSettings, match=r"log file .*: No such file or directory"),
        logging_as(choice, in_background=False),
    ):
        pass


def test_a_log_that_cannot_be_written_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mount goes on while its terminal is stuck; lines beyond the queue are dropped."""
    reading, writing = os.pipe()
    os.set_blocking(writing, True)
    stuck = os.fdopen(writing, "w", buffering=1)
    monkeypatch.setattr(sys, "stderr", stuck)
    monkeypatch.setattr(log_setup, "QUEUE_LINES", 10)
    drain = threading.Thread(
        target=lambda: [None for _ in iter(lambda: os.read(reading, 65536), b"")]
    )

    with logging_as(OutputOptions(), in_background=False):
        log = structlog.get_logger()
        for number in range(2_000):  # far more than a pipe holds
            log.warning("x" * 200, number=number)
        drain.start()
    stuck.close()
    drain.join(10)
    os.close(reading)

    assert not drain.is_alive()


# -- under a service manager -----------------------------------------------------------------------


def _as_stream_of_journal(stream: object) -> str:
    status = os.fstat(stream.fileno())  # type: ignore[attr-defined]
    return f"{status.st_dev}:{status.st_ino}"


def _logged(
    monkeypatch: pytest.MonkeyPatch,
    environment: Callable[[object], dict[str, str]],
    format: LogFormat = LogFormat.CONSOLE,
) -> str:
    """Return what is written to a socket that stands for standard error."""
    here, there = socket.socketpair()
    with here, there, there.makefile("w", buffering=1) as stream:
        for name in ("JOURNAL_STREAM", "NOTIFY_SOCKET"):
            monkeypatch.delenv(name, raising=False)
        for name, value in environment(stream).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "stderr", stream)
        with logging_as(OutputOptions(2, format), in_background=False):
            log = structlog.get_logger("satfs.test")
            log.debug("asked again", attempt=2)
            log.info("mounted")
            log.warning("slow", waited_s=3)
            try:
                raise NeedsLogin("refused")
            except NeedsLogin:
                log.exception("broke")
            log.critical("gone")
        stream.flush()
        monkeypatch.undo()
        return here.recv(65536).decode()


def test_the_journal_is_told_how_grave_each_line_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """It makes an entry of each line, those of a traceback included (sd-daemon(3))."""
    output = _logged(monkeypatch, lambda stream: {"JOURNAL_STREAM": _as_stream_of_journal(stream)})

    lines = output.splitlines()
    assert [line[:3] for line in lines[:3]] == ["<7>", "<6>", "<4>"]
    assert {line[:3] for line in lines[3:-1]} == {"<3>"}
    assert any("Traceback" in line for line in lines[3:-1])
    assert lines[-1].startswith("<2>")
    assert re.match(r"<4>slow +\[satfs.test\] +waited_s=3$", lines[2]), "no time, no level: known"


def test_the_journal_takes_json_too(monkeypatch: pytest.MonkeyPatch) -> None:
    output = _logged(
        monkeypatch,
        lambda stream: {"JOURNAL_STREAM": _as_stream_of_journal(stream)},
        LogFormat.JSON,
    )

    for line in output.splitlines():
        assert re.match(r"<\d>\{", line)
        json.loads(line[3:])


@pytest.mark.parametrize("format", LogFormat)
def test_another_manager_gets_priorities_unless_it_asked_for_json(
    monkeypatch: pytest.MonkeyPatch, format: LogFormat
) -> None:
    output = _logged(monkeypatch, lambda _: {"NOTIFY_SOCKET": "/run/notify"}, format)

    assert output.startswith("<7>asked again" if format is LogFormat.CONSOLE else "{")


def test_a_stream_that_is_not_the_journals_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """`JOURNAL_STREAM` is inherited by everything that a service starts, also into pipes."""
    output = _logged(monkeypatch, lambda _: {"JOURNAL_STREAM": "8:1"})

    assert not re.search(r"^<\d>", output, re.MULTILINE)


def test_a_file_and_a_terminal_are_no_journal(tmp_path: Path) -> None:
    """A log that a person or a program reads has times, and no marks."""
    manager = {"NOTIFY_SOCKET": "/run/notify"}

    with open(tmp_path / "log", "w") as file:
        assert place_of(file, manager) is StderrReader.PLAIN
    assert place_of(_Terminal(), {**manager, "JOURNAL_STREAM": "0:0"}) is StderrReader.TERMINAL
    assert place_of(io.StringIO(), manager) is StderrReader.PLAIN
