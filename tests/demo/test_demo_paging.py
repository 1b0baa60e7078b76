"""Pages are those of Django REST framework."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from satfs.demo.api import PageLimits, page, page_window

LIMITS = PageLimits(default=7, maximum=20)
BASE, PATH = "http://host:1", "/tasking/tasks/"


@pytest.mark.parametrize("limit", ["0", "-3", "ten", "", "1.5"])
def test_bad_limit_is_the_default(limit: str) -> None:
    """A limit that cannot be falls back to the default without a word."""
    assert page_window({"limit": limit}, LIMITS) == (7, 0)


def test_too_large_limit_is_cut() -> None:
    """A limit above the maximum is cut without a word."""
    assert page_window({"limit": "1000"}, LIMITS) == (20, 0)


@pytest.mark.parametrize("offset", ["-1", "x", ""])
def test_bad_offset_is_zero(offset: str) -> None:
    """An offset that cannot be is the beginning."""
    assert page_window({"offset": offset}, LIMITS) == (7, 0)


def test_offset_past_the_end_is_an_empty_page() -> None:
    """Past the end there is nothing, and that is no error."""
    body = page([1, 2, 3], BASE, PATH, {"offset": "10"}, LIMITS)
    assert (body["count"], body["results"], body["next"]) == (3, [], None)


def test_first_page_has_no_previous_and_the_second_leads_back() -> None:
    """`previous` is null at first; back at the first page, the offset is left out."""
    entries = list(range(10))
    assert page(entries, BASE, PATH, {"limit": "4"}, LIMITS)["previous"] is None
    second = page(entries, BASE, PATH, {"limit": "4", "offset": "4"}, LIMITS)
    assert second["previous"] == f"{BASE}{PATH}?limit=4"
    assert second["next"] == f"{BASE}{PATH}?limit=4&offset=8"


@given(
    n=st.integers(0, 60),
    query=st.fixed_dictionaries(
        {}, optional={"limit": st.integers(-2, 30).map(str), "status": st.just("a b")}
    ),
)
def test_following_next_gives_every_entry_once(n: int, query: dict[str, str]) -> None:
    """`next` is absolute, keeps the filters, and leads through all entries in order."""
    entries, seen = list(range(n)), []
    while True:
        body = page(entries, BASE, PATH, query, LIMITS)
        seen += body["results"]
        if body["next"] is None:
            break
        parts = urlsplit(body["next"])
        assert f"{parts.scheme}://{parts.netloc}" == BASE
        following = dict(parse_qsl(parts.query))
        assert following.get("status") == query.get("status")
        query = following
    assert seen == entries
