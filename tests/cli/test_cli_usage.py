"""Command lines that are refused before anything happens, and the form of satfs's output."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cli.conftest import Program

from satfs import __version__
from satfs.cli.main import COMMANDS
from satfs.settings import Settings, is_secret, variable_of

SECRET = "5eedfeed-never-to-be-shown"


def test_the_version_is_told(satfs: Program) -> None:
    done = satfs("--version")

    assert (done.returncode, done.stdout, done.stderr) == (0, f"satfs {__version__}\n", "")


def test_the_module_is_the_program(satfs: Program) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "satfs", "--version"], capture_output=True, text=True, check=True
    )

    assert done.stdout == satfs("--version").stdout


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)])
def test_help_fits_a_terminal_and_has_examples(satfs: Program, command: list[str]) -> None:
    done = satfs(*command, "--help")

    assert done.returncode == 0
    assert "Examples:" in done.stdout
    assert max(len(line) for line in done.stdout.splitlines()) <= 80
    assert done.stdout == satfs(*command, "-h").stdout


def test_help_lists_the_exit_codes(satfs: Program) -> None:
    codes = satfs("--help").stdout.partition("Exit codes:")[2]

    assert [int(line.split()[0]) for line in codes.strip().splitlines()] == [*range(10), 130]


@pytest.mark.parametrize(
    "arguments",
    [["mount"], ["umount"], ["mount", "a", "b"], ["mount", "--no-such", "x"], ["no-such"]],
)
def test_wrong_usage_is_explained_in_two_lines(satfs: Program, arguments: list[str]) -> None:
    done = satfs(*arguments)

    assert done.returncode == 2
    assert done.stdout == ""
    assert "Usage: satfs" in done.stderr
    assert "--help" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["--token", SECRET],
        [f"--token={SECRET}"],
        ["--client-secret", SECRET],
        [f"--client-secret={SECRET}"],
        [f"--secret={SECRET}"],
        ["-o", f"token={SECRET}"],
        ["-o", f"ro,client_secret={SECRET}"],
    ],
)
def test_a_secret_on_the_command_line_is_refused(satfs: Program, arguments: list[str]) -> None:
    """It has been shown to everybody by ps already; it is not repeated on top of that."""
    done = satfs("mount", *arguments, "somewhere")

    assert done.returncode == 2
    assert "shown to everybody by ps" in done.stderr
    assert "SATFS_TOKEN" in done.stderr or "SATFS_CLIENT_SECRET" in done.stderr
    assert SECRET not in done.stderr + done.stdout


@pytest.mark.parametrize("option", ["rw", "ro,rw", "remount"])
def test_writing_is_refused(satfs: Program, option: str) -> None:
    done = satfs("mount", "-o", option, "somewhere")

    assert done.returncode == 2
    assert f"-o {option.split(',')[-1]}: " in done.stderr


def test_no_bad_setting_is_repeated(satfs: Program) -> None:
    """The variables are named; what they hold may be a secret in the wrong place."""
    done = satfs(
        "mount", "nowhere", **{variable_of(name): SECRET for name in Settings.__struct_fields__}
    )

    assert done.returncode == 2
    assert SECRET not in done.stderr + done.stdout
    assert "SATFS_WORKERS" in done.stderr
    assert "SATFS_API_URL" in done.stderr


def test_settings_are_shown_without_secrets(satfs: Program) -> None:
    secrets = {variable_of(name): SECRET for name in Settings.__struct_fields__ if is_secret(name)}

    done = satfs("settings", SATFS_WORKERS="7", SATFS_WORKRES="7", **secrets)

    assert done.returncode == 0
    assert "SATFS_WORKERS = 7" in done.stdout
    assert "SATFS_CLIENT_SECRET = (set, not shown)" in done.stdout
    assert "SATFS_CLIENT_ID = (not set)" in done.stdout
    assert "SATFS_WORKRES" in done.stderr
    assert SECRET not in done.stdout + done.stderr
    for name in Settings.__struct_fields__:
        assert variable_of(name) in done.stdout


def test_a_name_cannot_forge_what_we_say(satfs: Program) -> None:
    done = satfs("mount", "a\x1b[2J\nError: all is well")

    assert done.returncode == 5
    assert "\x1b" not in done.stderr
    assert done.stderr.count("\n") == 1


def on_a_terminal(satfs: Program, *arguments: str, **environment: str) -> str:
    """Return what a terminal of 80 columns is shown."""
    return at_a_terminal(satfs, *arguments, **environment)[1]


def test_a_terminal_gets_lines_of_its_width_and_colours(satfs: Program) -> None:
    shown = on_a_terminal(satfs, "mount", str(Path("/") / ("long/" * 12) / "name"))

    assert "\x1b[" in shown
    plain = shown.replace("\x1b[31m", "").replace("\x1b[1m", "").replace("\x1b[0m", "")
    lines = plain.splitlines()
    assert len(lines) > 1
    assert all(len(line) < 80 for line in lines)


def test_a_terminal_without_colours_gets_none(satfs: Program) -> None:
    """no-color.org."""
    assert "\x1b" not in on_a_terminal(satfs, "mount", "nowhere", NO_COLOR="1")
    assert "\x1b" not in on_a_terminal(satfs, "settings", NO_COLOR="1").replace(
        "\x1b[1m", ""
    ).replace("\x1b[2m", "").replace("\x1b[0m", "")


def test_a_pipe_gets_a_sentence_a_line(satfs: Program) -> None:
    done = satfs("mount", "x" * 200)

    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "nearest"), [(["monut"], "mount"), (["config", "shwo"], "show"), (["zzzzz"], None)]
)
def test_a_misspelt_command_is_told_with_the_nearest(
    satfs: Program, words: list[str], nearest: str | None
) -> None:
    done = satfs(*words)

    end = f" (the nearest name is {nearest})" if nearest else ""
    assert done.returncode == 2
    assert f"There is no command {words[-1]!r}{end}." in done.stderr


@pytest.mark.parametrize("words", [["ls"], ["info", "341271"], ["watch", "--once"]])
def test_without_a_login_only_the_sentence_is_told(satfs: Program, words: list[str]) -> None:
    """No line of a log beside it."""
    done = satfs(*words)

    assert done.returncode == 3
    assert done.stdout == ""
    assert done.stderr.startswith("Error: no credential: ")
    assert "request refused" not in done.stderr


def at_a_terminal(satfs: Program, *arguments: object, **environment: str | None) -> tuple[int, str]:
    """Return the exit code of the program at a terminal, and what it shows there."""
    front, back = pty.openpty()
    with subprocess.Popen(
        satfs.command(*arguments),
        env=satfs.environ(**environment),
        cwd=satfs.directory,
        stdin=back,
        stdout=back,
        stderr=back,
        start_new_session=True,
    ) as process:
        os.close(back)
        shown = b""
        try:
            while part := os.read(front, 65536):
                shown += part
        except OSError:  # EIO: the last process at the terminal has ended
            pass
    os.close(front)
    return process.returncode, shown.decode().replace("\r\n", "\n")


def test_the_program_alone_ends_with_the_next_step_of_a_newcomer(satfs: Program) -> None:
    code, shown = at_a_terminal(satfs)

    assert code == 2
    assert "Commands:" in shown
    end = shown.rpartition("There is no login yet. Next step, one of:\n")[2]
    assert [line.split()[1] for line in end.splitlines()] == ["demo", "login"]


def test_a_long_description_stays_under_its_setting(satfs: Program) -> None:
    """On a narrow terminal each of its lines is indented, as the first one is."""
    _, shown = at_a_terminal(satfs, "settings", COLUMNS="50", NO_COLOR="1")
    plain = re.sub("\x1b\\[[0-9;]*m", "", shown)
    described = plain.partition("SATFS_TOKEN_COMMAND = (not set)")[2].partition("SATFS_")[0]
    lines = [line.rstrip() for line in described.splitlines() if line.strip()]
    assert len(lines) == 2
    assert all(line.startswith("  ") for line in lines)


def test_the_program_alone_ends_with_a_mount_after_a_login(satfs: Program) -> None:
    _, shown = at_a_terminal(satfs, SATFS_CLIENT_ID="me", SATFS_CLIENT_SECRET=SECRET)

    last = shown.rstrip().splitlines()[-1]
    assert last.startswith(("Next step: mkdir -p ~/aleph; ", "Mounted: "))
    assert SECRET not in shown


def test_the_program_alone_names_settings_that_cannot_be_used(satfs: Program) -> None:
    _, shown = at_a_terminal(satfs, SATFS_WORKERS="many")

    assert "workers" in shown
    assert shown.rstrip().endswith("doctor")


def test_a_pipe_gets_the_help_alone(satfs: Program) -> None:
    done = satfs()

    assert done.returncode == 2
    assert "Next step" not in done.stdout + done.stderr


@pytest.mark.parametrize("words", [["config", "show"], ["completion", "bash"], ["--help"]])
def test_a_full_disk_behind_the_output_is_no_bug(satfs: Program, words: list[str]) -> None:
    """Where standard output cannot be written, that is the message, and the exit code is 1."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            satfs.command(*words),
            env=satfs.environ(),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert done.stderr == "Error: the output cannot be written: No space left on device\n"


