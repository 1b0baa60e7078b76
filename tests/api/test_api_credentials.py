"""Credentials, contracts and tokens: sent, refused and renewed, against a vendor in memory."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from fakes.vendor import CONTRACT, Vendor, some_tasks

from satfs.errors import (
    NeedsContract,
    NeedsLogin,
)


async def test_the_headers_are_those_of_the_documentation(
    vendor: Vendor, connect: Any, autojump_clock: Any
) -> None:
    """`authorizationToken` and the contract on API requests; neither on the token request."""
    async with connect() as aleph:
        await aleph.check()
    token, contracts, page = vendor.requests
    assert "authorizationtoken" not in token.headers
    assert contracts.headers["authorizationtoken"] == "Bearer token-number-1"
    assert page.headers["authorizationtoken"] == "Bearer token-number-1"
    assert page.headers["x-satellogic-contract-id"] == CONTRACT
    assert "authorization" not in page.headers
    assert page.headers["accept-encoding"] == "identity"
    assert page.headers["user-agent"].startswith("satfs/")


async def test_a_configured_contract_is_not_asked_for(
    vendor: Vendor, connect: Any, autojump_clock: Any
) -> None:
    """A fresh mount with a contract makes no request that it does not need."""
    async with connect(contract_id=CONTRACT) as aleph:
        await aleph.check()
    assert vendor.paths() == ["/oauth/token", "/tasking/tasks/"]


async def test_several_contracts_are_listed_for_people(
    vendor: Vendor, connect: Any, autojump_clock: Any, expect_log: Any
) -> None:
    """With several contracts one must be named; the error lists them."""
    expect_log("request refused")
    vendor.contracts = [{"contract_id": "cont.a", "name": "One"}, {"id": 2, "name": None}]
    async with connect() as aleph:
        with pytest.raises(NeedsContract, match=r"SATFS_CONTRACT_ID.*cont\.a \(One\), 2"):
            await aleph.tasks()
        assert [contract.contract_id for contract in await aleph.contracts()] == ["cont.a", "2"]


@pytest.mark.parametrize("next_style", ["absolute", "relative", "cursor", "absent"])
async def test_contracts_of_all_pages_count(
    vendor: Vendor, connect: Any, autojump_clock: Any, expect_log: Any, next_style: str
) -> None:
    """The only contract of the first page is not taken for the account's only one."""
    expect_log("request refused")
    vendor.pages_contracts, vendor.max_limit, vendor.next_style = True, 1, next_style
    vendor.contracts = [{"contract_id": f"cont.{name}"} for name in "abc"]
    async with connect() as aleph:
        with pytest.raises(NeedsContract, match=r"cont\.a.*cont\.b.*cont\.c"):
            await aleph.tasks()
        ids = [contract.contract_id for contract in await aleph.contracts()]
        assert ids == ["cont.a", "cont.b", "cont.c"]


async def test_the_service_for_contracts_may_read_the_standard_header(
    vendor: Vendor, connect: Any, autojump_clock: Any
) -> None:
    """It gets the token in both headers once it has refused the vendor's own; no other does."""
    vendor.wants_standard_header = True
    async with connect() as aleph:
        await aleph.check()
        await aleph.contracts()
    assert vendor.n_tokens == 1
    sent = [each.headers for each in vendor.requests if each.path == "/contracts"]
    assert ["authorization" in headers for headers in sent] == [False, True, True]
    assert all("authorizationtoken" in headers for headers in sent)


async def test_a_legacy_key_is_in_the_vendors_header_alone(
    vendor: Vendor, connect: Any, autojump_clock: Any, expect_log: Any
) -> None:
    expect_log("request refused")
    vendor.wants_standard_header = True
    async with connect(auth_mode="legacy") as aleph:
        with pytest.raises(NeedsLogin):
            await aleph.contracts()
    assert all("authorization" not in each.headers for each in vendor.requests)


async def test_the_only_contract_may_be_on_a_later_page(
    vendor: Vendor, connect: Any, autojump_clock: Any
) -> None:
    vendor.pages_contracts, vendor.max_limit = True, 1
    vendor.contracts *= 3
    async with connect() as aleph:
        await aleph.check()


async def test_a_contract_on_a_later_page_is_one_of_the_accounts(
    vendor: Vendor, connect: Any, autojump_clock: Any, expect_log: Any
) -> None:
    """A refused token is not taken for a wrong contract."""
    expect_log("request refused")
    vendor.pages_contracts, vendor.max_limit = True, 1
    vendor.contracts = [{"contract_id": "cont.a"}, {"contract_id": CONTRACT}]
    vendor.accept_token("given")
    async with connect(token="given", contract_id=CONTRACT) as aleph:
        vendor.fail_next(401, path="/tasking", times=99)
        with pytest.raises(NeedsLogin):
            await aleph.tasks()


