"""The account's contracts: all of them, from one page or several, and the one to name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, cast

from satfs.api import record_parsers, wire
from satfs.api.credential import TOKEN_HEADER
from satfs.api.pagination import PageChain
from satfs.api.record_list import RecordList, joined
from satfs.errors import NeedsContract, SatfsError
from satfs.model import Contract, ContractId
from satfs.net.responses import Response
from satfs.redaction import for_people

CONTRACT_HEADER: Final = "X-Satellogic-Contract-Id"


def headers_for(headers: Mapping[str, str], *, with_standard: bool) -> dict[str, str]:
    """Return *headers* for a request for contracts, which names none.

    *with_standard*: the token is in `Authorization` as well. Editions of the vendor's documentation
    differ in the header that this one service reads: that one, or the one of all others.
    """
    found = {name: value for name, value in headers.items() if name != CONTRACT_HEADER}
    token = found.get(TOKEN_HEADER, "")
    if with_standard and token.startswith("Bearer "):
        found["Authorization"] = token
    return found


def page_of(response: Response) -> wire.Page:
    """Return the page of contracts in *response*; raises Garbled when it is none."""
    link = response.headers.get("link", "")
    return wire.page_of(response.body, record_parsers.contract, link)


async def all_pages(
    first_url: str, max_entries: int, get_page: Callable[[str], Awaitable[wire.Page]]
) -> tuple[Contract, ...]:
    """Return the contracts of the page at *first_url* and of those that follow it, each id once.

    Raises what *get_page* raises, and `Garbled` for a broken pager.
    """
    chain = PageChain(first_url, max_entries)
    pages: list[RecordList[Contract]] = []
    contracts: tuple[Contract, ...] = ()
    while chain.next_url is not None:
        try:
            page = await get_page(chain.next_url)
        except SatfsError as absence:
            if chain.skips(absence):
                continue
            raise
        pages.append(cast(RecordList[Contract], page.entries))
        n_before, contracts = len(contracts), tuple(joined(record_parsers.contract, pages))
        chain.take(page, len(contracts) - n_before)
    return contracts


def only_one(contracts: Sequence[Contract]) -> ContractId:
    """Return the id of the account's only contract.

    Raises:
        NeedsContract: it has none, or several of which the user has to name one.
    """
    if len(contracts) == 1:
        return contracts[0].contract_id
    if not contracts:
        raise NeedsContract("the account has no contract; the credential was made without one")
    raise NeedsContract(
        "the account has several contracts; set SATFS_CONTRACT_ID to one of: " + listed(contracts)
    )


def listed(contracts: Sequence[Contract]) -> str:
    """Return *contracts* as people read them."""
    return ", ".join(
        for_people(f"{contract.contract_id} ({contract.name})") for contract in contracts
    )
