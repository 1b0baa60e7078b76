"""All requests from end to end, against a vendor in memory."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import httpx
import pytest
import trio
from fakes.vendor import API, CONTRACT, STORE, Vendor, some_scene, some_tasks

from satfs.api.client import MAX_LINK_BYTES
from satfs.api.partial_listing import UNFINISHED_S
from satfs.errors import (
    DeadlineReached,
    Garbled,
    NeedsContract,
    NeedsLogin,
    NotAllowed,
    NotThere,
    Throttled,
    Unreachable,
)
from satfs.model import AttachmentName, CaptureId, SceneId, TaskId

ZIP = AttachmentName("delivery_zip")
HTML = httpx.Response(200, content=b"<html><title>Maintenance</title></html>")


async def test_a_thousand_tasks_are_one_request_per_page(
    vendor: Vendor, connect: Any, autojump_clock: Any
) -> None:
    """1,000 tasks at 100 a page: ten requests for pages, one for the token, one for contracts."""
    vendor.tasks = some_tasks(1000)
    async with connect() as aleph:
        tasks = await aleph.tasks()
    assert [task.task_id for task in tasks] == [str(341000 + n) for n in range(1000)]
    assert vendor.n_asked("/tasking/tasks/") == 10
    assert len(vendor.asked) == 12


@pytest.mark.slow
async def test_ten_thousand_tasks_take_about_a_second(
    vendor: Vendor, connect: Any, autojump_clock: Any
) -> None:
    """A long listing is not a long wait: 100 pages of 100 ms each take about a second, not ten."""
    vendor.tasks = some_tasks(10_000)
    vendor.delay_s = 0.1
    async with connect() as aleph:
        began = trio.current_time()
        assert len(await aleph.tasks()) == 10_000
        assert trio.current_time() - began < 1.2
    assert vendor.n_asked("/tasking/tasks/") == 100


@pytest.mark.parametrize("next_style", ["absolute", "relative", "cursor", "absent"])
@pytest.mark.parametrize("max_limit", [500, 7])
@pytest.mark.parametrize("tells_count", [True, False])
async def test_every_way_of_paging_gives_every_task_once(
    vendor: Vendor,
    connect: Any,
    autojump_clock: Any,
    next_style: str,
    max_limit: int,
    tells_count: bool,
) -> None:
    """Absolute, relative, cursors, a limit that is cut silently: the listing is the same."""
    vendor.tasks = some_tasks(333)
    vendor.next_style, vendor.max_limit, vendor.tells_count = next_style, max_limit, tells_count
    async with connect(page_limit=50) as aleph:
        tasks = await aleph.tasks()
    if next_style == "absent" and not tells_count:
        # Nothing shows that there is more.
        assert len(tasks) == min(50, max_limit)
    else:
        assert [task.task_id for task in tasks] == [str(341000 + n) for n in range(333)]


async def test_a_listing_that_grows_meanwhile_is_followed_to_its_end(
    vendor: Vendor, connect: Any, autojump_clock: Any
) -> None:
    """An entry inserted between two pages shifts the others: none is lost, none shown twice."""
    vendor.tasks = some_tasks(250)

    def insert(asked: Any) -> None:
        if asked.query.get("offset") == "100":
            vendor.meanwhile = None
            vendor.tasks[:0] = [{"task_id": n} for n in range(60)]

    vendor.meanwhile = insert
    async with connect(api_concurrency=1) as aleph:
        ids = [task.task_id for task in await aleph.tasks()]
    assert len(ids) == len(set(ids))
    assert set(ids) >= {str(341000 + n) for n in range(250)}


async def test_a_listing_that_shrinks_meanwhile_ends_where_the_pages_say(
    vendor: Vendor, connect: Any, autojump_clock: Any
) -> None:
    """Pages expected from the first one's count may be gone when they are requested."""
    vendor.tasks = some_tasks(500)

    def withdraw(asked: Any) -> None:
        if asked.query.get("offset") == "100":
            vendor.meanwhile = None
            del vendor.tasks[150:]

    vendor.meanwhile = withdraw
    async with connect() as aleph:
        assert len(await aleph.tasks()) == 150


