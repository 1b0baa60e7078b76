"""Which requests are taken back from connections that are being opened, and what waits for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from satfs.net.recalls import KEPT_S, Rank, Recalls, to_recall


@dataclass(eq=False)
class Given:
    """A request that was given a connection."""

    order: int = 0
    is_opening: bool = True
    is_recalled: bool = False
    orders: list[str] = field(default_factory=list)
    rank: Callable[[], Rank] | None = None
    recall: Callable[[], None] | None = None

    def __post_init__(self) -> None:
        self.rank = lambda: (1, self.order)
        self.recall = lambda: self.orders.append("recall")


requests = st.lists(
    st.builds(Given, st.integers(0, 20), is_opening=st.booleans(), is_recalled=st.booleans()),
    max_size=8,
)


@given(requests, st.none() | st.integers(0, 20), st.none() | st.integers(0, 4))
def test_the_first_requests_that_were_not_sent_are_taken_back(
    given_requests: list[Given], before: int | None, max_requests: int | None
) -> None:
    """Those that come before the rank, each once, the first of them; any order of the list."""
    limit = None if before is None else (1, before)
    found = to_recall(given_requests, limit, max_requests)
    possible = [
        each
        for each in given_requests
        if each.is_opening and not each.is_recalled and (before is None or each.order < before)
    ]
    assert len(found) == min(len(possible), len(possible) if max_requests is None else max_requests)
    assert all(each in possible for each in found)
    left = [each.order for each in possible if each not in found]
    assert all(
        each.rank is not None and each.rank() <= (1, min(left, default=99)) for each in found
    )


def test_what_cannot_be_taken_back_is_not_ordered() -> None:
    """The loop's own requests, and names: nothing takes them back."""
    names, own = Given(), Given()
    names.rank, own.recall = None, None
    assert to_recall([names, own], None, None) == []


def test_a_connection_is_kept_until_the_requests_are_there() -> None:
    """First all reports are waited for, since ranges may become one; then the requests."""
    recalls, first, second = Recalls(), Given(), Given()
    recalls.order([first, second], 10.0)
    assert first.orders == second.orders == ["recall"]
    assert first.is_recalled
    assert recalls.keep_ready(10.0, is_moved=False)
    recalls.reported(first, is_taken_back=True)
    assert recalls.keep_ready(10.0, is_moved=True)
    recalls.reported(second, is_taken_back=False)
    assert not recalls.keep_ready(10.0, is_moved=True)
    assert recalls.keep_ready(10.0, is_moved=False)
    recalls.came()
    assert not recalls.keep_ready(10.0, is_moved=False)


def test_a_connection_is_not_kept_for_long() -> None:
    """A worker that stands still reports nothing, and a request may have been given up."""
    recalls, one, other = Recalls(), Given(), Given()
    recalls.order([one, other], 10.0)
    recalls.reported(one, is_taken_back=True)
    assert not recalls.keep_ready(10.0 + KEPT_S, is_moved=False)
    recalls.reported(other, is_taken_back=True)
    recalls.came()
    assert not recalls.keep_ready(10.0 + KEPT_S, is_moved=False)
