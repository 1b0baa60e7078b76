"""`satfs login`: take a credential, check it at the API, and keep it for later mounts."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
from msgspec.structs import replace

from satfs.api import secret_store, tokens
from satfs.api.secret_store import StoredLogin
from satfs.api.token_sources import source_of
from satfs.cli.account import Account, query_account
from satfs.cli.exit_codes import CREDENTIALS_ARE_MADE, Exit
from satfs.cli.flags import OutputOptions, account_flags, json_flag, verbosity_flags
from satfs.cli.hints import hint, home_name
from satfs.cli.install_helper import this_program
from satfs.cli.output import print_json, print_remark, print_sentence, show
from satfs.cli.profile_file import change_profile
from satfs.cli.systemd import UserManager
from satfs.errors import BadMountpoint, NeedsContract
from satfs.json_bytes import json_object
from satfs.model import Contract
from satfs.profiles import OriginKind, user_file
from satfs.setting_values import SecretStr
from satfs.settings import AuthMode, Resolved, SecretPlace, Settings, resolve_settings

#: Longest text that is read from a pipe: two lines of at most a few kilobytes.
_MAX_CHARACTERS = 64 * 1024
#: Kept in the profile when they were given for this login: the secret is for these addresses.
_ADDRESSES = ("api_url", "auth_url", "audience", "ca_file", "tls_strict")
#: Keys of the profile's table that would win over the new login, and are removed.
_RIVALS = ("token", "token_file", "token_command", "client_secret")
#: Origins of what was given for this login, and not written down for others.
_GIVEN_NOW = (OriginKind.FLAG, OriginKind.ENVIRONMENT, OriginKind.UNIT)
#: The text that a user types in place of a directory to mount nothing.
_NOWHERE = "-"


@click.command(
    epilog="""\b
Examples:
  satfs login                            prompts for client id and secret
  satfs login --profile harbour          … for another account, or contract
  pass show aleph | satfs login --client-id ID --contract CONTRACT
  satfs login --with-token < token.txt

