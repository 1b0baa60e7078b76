"""Real shells complete what people type, and man(1) shows what the help says."""

from __future__ import annotations

import os
import pty
import re
import select
import shutil
import stat
import subprocess
import time
from pathlib import Path

import click
import pytest
from cli.conftest import Program, is_mounted
from fakes.processes import wait_until

from satfs.cli import flags
from satfs.cli.commands.completion import SHELLS
from satfs.cli.commands.man import man_page, man_pages
from satfs.cli.main import COMMANDS
from satfs.cli.main import satfs as root
from satfs.cli.manual import Manual, manual_of, settings_listed
from satfs.cli.mount_helper import MountExit
from satfs.mountpoints import Mounted
from satfs.settings import Settings, is_secret, variable_of

MANUAL = manual_of(root, "satfs")


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: apt install {name}")
    return found


class Terminal:
    """A shell on a terminal, at which keys are pressed."""

    def __init__(self, satfs: Program, command: list[str], **environment: str) -> None:
        self._front, back = pty.openpty()
        paths = f"{Path(satfs.command()[0]).parent}:{os.environ['PATH']}"
        self._process = subprocess.Popen(
            command,
            env=satfs.environ(PATH=paths, TERM="xterm", LC_ALL="C.UTF-8", **environment),
            cwd=satfs.directory,
            stdin=back,
            stdout=back,
            stderr=back,
            start_new_session=True,
        )
        os.close(back)
        self.shown = ""

    def press(self, keys: str, until: str, timeout_s: float = 20) -> str:
        """Press keys, and return what is shown until *until* (a regular expression) matches."""
        os.write(self._front, keys.encode())
        seen, deadline_s = "", time.monotonic() + timeout_s
        while not re.search(until, seen):
            left_s = deadline_s - time.monotonic()
            if left_s < 0 or not select.select([self._front], [], [], max(left_s, 0))[0]:
                pytest.fail(f"no {until!r} within {timeout_s} s of {keys!r}; shown: {seen!r}")
            piece = os.read(self._front, 4096).decode(errors="replace")
            if "\x1b[c" in piece or "\x1b[0c" in piece:  # fish queries the type of the terminal
                os.write(self._front, b"\x1b[?62;c")
            seen += re.sub(
                r"\x1b(\[[0-9;?>]*[a-zA-Z]|[()][A-B0-9]|[=>])|\x1b\][^\x07]*\x07", "", piece
            )
        self.shown += seen
        return seen

    def close(self) -> None:
        self._process.kill()
        self._process.wait(10)
        os.close(self._front)


@pytest.mark.parametrize("shell", SHELLS)
def test_the_shell_itself_can_read_what_is_printed(satfs: Program, shell: str) -> None:
    done = satfs("completion", shell)
    file = satfs.directory / "completion"
    file.write_text(done.stdout)

    assert done.returncode == 0
    assert done.stderr == ""
    subprocess.run([program(shell), "-n", str(file)], check=True)


def test_bash_completes_commands_options_and_directories(satfs: Program) -> None:
    (satfs.directory / "a-directory").mkdir()
    (satfs.directory / "a-file").touch()
    terminal = Terminal(satfs, [program("bash"), "--noprofile", "--norc", "-i"], PS1="READY ")
    try:
        terminal.press("", r"READY ")
        terminal.press(
            'eval "$(satfs completion bash)"; echo evalu""ated\r', r"evaluated[\s\S]*READY "
        )
        terminal.press("satfs compl\t", r"satfs completion ")
        terminal.press("z\t", r"zsh ")
        terminal.press("\x15satfs mount --off\t", r"--offline ")
        terminal.press("a-\t", r"a-directory")
        terminal.press("\x15satfs cache v\t", r"verify ")
    finally:
        terminal.close()


def test_zsh_completes_commands_and_explains_them(satfs: Program) -> None:
    terminal = Terminal(satfs, [program("zsh"), "-f", "-i"], PS1="READY ")
    try:
        terminal.press("", r"READY ")
        terminal.press(
            "autoload -U compinit; compinit -u; echo compl''ete\r", r"complete[\s\S]*READY "
        )
        terminal.press(
            'eval "$(satfs completion zsh)"; echo evalu""ated\r', r"evaluated[\s\S]*READY "
        )
        terminal.press("satfs um\t", r"umount ")
        terminal.press("\x15satfs m\t\t", re.escape(COMMANDS["mount"]))
    finally:
        terminal.close()


