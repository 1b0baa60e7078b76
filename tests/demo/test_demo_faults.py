"""Each fault breaks what its name states, at the chosen requests, and nothing else."""

from __future__ import annotations

import gzip
import http.client
import json
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import pytest
from demo.asking import Customer, Reply, ask, token
from fakes.processes import wait_until

from satfs.demo.contents import RampContent
from satfs.demo.effects import scrambled
from satfs.demo.faults import KINDS, FaultTable
from satfs.demo.server import DemoOrigin


@pytest.fixture
def url(origin: DemoOrigin, scene_id: str) -> str:
    origin.catalogue.replace(scene_id, RampContent(10_000))
    return origin.link(scene_id)


def ramp(start: int, stop: int) -> bytes:
    return bytes(RampContent(10_000).read(start, stop))


# -- which requests --------------------------------------------------------------------------------


def hits(table: FaultTable, n: int, **request: Any) -> list[int]:
    """Return which of *n* equal requests are met."""
    request = {"endpoint": "object", "path": "/b/k", "ranged": True, **request}
    return [k for k in range(n) if table.drawn(**request)]


def test_fault_strikes_as_often_as_told() -> None:
    """Skip, every and count together name the requests that are met."""
    table = FaultTable()
    table.add("cut", "object", skip=2, every=3, count=2)
    assert hits(table, 20) == [4, 7]


def test_fault_strikes_where_told() -> None:
    """An endpoint, a part of the path and the presence of a range narrow a fault down."""
    table = FaultTable()
    table.add("cut", "object", path_contains="k", ranged=True)
    assert hits(table, 1) == [0]
    assert hits(table, 1, ranged=False) == []
    assert hits(table, 1, path="/b/x") == []
    assert hits(table, 1, endpoint="tasks") == []


def test_api_means_everything_but_objects() -> None:
    """`api` is every endpoint of the API, `*` is all."""
    table = FaultTable()
    table.add("latency", "api")
    assert hits(table, 1, endpoint="token") == [0]
    assert hits(table, 1, endpoint="object") == []


def test_probability_is_the_seed_s() -> None:
    """A fault with a probability meets the same requests for the same seed."""
    tables = [FaultTable() for _ in range(3)]
    for table, seed in zip(tables, (1, 1, 2), strict=True):
        table.add("cut", probability=0.3, seed=seed)
    first, same, other = (hits(table, 200) for table in tables)
    assert first == same
    assert first != other
    assert 30 <= len(first) <= 90


@pytest.mark.parametrize(
    "wrong",
    [{"name": "explode"}, {"name": "cut", "endpoint": "nowhere"}, {"name": "cut", "at_bite": 3}],
)
def test_misspelt_fault_is_refused(wrong: dict[str, Any]) -> None:
    """A fault that cannot strike is an error where it is switched on, not a test that passes."""
    with pytest.raises(ValueError, match=r"called|takes"):
        FaultTable().add(**wrong)


def test_switched_off_fault_is_off(origin: DemoOrigin, url: str) -> None:
    """Removing one, or all, ends it; it knows how often it struck."""
    fault = origin.faults.add("not-found", "object")
    origin.faults.add("latency", "object", seconds=0.01)
    assert ask(url).status == 404
    origin.faults.remove(fault)
    assert ask(url).status == 200
    assert fault.hits == 1
    origin.faults.clear()
    assert len(origin.faults) == 0


def test_faults_are_in_the_journal(origin: DemoOrigin, url: str) -> None:
    """The log of each request has the faults that it met."""
    origin.faults.add("not-found", "object", count=1)
    ask(url)
    ask(url)
    assert [request.faults for request in origin.requests] == [("not-found",), ()]