Credentials are made in Aleph (aleph.satellogic.com), under My Profile. A pipe gives the secret; or
client id and secret, a line each; or a JSON object of both. Without a pipe and without a terminal,
SATFS_CLIENT_ID and SATFS_CLIENT_SECRET are used.
"""
)
@click.option("--with-token", is_flag=True, help="Log in with an existing token.")
@click.option(
    "--secret-store",
    "place",
    type=click.Choice([str(place) for place in SecretPlace]),
    help="Where to keep the secret [default: the keyring, if there is one].",
)
@json_flag
@account_flags
@verbosity_flags
@click.pass_obj
def login(
    output_options: OutputOptions,
    /,
    with_token: bool,
    place: str | None,
    as_json: bool,
    **flags: str | None,
) -> int:
    """Log in, so that mounts need no credentials in the environment.

    Checks the credentials with the API, and prompts for the contract if there are several. Then the
    secret is written to the system's keyring, or to a file that only you can read; the rest is
    written to config.toml, under the name of the profile. On a terminal, login offers to mount, and
    to install a service that mounts at each login.
    """
    before = resolve_settings(flags, may_be_new=True)
    is_token = with_token or flags.get("auth_mode") == str(AuthMode.TOKEN)
    given = _prompted_for(before.settings, with_token=is_token)
    secret = given["token" if is_token else "client_secret"]
    settings = resolve_settings({**flags, **given}, may_be_new=True).settings
    is_prompted = any(
        name == "contract_id" and origin.kind in _GIVEN_NOW
        for name, origin in before.origins.items()
    )

    def choose(settings: Settings, contracts: tuple[Contract, ...] | None) -> Settings:
        chosen = _chosen(settings.contract_id, contracts, is_prompted=is_prompted)
        return replace(settings, contract_id=chosen)

    account, settings = query_account(settings, output_options, choose)
    store = SecretPlace(place or ("keyring" if secret_store.keyring_name() else "file"))
    removed = _keep(before, settings, account, secret, store)
    if as_json:
        print_json(_record(settings, account, store))
    elif output_options.verbosity >= 0:
        _print_account(settings, account, store)
    for key in removed:
        print_remark(
            f"{key} of profile {settings.profile} was removed: it would win over the login."
        )
    _remark_rivals(settings)
    if not as_json and output_options.verbosity >= 0:
        if sys.stdin.isatty():
            return _offer_mount(settings.profile)
        _print_next_step(settings.profile)
    return Exit.DONE


# -- prompts ---------------------------------------------------------------------------------------


def _prompted_for(settings: Settings, *, with_token: bool) -> dict[str, Any]:
    """Return the settings that log in, as given now; a `SecretStr` is among them."""
    if with_token:
        return _token_given(settings)
    mode = AuthMode.LEGACY if settings.auth_mode is AuthMode.LEGACY else AuthMode.OAUTH
    client_id, secret = settings.client_id, settings.client_secret
    if sys.stdin.isatty():
        print_sentence(CREDENTIALS_ARE_MADE)
        client_id = click.prompt("Client id", default=client_id, err=True)
        typed = click.prompt(
            "Client secret (not shown)" + (" [the one set]" if secret else ""),
            hide_input=True,
            default="" if secret else None,
            show_default=False,
            err=True,
        )
        secret = SecretStr(typed.strip()) if typed.strip() else secret
    else:
        piped_id, piped = _piped_pair()
        client_id, secret = piped_id or client_id, piped or secret
    if secret is None:
        raise click.UsageError(
            "no secret: type it at a terminal, pipe it in, or set SATFS_CLIENT_SECRET"
        )
    if not client_id:
        raise click.UsageError("no client id: give --client-id ID, or pipe it in before the secret")
    return {"auth_mode": mode, "client_id": str(client_id).strip(), "client_secret": secret}


def _token_given(settings: Settings) -> dict[str, Any]:
    if sys.stdin.isatty():
        text = click.prompt("Token (not shown)", hide_input=True, err=True)
    else:
        text = sys.stdin.read(_MAX_CHARACTERS)
    parsed = tokens.parse(text, now_s=0.0)
    secret = settings.token if not text.strip() else parsed and SecretStr(parsed.token)
    if secret is None:
        raise click.UsageError("the input is no token")
    return {"auth_mode": AuthMode.TOKEN, "token": secret}


def _piped_pair() -> tuple[str | None, SecretStr | None]:
    """Return client id and secret as far as standard input holds them."""
    text = sys.stdin.read(_MAX_CHARACTERS).strip()
    if text.startswith("{"):
        record = json_object(text) or {}
        client_id, secret = record.get("client_id"), record.get("client_secret")
        if not (isinstance(client_id, str) and isinstance(secret, str)):
            raise click.UsageError("the JSON piped in holds no client_id and client_secret")
        return client_id, SecretStr(secret)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) > 2:
        raise click.UsageError("only two lines can be piped in: the client id, and the secret")
    return lines[0] if len(lines) == 2 else None, SecretStr(lines[-1]) if lines else None


def _chosen(
    named: str | None, contracts: tuple[Contract, ...] | None, *, is_prompted: bool
) -> str | None:
    """Return the contract to act for; None leaves it to the API."""
    if not contracts:
        return named
    ids = [str(contract.contract_id) for contract in contracts]
    if named in ids and (is_prompted or not sys.stdin.isatty()):
        return named
    listed = "; ".join(show(f"{contract.contract_id} ({contract.name})") for contract in contracts)
    if named is not None and is_prompted:
        raise NeedsContract(f"the contract {named!r} is not one of this account: {listed}")
    if len(ids) == 1:
        return ids[0]
    if not sys.stdin.isatty():
        raise NeedsContract(f"the account has several contracts; give --contract ID: {listed}")
    click.echo("The account has several contracts:", err=True)
    for number, contract in enumerate(contracts, 1):
        click.echo(
            show(f"  {number}  {contract.name or '(no name)'}  {contract.contract_id}"), err=True
        )
    number = click.prompt(
        "Act for which",
        type=click.IntRange(1, len(ids)),
        default=ids.index(named) + 1 if named in ids else None,
        err=True,
    )
    return ids[number - 1]


# -- keeping ---------------------------------------------------------------------------------------


def _keep(
    before: Resolved, settings: Settings, account: Account, secret: SecretStr, place: SecretPlace
) -> list[str]:
    """Keep it all; return the keys that had to leave the profile's table."""
    is_token = account.mode is AuthMode.TOKEN
    client_id = account.subject if is_token else settings.client_id
    kept = StoredLogin(account.mode, secret, client_id, settings.api_url, settings.auth_url)
    secret_store.keep(settings.profile, kept, place)
    changes: dict[str, str | None] = {
        "auth_mode": None if account.mode is AuthMode.OAUTH else str(account.mode),
        "client_id": client_id,
        "contract_id": settings.contract_id,
        "secret_store": str(place),
    }
    for name in _ADDRESSES:
        origin = before.origins.get(name)
        if origin is not None and origin.kind in _GIVEN_NOW:
            changes[name] = str(getattr(settings, name))
    table = f"[profiles.{settings.profile}]"
    removed = [
        name
        for name in _RIVALS
        if (origin := before.origins.get(name)) is not None
        and origin.kind is OriginKind.USER
        and origin.place.endswith(table)
    ]
    path = user_file(os.environ)
    change_profile(path, settings.profile, {**dict.fromkeys(_RIVALS), **changes})
    secret_store.forget(settings.profile, but=place)
    return removed


