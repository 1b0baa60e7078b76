"""Which page comes next, which pages may be requested ahead, and when paging has gone wrong.

*Pure*. A listing has the entries on the chain of pages that `next` leads through, and no others.
But that is slow: each page waits for the one before. When `next` turns out to be our own request
with another `offset`, and the first page has a `count`, the addresses of the later pages can be
*predicted*, and requested while the chain is still being followed. A right prediction saves the
wait; a wrong one costs a request, and never an entry: with servers that cut `limit`, listings that
change during the reads, and cursors, the pages themselves define the chain.

A bare list names no next page and has no count. If it has as many entries as a page may have, a
next page is *tried*: by `offset`, then by `page`, since services differ. A service that knows none
of them sends the same entries again, or refuses: then the list was whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias
from urllib.parse import parse_qsl, quote, urlencode, urljoin, urlsplit, urlunsplit

from satfs.api.wire import Page
from satfs.errors import Garbled, NeedsContract, NeedsLogin, NotAllowed, NotThere, SatfsError
from satfs.net.addresses import escaped, origin_of

#: An address for comparison: the order of parameters and a final slash don't matter.
PageKey: TypeAlias = tuple[str, str, tuple[tuple[str, str], ...]]

#: Pages in a row that may bring nothing new. A page repeats entries when others are inserted before
#: it meanwhile; a pager that goes in circles brings nothing new for ever.
MAX_STALE_PAGES = 3
#: Pages in a row without an entry, each of which names another one. A service that applies its
#: filter after it has cut the pages sends such ones where nothing fits (DynamoDB's Query does).
MAX_EMPTY_PAGES = 15
#: Services that do not know our `limit` have pages of round lengths: 10, 20, 25, 50, 100.
LEAST_OWN_LENGTH = 10
ROUND_LENGTHS = 5
#: Numbers of the second page: of services that count from 0, and from 1. To the latter the first of
#: them is the first page again.
SECOND_PAGES = (1, 2)


@dataclass(slots=True)
class PageChain:
    """A listing being followed from *first_url* on. Feed it pages, in order, with `take`.

    *max_entries* is the limit of entries. `next_url` is the page to request now; None at the end.
    """

    first_url: str
    max_entries: int
    next_url: str | None = field(init=False)
    n_entries: int = field(init=False, default=0)
    _seen: set[PageKey] = field(init=False, default_factory=set)
    _n_stale: int = field(init=False, default=0)
    _n_empty: int = field(init=False, default=0)
    _is_led: bool = field(init=False, default=False)  # a page has named the next one
    #: Addresses that may be the second page, if no page names one: by parameter and its value.
    _trials: list[tuple[str, int]] = field(init=False, default_factory=list)
    _trial: tuple[str, int] | None = field(init=False, default=None)  # what `next_url` is by
    _n_first: int = field(init=False, default=0)  # entries of the first page, where pages are tried

    def __post_init__(self) -> None:
        self.next_url = self.first_url

    def take(self, page: Page, n_new: int) -> None:
        """Note that `next_url` gave *page*, of whose entries *n_new* were not known before.

        Raises:
            Garbled: the pager is broken: another path at another host, a page that was there
                already, pages without anything new, or more entries than may be.
        """
        url = self.next_url
        if url is None:
            raise Garbled("the listing goes on after its end")
        self._seen.add(page_key(url))
        self.n_entries += n_new
        if self.n_entries > self.max_entries:
            raise Garbled(f"the listing has more than {self.max_entries} entries")
        if self._trial is not None or (not self._is_led and may_go_on(url, page)):
            self._try_next(page, n_new)
            return
        self.next_url = self._following(url, page)
        if self.next_url is None:
            return
        if page.n_sent:
            self._n_empty = 0
            self._n_stale = 0 if n_new else self._n_stale + 1
        else:
            self._n_empty += 1
        if self._n_stale >= MAX_STALE_PAGES or self._n_empty >= MAX_EMPTY_PAGES:
            n_pages = max(self._n_stale, self._n_empty)
            raise Garbled(f"{n_pages} pages of the listing brought nothing new")
        if page_key(self.next_url) in self._seen:
            if page.count is not None and 0 < page.count <= self.n_entries:
                self.next_url = None  # all is there, and the last page names one of them
                return
            raise Garbled("the listing's pages go in a circle")

    def skips(self, failure: SatfsError) -> bool:
        """Return whether *failure* of `next_url` only shows that there is no such page.

        If so, `next_url` is another one, or None.
        """
        is_about_page = isinstance(failure, NotThere | NotAllowed | Garbled)
        if self._trial is None or not is_about_page or isinstance(failure, NeedsLogin):
            return False
        if isinstance(failure, NeedsContract):
            return False
        self._set_trial(self._trials.pop(0) if self._trials else None)
        return True

    def _try_next(self, page: Page, n_new: int) -> None:
        """Set `next_url` where no page names it: by how *page*, the one that came, was tried."""
        if self._trial is None:
            self._n_first = page.n_sent
            self._trials = [("offset", page.n_sent), *(("page", each) for each in SECOND_PAGES)]
            self._set_trial(self._trials.pop(0))
        elif not n_new and page.n_sent:
            # The same again: it does not know the parameter, or the list has changed meanwhile.
            self._set_trial(self._trials.pop(0) if self._trials else None)
        elif page.n_sent < self._n_first:
            self._set_trial(None)
        else:
            self._trials.clear()  # this is the right one
            name, value = self._trial
            self._set_trial((name, value + (page.n_sent if name == "offset" else 1)))

    def _set_trial(self, trial: tuple[str, int] | None) -> None:
        self._trial = trial
        self.next_url = None if trial is None else with_number(self.first_url, *trial)

    def _following(self, url: str, page: Page) -> str | None:
        if page.next is not None:
            following = resolve(url, page.next)
            if origin_of(following) != origin_of(self.first_url):
                raise Garbled("the listing's next page is at another host, under another path")
            self._is_led = True
            return following
        if page.has_next_field or self._is_led or page.count is None or page.n_sent == 0:
            return None
        # No `next` at all, but a count: some services leave the arithmetic to their clients.
        offset = _offset(url) + page.n_sent
        return with_offset(url, offset) if offset < page.count else None


def may_go_on(url: str, page: Page) -> bool:
    """Return whether the first page, at *url*, may not be all, though nothing in it tells."""
    if page.has_next_field or page.count is not None or not page.n_sent:
        return False
    is_round = page.n_sent >= LEAST_OWN_LENGTH and page.n_sent % ROUND_LENGTHS == 0
    return is_round or page.n_sent == _number(url, "limit")


def resolve(url: str, following: str) -> str:
    """Return *following*, absolute or relative, as an address seen from the page at *url*.

    A service behind a proxy does not always know its own scheme, host and port. So an address at
    another host (or port, or with the other scheme) with the path of the page at *url* stands for
    that path at the host of *url*: only its query is taken over, and that host gets no request.
    So does an address whose path is the end of ours, at any host, or ours of its: one side of the
    proxy has a prefix that the other does not know.

    Raises:
        Garbled: it is no address.
    """
    try:
        resolved = urljoin(url, escaped(following.strip()))
        ours, theirs = urlsplit(url), urlsplit(resolved)
        is_web = theirs.scheme in ("http", "https")
        is_same_host = (theirs.hostname, theirs.port) == (ours.hostname, ours.port)
        path = theirs.path.rstrip("/")
        is_same_path = path == ours.path.rstrip("/")
        our_path = ours.path.rstrip("/")
        is_prefix_lost = path.startswith("/") and our_path.endswith(path) and not is_same_path
        has_other_prefix = our_path.startswith("/") and path.endswith(our_path)
        if is_web and is_prefix_lost:
            resolved = urlunsplit(ours._replace(query=theirs.query))
        elif is_web and (is_same_host or is_same_path):
            resolved = urlunsplit(theirs._replace(scheme=ours.scheme, netloc=ours.netloc))
        elif is_web and has_other_prefix:
            resolved = urlunsplit(ours._replace(query=theirs.query))
    except ValueError:
        raise Garbled("the listing's next page has no address") from None
    origin_of(resolved)
    return resolved


def predictions(url: str, page: Page) -> Iterator[str]:
    """Yield the pages after the next, as the page at *url* lets us expect them; may be none.

    *page* must be the one that *url* gave. The pages yielded begin with the one that its `next`
    names, and end at its `count`.
    """
    begin, step = _offset(url), page.n_sent
    if page.next is None or page.count is None or step == 0:
        return
    following = resolve(url, page.next)
    if _offset(following) != begin + step or _pattern(following) != _pattern(url):
        return
    for offset in range(begin + step, page.count, step):
        yield with_offset(following, offset)


def page_key(url: str) -> PageKey:
    """Return *url* in a form that is equal for equal pages."""
    parts = urlsplit(url)
    query = sorted(parse_qsl(parts.query, keep_blank_values=True))
    return origin_of(url), parts.path.rstrip("/"), tuple(query)


def with_offset(url: str, offset: int) -> str:
    """Return *url* with its parameter `offset` set; the others stay as and where they are."""
    return with_number(url, "offset", offset)


def with_number(url: str, name: str, number: int) -> str:
    """Return *url* with its parameter *name* set; the others stay as and where they are."""
    parts = urlsplit(url)
    query = parse_qsl(parts.query, keep_blank_values=True)
    if any(each == name for each, _ in query):
        query = [(each, str(number) if each == name else value) for each, value in query]
    else:
        query.append((name, str(number)))
    return urlunsplit(parts._replace(query=urlencode(query, quote_via=quote)))


def without_limit(url: str) -> str:
    """Return *url* without the length of its page, and without an offset where that is 0."""
    parts = urlsplit(url)
    query = parse_qsl(parts.query, keep_blank_values=True)
    kept = [each for each in query if each[0] != "limit" and each != ("offset", "0")]
    return urlunsplit(parts._replace(query=urlencode(kept, quote_via=quote)))


def _offset(url: str) -> int:
    """Return the offset in *url*; 0 without one, -1 when it is no number."""
    offset = _number(url, "offset")
    return 0 if offset is None else offset


def _number(url: str, wanted: str) -> int | None:
    """Return a parameter of *url*; None without it, -1 when it is no number."""
    for name, value in parse_qsl(urlsplit(url).query, keep_blank_values=True):
        if name == wanted:
            return int(value) if value.isascii() and value.isdigit() and len(value) < 16 else -1
    return None


def _pattern(url: str) -> tuple[str, str, tuple[tuple[str, str], ...]]:
    """Return what must not differ between the pages of one plain listing.

    A server may cut `limit`, which shows in `next`; the step is what it really gives.
    """
    origin, path, query = page_key(url)
    return origin, path, tuple((n, v) for n, v in query if n not in ("offset", "limit"))