# -- instead of an answer --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parameters", "status", "code"),
    [
        ("server-error", {"status": 500}, 500, "InternalError"),
        ("server-error", {"status": 503}, 503, "SlowDown"),
        ("throttled", {}, 503, "SlowDown"),
        ("forbidden", {}, 403, "AccessDenied"),
        ("not-found", {}, 404, "NoSuchKey"),
        ("expired-link", {}, 403, "AccessDenied"),
        ("expired-token", {}, 400, "ExpiredToken"),
        ("expired-request", {}, 400, "ExpiredRequest"),
        ("precondition-failed", {}, 412, "PreconditionFailed"),
        ("range-not-satisfiable", {"size_bytes": 5}, 416, "InvalidRange"),
    ],
)
def test_store_errors(
    origin: DemoOrigin, url: str, name: str, parameters: dict[str, Any], status: int, code: str
) -> None:
    """At the store an error is S3's, in XML."""
    origin.faults.add(name, "object", **parameters)
    reply = ask(url)
    assert (reply.status, reply.code) == (status, code)
    assert reply.headers["content-type"] == "application/xml"


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_api_server_errors(origin: DemoOrigin, customer: Customer, status: int) -> None:
    """At the API a 5xx speaks as the gateway does, and can name a time to wait."""
    origin.faults.add("server-error", "tasks", status=status, retry_after=3, count=1)
    reply = customer.get("/tasking/tasks/")
    assert (reply.status, list(reply.json())) == (status, ["message"])
    assert reply.headers["retry-after"] == "3"
    assert customer.get("/tasking/tasks/").status == 200


@pytest.mark.parametrize(
    ("endpoint", "path", "key"),
    [
        ("tasks", "/tasking/tasks/", "detail"),
        ("scenes", "/telluric/scenes/", "message"),
        ("contracts", "/contracts", "message"),
    ],
)
def test_throttled_in_each_dialect(
    origin: DemoOrigin, customer: Customer, endpoint: str, path: str, key: str
) -> None:
    """429 has the form of each service, with Retry-After in seconds or as a date."""
    origin.faults.add("throttled", endpoint, retry_after=17, count=1)
    reply = customer.get(path)
    assert (reply.status, reply.headers["retry-after"]) == (429, "17")
    assert list(reply.json()) == [key]
    origin.faults.add("throttled", endpoint, retry_after=60, as_date=True)
    date = parsedate_to_datetime(customer.get(path).headers["retry-after"])
    assert 55 < date.timestamp() - time.time() < 65


def test_token_endpoint_down(origin: DemoOrigin) -> None:
    """The token endpoint can fail alone."""
    origin.faults.add("server-error", "token", status=503)
    assert token(origin).status == 503


def test_html_as_json_and_as_zip(origin: DemoOrigin, customer: Customer, url: str) -> None:
    """A maintenance page comes with status 200 where JSON or a zip was requested."""
    origin.faults.add("html")
    for reply in (customer.get("/tasking/tasks/"), ask(url)):
        assert reply.status == 200
        assert reply.headers["content-type"].startswith("text/html")
        assert b"<html>" in reply.body


def test_broken_json(origin: DemoOrigin, customer: Customer) -> None:
    """The JSON ends in its middle though its length agrees."""
    origin.faults.add("broken-json", "tasks")
    reply = customer.get("/tasking/tasks/")
    assert reply.is_whole
    with pytest.raises(json.JSONDecodeError):
        reply.json()


@pytest.mark.parametrize(
    "shape",
    ["null", "list", "string", "number", "results-null", "results-object", "results-strings"],
)
def test_wrong_types(origin: DemoOrigin, customer: Customer, shape: str) -> None:
    """The JSON is whole and of another shape than it should be."""
    right = customer.get("/tasking/tasks/").json()
    origin.faults.add("wrong-types", "tasks", shape=shape)
    wrong = customer.get("/tasking/tasks/").json()
    assert wrong != right


def test_scrambled_fields(origin: DemoOrigin, customer: Customer) -> None:
    """Every field is there, and none has its type."""
    right = customer.results("/tasking/tasks/")
    origin.faults.add("wrong-types", "tasks")
    wrong = customer.results("/tasking/tasks/")
    assert [set(task) for task in wrong] == [set(task) for task in right]
    for name, value in right[0].items():
        if not isinstance(value, dict):
            assert type(wrong[0][name]) is not type(value)
    assert scrambled(None) == 7


