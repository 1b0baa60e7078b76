"""`mount.satfs`: what mount(8) and fstab(5) run for the types `satfs` and `fuse.satfs`.

    mount.satfs SOURCE DIR [-sfnv] [-o OPTIONS] [-t TYPE]

SOURCE is `satfs:PROFILE`. The exit codes are those of mount(8), not ours. Where mount.satfs is not
installed, mount(8) finds mount.fuse3 for the type `fuse.satfs`, which runs `satfs` with the same
words; `satfs.cli.main` passes them to this module, too.
"""

from __future__ import annotations

import getopt
import os
import pwd
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from enum import IntEnum
from pathlib import Path
from typing import Final, NoReturn

from msgspec import Struct

from satfs import __version__
from satfs.cli.exit_codes import Exit, failure_of
from satfs.cli.flags import OutputOptions
from satfs.cli.mount_options import join_escaped, parse_options, split_escaped
from satfs.cli.output import print_error, print_sentence
from satfs.cli.process_start import fuse_library_explained
from satfs.errors import BadSettings

#: The beginning of every source; the rest is the profile. The colon makes `df -l` see a remote
#: mount.
SOURCE_PREFIX: Final = "satfs:"
#: The programs that mount(8) looks for; what they are called decides what they do.
PROGRAMS: Final = ("mount.satfs", "mount.fuse.satfs")
#: Variables of language and network, in lower case. All others may hold
#: a secret of root's, or lead a program of the user to what is root's.
_KEPT: Final = frozenset(
    {"lang", "language", "tz", "term", "http_proxy", "https_proxy", "all_proxy", "no_proxy"}
)
#: Where programs are looked for: the usual value for users other than root, and sbin, where some
#: systems keep fusermount3.
_PATH: Final = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"
_TYPES: Final = ("satfs", "fuse", "fuse.satfs")
_USAGE: Final = "usage: mount.satfs satfs:PROFILE DIRECTORY [-sfnv] [-o OPTION,...]"


class MountExit(IntEnum):
    """Exit codes of mount(8), section "EXIT STATUS"."""

    DONE = 0
    USAGE = 1  #: incorrect invocation or permissions
    SYSTEM = 2  #: out of memory, cannot fork, no more loop devices
    BUG = 4
    INTERRUPTED = 8
    FAILED = 32


_CODES: Final[Mapping[int, MountExit]] = {
    Exit.DONE: MountExit.DONE,
    Exit.FAILED: MountExit.BUG,
    Exit.USAGE: MountExit.USAGE,
    Exit.FUSE: MountExit.SYSTEM,
    Exit.INTERRUPTED: MountExit.INTERRUPTED,
}


def mount_code(code: int) -> MountExit:
    """Return what mount(8) calls the failure that we end with *code* for."""
    return _CODES.get(code, MountExit.FAILED)


class MountRequest(Struct, frozen=True):
    """The options of one command line."""

    profile: str
    directory: str
    options: tuple[str, ...] = ()
    is_sloppy: bool = False
    is_fake: bool = False
    is_verbose: bool = False
    #: Act as this user, with the profiles and the cache of that user; None: as the caller.
    act_as: str | None = None


def parse_arguments(arguments: Sequence[str]) -> MountRequest:
    """Parse *arguments*, the command line without its first word.

    Raises:
        BadSettings: they make no sense; the message has the usage.
    """
    try:
        flags, places = getopt.gnu_getopt(list(arguments), "sfnvo:t:N:")
    except getopt.GetoptError as failure:
        raise BadSettings(f"{failure.msg}; {_USAGE}") from None
    if len(places) != 2:
        raise BadSettings(_USAGE)
    for flag, value in flags:
        if flag == "-t" and value not in _TYPES:
            raise BadSettings(f"-t: the types of a satfs mount are {' and '.join(_TYPES[::2])}")
        if flag == "-N":
            raise BadSettings("-N: run mount(8) itself in that namespace, with nsenter(1)")
    profile, given = _profile(places[0]), {flag for flag, _ in flags}
    kept, act_as = [], None
    for option in (each for flag, text in flags if flag == "-o" for each in split_escaped(text)):
        name, _, value = option.partition("=")
        if option in ("", "ro", "rw"):
            continue  # mount(8) adds `rw` by itself; the mount is read-only either way
        if name == "setuid":
            if not value:
                raise BadSettings("-o setuid needs a user: -o setuid=NAME")
            act_as = value
        elif name == "profile" and value != profile:
            raise BadSettings("-o profile: the source names the profile: satfs:PROFILE")
        elif name != "profile":
            kept.append(option)
    return MountRequest(
        profile,
        places[1],
        tuple(kept),
        is_sloppy="-s" in given,
        is_fake="-f" in given,
        is_verbose="-v" in given,
        act_as=act_as,
    )


