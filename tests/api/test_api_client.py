"""All requests from end to end, against a vendor in memory."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import httpx
import pytest
import trio
from fakes.vendor import API, Vendor, some_tasks

from satfs.api.partial_listing import UNFINISHED_S
from satfs.demo.page_forms import FORMS
from satfs.errors import (
    DeadlineReached,
    Garbled,
)
from satfs.model import TaskId
from satfs.net.retry import MAX_GARBLED


async def test_a_thousand_tasks_are_one_request_per_page(
    vendor: Vendor, connect: Any, autojump_clock: Any
) -> None:
    """1,000 tasks at 100 a page: ten requests for pages, one for the token, one for contracts."""
    vendor.tasks = some_tasks(1000)
    async with connect() as aleph:
        tasks = await aleph.tasks()
    assert [task.task_id for task in tasks] == [str(341000 + n) for n in range(1000)]
    assert vendor.n_requests("/tasking/tasks/") == 10
    assert len(vendor.requests) == 12


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
    assert vendor.n_requests("/tasking/tasks/") == 100


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
    if next_style == "absent" and not tells_count and max_limit == 7:
        # Nothing shows that there is more: neither the length that was requested, nor a round one.
        assert len(tasks) == 7
    else:
        assert [task.task_id for task in tasks] == [str(341000 + n) for n in range(333)]


async def test_a_listing_that_grows_meanwhile_is_followed_to_its_end(
    vendor: Vendor, connect: Any, autojump_clock: Any
) -> None:
    """An entry inserted between two pages shifts the others: none is lost, none shown twice."""
    vendor.tasks = some_tasks(250)

    def insert(request: Any) -> None:
        if request.query.get("offset") == "100":
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

    def withdraw(request: Any) -> None:
        if request.query.get("offset") == "100":
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

    def withdraw(request: Any) -> None:
        if request.query.get("offset") == at_offset:
            vendor.meanwhile = None
            del vendor.tasks[:n_gone]

    vendor.meanwhile = withdraw
    async with connect(page_limit=50, api_concurrency=n_at_once) as aleph:
        ids = [task.task_id for task in await aleph.tasks()]
    assert ids == [str(341000 + n) for n in range(n_gone, 1000)]


async def test_a_later_page_that_is_not_there_does_not_take_the_listing_away(
    vendor: Vendor, connect: Any, autojump_clock: Any
) -> None:
    """Services that number their pages respond so once there are fewer: it is read once more."""
    vendor.tasks = some_tasks(250)

    def withdraw(request: Any) -> None:
        if request.query.get("offset") == "200":
            vendor.meanwhile = None
            del vendor.tasks[:100]
            vendor.fail_next(httpx.Response(404, json={"detail": "Invalid page."}))

    vendor.meanwhile = withdraw
    async with connect(api_concurrency=1) as aleph:
        ids = [task.task_id for task in await aleph.tasks()]
    assert ids == [str(341000 + n) for n in range(100, 250)]


async def test_a_later_page_that_is_never_there_is_garbled(
    vendor: Vendor, connect: Any, autojump_clock: Any
) -> None:
    """It says nothing about the entries before it, which are not gone."""
    vendor.tasks = some_tasks(250)

    def refuse(request: Any) -> None:
        if request.query.get("offset") == "200":
            vendor.fail_next(httpx.Response(404, json={"detail": "Invalid page."}))

    vendor.meanwhile = refuse
    async with connect(api_concurrency=1) as aleph:
        with pytest.raises(Garbled, match="not there"):
            await aleph.tasks()


@pytest.mark.slow
async def test_a_listing_longer_than_a_deadline_is_gone_on_with(
    vendor: Vendor, connect: Any, autojump_clock: Any
) -> None:
    """Without a count each page waits for the one before; no page is requested twice."""
    vendor.tasks = some_tasks(3000)
    vendor.next_style, vendor.tells_count = "cursor", False
    async with connect(page_limit=50) as aleph:
        await aleph.tasks()
    n_pages = vendor.n_requests("/tasking/tasks/")
    vendor.requests.clear()
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
    assert vendor.n_requests("/tasking/tasks/") <= n_pages + n_late
    # And it is forgotten after a while: the next reading is of one time.
    vendor.requests.clear()
    async with connect(page_limit=50, metadata_deadline_s=15) as aleph:
        with pytest.raises(DeadlineReached):
            await aleph.tasks()
        await trio.sleep(UNFINISHED_S + 1)
        vendor.requests.clear()
        vendor.delay_s = 0.0
        await aleph.tasks()
        assert vendor.n_requests("/tasking/tasks/") == n_pages


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
    ],
    ids=["itself", "the first"],
)
async def test_a_page_that_was_there_ends_a_listing_that_is_whole(
    vendor: Vendor, connect: Any, autojump_clock: Any, following: Any
) -> None:
    """The last page names one that was read, and all that was announced is there."""
    vendor.tasks = some_tasks(1)
    vendor.next_style = following
    async with connect() as aleph:
        assert len(await aleph.tasks()) == 1


@pytest.mark.parametrize(
    "following",
    [
        lambda url, offset: f"{API}/tasking/tasks/?limit=100&offset={offset + 1}&x={offset}",
    ],
    ids=["ever another, nothing new"],
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
    assert len(vendor.requests) < 20


@pytest.mark.parametrize(
    ("form", "next_style"),
    [
        *((form, style) for form in FORMS for style in ("absolute", "relative")),
        *((form, "cursor") for form in FORMS if form != "counted"),  # it names no next page
    ],
)
async def test_pages_of_other_services_give_every_task_once(
    vendor: Vendor, connect: Any, autojump_clock: Any, form: str, next_style: str
) -> None:
    """The list, its count and the next page have other names; the last page may name no next."""
    vendor.tasks = some_tasks(23)
    vendor.max_limit, vendor.next_style, vendor.form = 10, next_style, FORMS[form]
    async with connect() as aleph:
        assert [task.task_id for task in await aleph.tasks()] == [
            str(task["task_id"]) for task in vendor.tasks
        ]
        assert vendor.n_requests("/tasking/tasks/") == 3
        vendor.tasks = []
        assert list(await aleph.tasks()) == []


@pytest.mark.parametrize("next_style", ["absolute", "relative", "absent"])
@pytest.mark.parametrize("status", [400, 422])
async def test_a_refused_limit_is_left_out(
    vendor: Vendor, connect: Any, autojump_clock: Any, status: int, next_style: str
) -> None:
    """Services that refuse a long page choose its length; later listings ask for none."""
    vendor.tasks = some_tasks(23)
    vendor.max_limit, vendor.refuses_limit_with, vendor.next_style = 10, status, next_style
    async with connect() as aleph:
        assert len(await aleph.check()) == 10
        n_refused = len(vendor.requests)
        assert len(await aleph.tasks()) == 23
    assert len(vendor.requests) - n_refused == 3
    assert "limit" not in vendor.requests[n_refused].query


async def test_parameters_that_are_refused_anyway_are_an_error(
    vendor: Vendor, connect: Any, autojump_clock: Any
) -> None:
    vendor.tasks = some_tasks(3)
    vendor.fail_next(400, path="/tasking/tasks/", times=20)
    async with connect() as aleph:
        with pytest.raises(Garbled):
            await aleph.tasks()


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
    vendor.tasks = large_tasks(250, 25_000)
    async with connect(listing_memory_bytes=2 * 2**20, page_limit=1) as aleph:
        with pytest.raises(Garbled, match=str(2 * 2**20)):
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
        for n, task in enumerate(large_tasks(120, 25_000))
    ]
    vendor.captures = {f"t{n}": records for n in range(3)}
    async with connect(
        listing_memory_bytes=2 * 2**20, page_limit=1, api_concurrency=1, metadata_deadline_s=15
    ) as aleph:
        vendor.delay_s = 0.25
        for n in range(3):
            with pytest.raises(DeadlineReached):
                await aleph.captures(TaskId(f"t{n}"))
        assert aleph._progress.n_bytes <= 2 * 2**20
        assert 0 < len(aleph._progress) < 3
        vendor.delay_s = 0
        vendor.requests.clear()
        assert len(await aleph.captures(TaskId("t2"))) == 120
        assert len(vendor.requests) < 100
        assert len(aleph._progress) == 0 or aleph._progress.n_bytes > 0


async def test_a_listing_that_is_read_twice_at_once_gives_back_all_of_its_memory(
    vendor: Vendor, connect: Any, autojump_clock: Any
) -> None:
    """As after `satfs refresh`: the deadline ends both, and the next call goes on with one."""
    vendor.tasks, vendor.delay_s = some_tasks(60), 0.6
    async with connect(page_limit=1, api_concurrency=1, metadata_deadline_s=15) as aleph:

        async def fetch() -> None:
            with pytest.raises(DeadlineReached):
                await aleph.tasks()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fetch)
            nursery.start_soon(fetch)
        vendor.delay_s = 0
        assert len(await aleph.tasks()) == 60
        assert aleph._progress.n_bytes == 0


async def test_the_first_page_has_each_task_once(
    vendor: Vendor, connect: Any, autojump_clock: Any
) -> None:
    """A mount shows it until it has listed all tasks."""
    vendor.tasks = some_tasks(2) * 2
    async with connect() as aleph:
        tasks, is_whole = await aleph.first_tasks()
    assert ([task.task_id for task in tasks], is_whole) == (["341000", "341001"], True)


@pytest.mark.slow
async def test_listings_that_are_read_at_once_have_one_limit(
    vendor: Vendor, connect: Any, thread_clock: Any
) -> None:
    """Four that fit by themselves do not fit together: some fail, and give back what they took."""
    records = [
        {"capture_id": f"c{n}", "status": "published", **task}
        for n, task in enumerate(large_tasks(60, 25_000))
    ]
    vendor.captures = {f"t{n}": records for n in range(4)}
    vendor.delay_s = 0.1
    ended: Counter[str] = Counter()
    async with connect(listing_memory_bytes=2 * 2**20, page_limit=1) as aleph:

        async def fetch(task_id: str) -> None:
            try:
                ended[f"{len(await aleph.captures(TaskId(task_id)))} records"] += 1
            except Garbled as failure:
                ended[str(failure).partition(": ")[2]] += 1

        async with trio.open_nursery() as nursery:
            for task_id in vendor.captures:
                nursery.start_soon(fetch, task_id)
        refusal = "what is being listed takes more than 2097152 bytes of memory"
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
    assert all(request.url.startswith((f"{API}/", "https://auth.")) for request in vendor.requests)


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
    vendor.fail_next(away, path="/tasking", times=1 + MAX_GARBLED)
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