async def test_a_contract_that_is_listed_twice_is_the_only_one(
    vendor: Vendor, connect: Any, autojump_clock: Any
) -> None:
    """As in every other listing, an id counts once."""
    vendor.contracts *= 2
    async with connect() as aleph:
        await aleph.check()


@pytest.mark.parametrize("contract_id", ["cont\xe9", "\u5951\u7d04", "a\nb"])
async def test_a_contract_that_no_header_can_hold_is_said_so(
    vendor: Vendor, connect: Any, autojump_clock: Any, expect_log: Any, contract_id: str
) -> None:
    """It is the account's contract all the same, and not a fault of ours."""
    expect_log("request refused")
    vendor.contracts = [{"contract_id": contract_id}]
    async with connect() as aleph:
        with pytest.raises(NeedsContract, match="cannot be sent"):
            await aleph.tasks()


async def test_no_contract_is_said_so(
    vendor: Vendor, connect: Any, autojump_clock: Any, expect_log: Any
) -> None:
    """An account without contracts cannot request anything."""
    expect_log("request refused")
    vendor.contracts = []
    async with connect() as aleph:
        with pytest.raises(NeedsContract, match="no contract"):
            await aleph.tasks()


async def test_a_wrong_contract_is_told_from_a_wrong_token(
    vendor: Vendor, connect: Any, autojump_clock: Any, expect_log: Any
) -> None:
    """The vendor sends 401 for both; the list of contracts shows which it was."""
    expect_log("request refused")
    async with connect(contract_id="cont.other") as aleph:
        with pytest.raises(NeedsContract, match=r"cont\.other.*" + CONTRACT):
            await aleph.tasks()
    assert vendor.n_tokens == 1, "the list of contracts was answered: the token is good"
    assert len(vendor.requests) < 6, "told soon"


async def test_a_ready_made_token_is_used_as_it_is(
    vendor: Vendor, connect: Any, autojump_clock: Any
) -> None:
    """With a token there is no token request."""
    vendor.accept_token("ready-made-token")
    async with connect(token="ready-made-token\n") as aleph:
        await aleph.check()
    assert vendor.paths() == ["/contracts", "/tasking/tasks/"]


async def test_a_refused_ready_made_token_says_what_to_do(
    vendor: Vendor, connect: Any, autojump_clock: Any, expect_log: Any
) -> None:
    """A token that is spent cannot be renewed: that is for its owner to do."""
    expect_log("request refused")
    async with connect(token="spent-token", contract_id=CONTRACT) as aleph:
        with pytest.raises(NeedsLogin, match=r"Unauthorized.*SATFS_TOKEN") as failure:
            await aleph.tasks()
        n_requests = len(vendor.requests)
        with pytest.raises(NeedsLogin):
            await aleph.tasks()
    assert "spent-token" not in str(failure.value)
    assert len(vendor.requests) == n_requests, "what was refused is not requested again at once"


async def test_a_refusal_is_forgotten_after_a_few_seconds(
    vendor: Vendor, connect: Any, autojump_clock: Any, expect_log: Any
) -> None:
    """An operator who mends the account need not remount."""
    expect_log("request refused")
    async with connect(token="late-token", contract_id=CONTRACT) as aleph:
        with pytest.raises(NeedsLogin):
            await aleph.tasks()
        vendor.accept_token("late-token")
        await trio.sleep(6)
        await aleph.tasks()


async def test_the_legacy_credential_needs_neither_token_nor_contract(
    vendor: Vendor, connect: Any, autojump_clock: Any
) -> None:
    """`Key,Secret` is the deprecated way; there is no token request and no contract."""
    vendor.tasks = some_tasks(2)
    async with connect(auth_mode="legacy") as aleph:
        assert len(await aleph.tasks()) == 2
    assert vendor.paths() == ["/tasking/tasks/"]
    assert "x-satellogic-contract-id" not in vendor.requests[0].headers