@pytest.mark.parametrize("n_gone", [1, 40, 60])
@pytest.mark.parametrize("at_offset", ["100", "400", "900"])
@pytest.mark.parametrize("n_at_once", [1, 8])
async def test_what_stays_in_a_listing_that_shrinks_is_listed(
    vendor: Vendor, connect: Any, autojump_clock: Any, n_gone: int, at_offset: str, n_at_once: int
) -> None:
    """Entries that move to pages that were requested already are found by reading once more."""
    vendor.tasks = some_tasks(1000)

    def withdraw(asked: Any) -> None:
        if asked.query.get("offset") == at_offset:
            vendor.meanwhile = None
            del vendor.tasks[:n_gone]

    vendor.meanwhile = withdraw
    async with connect(page_limit=50, api_concurrency=n_at_once) as aleph:
        ids = [task.task_id for task in await aleph.tasks()]
    assert ids == [str(341000 + n) for n in range(n_gone, 1000)]


@pytest.mark.slow
async def test_a_listing_longer_than_a_deadline_is_gone_on_with(
    vendor: Vendor, connect: Any, autojump_clock: Any
) -> None:
    """Without a count each page waits for the one before; no page is requested twice."""
    vendor.tasks = some_tasks(3000)
    vendor.next_style, vendor.tells_count = "cursor", False
    async with connect(page_limit=50) as aleph:
        await aleph.tasks()
    n_pages = vendor.n_asked("/tasking/tasks/")
    vendor.asked.clear()
    vendor.delay_s = 0.7
    n_late = 0
    async with connect(page_limit=50, metadata_deadline_s=15) as aleph:
        while True:
            try:
                tasks = await aleph.tasks()
                break
            except DeadlineReached:
                n_late += 1
    assert 1 <= n_late <= 3
    assert [task.task_id for task in tasks] == [str(341000 + n) for n in range(3000)]
    assert vendor.n_asked("/tasking/tasks/") <= n_pages + n_late
    # And it is forgotten after a while: the next reading is of one time.
    vendor.asked.clear()
    async with connect(page_limit=50, metadata_deadline_s=15) as aleph:
        with pytest.raises(DeadlineReached):
            await aleph.tasks()
        await trio.sleep(UNFINISHED_S + 1)
        vendor.asked.clear()
        vendor.delay_s = 0.0
        await aleph.tasks()
        assert vendor.n_asked("/tasking/tasks/") == n_pages


async def test_a_listing_that_ends_before_its_count_is_noticed(
    vendor: Vendor, connect: Any, autojump_clock: Any, expect_log: Any
) -> None:
    """`next: null` is the end, with any count; a difference between them is logged once."""
    expect_log("listing ended before its count")
    vendor.tasks = some_tasks(230)
    vendor.next_style = lambda url, offset: None
    async with connect(page_limit=50) as aleph:
        assert len(await aleph.tasks()) == 50
        assert len(await aleph.tasks()) == 50


@pytest.mark.parametrize(
    "following",
    [
        lambda url, offset: url,
        lambda url, offset: f"{API}/tasking/tasks/?limit=100&offset=0",
        lambda url, offset: f"{API}/tasking/tasks/?limit=100&offset={offset + 1}&x={offset}",
    ],
    ids=["itself", "the first", "ever another, nothing new"],
)
async def test_a_page_loop_is_an_error(
    vendor: Vendor, connect: Any, autojump_clock: Any, following: Any
) -> None:
    """A pager that goes in circles ends in an error, after a few requests."""
    vendor.tasks = some_tasks(1)
    vendor.next_style = following
    async with connect() as aleph:
        with pytest.raises(Garbled):
            await aleph.tasks()
    assert len(vendor.asked) < 20


async def test_an_endless_listing_ends_in_an_error_not_in_memory(
    vendor: Vendor, connect: Any, autojump_clock: Any
) -> None:
    """More entries than `max_entries` are taken for a broken pager."""
    vendor.tasks = some_tasks(5000)
    async with connect(max_entries=1000) as aleph:
        with pytest.raises(Garbled, match="1000"):
            await aleph.tasks()