# -- output ----------------------------------------------------------------------------------------


def _record(settings: Settings, account: Account, place: SecretPlace) -> dict[str, Any]:
    return {
        "profile": settings.profile,
        "api_url": settings.api_url,
        "auth_mode": str(account.mode),
        "client_id": settings.client_id,
        "contract_id": settings.contract_id,
        "contract_name": account.contract.name if account.contract else None,
        "secret_store": str(place),
        "config_file": str(user_file(os.environ)),
    }


def _print_account(settings: Settings, account: Account, place: SecretPlace) -> None:
    client = settings.client_id or account.subject or "the token's owner"
    contract = account.contract
    acting = f", acting for {contract.name or contract.contract_id}" if contract else ""
    print_sentence(f"Logged in as {client}{acting}.")
    if place is SecretPlace.KEYRING:
        print_sentence(f"The secret is kept in the keyring ({secret_store.keyring_name()}).")
    else:
        path = home_name(secret_store.secret_file(settings.profile))
        what = (
            "The secret" if secret_store.keyring_name() else "There is no keyring here: the secret"
        )
        print_sentence(f"{what} is kept in {path}, which only you can read.")


def _print_next_step(profile: str) -> None:
    flag = "" if profile == "default" else f" --profile {shlex.quote(profile)}"
    print_sentence(f"To mount what was delivered: {hint(f'satfs mount{flag}')} DIRECTORY")
    install = hint(f"satfs service install {shlex.quote(profile)}")
    print_sentence(f"To mount it at each login, too: {install} DIRECTORY")


def _remark_rivals(settings: Settings) -> None:
    """Print a remark when a mount would not use the login that was stored just now."""
    now = resolve_settings({"profile": settings.profile})
    source = source_of(now.settings)
    origin = now.origins.get(source)
    if source != "secret_store" and origin is not None:
        where = origin.place or f"the environment (SATFS_{source.upper()})"
        print_remark(f"{source} is set in {where}, and wins over this login as long as it is.")


# -- the first mount -------------------------------------------------------------------------------


def _offer_mount(profile: str) -> int:
    """Mount *profile* where the user wants it, or install a service; return the exit code.

    Runs the program again, since a mount goes to the background by fork, before any event loop.
    """
    proposed = "~/aleph" if profile == "default" else f"~/aleph-{profile}"
    named = click.prompt(
        f"Mount it now? A directory, or {_NOWHERE} for not now", default=proposed, err=True
    ).strip()
    if named == _NOWHERE:
        _print_next_step(profile)
        return Exit.DONE
    directory = Path(os.path.expanduser(named)).absolute()
    is_service = UserManager().is_there and click.confirm(
        "Mount it at each login, too (a service of systemd)?", default=False, err=True
    )
    words = ["service", "install", profile] if is_service else ["mount", "--profile", profile]
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as failure:
        raise BadMountpoint(f"{show(str(directory))}: {os.strerror(failure.errno or 0)}") from None
    command = [*this_program(), *words, str(directory)]
    return subprocess.run(command, check=False).returncode  # noqa: S603 - this very program