def test_fish_completes_commands_and_explains_them(satfs: Program) -> None:
    """Through fish's own `complete`, since its line editor is no line of text."""
    completions = Path(satfs.environment["HOME"]) / ".config/fish/completions"
    completions.mkdir(parents=True)
    (completions / "satfs.fish").write_text(satfs("completion", "fish").stdout)
    paths = f"{Path(satfs.command()[0]).parent}:{os.environ['PATH']}"

    def offered(line: str) -> list[str]:
        done = subprocess.run(
            [program("fish"), "-c", f"complete --do-complete '{line}'"],
            env=satfs.environ(PATH=paths),
            cwd=satfs.directory,
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        return done.stdout.splitlines()

    assert f"umount\t{COMMANDS['umount']}" in offered("satfs u")
    assert "zsh" in offered("satfs completion z")
    assert any(line.startswith("--lazy") for line in offered("satfs umount --l"))


def asked(satfs: Program, *words: str) -> list[str]:
    """Return what a bash is offered for the last of *words*."""
    line = " ".join(("satfs", *words))
    done = satfs(_SATFS_COMPLETE="bash_complete", COMP_WORDS=line, COMP_CWORD=str(len(words)))
    assert done.stderr == ""
    return [line for line in done.stdout.splitlines() if line]


def test_every_command_is_offered(satfs: Program) -> None:
    assert asked(satfs, "''") == [f"plain,{name}" for name in COMMANDS]


def test_what_is_mounted_is_offered_for_umount(aleph: Program, place: Path) -> None:
    assert aleph("mount", place).returncode == 0

    assert f"plain,{place}" in asked(aleph, "umount", str(place)[:-1])
    # Given once, it is not offered again: then any directory is as good.
    assert asked(aleph, "umount", str(place), str(place)) == [f"dir,{place}"]


def test_a_mountpoint_is_no_command(aleph: Program, place: Path) -> None:
    """A real bash completes one word that names the mount, for any name of it."""
    named = place / "x;id>proof;# $(touch proof) *'"
    named.mkdir()
    done = aleph("mount", named)
    assert done.returncode == 0, done.stderr
    terminal = Terminal(aleph, [program("bash"), "--noprofile", "--norc", "-i"], PS1="READY ")
    try:
        terminal.press("", r"READY ")
        terminal.press(
            'eval "$(satfs completion bash)"; echo evalu""ated\r', r"evaluated[\s\S]*READY "
        )
        terminal.press(f"satfs umount {place}/x\t", r"proof")
        terminal.press("\r", r"READY ")
        wait_until(lambda: not is_mounted(named))
    finally:
        terminal.close()
        aleph("umount", "-z", named)
    assert not (aleph.directory / "proof").exists()


def test_mounts_of_others_and_names_for_a_terminal_are_not_offered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Those of this user and of root are; another user chooses the names of their own."""
    mounts = [
        Mounted(
            Path(f"/mnt/{name}"),
            "fuse.satfs",
            "satfs",
            (0, number),
            frozenset(),
            frozenset({f"user_id={user}"}),
        )
        for number, (name, user) in enumerate(
            [("own", os.getuid()), ("root", 0), ("other;id", 65533), ("a\x1b[2J", os.getuid())]
        )
    ]
    monkeypatch.setattr(flags, "satfs_mounts", lambda: tuple(mounts))
    command = click.Command("umount")
    argument = click.Argument(["place"])
    items = flags.complete_mountpoints(click.Context(command), argument, "/mnt/")
    assert [item.value for item in items] == ["/mnt/own", "/mnt/root"]


def test_values_of_flags_are_offered(satfs: Program) -> None:
    (satfs.directory / "config.toml").write_text("[profiles.harbour]\n[profiles.coast]\n")
    given = Program({**satfs.environment, "SATFS_CONFIG_FILE": "config.toml"}, satfs.directory)

    assert asked(satfs, "mount", "--contents", "h") == ["plain,hidden"]
    assert asked(satfs, "mount", "--cache-dir", "x") == ["dir,x"]
    assert asked(satfs, "mount", "--log-file", "x") == ["file,x"]
    assert "plain,harbour" in asked(given, "mount", "--profile", "h")
    assert asked(given, "whoami", "--profile", "c") == ["plain,coast"]
    assert asked(satfs, "mount", "--workers", "x") == []


def test_a_config_that_cannot_be_read_keeps_tab_quiet(satfs: Program) -> None:
    (satfs.directory / "config.toml").write_text("no = [toml")
    given = Program({**satfs.environment, "SATFS_CONFIG_FILE": "config.toml"}, satfs.directory)

    assert asked(given, "mount", "--profile", "h") == []


def test_an_unknown_shell_is_refused_by_name(satfs: Program) -> None:
    done = satfs("completion", "tcsh")

    assert done.returncode == 2
    assert all(shell in done.stderr for shell in SHELLS)


@pytest.mark.parametrize("manual", [*MANUAL.walk()], ids=lambda manual: manual.name)
def test_each_command_says_what_it_does_and_shows_examples(manual: Manual) -> None:
    """Also the commands of a group: each is looked up on its own."""
    assert manual.paragraphs
    assert manual.summary
    assert manual.examples, f"{manual.name} --help has no Examples"
    assert all(len(line) <= 76 for line in manual.examples), "help indents them by four"
    assert all(option.meaning for option in manual.options if option.name != "--help")
    for line in manual.examples:
        for command in re.findall(r"(?:^|\$\()(?:sudo )?satfs (.+)", line):
            words = command.split()
            assert words[0] in COMMANDS or words[0].startswith("-")


def test_pages_are_written_where_man_looks(satfs: Program) -> None:
    done = satfs("man", XDG_DATA_HOME=str(satfs.directory / "data"))

    man = satfs.directory / "data/man"
    pages = {path.name for path in man.rglob("*") if path.is_file()}
    assert done.returncode == 0
    assert pages == {"satfs.1", "mount.satfs.8", *(f"satfs-{name}.1" for name in COMMANDS)}
    assert [path.name for path in (man / "man8").iterdir()] == ["mount.satfs.8"]
    assert f"{len(pages)} man pages" in done.stderr


def test_a_page_is_the_old_or_the_new_one_at_any_moment(satfs: Program, tmp_path: Path) -> None:
    """A reader of the old page keeps it; the new one has the permissions that the old one had."""
    page, reader, plain = tmp_path / "man1/satfs.1", tmp_path / "reader", tmp_path / "plain"
    assert satfs("man", tmp_path).returncode == 0
    plain.touch()
    assert page.stat().st_mode == plain.stat().st_mode
    page.write_text("old")
    page.chmod(0o640)
    os.link(page, reader)
    assert satfs("man", tmp_path).returncode == 0
    assert reader.read_text() == "old"
    assert page.read_text() != "old"
    assert stat.S_IMODE(page.stat().st_mode) == 0o640


def test_pages_are_good_man_pages(satfs: Program, tmp_path: Path) -> None:
    """Held against mandoc's own list of mistakes, down to matters of style."""
    assert satfs("man", tmp_path / "man").returncode == 0
    pages = sorted((tmp_path / "man").glob("*/*"))

    done = subprocess.run(
        [program("mandoc"), "-T", "lint", *map(str, pages)],
        capture_output=True,
        text=True,
        check=False,
    )
    # Whether a system's own manual has a page of that name is no matter of style.
    problems = [
        line for line in done.stdout.splitlines() if "referenced manual not found" not in line
    ]
    assert problems == []


def test_man_shows_options_examples_and_variables(satfs: Program, tmp_path: Path) -> None:
    assert satfs("man", tmp_path / "man").returncode == 0

    def shown(page: str) -> str:
        done = subprocess.run(
            [program("man"), "-l", str(tmp_path / f"man/man{page[-1]}" / page)],
            env=satfs.environ(
                MANWIDTH="80", LC_ALL="C.UTF-8", MANPAGER="cat", MAN_KEEP_FORMATTING=None
            ),
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stderr == ""
        return re.sub(".\b", "", done.stdout)

    mount = shown("satfs-mount.1")
    assert "satfs mount [OPTIONS] MOUNTPOINT" in mount
    assert "-f, --foreground" in mount
    assert "satfs mount -f -v ~/aleph" in mount
    assert "_netdev, nofail, noauto, user, x-…" in " ".join(mount.split())
    top = shown("satfs.1")
    assert all(variable_of(name) in top for name in Settings.__struct_fields__)
    assert all(f"satfs-{name}(1)" in top for name in COMMANDS)
    assert "EXIT STATUS" in top
    assert "satfs cache info" in shown("satfs-cache.1")
    helper = shown("mount.satfs.8")
    assert "mount.satfs satfs:PROFILE DIRECTORY" in helper
    assert "allow_other" in helper
    for code in MountExit:
        assert re.search(rf"^ +{int(code)}  \w", helper, re.MULTILINE)


def test_pages_are_the_same_wherever_they_are_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A package that is built twice is the same twice (reproducible-builds.org)."""
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1767225600")
    before = man_pages(root)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SATFS_WORKERS", "7")
    monkeypatch.setenv("COLUMNS", "40")

    assert man_pages(root) == before
    assert '"2026-01-01"' in before["satfs.1"]


def test_a_directory_that_cannot_be_written_is_named(satfs: Program, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    done = satfs("man", tmp_path / "file")

    assert done.returncode == 2
    assert str(tmp_path / "file") in done.stderr
    assert "satfs man DIRECTORY" in done.stderr


def test_no_page_takes_text_for_a_macro() -> None:
    """groff(7): a line that begins with a dot or a quote is a request to the formatter."""
    line = "'.SH forged' \\fB .so /etc/passwd"
    manual = Manual("satfs x", line, line, (line, ".so /etc/passwd"), (), (), ())

    page = man_page(manual)

    assert not any(each.startswith((".so", "'")) for each in page.splitlines())
    assert "\\fB" not in page


def test_documented_defaults_show_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.__struct_fields__:
        monkeypatch.setenv(variable_of(name), "5eedfeed")

    listed = settings_listed()

    assert [name for name, *_ in listed] == list(Settings.__struct_fields__)
    assert not any("5eedfeed" in default for _, default, _ in listed)
    assert all(default == "" for name, default, _ in listed if is_secret(name))
