"""The entry point of the command line: the commands, and how each of them fails.

A command's module is imported when the command is used: mounting takes libfuse, an event loop and
an HTTP client, which `satfs umount` and `satfs --help` need not wait for, nor have.
"""

from __future__ import annotations

import errno
import gc
import importlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Final, NoReturn, cast

import click
from click.shell_completion import CompletionItem

from satfs import __version__
from satfs.cli.exit_codes import MEANINGS, Exit, failure_of
from satfs.cli.flags import Commands, OutputOptions, verbosity_flags
from satfs.cli.hints import next_step
from satfs.cli.mount_helper import is_called_by_mount
from satfs.cli.mount_helper import main as mount8
from satfs.cli.output import print_error
from satfs.cli.process_start import (
    detach,
    fuse_library_explained,
    settle_descriptors,
    settle_encoding,
    settle_home,
)

#: Errors of write(2) whose cause is where standard output leads: a reader that has ended, a full
#: disk, a quota, a limit.
_UNWRITABLE: Final = frozenset({errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})

_EXIT_CODES = "\n".join(f"  {int(code):>3}  {meaning}" for code, meaning in MEANINGS.items())


#: The commands, each a module and a function of its name here: what each does, in a line.
COMMANDS: Final = {
    "mount": "Mount the deliveries of your account.",
    "umount": "Unmount mounts of satfs.",
    "login": "Log in, so that mounts need no credentials in the environment.",
    "logout": "Forget a login.",
    "whoami": "Show the account and the contract of a login.",
    "config": "Show settings, their origins, and profiles.",
    "status": "List mounts, and show their states.",
    "log": "Show the last log lines of a mount, or change its log level.",
    "demo": "Mount a demo that needs no account and no network.",
    "service": "Make systemd, or mount(8) and fstab, mount satfs.",
    "ls": "List tasks, captures, scenes and files, also without a mount.",
    "info": "Show the record and the cached files of a task, capture or scene.",
    "refresh": "Request the listing of a directory from the vendor again.",
    "prefetch": "Make scenes or whole tasks available offline.",
    "pin": "Keep scenes or whole tasks in the cache, or end this.",
    "stac": "Write STAC items of scenes, for GIS programs and data bases.",
    "verify": "Check deliveries: length, ETag, and the CRCs in zips.",
    "watch": "Report captures and scenes as they are published.",
    "cache": "Show, check and clear the cache on disk.",
    "doctor": "Look for problems that keep satfs from working.",
    "completion": "Let bash, zsh or fish complete what you type.",
    "man": "Write the man pages of all commands.",
}


#: Commands of version 0.1 that are options of others now.
OLD_NAMES: Final = {
    "list": ("status", "--short"),
    "settings": ("config", "show", "--describe"),
    "unpin": ("pin", "--remove"),
}


#: Commands that print no tables, and libraries that others import where they find them: structlog
#: for tracebacks that show local variables, which no log of ours may, and httpx for a program of
#: its own. They are a tenth of the processor time of `satfs mount` until its event loop runs.
_WITHOUT_TABLES: Final = frozenset({"mount"})
_FOR_TABLES: Final = ("rich", "pygments")


@contextmanager
def _imported_fast(command: str) -> Iterator[None]:
    """Import no more than *command* needs meanwhile, and collect no garbage.

    Importing makes none, and a hundred thousand objects to scan: a sixth of the processor time of
    `satfs mount` until its event loop runs.
    """
    was_enabled = gc.isenabled()
    modules = cast("dict[str, ModuleType | None]", sys.modules)
    hidden = [each for each in _FOR_TABLES if command in _WITHOUT_TABLES and each not in modules]
    gc.disable()
    # As if they were not installed (import statement, reference).
    modules.update(dict.fromkeys(hidden))
    try:
        yield
    finally:
        for each in hidden:
            del modules[each]
        if was_enabled:
            gc.enable()


class _Commands(Commands):
    #: Read by `satfs.cli.manual`.
    summaries = COMMANDS

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args and sys.stdout.isatty():
            click.echo(self.get_help(ctx))
            click.echo(f"\n{next_step()}")
            ctx.exit(Exit.USAGE)
        return super().parse_args(ctx, args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        return super().resolve_command(ctx, [*OLD_NAMES.get(args[0], (args[0],)), *args[1:]])

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        with fuse_library_explained(), _imported_fast(cmd_name):
            module = importlib.import_module(f"satfs.cli.commands.{cmd_name}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        # The group's own would import every command for its summary, at each press of the key.
        names = [name for name in COMMANDS if name.startswith(incomplete)]
        return [
            *(CompletionItem(name, help=COMMANDS[name]) for name in names),
            *click.Command.shell_complete(self, ctx, incomplete),
        ]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _show_version(context: click.Context, _parameter: click.Parameter, is_given: bool) -> None:
    if not is_given:
        return
    if context.ensure_object(OutputOptions).verbosity > 0:
        from satfs.cli.bug_report import versions_text  # takes longer to import than the rest

        click.echo(versions_text())
    else:
        click.echo(f"satfs {__version__}")
    context.exit()


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=f"""\b
Examples:
  satfs demo                             try it, without an account
  satfs mount ~/aleph                    mount the deliveries of your account
  satfs umount ~/aleph

\b
Exit codes:
{_EXIT_CODES}
""",
)
@click.option(
    "-V",
    "--version",
    is_flag=True,
    expose_value=False,
    callback=_show_version,
    help="Show the version and exit; with -v, all that a bug report needs.",
)
@verbosity_flags
def satfs() -> None:
    """Satellite imagery deliveries as a read-only filesystem.

    Tasks, captures and scenes of Satellogic's Aleph become directories; their products become
    files that any program can read.
    """


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with its code (`satfs.cli.exit_codes`)."""
    if arguments is None:
        settle_descriptors()
        settle_encoding()
    settle_home()
    if arguments is None and is_called_by_mount(sys.argv):
        mount8()
    output_options = OutputOptions()
    try:
        code = satfs.main(arguments, prog_name="satfs", standalone_mode=False, obj=output_options)
        sys.stdout.flush()
    except click.ClickException as refused:
        refused.show()
        sys.exit(refused.exit_code)
    except click.Abort:
        sys.exit(Exit.INTERRUPTED)
    except Exception as error:  # the one boundary: users get a sentence for every failure
        if isinstance(error, OSError) and error.errno in _UNWRITABLE and error.filename is None:
            if error.errno != errno.EPIPE:
                print_error(f"the output cannot be written: {error.strerror}")
            detach(1)  # Python tries to write the rest when it ends
            sys.exit(Exit.FAILED)
        failure = failure_of(error, with_details=output_options.with_details)
        print_error(failure.sentence, failure.remedy, failure.details)
        sys.exit(failure.code)
    sys.exit(code if isinstance(code, int) else Exit.DONE)
