"""Flags that several commands share, what a shell completes for them, and groups of commands."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

import click
from click.shell_completion import CompletionItem
from msgspec import Struct

from satfs.cli.mount_options import secret_refusal
from satfs.cli.output import show
from satfs.errors import BadSettings
from satfs.mountpoints import satfs_mounts

Command = TypeVar("Command", bound=Callable[..., Any])


class LogFormat(StrEnum):
    """How a log line is written."""

    CONSOLE = "console"  #: for people
    JSON = "json"  #: one object a line, for programs


class OutputOptions(Struct):
    """How much, where and how one run of the program prints and logs.

    *verbosity* is the number of `-v`, less the number of `-q`.
    """

    verbosity: int = 0
    log_format: LogFormat = LogFormat.CONSOLE
    log_file: Path | None = None

    @property
    def with_details(self) -> bool:
        """Return whether a failure is shown with its traceback."""
        return self.verbosity >= 2

    @property
    def level(self) -> int:
        """The level from which on lines are logged."""
        if self.verbosity < 0:
            return logging.ERROR
        return (logging.WARNING, logging.INFO, logging.DEBUG)[min(self.verbosity, 2)]


def _verbosity(context: click.Context, parameter: click.Parameter, value: int) -> None:
    context.ensure_object(OutputOptions).verbosity += -value if parameter.name == "quiet" else value


def _log_file(context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    if value:
        context.ensure_object(OutputOptions).log_file = Path(os.path.expanduser(value)).absolute()


def _log_format(context: click.Context, _parameter: click.Parameter, value: str | None) -> None:
    if value:
        context.ensure_object(OutputOptions).log_format = LogFormat(value)


def verbosity_flags(command: Command) -> Command:
    """Add `-v` and `-q`, which `OutputOptions` reads."""
    command = click.option(
        "-q",
        "--quiet",
        count=True,
        is_eager=True,  # before --version, which prints more with -v
        expose_value=False,
        callback=_verbosity,
        help="Print less.",
    )(command)
    return click.option(
        "-v",
        "--verbose",
        count=True,
        is_eager=True,
        expose_value=False,
        callback=_verbosity,
        help="Print more: -v adds information, -vv everything, with tracebacks.",
    )(command)


def log_flags(command: Command) -> Command:
    """Add `--log-file` and `--log-format`, which `OutputOptions` reads."""
    command = click.option(
        "--log-format",
        type=click.Choice([str(choice) for choice in LogFormat]),
        expose_value=False,
        callback=_log_format,
        help="Format of log lines.",
    )(command)
    return click.option(
        "--log-file",
        metavar="FILE",
        shell_complete=values_for("FILE"),
        expose_value=False,
        callback=_log_file,
        help="Log there [default: the terminal; in the background, the system log].",
    )(command)


#: `--json`, the same for every command that has it.
json_flag = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")

#: Flag, setting, what stands for its value, help. The other settings are set by environment or -o.
SETTING_FLAGS: Final = (
    ("--profile", "profile", "NAME", "The profile in config.toml to use."),
    ("--api-url", "api_url", "URL", "Base of the API."),
    ("--auth-url", "auth_url", "URL", "The OAuth token endpoint."),
    ("--auth-mode", "auth_mode", "auto|oauth|token|legacy", "How to authenticate at the API."),
    ("--client-id", "client_id", "ID", "The OAuth client id."),
    ("--contract", "contract_id", "ID", "The contract to act for."),
    ("--ca-file", "ca_file", "FILE", "Certificate authorities to trust besides the system's."),
    ("--cache-dir", "cache_dir", "DIR", "Where fetched blocks and listings are kept."),
    ("--cache-size", "cache_bytes", "SIZE", "Limit of the bytes kept on disk, such as 20GB."),
    ("--egress-limit", "egress_limit", "SIZE", "Limit of the bytes fetched a day, such as 50GB."),
    ("--contents", "contents", "visible|hidden|off", "Show the members of each zip."),
    ("--stac", "stac", "full|records|off", "Show STAC catalogues and items."),
    ("--listing-ttl", "listing_ttl_s", "SECONDS", "How long a listing is used."),
    ("--workers", "workers", "N", "Processes that receive bulk data."),
    ("--max-connections", "max_connections", "N", "Connections to the store at once."),
)
#: Those of them that name the account and the API.
ACCOUNT_SETTINGS: Final = frozenset(
    {"profile", "api_url", "auth_url", "auth_mode", "client_id", "contract_id", "ca_file"}
)
#: Flags that users try, and must not use: ps would show their values to every user.
_SECRET_FLAGS: Final = (
    ("--client-secret", "client_secret"),
    ("--secret", "client_secret"),
    ("--token", "token"),
)


def profile_flag(command: Command) -> Command:
    """Add `--profile` alone; it sends text, or None."""
    return _flags_for(command, frozenset({"profile"}))


def setting_flags(command: Command) -> Command:
    """Add a flag for each setting that people change often; each sends text, or None.

    Flags for secrets are there to be refused with a reason.
    """
    return _flags_for(command, frozenset(setting for _, setting, *_ in SETTING_FLAGS))


def account_flags(command: Command) -> Command:
    """Add those of `setting_flags` that name the account and the API."""
    return _flags_for(command, ACCOUNT_SETTINGS)


def _flags_for(command: Command, settings: frozenset[str]) -> Command:
    for flag, setting in reversed(_SECRET_FLAGS):
        command = click.option(
            flag,
            hidden=True,
            is_eager=True,
            expose_value=False,
            is_flag=False,
            flag_value="",
            callback=_refuse(flag, setting),
        )(command)
    for flag, setting, metavar, text in reversed(SETTING_FLAGS):
        if setting in settings:
            command = click.option(
                flag, setting, metavar=metavar, help=text, shell_complete=values_for(metavar)
            )(command)
    return command


def _refuse(flag: str, setting: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def refuse(_context: click.Context, _parameter: click.Parameter, value: Any) -> None:
        if value is not None:
            raise click.UsageError(secret_refusal(flag, setting))

    return refuse


class Commands(click.Group):
    """A group of commands; the error for an unknown name proposes the nearest command."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that *args* begin with, its name, and the rest of them.

        Raises:
            click.UsageError: no command has that name.
        """
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            from satfs.settings import did_you_mean  # a tenth of a second, for a mistake only

            there_are = self.list_commands(ctx)
            ctx.fail(f"There is no command {name!r}{did_you_mean(name, there_are)}.")
        return super().resolve_command(ctx, args)


Offer: TypeAlias = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def complete_directories(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Offer what the shell itself finds: directories."""
    return [CompletionItem(incomplete, type="dir")]