def test_redirect(origin: DemoOrigin, url: str) -> None:
    """An object can be said to be elsewhere."""
    origin.faults.add("redirect", "object", location="http://other.test/x", status=302)
    assert (ask(url).status, ask(url).headers["location"]) == (302, "http://other.test/x")


@pytest.mark.parametrize(
    ("shape", "status", "content_range"),
    [
        ("no-content", 204, None),
        ("negative", 206, "bytes 0--1/0"),
        ("zero", 206, "bytes 0-0/0"),
        ("whole", 200, None),
        ("chunked", 200, None),
        ("unsized", 416, None),
    ],
)
def test_empty_object(
    origin: DemoOrigin, url: str, shape: str, status: int, content_range: str | None
) -> None:
    """An object can be shown as an empty one, in several ways."""
    origin.faults.add("empty-object", "object", shape=shape)
    reply = ask(url, headers={"Range": "bytes=-100"})
    assert (reply.status, reply.body) == (status, b"")
    assert reply.headers.get("content-range") == content_range


# -- untruths about bytes --------------------------------------------------------------------------


def test_whole_for_range(origin: DemoOrigin, url: str) -> None:
    """A range is answered with 200 and everything."""
    origin.faults.add("whole-for-range", "object")
    reply = ask(url, headers={"Range": "bytes=10-19"})
    assert (reply.status, len(reply.body)) == (200, 10_000)
    assert "content-range" not in reply.headers


@pytest.mark.parametrize(
    ("name", "parameters", "expected"),
    [
        ("wrong-content-range", {"shift": 5}, "bytes 15-24/10000"),
        ("wrong-total", {"by": 7}, "bytes 10-19/10007"),
        ("no-content-range", {}, None),
    ],
)
def test_content_range(
    origin: DemoOrigin, url: str, name: str, parameters: dict[str, Any], expected: str | None
) -> None:
    """Content-Range is wrong or missing; the bytes are those that were requested."""
    origin.faults.add(name, "object", **parameters)
    reply = ask(url, headers={"Range": "bytes=10-19"})
    assert (reply.status, reply.body) == (206, ramp(10, 20))
    assert reply.headers.get("content-range") == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [("no-etag", None), ("other-etag", '"0123456789abcdef"'), ("weak-etag", 'W/"')],
)
def test_etag(origin: DemoOrigin, url: str, name: str, expected: str | None) -> None:
    """The ETag is missing, weak, or another one."""
    right = ask(url).headers["etag"]
    origin.faults.add(name, "object")
    etag = ask(url).headers.get("etag")
    assert etag != right
    assert etag is None if expected is None else str(etag).startswith(expected)


def test_a_suffixed_etag(origin: DemoOrigin, url: str) -> None:
    """The suffix stands within the quotes, as Apache writes it."""
    right = str(ask(url).headers["etag"])
    origin.faults.add("suffixed-etag", "object")
    assert ask(url).headers["etag"] == f'{right[:-1]}-gzip"'


def test_no_last_modified(origin: DemoOrigin, url: str) -> None:
    """Last-Modified is missing."""
    origin.faults.add("no-last-modified", "object")
    assert "last-modified" not in ask(url).headers


def test_no_length(origin: DemoOrigin, url: str) -> None:
    """The body comes in chunks, its length unsaid."""
    origin.faults.add("no-length", "object")
    reply = ask(url)
    assert reply.body == ramp(0, 10_000)
    assert "content-length" not in reply.headers
    assert reply.headers["transfer-encoding"] == "chunked"


