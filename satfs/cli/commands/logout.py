"""`satfs logout`: forget what `satfs login` has kept."""

from __future__ import annotations

import os

import click

from satfs.api import secret_store
from satfs.cli.flags import OutputOptions, json_flag, profile_flag, verbosity_flags
from satfs.cli.hints import hint, shell_path
from satfs.cli.mount_status import mounts_of_user
from satfs.cli.output import print_json, print_remark, print_sentence
from satfs.cli.profile_file import change_profile
from satfs.profiles import OriginKind, user_file
from satfs.settings import SecretPlace, resolve_settings

#: Keys that a login has written to the profile and that make no sense without it.
_WRITTEN = ("auth_mode", "client_id", "contract_id", "secret_store")
_PLACES = {SecretPlace.KEYRING: "the keyring", SecretPlace.FILE: "its file"}


@click.command(
    epilog="""\b
Examples:
  satfs logout
  satfs logout --profile harbour
"""
)
@json_flag
@profile_flag
@verbosity_flags
@click.pass_obj
def logout(output_options: OutputOptions, /, as_json: bool, profile: str | None) -> None:
    """Forget the login of a profile: its secret, and its values in config.toml.

    Other settings of the profile stay. A running mount uses its token until it is unmounted, or the
    token expires.
    """
    before = resolve_settings({"profile": profile}, may_be_new=True)
    name = before.settings.profile
    found = secret_store.forget(name)
    change_profile(user_file(os.environ), name, dict.fromkeys(_WRITTEN))
    if as_json:
        print_json({"profile": name, "forgotten": [str(place) for place in found]}, is_line=True)
    elif output_options.verbosity >= 0:
        if found:
            places = " and ".join(_PLACES[place] for place in found)
            print_sentence(f"Logged out of profile {name}; its secret is gone from {places}.")
        else:
            print_sentence(f"There was no login for profile {name}; nothing was removed.")
    for secret in ("client_secret", "token", "token_file", "token_command"):
        origin = before.origins.get(secret)
        if origin is not None and origin.kind is not OriginKind.DEFAULT:
            where = origin.place or "the environment"
            print_remark(f"{secret} is set in {where}, and still logs in.")
    for mounted in mounts_of_user():
        if found and mounted.source == f"satfs:{name}":
            print_remark(
                f"The mount at {mounted.mountpoint} goes on with the token it has;"
                f" to end it: {hint(f'satfs umount {shell_path(mounted.mountpoint)}')}"
            )