def large_tasks(n_tasks: int, n_bytes: int) -> list[dict[str, Any]]:
    """Return tasks with texts that cannot be compressed to less than half of their bytes."""
    random = Random(7)
    return [{**task, "text": random.randbytes(n_bytes // 2).hex()} for task in some_tasks(n_tasks)]


@pytest.mark.slow
async def test_a_listing_of_large_records_ends_in_an_error_not_in_memory(
    vendor: Vendor, connect: Any, thread_clock: Any
) -> None:
    """More bytes than `listing_memory_bytes` are refused, also when no page is large."""
    vendor.tasks = large_tasks(250, 200_000)
    async with connect(listing_memory_bytes=16 * 2**20, page_limit=1) as aleph:
        with pytest.raises(Garbled, match=str(16 * 2**20)):
            await aleph.tasks()
        vendor.tasks = vendor.tasks[:50]
        assert len(await aleph.tasks()) == 50


@pytest.mark.slow
async def test_unfinished_listings_are_bounded_together(
    vendor: Vendor, connect: Any, thread_clock: Any
) -> None:
    """The listing that was continued least recently gives way; the last one can be continued."""
    records = [
        {"capture_id": f"c{n}", "status": "published", **task}
        for n, task in enumerate(large_tasks(140, 200_000))
    ]
    vendor.captures = {f"t{n}": records for n in range(3)}
    async with connect(
        listing_memory_bytes=16 * 2**20, page_limit=1, api_concurrency=1, metadata_deadline_s=15
    ) as aleph:
        vendor.delay_s = 0.25
        for n in range(3):
            with pytest.raises(DeadlineReached):
                await aleph.captures(TaskId(f"t{n}"))
        assert aleph._progress.n_bytes <= 16 * 2**20
        assert 0 < len(aleph._progress) < 3
        vendor.delay_s = 0
        vendor.asked.clear()
        assert len(await aleph.captures(TaskId("t2"))) == 140
        assert len(vendor.asked) < 100
        assert len(aleph._progress) == 0 or aleph._progress.n_bytes > 0


@pytest.mark.slow
async def test_listings_that_are_read_at_once_have_one_limit(
    vendor: Vendor, connect: Any, thread_clock: Any
) -> None:
    """Four that fit by themselves do not fit together: some fail, and give back what they took."""
    records = [
        {"capture_id": f"c{n}", "status": "published", **task}
        for n, task in enumerate(large_tasks(60, 200_000))
    ]
    vendor.captures = {f"t{n}": records for n in range(4)}
    vendor.delay_s = 0.1
    ended: Counter[str] = Counter()
    async with connect(listing_memory_bytes=16 * 2**20, page_limit=1) as aleph:

        async def fetch(task_id: str) -> None:
            try:
                ended[f"{len(await aleph.captures(TaskId(task_id)))} records"] += 1
            except Garbled as failure:
                ended[str(failure).partition(": ")[2]] += 1

        async with trio.open_nursery() as nursery:
            for task_id in vendor.captures:
                nursery.start_soon(fetch, task_id)
        refusal = "what is being listed takes more than 16777216 bytes of memory"
        assert set(ended) == {"60 records", refusal}
        assert aleph._progress.n_bytes == 0
        assert len(await aleph.captures(TaskId("t0"))) == 60
        assert aleph._progress.n_bytes == 0


@pytest.mark.parametrize(
    "elsewhere",
    [
        "https://evil.test/tasking/tasks/?limit=100&offset=100",
        "http://api.vendor.test/tasking/tasks/?limit=100&offset=100",
        "https://api.vendor.test:8443/tasking/tasks/?limit=100&offset=100",
        "https://user@evil.test/",
        "//evil.test/tasking/tasks/",
        "file:///etc/passwd",
        "https://[::1",
    ],
)
async def test_a_next_at_another_host_is_not_asked(
    vendor: Vendor, connect: Any, autojump_clock: Any, elsewhere: str
) -> None:
    """Credentials go to the scheme, host and port of the API alone, for any address in a page."""
    vendor.tasks = some_tasks(300)
    vendor.next_style = lambda url, offset: elsewhere
    async with connect() as aleph:
        with pytest.raises(Garbled):
            await aleph.tasks()
    assert all(asked.url.startswith((f"{API}/", "https://auth.")) for asked in vendor.asked)


async def test_a_redirect_inside_the_api_is_followed(
    vendor: Vendor, connect: Any, autojump_clock: Any
) -> None:
    """A moved path of the API's own is requested at its new place."""
    vendor.tasks = some_tasks(3)
    moved = httpx.Response(301, headers={"Location": "/tasking/tasks/?limit=100&offset=0"})
    vendor.fail_next(moved, path="/tasking")
    async with connect() as aleph:
        assert len(await aleph.tasks()) == 3


async def test_a_redirect_to_another_host_is_not_followed(
    vendor: Vendor, connect: Any, autojump_clock: Any
) -> None:
    """The credential does not travel to wherever a redirect points."""
    away = httpx.Response(302, headers={"Location": "https://evil.test/?steal"})
    vendor.fail_next(away, path="/tasking", times=2)
    async with connect() as aleph:
        with pytest.raises(Garbled, match="another host") as failure:
            await aleph.tasks()
    assert "steal" not in str(failure.value)


async def test_a_next_page_at_another_host_is_asked_at_the_configured_one(
    vendor: Vendor, connect: Any, autojump_clock: Any
) -> None:
    """Path and query count, the other name does not: the fake vendor fails on any other host."""
    vendor.tasks = some_tasks(7)
    vendor.max_limit = 3

    def internal(url: str, offset: int) -> str | None:
        following = f"http://internal.test:8080/tasking/tasks/?offset={offset + 3}"
        return following if offset + 3 < 7 else None

    vendor.next_style = internal
    async with connect() as aleph:
        assert len(await aleph.tasks()) == 7


# -- credentials and contracts -----------------------------------------------------------------


async def test_the_headers_are_those_of_the_documentation(
    vendor: Vendor, connect: Any, autojump_clock: Any
) -> None:
    """`authorizationToken` and the contract on API requests; neither on the token request."""
    async with connect() as aleph:
        await aleph.check()
    token, contracts, page = vendor.asked
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
    assert len(vendor.asked) < 6, "told soon"


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
        n_asked = len(vendor.asked)
        with pytest.raises(NeedsLogin):
            await aleph.tasks()
    assert "spent-token" not in str(failure.value)
    assert len(vendor.asked) == n_asked, "what was refused is not asked again at once"


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
    assert "x-satellogic-contract-id" not in vendor.asked[0].headers


@pytest.mark.slow
async def test_a_revoked_token_is_renewed_once_for_all_pages(
    vendor: Vendor, connect: Any, autojump_clock: Any
) -> None:
    """A 401 in mid walk costs one token, however many requests met it."""
    vendor.tasks = some_tasks(2000)
    vendor.delay_s = 0.1

    def revoke(asked: Any) -> None:
        if asked.query.get("offset") == "100":
            vendor.meanwhile = None
            vendor.revoke_token()

    vendor.meanwhile = revoke
    async with connect() as aleph:
        assert len(await aleph.tasks()) == 2000
    assert vendor.n_tokens == 2


# -- a token that is refused, and a token that is good -------------------------------------------


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
        vendor.asked.clear()
        vendor.refuses_until_s = trio.current_time() + 5
        assert len(await aleph.tasks()) == 1
        assert vendor.n_tokens <= 4
        assert len(vendor.asked) <= 20


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
        n_asked = len(vendor.asked)
        assert n_asked <= 7
        with pytest.raises(NeedsLogin):
            await aleph.tasks()
        assert len(vendor.asked) == n_asked


async def test_a_token_refused_for_good_is_told_at_the_deadline_once(
    vendor: Vendor, connect: Any, autojump_clock: Any, expect_log: Any
) -> None:
    """It was good before, so that the call takes its whole time; the next call fails sooner."""
    expect_log("request refused")
    vendor.tasks = some_tasks(1)
    async with connect(contract_id=CONTRACT, metadata_deadline_s=15) as aleph:
        await aleph.tasks()
        vendor.asked.clear()
        vendor.refuses_until_s = trio.current_time() + 1000
        with trio.fail_after(16), pytest.raises(NeedsLogin):
            await aleph.tasks()
        assert len(vendor.asked) <= 40
        await trio.sleep(6)
        vendor.asked.clear()
        with trio.fail_after(5), pytest.raises(NeedsLogin):
            await aleph.tasks()
        assert len(vendor.asked) <= 12


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


# -- failures ----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_what_passes_is_tried_again(
    vendor: Vendor, connect: Any, autojump_clock: Any, status: int
) -> None:
    """A burst of failures within the deadline is not the caller's business."""
    vendor.tasks = some_tasks(1)
    vendor.fail_next(status, path="/tasking", times=4)
    async with connect() as aleph:
        assert len(await aleph.tasks()) == 1


@pytest.mark.parametrize(
    "failure",
    [
        httpx.ConnectError("refused"),
        httpx.ReadError("reset"),
        httpx.RemoteProtocolError("cut"),
        httpx.ConnectTimeout("slow"),
        OSError("odd"),
    ],
)
async def test_broken_connections_are_tried_again(
    vendor: Vendor, connect: Any, autojump_clock: Any, failure: Exception
) -> None:
    """So are connections that break, and that never come about."""
    vendor.fail_next(failure, times=3)
    async with connect() as aleph:
        await aleph.check()


async def test_retry_after_is_honoured(vendor: Vendor, connect: Any, autojump_clock: Any) -> None:
    """The vendor requires seven seconds: the wait is seven, and not much more."""
    slow = httpx.Response(429, headers={"Retry-After": "7"}, json={"detail": "throttled"})
    vendor.fail_next(slow, path="/tasking")
    async with connect() as aleph:
        began = trio.current_time()
        await aleph.check()
        assert 7 <= trio.current_time() - began < 7.5


async def test_a_retry_after_past_the_deadline_is_an_error_at_once(
    vendor: Vendor, connect: Any, autojump_clock: Any
) -> None:
    """Nobody waits for what cannot be in time."""
    slow = httpx.Response(429, headers={"Retry-After": "90"}, json={"detail": "Request throttled."})
    vendor.fail_next(slow, path="/tasking")
    async with connect() as aleph:
        began = trio.current_time()
        with pytest.raises(Throttled, match="Request throttled") as failure:
            await aleph.check()
        assert trio.current_time() - began < 1
    assert failure.value.retry_after_s == 90


async def test_every_operation_ends_within_its_deadline(
    vendor: Vendor, connect: Any, autojump_clock: Any, expect_log: Any
) -> None:
    """A vendor that does not respond costs the deadline once; the next call fails at once."""
    expect_log("host counts as offline", origin="https://auth.vendor.test:443")
    vendor.is_silent = True
    async with connect(metadata_deadline_s=15, contract_id=CONTRACT) as aleph:
        began = trio.current_time()
        with pytest.raises(DeadlineReached):
            await aleph.tasks()
        assert trio.current_time() - began == pytest.approx(15, abs=0.1)
        with pytest.raises(Unreachable):
            await aleph.tasks()
        assert trio.current_time() - began == pytest.approx(15, abs=0.1)


async def test_recovery_is_noticed_within_seconds(
    vendor: Vendor, connect: Any, autojump_clock: Any, expect_log: Any
) -> None:
    """While the host is away calls fail at once; once it is back they work again soon."""
    expect_log("host counts as offline")
    async with connect() as aleph:
        await aleph.check()
        await trio.sleep(1)
        vendor.is_gone = True
        with pytest.raises(Unreachable):
            await aleph.check()
        with pytest.raises(Unreachable, match="offline"):
            await aleph.check()
        vendor.is_gone = False
        began = trio.current_time()
        while True:
            try:
                await aleph.check()
            except Unreachable:
                await trio.sleep(0.25)
            else:
                break
        assert trio.current_time() - began < 3


async def test_an_html_page_once_is_forgiven(
    vendor: Vendor, connect: Any, autojump_clock: Any
) -> None:
    """A load balancer's page in the place of JSON is gone a moment later."""
    vendor.tasks = some_tasks(1)
    vendor.fail_next(HTML, path="/tasking")
    async with connect() as aleph:
        assert len(await aleph.tasks()) == 1


async def test_an_html_page_twice_is_an_error(
    vendor: Vendor, connect: Any, autojump_clock: Any
) -> None:
    """…and when it is not, the error states that; it is no empty listing."""
    vendor.fail_next(HTML, path="/tasking", times=2)
    async with connect() as aleph:
        with pytest.raises(Garbled, match="HTML"):
            await aleph.tasks()
    assert vendor.n_asked("/tasking/tasks/") == 2


@pytest.mark.parametrize(
    ("status", "error"), [(403, NotAllowed), (404, NotThere), (410, NotThere), (400, Garbled)]
)
async def test_a_refusal_carries_the_vendors_words(
    vendor: Vendor, connect: Any, autojump_clock: Any, status: int, error: type[Exception]
) -> None:
    """The message has the vendor's own words: users search for them."""
    said = httpx.Response(status, json={"detail": "You may not.\x00\nGo away."})
    vendor.fail_next(said, path="/tasking", times=2)
    async with connect() as aleph:
        with pytest.raises(error, match=f"list tasks: .* {status}: You may not. Go away."):
            await aleph.tasks()


# -- scenes and links --------------------------------------------------------------------------


async def test_a_scene_is_found_by_its_path(
    vendor: Vendor, connect: Any, autojump_clock: Any
) -> None:
    """One request, when the inferred path exists."""
    vendor.scenes = {"c": [some_scene("s1", "c"), some_scene("s2", "c")]}
    async with connect() as aleph:
        assert (await aleph.scene(SceneId("s2"))).scene_id == "s2"
    assert vendor.paths()[2:] == ["/telluric/scenes/s2/"]


async def test_a_scene_is_found_by_the_filter_when_it_has_no_path(
    vendor: Vendor, connect: Any, autojump_clock: Any
) -> None:
    """The gateway sends 403 for a path that it does not know."""
    vendor.scenes = {"c": [some_scene("s1", "c")]}
    vendor.knows_scene_path = False
    async with connect() as aleph:
        assert (await aleph.scene(SceneId("s1"))).scene_id == "s1"
        with pytest.raises(NotThere):
            await aleph.scene(SceneId("s2"))


async def test_only_the_exact_scene_counts(
    vendor: Vendor, connect: Any, autojump_clock: Any
) -> None:
    """A service that ignores the filter lists other scenes, which are not the one."""
    other = httpx.Response(200, json={"results": [some_scene("s1", "c")]})
    vendor.fail_next(other, path="/telluric/scenes/", times=4)
    async with connect() as aleph:
        with pytest.raises(NotThere):
            await aleph.scene(SceneId("s2"))


async def test_a_delivery_in_place_of_a_link_is_not_fetched(
    vendor: Vendor, connect: Any, autojump_clock: Any
) -> None:
    """A response that should name the bytes, and sends them, is ended after a megabyte."""
    sent: list[int] = []

    class Delivery(httpx.AsyncByteStream):
        n_left = 300

        def __aiter__(self) -> Delivery:
            return self

        async def __anext__(self) -> bytes:
            if not self.n_left:
                raise StopAsyncIteration
            self.n_left -= 1
            sent.append(100_000)
            return bytes(100_000)

    vendor.signing = lambda scene, name: httpx.Response(200, stream=Delivery())
    async with connect() as aleph:
        with pytest.raises(Garbled):
            await aleph.sign(SceneId("s"), ZIP)
    assert sum(sent) < 3 * MAX_LINK_BYTES


@pytest.mark.parametrize("signing", ["json", "redirect"])
async def test_a_link_is_signed_and_tells_its_end(
    vendor: Vendor, connect: Any, autojump_clock: Any, signing: str
) -> None:
    """The URL itself states when it expires; a 302 in place of JSON is accepted."""
    vendor.signing = signing
    async with connect() as aleph:
        link = await aleph.sign(SceneId("a/b"), ZIP)
    assert link.url.startswith(f"{STORE}/bucket/a/b/delivery_zip?X-Amz-")
    assert link.expires_at_s == 1770286500 + 3600
    asked = vendor.asked[-1]
    assert asked.path == "/telluric/scenes/a%2Fb/attachments/delivery_zip/download/"
    assert asked.query == {"redirect": "false"}


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("file:///etc/passwd", NotAllowed),
        ("http://store.vendor.test/x", NotAllowed),
        ("https://169.254.169.254/latest/meta-data", NotAllowed),
        ("https://10.0.0.8/x?X-Amz-Signature=5f0c", NotAllowed),
        ("https://user:password@store.vendor.test/x", NotAllowed),
        ("nonsense", NotAllowed),
        ("", Garbled),
        (None, Garbled),
        (["https://store.vendor.test"], Garbled),
    ],
)
async def test_a_link_that_leads_astray_is_refused(
    vendor: Vendor, connect: Any, autojump_clock: Any, url: Any, error: type[Exception]
) -> None:
    """The link rule holds for what the API signs; the message shows no query and no password."""
    vendor.signing = lambda scene, name: httpx.Response(200, json={"url": url})
    async with connect() as aleph:
        with pytest.raises(error) as failure:
            await aleph.sign(SceneId("s"), ZIP)
    assert "5f0c" not in str(failure.value)
    assert "password" not in str(failure.value)