def test_short_body(origin: DemoOrigin, url: str) -> None:
    """The body is too short, and Content-Length agrees with it: only Content-Range betrays it."""
    origin.faults.add("short-body", "object", bytes=6)
    reply = ask(url, headers={"Range": "bytes=10-19"})
    assert (reply.is_whole, reply.body) == (True, ramp(10, 16))
    assert reply.headers["content-range"] == "bytes 10-19/10000"


# -- on the way ------------------------------------------------------------------------------------


def test_cut(origin: DemoOrigin, url: str) -> None:
    """The connection ends at the n-th byte, with everything before it delivered."""
    origin.faults.add("cut", "object", at_byte=700)
    reply = ask(url)
    assert (reply.is_whole, reply.body) == (False, ramp(0, 700))
    assert origin.bytes_sent() == 700


def test_cut_before_the_first_byte(origin: DemoOrigin, url: str) -> None:
    """At byte 0 there are headers, and nothing else."""
    origin.faults.add("cut", "object", at_byte=0)
    reply = ask(url)
    assert (reply.status, reply.is_whole, reply.body) == (200, False, b"")


def test_reset(origin: DemoOrigin, url: str) -> None:
    """The connection is reset at the n-th byte: the client's kernel says so."""
    origin.faults.add("reset", "object", at_byte=700)
    with pytest.raises(ConnectionResetError):
        ask(url)


def test_stall(origin: DemoOrigin, url: str) -> None:
    """Nothing comes for so long after the n-th byte, and then the rest."""
    origin.faults.add("stall", "object", at_byte=50, seconds=0.3)
    start_s = time.monotonic()
    assert ask(url).body == ramp(0, 10_000)
    assert time.monotonic() - start_s >= 0.3


def test_stall_for_longer_than_anybody_waits(origin: DemoOrigin, url: str) -> None:
    """A client that gives up gets what came before; the origin forgets the request."""
    origin.faults.add("stall", "object", at_byte=50)
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=0.2)
    connection.request("GET", f"{parts.path}?{parts.query}")
    response = connection.getresponse()
    assert response.read(50) == ramp(0, 50)
    with pytest.raises(TimeoutError):
        response.read(1)
    response.close()
    connection.close()
    assert origin.journal.wait_until_idle()


@pytest.mark.slow
def test_drip(origin: DemoOrigin, url: str) -> None:
    """The body comes no faster than configured."""
    origin.faults.add("drip", "object", bytes_per_s=20_000)
    start_s = time.monotonic()
    assert ask(url).body == ramp(0, 10_000)
    assert time.monotonic() - start_s >= 0.45


def test_latency(origin: DemoOrigin, customer: Customer) -> None:
    """The response starts later."""
    origin.faults.add("latency", "contracts", seconds=0.2)
    start_s = time.monotonic()
    assert customer.get("/contracts").status == 200
    assert time.monotonic() - start_s >= 0.2


def test_hang(origin: DemoOrigin, url: str) -> None:
    """The connection is accepted, and nothing is ever said."""
    origin.faults.add("hang", "object")
    with pytest.raises(TimeoutError):
        ask(url, timeout_s=0.2)


def test_held(origin: DemoOrigin, url: str) -> None:
    """The response comes once the fault is off."""
    held = origin.faults.add("held", "object")
    with ThreadPoolExecutor() as threads:
        reply = threads.submit(ask, url)
        wait_until(lambda: held.hits)
        assert origin.journal.requests[-1].status == 0
        origin.faults.remove(held)
        assert reply.result().body == ramp(0, 10_000)


def test_faults_of_the_way_meet_the_api_too(origin: DemoOrigin, customer: Customer) -> None:
    """A listing can be cut as an object can."""
    origin.faults.add("cut", "tasks", at_byte=20)
    reply = customer.get("/tasking/tasks/")
    assert (reply.is_whole, len(reply.body)) == (False, 20)


# -- listings --------------------------------------------------------------------------------------