def complete_mountpoints(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Offer the mountpoints of satfs that are there, or any directory where none fits.

    Only mountpoints of this user and of root: another user may have chosen a misleading name. None
    with a control character, which a shell or a terminal might act on. Reads the kernel's table of
    mounts only: a mount that does not respond blocks no shell.
    """
    given = set(context.params.get(parameter.name or "") or ())
    owners = (os.getuid(), 0, None)
    mounted = (str(each.mountpoint) for each in satfs_mounts() if each.user in owners)
    places = {place for place in mounted if show(place) == place} - given
    fitting = sorted(place for place in places if place.startswith(incomplete))
    if not fitting:
        return complete_directories(context, parameter, incomplete)
    return [CompletionItem(place, help="satfs") for place in fitting]


def complete_profiles(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Offer the profiles of config.toml; none where it cannot be read."""
    from satfs.settings import resolve_settings  # a tenth of a second that flags need not wait for

    try:
        names = resolve_settings({}).profiles
    except BadSettings:
        return []
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


def _place_argument(offer: Offer) -> Callable[[Command], Command]:
    return click.argument(
        "mountpoint", metavar="[MOUNTPOINT]", required=False, shell_complete=offer
    )


#: A place that may be left out: one that is mounted, or any directory.
mounted_argument = _place_argument(complete_mountpoints)
directory_argument = _place_argument(complete_directories)


def values_for(metavar: str) -> Offer | None:
    """Return what to offer for a flag whose help shows *metavar* for its value; None: nothing."""
    if "|" in metavar:
        choices = metavar.split("|")
        return lambda _context, _parameter, incomplete: [
            CompletionItem(choice) for choice in choices if choice.startswith(incomplete)
        ]
    return {"DIR": complete_directories, "FILE": complete_paths, "NAME": complete_profiles}.get(
        metavar
    )


def complete_paths(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Offer what the shell itself finds: files and directories."""
    return [CompletionItem(incomplete, type="file")]