@pytest.mark.parametrize("scene_id", ["", ".", ".."])
async def test_an_id_that_would_ask_another_question_is_never_sent(
    vendor: Vendor, connect: Any, autojump_clock: Any, scene_id: str
) -> None:
    """Dots as a path segment are resolved by every library, and would reach another endpoint."""
    async with connect() as aleph:
        with pytest.raises(NotThere):
            await aleph.sign(SceneId(scene_id), ZIP)
        with pytest.raises(NotThere):
            await aleph.sign(SceneId("s"), AttachmentName(scene_id))
        with pytest.raises(NotThere):
            await aleph.captures(TaskId(scene_id))
        with pytest.raises(NotThere):
            await aleph.task(TaskId(scene_id))
    assert vendor.asked == []


@pytest.mark.parametrize("id", ["a/b", "../x", "a?b=c&d", "a#b", "a%2Fb", "ü€😀", "a b", "\x00\n"])
async def test_any_other_id_arrives_as_it_is(
    vendor: Vendor, connect: Any, autojump_clock: Any, id: str
) -> None:
    """An id with any characters reaches the vendor as that id, in the same request."""
    vendor.captures = {id: [{"capture_id": id, "status": "published"}]}
    vendor.scenes = {id: [some_scene(id, id)]}
    async with connect() as aleph:
        assert [c.capture_id for c in await aleph.captures(TaskId(id))] == [id]
        assert [s.scene_id for s in await aleph.scenes(CaptureId(id))] == [id]
        assert (await aleph.scene(SceneId(id))).scene_id == id