def walk(customer: Customer, path: str, n_pages: int) -> list[Any]:
    """Return the ids of at most *n_pages* pages, following `next`."""
    seen: list[Any] = []
    for _ in range(n_pages):
        body = customer.get(path).json()
        seen += [task["task_id"] for task in body["results"]]
        if not body["next"]:
            break
        parts = urlsplit(body["next"])
        path = f"{parts.path}?{parts.query}"
    return seen


def test_endless_next(origin: DemoOrigin, customer: Customer) -> None:
    """There is always another page, with entries never seen before."""
    origin.faults.add("endless-next", "tasks")
    seen = walk(customer, "/tasking/tasks/?limit=10", 20)
    assert len(set(seen)) == 200


@pytest.mark.parametrize(
    "shape", ["lists", "objects", "records", "numbers", "keys", "depth", "text"]
)
@pytest.mark.parametrize("is_packed", [False, True])
def test_costly_page(origin: DemoOrigin, customer: Customer, shape: str, is_packed: bool) -> None:
    """A page of the size wanted, which shrinks far when it is sent compressed."""
    origin.faults.add("costly-page", "tasks", shape=shape, size_bytes=100_000, gzip=is_packed)
    response = customer.get("/tasking/tasks/")
    body = gzip.decompress(response.body) if is_packed else response.body
    assert response.headers.get("content-encoding") == ("gzip" if is_packed else None)
    assert 99_900 < len(body) <= 100_000
    assert not is_packed or len(response.body) < 1000
    if shape != "depth":
        assert "results" in json.loads(body)


def test_page_loop(origin: DemoOrigin, customer: Customer) -> None:
    """The last page leads back to the first."""
    origin.faults.add("page-loop", "tasks")
    seen = walk(customer, "/tasking/tasks/?limit=2", 9)
    assert len(seen) > len(set(seen)) == 3


def test_foreign_next(origin: DemoOrigin, customer: Customer) -> None:
    """`next` leads to another host."""
    origin.faults.add("foreign-next", "tasks", base="http://evil.test")
    body = customer.get("/tasking/tasks/?limit=2").json()
    assert body["next"] == "http://evil.test/tasking/tasks/?limit=2&offset=2"


def test_limit_refused(origin: DemoOrigin, customer: Customer) -> None:
    """A page that is too long is refused; without a limit it has as many entries as may be."""
    origin.faults.add("limit-refused", "tasks", most=2)
    assert customer.get("/tasking/tasks/?limit=3").status == 422
    assert len(walk(customer, "/tasking/tasks/", 9)) == 3


def test_a_wide_range(origin: DemoOrigin, url: str) -> None:
    """The pieces with the range in them, and a Content-Range that states it."""
    origin.faults.add("wide-range", "object", bytes=1000)
    reply = ask(url, headers={"Range": "bytes=1010-2019"})
    assert (reply.status, reply.body) == (206, ramp(1000, 3000))
    assert reply.headers["content-range"] == "bytes 1000-2999/10000"


def test_relative_next(origin: DemoOrigin, customer: Customer) -> None:
    """`next` is relative, as the second version of the API has it."""
    origin.faults.add("relative-next", "tasks")
    body = customer.get("/tasking/tasks/?limit=2").json()
    assert body["next"] == "/tasking/tasks/?limit=2&offset=2"


def test_link_header(origin: DemoOrigin, customer: Customer) -> None:
    """The body has no word about other pages."""
    origin.faults.add("link-header", "tasks")
    reply = customer.get("/tasking/tasks/?limit=2")
    assert not {"next", "count"} & set(reply.json())
    assert 'offset=2>; title="more"; rel="next"' in reply.headers["link"]


def test_page_form(origin: DemoOrigin, customer: Customer) -> None:
    """A page has other names for the same things; contracts have an envelope, too."""
    origin.faults.add("page-form", form="stac")
    page = customer.get("/tasking/tasks/?limit=2").json()
    assert (len(page["features"]), page["numberMatched"]) == (2, 3)
    assert page["links"][1]["href"].endswith("offset=2")
    assert len(Customer(origin).get("/contracts").json()["features"]) == 1