def _profile(source: str) -> str:
    prefix, colon, profile = source.partition(":")
    if prefix + colon != SOURCE_PREFIX or not profile:
        raise BadSettings("the source of a satfs mount is satfs:PROFILE, such as satfs:default")
    return profile


# -- acting as another user ------------------------------------------------------------------------


def become(name: str, environment: MutableMapping[str, str]) -> None:
    """Become the user *name*, for good, with an environment as after a login.

    Of *environment*, which is the caller's, only locale, time zone, terminal and proxies are kept.
    Descriptors other than standard input, output and error are closed: what the user's
    `token_command` is given is the user's alone.

    Raises:
        BadSettings: no user has that name, or this process may not change its user.
    """
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        raise BadSettings("-o setuid: there is no such user") from None
    if os.getuid() == user.pw_uid:
        return
    if os.geteuid() != 0:
        raise BadSettings("-o setuid: only root can mount for others")
    os.closerange(3, max(map(int, os.listdir("/proc/self/fd"))) + 1)
    os.initgroups(user.pw_name, user.pw_gid)
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)
    runtime = f"/run/user/{user.pw_uid}"
    changed = environment_of(user.pw_name, user.pw_dir, environment)
    if os.path.isdir(runtime):
        changed["XDG_RUNTIME_DIR"] = runtime
        if os.path.exists(f"{runtime}/bus"):  # where a keyring may be reached
            changed["DBUS_SESSION_BUS_ADDRESS"] = f"unix:path={runtime}/bus"
    environment.clear()
    environment.update(changed)


def environment_of(name: str, home: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Return what of *environment* is kept for the user *name* with the directory *home*."""
    kept = {
        variable: value
        for variable, value in environment.items()
        if variable.startswith("LC_") or variable.lower() in _KEPT
    }
    return {**kept, "PATH": _PATH, "HOME": home, "USER": name, "LOGNAME": name}


# -- the program -----------------------------------------------------------------------------------


def is_called_by_mount(arguments: Sequence[str]) -> bool:
    """Return whether *arguments*, a whole command line, come from mount(8), not from a person."""
    if not arguments:
        return False
    return Path(arguments[0]).name in PROGRAMS or (
        # from mount.fuse3: `satfs SOURCE DIR -o …`
        len(arguments) > 2
        and arguments[1].startswith(SOURCE_PREFIX)
        and Path(arguments[0]).name == "satfs"
    )


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Mount as *arguments*, the program's own, describe, and exit with a code of mount(8)."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given in (["-V"], ["--version"]):
        print(f"mount.satfs {__version__}")
        sys.exit(MountExit.DONE)
    if given in (["-h"], ["--help"]):
        print(f"{_USAGE}\nOptions and settings: satfs mount --help")
        sys.exit(MountExit.DONE)
    output_options = OutputOptions()
    try:
        code = _mount(given, output_options)
    except (Exception, KeyboardInterrupt) as error:
        failure = failure_of(error, with_details=output_options.with_details)
        print_error(failure.sentence, failure.remedy, failure.details)
        code = failure.code
    sys.exit(mount_code(code))


def _mount(arguments: Sequence[str], output_options: OutputOptions) -> int:
    request = parse_arguments(arguments)
    if request.act_as is not None:
        become(request.act_as, os.environ)
    given = parse_options([join_escaped(["", *request.options])], is_sloppy=request.is_sloppy)
    output_options.verbosity += request.is_verbose
    with fuse_library_explained():
        from satfs.cli.commands.mount import mount_as
    return mount_as(
        request.directory,
        given,
        {"profile": request.profile},
        output_options,
        is_fake=request.is_fake,
        leaves_late=True,
        on_ready=lambda: _print_mounted(request),
    )


def _print_mounted(request: MountRequest) -> None:
    if request.is_verbose:
        print_sentence(
            f"mount.satfs: {SOURCE_PREFIX}{request.profile} mounted on {request.directory}"
        )
