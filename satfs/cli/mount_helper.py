"""`mount.satfs`: what mount(8) and fstab(5) run for the types `satfs` and `fuse.satfs`.

    mount.satfs SOURCE DIR [-sfnv] [-o OPTIONS] [-t TYPE]

SOURCE is `satfs:PROFILE`. The exit codes are those of mount(8), not ours. Where no such program is
installed, mount(8) finds mount.fuse3 for the type `fuse.satfs`, which runs `satfs` with the same
words; `satfs.cli.main` sends these here, too.
"""

from __future__ import annotations

import os
import pwd
import sys
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from types import MappingProxyType
from typing import Final, NoReturn

from satfs import __version__
from satfs.cli.exit_codes import Exit, Failure, failure_of
from satfs.cli.flags import Manner
from satfs.cli.options import REFUSED, join_escaped, parse_options, split_escaped
from satfs.cli.output import print_error, print_sentence
from satfs.cli.prerequisites import fuse_library_explained
from satfs.errors import BadSettings
from satfs.mountpoints import absolute, unescape

#: What sources begin with; the rest is the profile. Its colon makes `df -l` see a remote mount.
SOURCE_PREFIX: Final = "satfs:"
#: The programs that mount(8) looks for; what they are called decides what they do.
PROGRAMS: Final = ("mount.satfs", "mount.fuse.satfs")
_TYPES: Final = ("satfs", "fuse", "fuse.satfs")
_USAGE: Final = "usage: mount.satfs satfs:PROFILE DIRECTORY [-sfnv] [-o OPTION,...]"
#: Programs between mount(8) and us: mount.fuse3 and its shell.
_MAX_BETWEEN: Final = 3
#: Of the short options of mount(8) those that take a value (mount(8), util-linux 2.41).
_WITH_VALUE: Final = frozenset("LNoOptTU")


class MountExit(IntEnum):
    """Exit codes of mount(8), section "EXIT STATUS"."""

    DONE = 0
    USAGE = 1  #: incorrect invocation or permissions
    SYSTEM = 2  #: out of memory, cannot fork, no more loop devices
    BUG = 4
    INTERRUPTED = 8
    FAILED = 32


_CODES: Final[Mapping[int, MountExit]] = MappingProxyType(
    {
        Exit.DONE: MountExit.DONE,
        Exit.FAILED: MountExit.BUG,
        Exit.USAGE: MountExit.USAGE,
        Exit.FUSE: MountExit.SYSTEM,
        Exit.INTERRUPTED: MountExit.INTERRUPTED,
    }
)


def mount_code(code: int) -> MountExit:
    """Return what mount(8) calls the failure that we end with *code* for."""
    return _CODES.get(code, MountExit.FAILED)


@dataclass(frozen=True, slots=True)
class Asked:
    """What one command line asks for."""

    profile: str
    directory: str
    options: tuple[str, ...] = ()
    is_sloppy: bool = False
    is_fake: bool = False
    is_verbose: bool = False
    #: Act as this user, with his profiles and his cache; None: as whoever calls.
    act_as: str | None = None
    #: `rw` is among the options: asked for, or written there by mount(8) itself.
    has_rw: bool = False


def read_words(words: Sequence[str]) -> Asked:
    """Return what *words*, the command line without its first, ask for.

    Raises:
        BadSettings: they make no sense; says which do.
    """
    places: list[str] = []
    texts: list[str] = []
    letters = ""
    rest = iter(words)
    for word in rest:
        if word in ("-o", "-t", "-N"):
            value = next(rest, None)
            if value is None:
                raise BadSettings(f"{word} needs a value; {_USAGE}")
            _check_value(word, value)
            texts += [value] if word == "-o" else []
        elif word.startswith("-") and len(word) > 1 and set(word[1:]) <= set("sfnv"):
            letters += word[1:]
        elif word.startswith("-"):
            raise BadSettings(_USAGE)
        else:
            places.append(word)
    if len(places) != 2:
        raise BadSettings(_USAGE)
    return _sort_out(
        Asked(
            _profile(places[0]),
            places[1],
            is_sloppy="s" in letters,
            is_fake="f" in letters,
            is_verbose="v" in letters,
        ),
        [option for text in texts for option in split_escaped(text) if option],
    )