@pytest.mark.parametrize(
    ("by", "query"),
    [("offset", "offset=2"), ("page", "page=2"), ("page-from-0", "page=1"), ("nothing", None)],
)
def test_bare_list(origin: DemoOrigin, customer: Customer, by: str, query: str | None) -> None:
    """A page is a list alone, and one parameter leads to the next one, or none does."""
    every = customer.get("/tasking/tasks/").json()["results"]
    origin.faults.add("bare-list", "tasks", by=by)
    assert customer.get("/tasking/tasks/?limit=2").json() == every[:2]
    assert customer.get("/tasking/tasks/?limit=2&offset=0").json() == every[:2]
    for other in ("offset=2", "page=2", "page=1"):
        page = customer.get(f"/tasking/tasks/?limit=2&{other}").json()
        if other == query:
            assert page == every[2:]
        elif (by, other) == ("page-from-0", "page=2"):
            assert page == []
        else:
            assert page == every[:2]


def test_short_pages(origin: DemoOrigin, customer: Customer) -> None:
    """A page has no more entries than the fault allows, and there are pages of contracts."""
    origin.faults.add("short-pages")
    assert len(customer.get("/tasking/tasks/?limit=2").json()["results"]) == 1
    assert list(Customer(origin).get("/contracts").json()["results"][0]) == ["contract_id", "name"]


def test_encoding(origin: DemoOrigin, customer: Customer) -> None:
    """JSON comes in UTF-16, with a byte order mark."""
    right = customer.get("/tasking/tasks/").json()
    origin.faults.add("encoding", "tasks")
    reply = customer.get("/tasking/tasks/")
    assert reply.body[:2] in (b"\xff\xfe", b"\xfe\xff")
    assert json.loads(reply.body.decode("utf-16")) == right


def test_refused_agent(origin: DemoOrigin, url: str) -> None:
    """A firewall refuses programs of one name."""
    origin.faults.add("refused-agent", agent="satfs")
    assert ask(url, headers={"User-Agent": "satfs/1"}).status == 403
    assert ask(url, headers={"User-Agent": "other"}).status == 200


def test_empty_pages(origin: DemoOrigin, customer: Customer) -> None:
    """Each page with entries comes behind some without."""
    origin.faults.add("empty-pages", "tasks", pages=2)
    body = customer.get("/tasking/tasks/?limit=2").json()
    assert (body["results"], body["next"] is None) == ([], False)
    assert len(walk(customer, "/tasking/tasks/?limit=2", 9)) == 3


def test_wrong_count(origin: DemoOrigin, customer: Customer) -> None:
    """`count` is what the fault says."""
    origin.faults.add("wrong-count", "tasks", value=-1)
    assert customer.get("/tasking/tasks/").json()["count"] == -1


def test_listing_that_changes_between_pages(origin: DemoOrigin, customer: Customer) -> None:
    """An entry inserted in front repeats one of the page before; one removed makes one missing."""
    grows = origin.faults.add("listing-grows", "tasks")
    seen = walk(customer, "/tasking/tasks/?limit=2", 9)
    assert (len(seen), len(set(seen))) == (4, 3)
    origin.faults.remove(grows)
    origin.faults.add("listing-shrinks", "tasks")
    assert len(walk(customer, "/tasking/tasks/?limit=1", 9)) == 2


# -- links -----------------------------------------------------------------------------------------


@pytest.fixture
def path(scene_id: str) -> str:
    return f"/telluric/scenes/{scene_id}/attachments/delivery_zip/download/?redirect=false"


def test_short_link(origin: DemoOrigin, customer: Customer, path: str) -> None:
    """The link says itself that it lives two seconds, and does."""
    origin.faults.add("short-link", "sign", seconds=2)
    url = customer.get(path).json()["url"]
    assert "X-Amz-Expires=2&" in url
    assert ask(url).status == 200
    origin.advance_clock(3)
    assert ask(url).status == 403