async def test_entries_without_id_are_skipped_and_counted(
    vendor: Vendor, connect: Any, autojump_clock: Any, expect_log: Any
) -> None:
    """One odd entry does not cost the listing."""
    expect_log("entries without id skipped", what="list tasks", n=4)
    vendor.tasks = [{"task_id": 1}, {"task_id": None}, {}, None, "x", {"task_id": "1"}]
    async with connect() as aleph:
        assert [task.task_id for task in await aleph.tasks()] == ["1"]


async def test_no_error_holds_a_secret(
    vendor: Vendor, connect: Any, autojump_clock: Any, expect_log: Any
) -> None:
    """A vendor that echoes our own credential is quoted without it."""
    expect_log("request refused")

    async with connect() as aleph:
        await aleph.check()
        for status in (400, 403, 404, 500):
            echo = {"message": "you sent Bearer token-number-1 and the-secret-of-the-client"}
            vendor.fail_next(httpx.Response(status, json=echo), path="/tasking", times=99)
            with pytest.raises(Exception) as failure:  # noqa: PT011 - of every kind
                await aleph.tasks()
            vendor._planned.clear()
            assert "token-number" not in str(failure.value)
            assert "secret-of" not in str(failure.value)
        vendor.revoke_token()
        vendor.contracts = []
        with pytest.raises(NotAllowed) as refusal:
            await aleph.tasks()
        assert "token-number" not in str(refusal.value)


@pytest.mark.parametrize("entry", [7, "two", None, {}, {"task_id": {"value": 1}}])
async def test_a_page_of_nothing_but_nonsense_is_no_empty_listing(
    vendor: Vendor, connect: Any, autojump_clock: Any, entry: Any
) -> None:
    """Entries without any id are a broken response: the earlier listing must not disappear."""
    vendor.tasks = [entry, entry]
    async with connect() as aleph:
        with pytest.raises(Garbled):
            await aleph.tasks()
