"""Following a listing: the chain, and what is expected of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from satfs.api.page_prefetch import follow
from satfs.api.pagination import (
    MAX_EMPTY_PAGES,
    MAX_STALE_PAGES,
    PageChain,
    page_key,
    predictions,
    resolve,
    with_offset,
)
from satfs.api.wire import Page
from satfs.errors import (
    Garbled,
    NeedsContract,
    NeedsLogin,
    NotAllowed,
    NotThere,
    SatfsError,
    Unreachable,
)

FIRST = "https://a.test/tasks/?limit=3&offset=0"


@dataclass
class Listing:
    """A listing that may change after the nth request, and pages through it oddly or not."""

    entries: list[int]
    cut_limit: int = 1000
    count_is: str = "right"
    next_is: str = "absolute"
    changes: dict[int, list[int]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)

    async def get(self, url: str) -> Page:
        self.requests.append(url)
        self.entries = self.changes.get(len(self.requests), self.entries)
        await trio.lowlevel.checkpoint()
        query = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        offset = int(query.get("offset", query.get("after", "0")))
        limit = min(int(query.get("limit", "100")), self.cut_limit)
        stop = offset + limit
        following = None if stop >= len(self.entries) else self._next(limit, stop)
        count = {"right": len(self.entries), "none": None, "low": 1, "high": 10_000}[self.count_is]
        return Page(tuple(self.entries[offset:stop]), count, following, self.next_is != "absent")

    def _next(self, limit: int, offset: int) -> str | None:
        return {
            "absolute": f"https://a.test/tasks/?limit={limit}&offset={offset}",
            "reordered": f"https://A.test:443/tasks?offset={offset}&limit={limit}",
            "relative": f"/tasks/?limit={limit}&offset={offset}",
            "query only": f"?limit={limit}&offset={offset}",
            "cursor": f"https://a.test/tasks/?after={offset}&limit={limit}",
            "absent": None,
        }[self.next_is]


async def listed(listing: Listing | BareList, n_ahead: int, max_entries: int = 10**6) -> list[int]:
    """Return what following *listing* gives, each entry once."""
    found: dict[int, None] = {}

    def keep(page: Page) -> int:
        n_before = len(found)
        found.update(dict.fromkeys(page.entries))
        return len(found) - n_before

    await follow(PageChain(FIRST, max_entries), listing.get, keep, n_ahead=n_ahead)
    return list(found)


@pytest.mark.slow
@given(
    n=st.integers(0, 60),
    cut_limit=st.integers(1, 5),
    count_is=st.sampled_from(["right", "none", "low", "high"]),
    next_is=st.sampled_from(["absolute", "reordered", "relative", "query only", "cursor"]),
    n_ahead=st.integers(1, 8),
)
def test_whatever_is_expected_the_chain_is_what_counts(
    n: int, cut_limit: int, count_is: str, next_is: str, n_ahead: int
) -> None:
    """With right, wrong or no counts, cut limits and cursors: every entry, in order."""
    listing = Listing(list(range(n)), cut_limit, count_is, next_is)
    assert trio.run(listed, listing, n_ahead) == list(range(n))


@pytest.mark.slow
@given(
    before=st.lists(st.integers(0, 30), unique=True, max_size=30),
    inserted=st.lists(st.integers(100, 130), unique=True, min_size=1, max_size=9),
    at=st.integers(0, 30),
    request=st.integers(1, 12),
    n_ahead=st.integers(1, 8),
)
def test_nothing_is_lost_when_entries_are_inserted_meanwhile(
    before: list[int], inserted: list[int], at: int, request: int, n_ahead: int
) -> None:
    """Entries that were there all the time are listed, wherever and whenever others come in."""
    after = before[:at] + inserted + before[at:]
    listing = Listing(before, changes={request: after})
    try:
        found = trio.run(listed, listing, n_ahead)
    except Garbled:
        # Nine at a time push three whole pages back: that looks like a pager in a circle.
        assert len(inserted) > 2 * MAX_STALE_PAGES
        return
    assert set(found) >= set(before)
    assert set(found) <= set(after)


@pytest.mark.slow
@given(n=st.integers(0, 40), count_is=st.sampled_from(["right", "none", "low", "high"]))
def test_without_next_the_count_leads(n: int, count_is: str) -> None:
    """For a service that sends a count and no next, the offsets are computed."""
    listing = Listing(list(range(n)), count_is=count_is, next_is="absent")
    found = trio.run(listed, listing, 4)
    assert found == list(range(min(n, 3) if count_is == "low" else n))


@dataclass
class BareList:
    """A service that sends lists alone, and knows one parameter for the next page, or none."""

    n_entries: int
    by: str
    own_length: int | None = None
    beyond: SatfsError | None = None
    is_clamped: bool = False
    n_requests: int = 0

    async def get(self, url: str) -> Page:
        self.n_requests += 1
        await trio.lowlevel.checkpoint()
        query = {name: int(values[0]) for name, values in parse_qs(urlsplit(url).query).items()}
        length = self.own_length or query["limit"]
        start = {
            "offset": query.get("offset", 0),
            "page": length * (query.get("page", 1) - 1),
            "page from 0": length * query.get("page", 0),
            "nothing": 0,
        }[self.by]
        if start and start >= self.n_entries:
            if self.beyond is not None:
                raise self.beyond
            start = (self.n_entries - 1) // length * length if self.is_clamped else start
        entries = range(start, min(start + length, self.n_entries))
        return Page(tuple(entries), has_next_field=False)


BEYOND = [None, NotThere("no such page"), NotAllowed("no"), Garbled("no list")]


@pytest.mark.parametrize("by", ["offset", "page", "page from 0"])
@pytest.mark.parametrize("beyond", BEYOND, ids=["empty", "404", "403", "garbled"])
@pytest.mark.parametrize("n_entries", [0, 1, 2, 3, 4, 6, 8, 9, 30])
@pytest.mark.parametrize("is_clamped", [False, True])
def test_the_pages_of_a_bare_list_are_tried(
    by: str, beyond: SatfsError | None, n_entries: int, is_clamped: bool
) -> None:
    """Every entry, once, whichever parameter the service knows, and whatever is at its end."""
    service = BareList(n_entries, by, beyond=beyond, is_clamped=is_clamped)
    assert trio.run(listed, service, 4) == list(range(n_entries))
    n_tries = {"offset": 0, "page": 2, "page from 0": 1}[by]  # that brought nothing new
    n_pages = n_entries // 3 + 1
    assert service.n_requests <= (1 if n_entries < 3 else n_pages + 3 if n_entries == 3 else
                                  n_pages + n_tries)  # fmt: skip


@pytest.mark.parametrize("n_entries", [2, 3, 10, 25])
def test_a_bare_list_that_repeats_itself_is_whole(n_entries: int) -> None:
    """The service ignores our parameters: no entry twice, a few requests, and no failure."""
    service = BareList(n_entries, "nothing", own_length=n_entries)
    assert trio.run(listed, service, 4) == list(range(n_entries))
    assert service.n_requests == (1 if n_entries == 2 else 4)


@pytest.mark.parametrize("length", [10, 20, 25, 50, 100])
@pytest.mark.parametrize("by", ["offset", "page"])
def test_a_service_of_bare_lists_may_have_its_own_length_of_pages(length: int, by: str) -> None:
    """A round one shows that it may be a page."""
    service = BareList(3 * length + 1, by, own_length=length)
    assert trio.run(listed, service, 4) == list(range(3 * length + 1))


@pytest.mark.parametrize("failure", [Unreachable("away"), NeedsLogin("no"), NeedsContract("no")])
def test_a_page_that_is_tried_in_vain_is_no_end(failure: SatfsError) -> None:
    """Nothing shows that the listing is whole while the host is away, or refuses us."""

    async def fails() -> None:
        with pytest.raises(type(failure)):
            await listed(BareList(3, "offset", beyond=failure), 4)

    trio.run(fails)


def test_expected_pages_cost_no_more_requests() -> None:
    """A plain listing is requested page by page, each once, with any number of pages ahead."""
    for n_ahead in (1, 4, 16):
        listing = Listing(list(range(100)))
        trio.run(listed, listing, n_ahead)
        assert sorted(page_key(url) for url in listing.requests) == sorted(
            {page_key(url) for url in listing.requests}
        )
        assert len(listing.requests) == 34


def test_a_lying_count_costs_a_window_at_most() -> None:
    """A count of ten thousand for five entries: no more than the window is requested."""
    listing = Listing(list(range(5)), count_is="high")
    assert trio.run(listed, listing, 8) == list(range(5))
    assert len(listing.requests) <= 2 + 8


def test_a_failure_ahead_counts_only_if_the_chain_comes_by() -> None:
    """A page that is not needed may fail; one that is needed may not."""

    async def failing(url: str) -> Page:
        offset = int(parse_qs(urlsplit(url).query)["offset"][0])
        if offset >= 6:
            raise Unreachable("page 3")
        following = with_offset(FIRST, 3) if offset == 0 and is_long else None
        return Page((offset, offset + 1, offset + 2), 9, following)

    async def main() -> None:
        await follow(PageChain(FIRST, 100), failing, lambda page: 3, n_ahead=4)

    is_long = True
    trio.run(main)

    async def needed(url: str) -> Page:
        page = await failing(url)
        return Page(page.entries, 9, with_offset(url, int(page.entries[0]) + 3))

    async def fails() -> None:
        with pytest.raises(Unreachable, match="page 3"):
            await follow(PageChain(FIRST, 100), needed, lambda page: 3, n_ahead=4)

    trio.run(fails)


# -- the chain itself ----------------------------------------------------------------------------


def test_a_page_that_was_there_already_is_a_circle() -> None:
    """In any order of its parameters."""
    chain = PageChain(FIRST, 100)
    chain.take(Page((1,), None, "/tasks/?offset=1&limit=3"), 1)
    with pytest.raises(Garbled, match="circle"):
        chain.take(Page((2,), None, "/tasks?offset=0&limit=3"), 1)


def test_a_few_pages_may_repeat_what_was_there() -> None:
    """Others were inserted before them; but not for ever."""
    chain = PageChain(FIRST, 100)
    for number in range(MAX_STALE_PAGES - 1):
        chain.take(Page((1,), None, f"/tasks/?offset={number + 1}"), 0)
    with pytest.raises(Garbled, match="nothing new"):
        chain.take(Page((1,), None, "/tasks/?offset=9"), 0)


def test_many_pages_may_be_empty() -> None:
    """A service that filters after it has cut the pages sends such ones; but not for ever."""
    chain = PageChain(FIRST, 100)
    for number in range(MAX_EMPTY_PAGES - 1):
        chain.take(Page((), None, f"/tasks/?cursor={number}"), 0)
    chain.take(Page((1,), None, "/tasks/?cursor=a"), 1)
    for number in range(MAX_EMPTY_PAGES - 1):
        chain.take(Page((), None, f"/tasks/?cursor=b{number}"), 0)
    with pytest.raises(Garbled, match="nothing new"):
        chain.take(Page((), None, "/tasks/?cursor=c"), 0)


def test_entries_are_bounded() -> None:
    """Also when they all come on one page, the last."""
    with pytest.raises(Garbled, match="more than 10"):
        PageChain(FIRST, 10).take(Page(tuple(range(11))), 11)


@pytest.mark.slow
@given(st.text(max_size=30))
def test_any_next_is_an_address_or_garbled(following: str) -> None:
    """And one at another host never passes."""
    chain = PageChain(FIRST, 10)
    try:
        chain.take(Page((1,), 5, following), 1)
    except Garbled:
        return
    if chain.next_url is not None:
        assert page_key(chain.next_url)[0] == "https://a.test:443"


def test_predictions_need_a_plain_pattern() -> None:
    """Another path, another filter, a jump, no count: nothing is requested ahead."""
    entries = (1, 2, 3)
    assert len(list(predictions(FIRST, Page(entries, 9, with_offset(FIRST, 3))))) == 2
    for following in (
        "https://a.test/others/?limit=3&offset=3",
        "https://a.test/tasks/?limit=3&offset=4",
        "https://a.test/tasks/?limit=3&offset=3&status=x",
        "https://a.test/tasks/?limit=3&offset=x",
        "https://a.test/tasks/?cursor=abc",
    ):
        assert list(predictions(FIRST, Page(entries, 9, following))) == []
    assert list(predictions(FIRST, Page(entries, None, with_offset(FIRST, 3)))) == []
    assert list(predictions(FIRST, Page((), 9, with_offset(FIRST, 3)))) == []
    assert list(predictions(FIRST, Page(entries, 9, None))) == []


def test_offsets_are_set_where_they_stand() -> None:
    """The other parameters stay as they are, also what looks odd."""
    assert with_offset(FIRST, 6) == "https://a.test/tasks/?limit=3&offset=6"
    assert with_offset("https://a.test/?a=b%2Fc&x=", 6) == "https://a.test/?a=b%2Fc&x=&offset=6"
    assert resolve(FIRST, "?offset=3") == "https://a.test/tasks/?offset=3"


def test_another_path_at_the_same_host_is_requested_as_it_is() -> None:
    """Where it is not ours without its beginning, the service alone knows what it is."""
    for path in ("/pages/7", "/v2/tasks", "/asks", "/"):
        assert resolve(FIRST, f"https://a.test{path}?x=1") == f"https://a.test{path}?x=1"


def test_a_service_behind_a_proxy_may_not_know_its_scheme() -> None:
    """`http://` at the same host is requested as before; other schemes are refused."""
    assert resolve(FIRST, "http://A.test/tasks/?offset=3") == "https://a.test/tasks/?offset=3"
    assert resolve(FIRST, "http://x@a.test/tasks/?offset=3") == "https://a.test/tasks/?offset=3"
    for elsewhere in (
        "http://b.test/?offset=3",
        "http://a.test:81/?offset=3",
        "https://b.test/tasks/others/?offset=3",
        "ftp://a.test/tasks/?offset=3",
    ):
        chain = PageChain(FIRST, 100)
        with pytest.raises(Garbled):
            chain.take(Page((1,), None, elsewhere), 1)


@pytest.mark.parametrize(
    "elsewhere",
    [
        "https://internal.test/tasks/?offset=3",
        "http://internal.test/tasks/?offset=3",
        "http://internal.test:8080/tasks?offset=3",
        "//internal.test/tasks/?offset=3",
        "https://a.test:8443/tasks/?offset=3",
        "http://user:word@10.0.0.7/tasks/?offset=3",
        "http://[fd00::7]:8000/tasks/?offset=3",
    ],
)
def test_the_same_path_at_another_host_is_asked_at_the_own_one(elsewhere: str) -> None:
    """A service that does not know its public name is followed; the other host gets no request."""
    chain = PageChain(FIRST, 100)
    chain.take(Page((1, 2, 3), 9, elsewhere), 3)
    assert chain.next_url is not None
    assert page_key(chain.next_url) == page_key("https://a.test/tasks/?offset=3")
    assert "word" not in chain.next_url


@pytest.mark.parametrize("following", ["https://a.test/tasks/", "?offset=0", "?offset=3"])
def test_a_last_page_may_name_a_page_that_was_there(following: str) -> None:
    """When all entries that were announced are there, the listing is over."""
    chain = PageChain("https://a.test/tasks/?offset=0", 100)
    chain.take(Page((1, 2, 3), 5, "?offset=3"), 3)
    if following.endswith("/"):
        following += "?offset=0"
    chain.take(Page((4, 5), 5, following), 2)
    assert chain.next_url is None


def test_characters_of_a_next_page_are_escaped() -> None:
    chain = PageChain("https://a.test/tasks/", 100)
    chain.take(Page((1,), None, "/tasks/?offset=1&q=a b\u00e9"), 1)
    assert chain.next_url == "https://a.test/tasks/?offset=1&q=a%20b%C3%A9"


@pytest.mark.parametrize(
    ("first", "following", "is_followed"),
    [
        ("https://a.test/aleph/v2/tasks/", "http://inner.test:8080/tasks/?offset=3", True),
        ("https://a.test/aleph/v2/tasks/", "http://inner.test/v2/tasks?offset=3", True),
        ("https://a.test/aleph/v2/tasks/", "https://a.test/tasks/?offset=3", True),
        ("https://a.test/aleph/v2/tasks/", "/v2/tasks?offset=3", True),
        ("https://a.test/aleph/v2/tasks/", "http://inner.test/2/tasks/?offset=3", False),
        ("https://a.test/aleph/v2/tasks/", "http://inner.test/asks/?offset=3", False),
        ("https://a.test/aleph/v2/tasks/", "http://inner.test/?offset=3", False),
        ("https://a.test/tasks/", "http://inner.test/aleph/tasks/?offset=3", True),
        ("https://a.test/tasks/", "http://inner.test/aleph-tasks/?offset=3", False),
    ],
)
def test_a_service_behind_a_proxy_may_not_know_its_prefix(
    first: str, following: str, *, is_followed: bool
) -> None:
    chain = PageChain(first, 100)
    if not is_followed:
        with pytest.raises(Garbled):
            chain.take(Page((1, 2, 3), 9, following), 3)
        return
    chain.take(Page((1, 2, 3), 9, following), 3)
    assert chain.next_url is not None
    assert page_key(chain.next_url) == page_key(f"{first}?offset=3")