def _check_value(flag: str, value: str) -> None:
    if flag == "-t" and value not in _TYPES:
        raise BadSettings(f"-t: the types of a satfs mount are {' and '.join(_TYPES[::2])}")
    if flag == "-N":
        raise BadSettings("-N: run mount(8) itself in that namespace, with nsenter(1)")


def _profile(source: str) -> str:
    prefix, colon, profile = source.partition(":")
    if prefix + colon != SOURCE_PREFIX or not profile:
        raise BadSettings("the source of a satfs mount is satfs:PROFILE, such as satfs:default")
    return profile


def _sort_out(asked: Asked, options: Sequence[str]) -> Asked:
    """Take from *options* what is for this program alone, and leave the rest in `options`."""
    kept, has_rw, act_as = [], False, None
    for option in options:
        name, _, value = option.partition("=")
        if option in ("ro", "rw"):
            has_rw = option == "rw"  # the last one wins, as in mount(8)
        elif name == "setuid":
            if not value:
                raise BadSettings("-o setuid needs a user: -o setuid=NAME")
            act_as = value
        elif name == "profile" and value != asked.profile:
            raise BadSettings("-o profile: the source names the profile: satfs:PROFILE")
        elif name != "profile":
            kept.append(option)
    return replace(asked, options=tuple(kept), has_rw=has_rw, act_as=act_as)


# -- was `rw` asked for? ---------------------------------------------------------------------------


def asks_to_write(mount_words: Sequence[str] | None, fstab: str, asked: Asked) -> bool:
    """Tell whether somebody has asked for `rw`, when mount(8) was called with *mount_words*.

    mount(8) writes `rw` into the options of each mount that is not `ro`, so that it says nothing
    by itself. With None for *mount_words*, we were called without mount(8): then it does. *fstab*
    is the text of the file in which mount(8) may have found the line.
    """
    if mount_words is None:
        return asked.has_rw
    directory = absolute(Path(asked.directory))
    return asked.has_rw and (
        "rw" in given_to_mount(mount_words)
        or any(
            source == SOURCE_PREFIX + asked.profile
            and absolute(Path(place)) == directory
            and "rw" in options.split(",")
            for source, place, options in fstab_lines(fstab)
        )
    )


def given_to_mount(words: Sequence[str]) -> frozenset[str]:
    """Return the options that *words*, a command line of mount(8), ask for, `-w` as `rw`."""
    options: list[str] = []
    rest = iter(words[1:])
    for word in rest:
        name, equals, value = word.partition("=")
        if word in ("--rw", "--read-write"):
            options.append("rw")
        elif name == "--options":
            options += (value if equals else next(rest, "")).split(",")
        elif word.startswith("-") and not word.startswith("--"):
            for at, letter in enumerate(word[1:], 2):
                if letter == "w":
                    options.append("rw")
                if letter in _WITH_VALUE:
                    value = word[at:] or next(rest, "")
                    options += value.split(",") if letter == "o" else []
                    break
    return frozenset(options)


def fstab_lines(text: str) -> Iterator[tuple[str, str, str]]:
    """Yield source, directory and options of each line of an fstab(5) that has them."""
    for line in text.splitlines():
        fields = line.split()
        if len(fields) >= 4 and not line.lstrip().startswith("#"):
            yield unescape(fields[0]), unescape(fields[1]), fields[3]


