"""Commands for people to run: fit to be pasted into a shell, in any directory."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import Final

from satfs.errors import BadSettings
from satfs.mountpoints import satfs_mounts

#: Settings that hold a credential, or lead to one.
_CREDENTIALS: Final = ("token", "token_file", "token_command", "client_secret", "secret_store")


def program_name() -> str:
    """Return what to type to run this very program again: `satfs` where a shell finds it."""
    ours = Path(sys.argv[0])
    if ours.name == "__main__.py":
        return f"{_command(Path(sys.executable))} -m satfs"
    return _command(ours)


def hint(command: str) -> str:
    """Return *command* with what to type to run this program, where `satfs` is what it runs."""
    for start in ("satfs ", "sudo satfs "):
        if command.startswith(start):
            return start.replace("satfs", program_name()) + command.removeprefix(start)
    return command


def shell_path(path: Path | str) -> str:
    """Return *path* as a shell takes it, whole; with `~` for the user's home."""
    whole = Path(os.path.abspath(path))
    home = Path.home()
    if whole == home:
        return "~"
    if whole.is_relative_to(home) and home != Path("/"):
        return f"~/{shlex.quote(str(whole.relative_to(home)))}"
    return shlex.quote(str(whole))


def home_name(path: Path) -> str:
    """Return *path* as people read it, with `~` for their home."""
    home = Path.home()
    is_inside = path.is_relative_to(home) and home != Path("/")
    return f"~/{path.relative_to(home)}" if is_inside else str(path)


def next_step() -> str:
    """Return what to do next, by the credentials and mounts there are. Sends no request."""
    from satfs.settings import resolve_settings  # a tenth of a second that others need not wait for

    try:
        settings = resolve_settings({}, may_be_new=True).settings
    except BadSettings as failure:
        return f"The settings cannot be used: {failure}.\nNext step: {hint('satfs doctor')}"
    if not any(getattr(settings, name) is not None for name in _CREDENTIALS):
        return (
            "There is no login yet. Next step, one of:\n"
            f"  {hint('satfs demo')}     to look around without an account\n"
            f"  {hint('satfs login')}    with the client id and secret that Aleph made for you"
        )
    if places := [shell_path(each.mountpoint) for each in satfs_mounts()]:
        return f"Mounted: {', '.join(places)}. Next step: ls {places[0]}"
    return f"Next step: mkdir -p ~/aleph; {hint('satfs mount')} ~/aleph"


def _command(program: Path) -> str:
    found = shutil.which(program.name)
    whole = os.path.abspath(program)
    if found and os.path.realpath(found) == os.path.realpath(whole):
        return program.name
    return shlex.quote(whole)
