"""`satfs whoami`: the account, the contract and the validity of the token, as the API has them."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any, Final

import click
from rich.table import Table
from rich.text import Text

from satfs.cli.account import Account, query_account
from satfs.cli.flags import OutputOptions, account_flags, json_flag, verbosity_flags
from satfs.cli.output import print_json, print_table, show
from satfs.humanize import format_duration
from satfs.model import Contract
from satfs.settings import AuthMode, Settings, load_settings

#: The name of each source, and the credential that it provides.
_SOURCES: Final = {
    "token": "a token that was set",
    "token_file": "the token in {token_file}",
    "token_command": "the token that token_command prints",
    "client_secret": "a client secret that was set",
    "secret_store": "the login kept in the {secret_store}",
}


@click.command(
    epilog="""\b
Examples:
  satfs whoami
  satfs whoami --profile harbour --json
"""
)
@json_flag
@account_flags
@verbosity_flags
@click.pass_obj
def whoami(output_options: OutputOptions, /, as_json: bool, **flags: str | None) -> None:
    """Show the account, the contract and the validity of the token, as the API has them."""
    account, settings = query_account(load_settings(**flags), output_options)
    if as_json:
        print_json(_record(settings, account))
        return
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for label, value in _rows(settings, account):
        table.add_row(Text(label, "dim"), Text(show(value)))
    print_table(table)


def _rows(settings: Settings, account: Account) -> list[tuple[str, str]]:
    source = _SOURCES[account.source].format(
        token_file=settings.token_file, secret_store=settings.secret_store
    )
    client = account.client_id if account.mode is not AuthMode.TOKEN else None
    rows = [
        ("profile", settings.profile),
        ("account", client or account.subject or "(the token does not state it)"),
        ("API", settings.api_url),
        ("logs in by", f"{source} ({account.mode})"),
    ]
    if account.contract is not None:
        rows.append(("contract", _named(account.contract)))
    others = [contract for contract in account.contracts or () if contract != account.contract]
    rows += [("other contract", _named(contract)) for contract in others]
    if account.mode is not AuthMode.LEGACY:
        rows.append(("token", _life(account.token_expires_at_s, time.time())))
    return rows


def _named(contract: Contract) -> str:
    return f"{contract.name} ({contract.contract_id})" if contract.name else contract.contract_id


def _life(expires_at_s: float | None, now_s: float) -> str:
    if expires_at_s is None:
        return "does not state when it expires"
    until = datetime.fromtimestamp(expires_at_s, UTC).strftime("%Y-%m-%d %H:%M UTC")
    if expires_at_s <= now_s:
        return f"states that it expired {until}"
    return f"{format_duration(expires_at_s - now_s)} left, until {until}"


def _record(settings: Settings, account: Account) -> dict[str, Any]:
    expires_at_s = account.token_expires_at_s
    contracts = account.contracts
    return {
        "profile": settings.profile,
        "api_url": settings.api_url,
        "auth_mode": str(account.mode),
        "source": account.source,
        "client_id": account.client_id,
        "subject": account.subject,
        "contract_id": account.contract.contract_id if account.contract else None,
        "contract_name": account.contract.name if account.contract else None,
        "contracts": None
        if contracts is None
        else [{"contract_id": each.contract_id, "name": each.name} for each in contracts],
        "token_expires_at": None
        if expires_at_s is None
        else datetime.fromtimestamp(expires_at_s, UTC).isoformat(timespec="seconds"),
        "token_left_s": None if expires_at_s is None else round(expires_at_s - time.time()),
    }