@pytest.mark.slow
async def test_a_revoked_token_is_renewed_once_for_all_pages(
    vendor: Vendor, connect: Any, autojump_clock: Any
) -> None:
    """A 401 in mid walk costs one token, however many requests met it."""
    vendor.tasks = some_tasks(2000)
    vendor.delay_s = 0.1

    def revoke(request: Any) -> None:
        if request.query.get("offset") == "100":
            vendor.meanwhile = None
            vendor.revoke_token()

    vendor.meanwhile = revoke
    async with connect() as aleph:
        assert len(await aleph.tasks()) == 2000
    assert vendor.n_tokens == 2


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("ahead_s", [0.02, 0.3, 1.0])
async def test_a_token_that_is_not_valid_yet_is_tried_again_itself(
    vendor: Vendor, connect: Any, autojump_clock: Any, ahead_s: float, status: int
) -> None:
    """The issuer's clock is ahead: at the start and after each renewal, one token is requested."""
    vendor.tasks = some_tasks(1)
    vendor.token_begins_s = ahead_s
    vendor.refuses_early_with = status
    async with connect(contract_id=CONTRACT) as aleph:
        assert len(await aleph.tasks()) == 1
        assert vendor.n_tokens == 1
        vendor.revoke_token()
        assert len(await aleph.tasks()) == 1
    assert vendor.n_tokens == 2


@pytest.mark.parametrize("n_refused", [1, 2, 4])
async def test_a_moment_of_401_passes(
    vendor: Vendor, connect: Any, autojump_clock: Any, n_refused: int
) -> None:
    """A good token that is refused for a moment is not the end of a walk."""
    vendor.tasks = some_tasks(1)
    async with connect(contract_id=CONTRACT) as aleph:
        await aleph.tasks()
        vendor.fail_next(401, path="/tasking", times=n_refused)
        assert len(await aleph.tasks()) == 1
        assert vendor.n_tokens <= 2


async def test_a_long_moment_of_401_is_asked_seldom(
    vendor: Vendor, connect: Any, autojump_clock: Any
) -> None:
    """Five seconds of 401 within the deadline: few requests, fewer tokens."""
    vendor.tasks = some_tasks(1)
    async with connect(contract_id=CONTRACT, metadata_deadline_s=15) as aleph:
        await aleph.tasks()
        vendor.requests.clear()
        vendor.refuses_until_s = trio.current_time() + 5
        assert len(await aleph.tasks()) == 1
        assert vendor.n_tokens <= 4
        assert len(vendor.requests) <= 20


async def test_a_token_given_by_hand_survives_a_moment_of_401(
    vendor: Vendor, connect: Any, autojump_clock: Any
) -> None:
    """Nobody can renew it: it is tried again itself."""
    vendor.tasks = some_tasks(1)
    vendor.accept_token("by-hand")
    async with connect(token="by-hand", contract_id=CONTRACT) as aleph:
        vendor.fail_next(401, path="/tasking", times=2)
        assert len(await aleph.tasks()) == 1
        vendor.fail_next(401, path="/tasking", times=3)
        assert len(await aleph.tasks()) == 1


async def test_a_token_that_was_never_good_is_told_soon_and_not_hammered(
    vendor: Vendor, connect: Any, autojump_clock: Any, expect_log: Any
) -> None:
    """As wrong as it looks, within three seconds and seven requests; then remembered."""
    expect_log("request refused")
    async with connect(token="wrong", contract_id=CONTRACT) as aleph:
        with trio.fail_after(3), pytest.raises(NeedsLogin, match="SATFS_TOKEN"):
            await aleph.tasks()
        n_requests = len(vendor.requests)
        assert n_requests <= 7
        with pytest.raises(NeedsLogin):
            await aleph.tasks()
        assert len(vendor.requests) == n_requests


async def test_a_token_refused_for_good_is_told_at_the_deadline_once(
    vendor: Vendor, connect: Any, autojump_clock: Any, expect_log: Any
) -> None:
    """It was good before, so that the call takes its whole time; the next call fails sooner."""
    expect_log("request refused")
    vendor.tasks = some_tasks(1)
    async with connect(contract_id=CONTRACT, metadata_deadline_s=15) as aleph:
        await aleph.tasks()
        vendor.requests.clear()
        vendor.refuses_until_s = trio.current_time() + 1000
        with trio.fail_after(16), pytest.raises(NeedsLogin):
            await aleph.tasks()
        assert len(vendor.requests) <= 40
        await trio.sleep(6)
        vendor.requests.clear()
        with trio.fail_after(5), pytest.raises(NeedsLogin):
            await aleph.tasks()
        assert len(vendor.requests) <= 12


async def test_a_token_is_renewed_before_it_ends(
    vendor: Vendor, connect: Any, autojump_clock: Any
) -> None:
    """Over several token lives no request meets a 401 and every life costs one token."""
    vendor.token_lifetime_s = 3600
    async with connect() as aleph:
        for _ in range(10):
            await aleph.check()
            await trio.sleep(1770)
    assert vendor.n_tokens == 5