def fstab_of(words: Sequence[str], environment: Mapping[str, str]) -> Path:
    """Return the fstab that mount(8), called with *words*, reads."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        name, equals, value = word.partition("=")
        if word == "-T" or (name == "--fstab" and not equals):
            return Path(following)
        if name == "--fstab" or (word.startswith("-T") and len(word) > 2):
            return Path(value if equals else word[2:])
    return Path(environment.get("LIBMOUNT_FSTAB") or "/etc/fstab")


def _words_of_mount() -> list[str] | None:
    """Return the command line of the mount(8) that has called us; None if none has.

    One that we may not look at (`hidepid`) has no words, which is as good as no `rw` among them.
    """
    pid = os.getppid()
    try:
        for _ in range(_MAX_BETWEEN):
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
            name = stat.partition("(")[2].rpartition(")")[0]
            if name == "mount":
                text = Path(f"/proc/{pid}/cmdline").read_bytes()
                return [os.fsdecode(word) for word in text.split(b"\0")[:-1]]
            pid = int(stat.rpartition(")")[2].split()[1])
            if pid <= 1:
                break
    except OSError:
        return []
    return None


def _text_of(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""


# -- acting as somebody ----------------------------------------------------------------------------


def become(name: str, environment: MutableMapping[str, str]) -> None:
    """Become the user *name*, for good, with an environment as after a login.

    Settings and secrets in *environment* are of whoever called, and do not come along.

    Raises:
        BadSettings: there is no such user, or we may not become anybody.
    """
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        raise BadSettings("-o setuid: there is no such user") from None
    if os.getuid() == user.pw_uid:
        return
    if os.geteuid() != 0:
        raise BadSettings("-o setuid: only root can mount for others")
    os.initgroups(user.pw_name, user.pw_gid)
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)
    runtime = f"/run/user/{user.pw_uid}"
    changed = environment_of(user.pw_name, user.pw_dir, environment)
    if os.path.isdir(runtime):
        changed["XDG_RUNTIME_DIR"] = runtime
        if os.path.exists(f"{runtime}/bus"):  # where a keyring may answer
            changed["DBUS_SESSION_BUS_ADDRESS"] = f"unix:path={runtime}/bus"
    environment.clear()
    environment.update(changed)


def environment_of(name: str, home: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Return *environment* as it is for the user *name* with the directory *home*."""
    kept = {
        variable: value
        for variable, value in environment.items()
        if not variable.startswith(("SATFS_", "XDG_", "DBUS_", "SUDO_"))
    }
    return {**kept, "HOME": home, "USER": name, "LOGNAME": name}


# -- the program -----------------------------------------------------------------------------------


def is_called_by_mount(words: Sequence[str]) -> bool:
    """Tell whether *words*, a whole command line, come from mount(8) and not from a person."""
    if not words:
        return False
    return Path(words[0]).name in PROGRAMS or (
        # from mount.fuse3: `satfs SOURCE DIR -o …`
        len(words) > 2 and words[1].startswith(SOURCE_PREFIX) and Path(words[0]).name == "satfs"
    )


def main(words: Sequence[str] | None = None) -> NoReturn:
    """Mount as *words* (the program's own) ask, and exit with a code of mount(8)."""
    given = list(sys.argv[1:] if words is None else words)
    if given in (["-V"], ["--version"]):
        print(f"mount.satfs {__version__}")
        sys.exit(MountExit.DONE)
    if given in (["-h"], ["--help"]):
        print(f"{_USAGE}\nOptions and settings: satfs mount --help")
        sys.exit(MountExit.DONE)
    manner = Manner()
    try:
        code = _mount(given, manner)
    except (Exception, KeyboardInterrupt) as error:
        failure = failure_of(error, with_details=manner.with_details)
        _tell(failure)
        code = failure.code
    sys.exit(mount_code(code))


def _mount(words: Sequence[str], manner: Manner) -> int:
    asked = read_words(words)
    if asked.has_rw:
        mount_words = _words_of_mount()
        fstab = "" if not mount_words else _text_of(fstab_of(mount_words, os.environ))
        if asks_to_write(mount_words, fstab, asked):
            raise BadSettings(f"-o rw: {REFUSED['rw']}")
    if asked.act_as is not None:
        become(asked.act_as, os.environ)
    given = parse_options([join_escaped(["", *asked.options])], is_sloppy=asked.is_sloppy)
    manner.verbosity += asked.is_verbose
    with fuse_library_explained():
        from satfs.cli.commands.mount import mount_as
    return mount_as(
        asked.directory,
        given,
        {"profile": asked.profile},
        manner,
        is_fake=asked.is_fake,
        leaves_late=True,
        on_ready=lambda: _tell_mounted(asked),
    )


def _tell_mounted(asked: Asked) -> None:
    if asked.is_verbose:
        print_sentence(f"mount.satfs: {SOURCE_PREFIX}{asked.profile} mounted on {asked.directory}")


def _tell(failure: Failure) -> None:
    print_error(failure.sentence, failure.remedy, failure.details)
