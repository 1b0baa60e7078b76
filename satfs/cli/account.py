"""Request the account from the API: shared by `satfs login` and `satfs whoami`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from msgspec.structs import replace

from satfs.api.client import Aleph, http_for
from satfs.cli.flags import OutputOptions
from satfs.cli.log_setup import logging_quietly
from satfs.cli.waiting import hurried, run_alone, waiting_shown
from satfs.errors import Garbled, NeedsContract, NeedsLogin, NotAllowed, NotThere
from satfs.model import Contract, ContractId
from satfs.settings import AuthMode, Settings

#: Returns the settings with a contract, from those without and the contracts that there are; None
#: when they cannot be listed.
Choice = Callable[[Settings, tuple[Contract, ...] | None], Settings]


@dataclass(frozen=True, slots=True)
class Account:
    """The account that a credential belongs to. Holds no secret."""

    client_id: str | None
    #: The subject of the token; not verified.
    subject: str | None
    mode: AuthMode
    #: The setting that secret or token come from.
    source: str
    contract: Contract | None
    #: None when the API does not list them.
    contracts: tuple[Contract, ...] | None
    #: When the token expires, in seconds since the epoch; None when that is not known.
    token_expires_at_s: float | None


def query_account(
    settings: Settings, output_options: OutputOptions, choose: Choice | None = None
) -> tuple[Account, Settings]:
    """Log in with *settings*; return the account, with the settings that *choose* has chosen.

    Waits for the network. The credential and the contract are both accepted when this returns.

    Raises:
        NeedsLogin, NeedsContract: one of them is refused or missing.
        Unreachable, Garbled: the API is away, or makes no sense.
        Exception: *choose* raised it.
    """
    with (
        logging_quietly(output_options),
        waiting_shown(settings, is_quiet=output_options.verbosity < 0),
    ):
        account, kept = run_alone(_query, hurried(settings), choose)
        deadline = {"metadata_deadline_s": settings.metadata_deadline_s}
        return account, replace(kept, **deadline)


async def _query(settings: Settings, choose: Choice | None) -> tuple[Account, Settings]:
    async with http_for(settings) as http:
        aleph = Aleph(http, settings)
        contracts = await _contracts(aleph)
        if choose is not None and aleph.credential.needs_contract:
            settings = choose(settings, contracts)
            aleph = Aleph(http, settings)
        await aleph.check()
        credential = aleph.credential
        account = Account(
            settings.client_id,
            credential.token_subject,
            credential.mode,
            credential.source,
            _chosen(settings, contracts) if credential.needs_contract else None,
            contracts,
            credential.token_expires_at_s,
        )
        return account, settings


async def _contracts(aleph: Aleph) -> tuple[Contract, ...] | None:
    if not aleph.credential.needs_contract:
        return None
    try:
        return tuple(await aleph.contracts())
    except (NeedsLogin, NeedsContract):
        raise
    except (NotThere, NotAllowed, Garbled):
        return None


def _chosen(settings: Settings, contracts: tuple[Contract, ...] | None) -> Contract | None:
    known = contracts or ()
    if settings.contract_id is None:
        return known[0] if len(known) == 1 else None
    named = (contract for contract in known if contract.contract_id == settings.contract_id)
    return next(named, Contract(ContractId(settings.contract_id), ""))