def test_stale_link(origin: DemoOrigin, customer: Customer, path: str) -> None:
    """The link has expired before it is handed out."""
    origin.faults.add("stale-link", "sign")
    assert b"Request has expired" in ask(customer.get(path).json()["url"]).body


def test_temporary_credentials(origin: DemoOrigin, customer: Customer, path: str) -> None:
    """The link says an hour, and dies with its session before."""
    origin.faults.add("temporary-credentials", "sign", seconds=10, count=1)
    url = customer.get(path).json()["url"]
    assert "X-Amz-Security-Token=" in url
    assert "X-Amz-Expires=3600" in url
    assert ask(url).status == 200
    origin.advance_clock(11)
    assert (ask(url).status, ask(url).code) == (400, "ExpiredToken")
    assert ask(customer.get(path).json()["url"]).status == 200


@pytest.mark.parametrize(
    "foreign", ["file:///etc/passwd", "http://169.254.169.254/latest/", "gopher://x/"]
)
def test_foreign_link(
    origin: DemoOrigin, customer: Customer, path: str, scene_id: str, foreign: str
) -> None:
    """The link leads where it must not, in the listing as well if the fault has that parameter."""
    origin.faults.add("foreign-link", "api", url=foreign)
    assert customer.get(path).json() == {"url": foreign}
    scene = customer.get(f"/telluric/scenes/{scene_id}/").json()
    assert {attachment["url"] for attachment in scene["attachments"]} == {foreign}


def test_no_link(origin: DemoOrigin, customer: Customer, path: str) -> None:
    """The answer is an object without a link."""
    origin.faults.add("no-link", "sign")
    assert customer.get(path).json() == {}


# -- and nothing is forgotten ----------------------------------------------------------------------


def essence(do: Callable[[], Reply]) -> object:
    """Return what matters of an answer, moments and signatures left out."""
    try:
        reply = do()
    except (OSError, ValueError, LookupError, TypeError) as failure:
        return type(failure)  # no response, or one without a link
    headers = {k: v for k, v in reply.headers.items() if k not in ("date", "content-length")}
    body = re.sub(rb"(X-Amz-Signature=)[0-9a-f]+|T\d{6}Z", b"", reply.body)
    return reply.status, headers, body, reply.is_whole


@pytest.mark.slow
def test_every_fault_changes_something(
    origin: DemoOrigin, customer: Customer, url: str, path: str
) -> None:
    """No name is without effect: with each fault, some answer differs, is late or fails."""

    def answers() -> list[object]:
        start_s = time.monotonic()
        responses = [
            essence(lambda: customer.get("/tasking/tasks/?limit=2")),
            essence(lambda: customer.get("/tasking/tasks/?limit=2&offset=2")),
            essence(lambda: Customer(origin).get("/contracts")),
            essence(lambda: customer.get(path)),
            essence(lambda: ask(customer.get(path).json()["url"], timeout_s=0.6)),
            essence(lambda: ask(url, headers={"Range": "bytes=5-9999"}, timeout_s=0.6)),
            essence(lambda: ask(url, headers={"If-Match": etag}, timeout_s=0.6)),
        ]
        return [*responses, time.monotonic() - start_s > 0.3]

    etag = str(ask(url).headers["etag"])
    shorter: dict[str, Any] = {"seconds": 0.4, "bytes_per_s": 25_000, "connections": 0, "bytes": 99}
    shorter.update(most=1, responses=0)
    *responses, _ = answers()
    right = [*responses, False]  # a machine that was busy just then makes nothing slow
    for name, kind in KINDS.items():
        parameters = {key: value for key, value in shorter.items() if key in kind.parameters}
        slow = name in ("hang", "held", "stall", "latency", "drip", "large-lost", "few-responses")
        origin.faults.add(name, "object" if slow else "*", **parameters)
        assert answers() != right, name
        origin.faults.clear()
    *responses, _ = answers()
    assert responses == right[:-1]