@pytest.mark.parametrize("words", [["config", "show"], ["config", "profiles"], ["--help"]])
def test_a_reader_that_has_ended_ends_a_command_silently(satfs: Program, words: list[str]) -> None:
    """With `satfs … | head` there is no message, however much of the output was read."""
    config = Path(satfs.environment["HOME"], ".config/satfs/config.toml")
    config.parent.mkdir(parents=True)
    config.write_text("[profiles.harbour]\nclient_id = 'one'\n")
    theirs, ours = os.pipe()
    os.close(theirs)
    with os.fdopen(ours, "w") as pipe:
        done = subprocess.run(
            satfs.command(*words),
            env=satfs.environ(),
            stdout=pipe,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.parametrize(
    "words",
    [
        ["cache", "info", "~nobody-here/x"],
        ["ls", "~nobody-here/x"],
        ["ls", "--where", "intersects=~nobody-here/x.geojson"],
        ["mount", "--log-file", "~nobody-here/x", "~nobody-here/y"],
        ["mount", "--cache-dir", "~nobody-here/x", "~nobody-here/y"],
    ],
)
def test_the_home_of_no_user_is_a_directory_that_is_not_there(
    satfs: Program, words: list[str]
) -> None:
    """`~name` that a shell leaves as it is, since no user has that name, is no bug."""
    done = satfs(*words)
    assert done.returncode in (2, 5)
    assert "~nobody-here" in done.stderr
    assert "bug" not in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["pin", "--remove", "--jobs", "2", "MOUNT"],
        ["pin", "--remove", "--no-fetch", "MOUNT"],
        ["pin", "--jobs", "2"],
        ["status", "--interval", "2"],
        ["watch", "--once", "--interval", "60"],
        ["pin", "--no-fetch"],
        ["pin", "--where", "cloud<20"],
        ["demo", "--serve-only", "--nonempty"],
        ["demo", "--serve-only", "-o", "views=off"],
        ["demo", "--serve-only", "MOUNT"],
    ],
)
def test_an_option_without_effect_is_refused(satfs: Program, words: list[str]) -> None:
    done = satfs(*words)
    assert done.returncode == 2
    assert "Usage: satfs" in done.stderr
