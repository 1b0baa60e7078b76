"""The API is as strict as the real one is known, or documented, to be."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from demo.asking import Customer, ask, token

from satfs.demo.api import PageLimits, route
from satfs.demo.catalogue import (
    OMIT,
    Attachment,
    Catalogue,
    make_capture,
    make_delivery,
    make_scene,
    make_task,
)
from satfs.demo.sample import many_tasks
from satfs.demo.server import DemoOrigin
from satfs.demo.tokens import DemoAccount

CONTRACTS = (("cont.one", "One"), ("cont.two", "Two"))


# -- tokens ----------------------------------------------------------------------------------------


def test_token(origin: DemoOrigin) -> None:
    """Client credentials give a Bearer token for a day."""
    body = token(origin).json()
    assert set(body) == {"access_token", "scope", "expires_in", "token_type"}
    assert (body["expires_in"], body["token_type"]) == (86_400, "Bearer")


@pytest.mark.parametrize(
    ("changes", "status", "error"),
    [
        ({"client_secret": "wrong"}, 401, "access_denied"),
        ({"client_id": "wrong"}, 401, "access_denied"),
        ({"audience": "https://api.satellogic.com"}, 403, "access_denied"),
        ({"audience": None}, 400, "invalid_request"),
        ({"grant_type": "password"}, 403, "unauthorized_client"),
        ({"client_id": None}, 400, "invalid_request"),
    ],
)
def test_token_refused(
    origin: DemoOrigin, changes: dict[str, str], status: int, error: str
) -> None:
    """A wrong or missing field is reported in OAuth's form; the audience needs its final slash."""
    reply = token(origin, **changes)
    assert (reply.status, reply.json()["error"]) == (status, error)


def test_token_body_must_be_json(origin: DemoOrigin) -> None:
    """Something that is no JSON is a bad request."""
    assert ask(origin.auth_url, "POST", body=b"grant_type=x").status == 400
    assert ask(origin.auth_url, "POST", body=b"[1]").status == 400
    assert ask(origin.auth_url).status == 405


@pytest.mark.parametrize("name", ["authorizationToken", "AuthorizationToken", "AUTHORIZATIONTOKEN"])
def test_token_header_in_any_spelling(customer: Customer, name: str) -> None:
    """Header names have no case."""
    bearer = customer.headers.pop("authorizationToken")
    assert customer.get("/contracts", **{name: bearer}).status == 200


def test_authorization_is_not_the_header(customer: Customer) -> None:
    """The standard header alone does not do; beside the right one it does no harm."""
    bearer = customer.headers["authorizationToken"]
    assert customer.get("/contracts", Authorization=bearer).status == 200
    del customer.headers["authorizationToken"]
    assert customer.get("/contracts", Authorization=bearer).status == 401


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer nonsense", "nonsense", "Basic abc"])
def test_bad_token(customer: Customer, value: str) -> None:
    """No token, or one never given out, is 401 in the gateway's words."""
    reply = customer.get("/tasking/tasks/", authorizationToken=value)
    assert (reply.status, reply.json()) == (401, {"message": "Unauthorized"})
    assert reply.headers["x-amzn-errortype"] == "UnauthorizedException"


def test_token_expires(origin: DemoOrigin, customer: Customer) -> None:
    """A token is good for its lifetime."""
    origin.advance_clock(86_399)
    assert customer.get("/contracts").status == 200
    origin.advance_clock(2)
    assert customer.get("/contracts").status == 401


def test_token_revoked(origin: DemoOrigin, customer: Customer) -> None:
    """A revoked token is refused, and another one is issued."""
    origin.revoke_tokens()
    assert customer.get("/contracts").status == 401
    assert Customer(origin).get("/contracts").status == 200


def test_token_comes_before_contract_comes_before_route(origin: DemoOrigin) -> None:
    """An unknown client learns nothing about contracts; without one, nothing about paths."""
    assert ask(f"{origin.api_url}/nowhere").json() == {"message": "Unauthorized"}
    customer = Customer(origin)
    del customer.headers["X-Satellogic-Contract-Id"]
    assert "X-Satellogic-Contract-Id" in customer.get("/nowhere").json()["message"]


# -- contracts -------------------------------------------------------------------------------------


@pytest.fixture
def shop() -> Iterator[DemoOrigin]:
    """An account of two contracts, with a task for each and one for both; legacy keys accepted."""
    scene = make_scene("20260128_155747_002_SN33_L1D_MS_1", [])
    tasks = [
        make_task(1, [make_capture("c1", [scene])], contract_id="cont.one"),
        make_task(2, contract_id="cont.two"),
        make_task(3),
    ]
    account = DemoAccount(contracts=CONTRACTS, accepts_legacy_keys=True)
    with DemoOrigin(Catalogue(tasks), account=account) as running:
        yield running


def test_contracts_are_a_bare_array(shop: DemoOrigin) -> None:
    """`/contracts` needs a token and no contract, and answers with an array."""
    customer = Customer(shop)
    del customer.headers["X-Satellogic-Contract-Id"]
    expected = [{"contract_id": key, "name": name} for key, name in CONTRACTS]
    assert customer.get("/contracts").json() == expected


def test_contract_is_needed(customer: Customer) -> None:
    """Everything but `/contracts` names the missing header."""
    del customer.headers["X-Satellogic-Contract-Id"]
    reply = customer.get("/telluric/scenes/?sceneset_id=x")
    expected = {"message": "Missing required header X-Satellogic-Contract-Id"}
    assert (reply.status, reply.json()) == (401, expected)


def test_foreign_contract(customer: Customer) -> None:
    """A contract that is not the account's is 401 too, in words about contracts."""
    customer.headers["X-Satellogic-Contract-Id"] = "cont.other"
    reply = customer.get("/tasking/tasks/")
    assert reply.status == 401
    assert "contract" in reply.json()["message"]


def test_each_contract_sees_its_own(shop: DemoOrigin) -> None:
    """Tasks, and scenes with them, are seen by the contract they belong to."""
    one, two = Customer(shop), Customer(shop)
    two.headers["X-Satellogic-Contract-Id"] = "cont.two"
    assert [task["task_id"] for task in one.results("/tasking/tasks/")] == [1, 3]
    assert [task["task_id"] for task in two.results("/tasking/tasks/")] == [2, 3]
    assert two.get("/tasking/tasks/1/").status == 404
    assert len(one.results("/telluric/scenes/?sceneset_id=c1")) == 1
    assert two.results("/telluric/scenes/?sceneset_id=c1") == []
    assert two.get("/telluric/scenes/20260128_155747_002_SN33_L1D_MS_1/").status == 404


def test_legacy_key_needs_no_contract(shop: DemoOrigin) -> None:
    """Where it is accepted, `Key,Secret` sees everything and names no contract."""
    headers = {"authorizationToken": shop.account.legacy_header}
    body = ask(f"{shop.api_url}/tasking/tasks/", headers=headers).json()
    assert body["count"] == 3
    wrong = {"authorizationToken": "Key,Secret a,b"}
    reply = ask(f"{shop.api_url}/tasking/tasks/", headers=wrong)
    assert reply.status == 403
    assert set(reply.json()) == {"Message"}


def test_legacy_key_is_off_by_default(origin: DemoOrigin) -> None:
    """Elsewhere the authorizer denies it, in its own words with a capital M."""
    headers = {"authorizationToken": origin.account.legacy_header}
    reply = ask(f"{origin.api_url}/tasking/tasks/", headers=headers)
    assert reply.status == 403
    assert "explicit deny" in reply.json()["Message"]
    assert reply.headers["x-amzn-errortype"] == "AccessDeniedException"


# -- listings --------------------------------------------------------------------------------------


def test_next_is_built_from_the_host_asked(customer: Customer) -> None:
    """`next` is absolute, on the host that the client named."""
    reply = customer.get("/tasking/tasks/?limit=1", Host="example.test:99")
    assert reply.json()["next"] == "http://example.test:99/tasking/tasks/?limit=1&offset=1"


def test_page_limits() -> None:
    """The default page and the maximum are the origin's; nothing is said about a cut."""
    with DemoOrigin(many_tasks(30), page_limits=PageLimits(7, 20)) as origin:
        customer = Customer(origin)
        assert len(customer.results("/tasking/tasks/")) == 7
        assert len(customer.results("/tasking/tasks/?limit=0")) == 7
        assert len(customer.results("/tasking/tasks/?limit=1000")) == 20
        past = customer.get("/tasking/tasks/?offset=30")
        assert (past.status, past.json()["results"], past.json()["count"]) == (200, [], 30)


def test_missing_slash_leads_to_the_slash(customer: Customer) -> None:
    """A path without its final slash is 301 to the one with it, the query kept."""
    reply = customer.get("/tasking/tasks?limit=3")
    assert (reply.status, reply.headers["location"]) == (301, "/tasking/tasks/?limit=3")
    assert customer.get("/telluric/scenes/x/attachments/y/download").status == 301


def test_unknown_path(customer: Customer) -> None:
    """An unknown path is 403, with a text that does not name it."""
    reply = customer.get("/v9/things/")
    assert (reply.status, reply.json()) == (403, {"message": "Missing Authentication Token"})


def test_wrong_method(customer: Customer, origin: DemoOrigin) -> None:
    """The API is for reading here: other methods are 405 in Django's words."""
    reply = ask(f"{origin.api_url}/tasking/tasks/", "PUT", customer.headers, b"{}")
    assert (reply.status, reply.json()) == (405, {"detail": 'Method "PUT" not allowed.'})


def test_task_filters(customer: Customer) -> None:
    """Tasks can be filtered by name and status; an empty status means all, a bad one is 400."""
    assert len(customer.results("/tasking/tasks/?status=")) == 3
    assert len(customer.results("/tasking/tasks/?status=received")) == 1
    assert len(customer.results("/tasking/tasks/?task_name=Harbour%20monitoring")) == 2
    bad = customer.get("/tasking/tasks/?status=nonsense")
    assert bad.status == 400
    assert list(bad.json()) == ["status"]


def test_unknown_task(customer: Customer) -> None:
    """An unknown task is 404 in Django's form, and so are its captures."""
    for path in ("/tasking/tasks/1/", "/tasking/tasks/1/captures/", "/tasking/tasks/x/"):
        reply = customer.get(path)
        assert (reply.status, reply.json()) == (404, {"detail": "Not found."})


def test_captures_have_states_and_only_published_ones_scenes(customer: Customer) -> None:
    """All captures are listed; of those not published, no scene is listed."""
    captures = customer.results("/tasking/tasks/341271/captures/")
    states = {capture["status"] for capture in captures}
    assert states >= {"published", "planned", "failed", "rejected"}
    for capture in captures:
        scenes = customer.results(f"/telluric/scenes/?sceneset_id={capture['capture_id']}")
        assert bool(scenes) == (capture["status"] == "published")
        assert all(scene["sceneset_id"] == capture["capture_id"] for scene in scenes)


def test_withdrawn_capture_has_no_scenes(origin: DemoOrigin, customer: Customer) -> None:
    """Withdrawing a capture hides its scenes, publishing it shows them again."""
    scene = origin.catalogue.published_scenes()[0]
    path = f"/telluric/scenes/{scene.scene_id}/"
    origin.catalogue.set_status(scene.record["sceneset_id"], "processing")
    assert customer.get(path).status == 404
    origin.catalogue.set_status(scene.record["sceneset_id"], "published")
    assert customer.get(path).json()["scene_id"] == scene.scene_id


def test_unknown_scene(customer: Customer) -> None:
    """An unknown scene is 404 with a message, not a detail."""
    reply = customer.get("/telluric/scenes/nope/")
    assert (reply.status, reply.json()) == (404, {"message": "No item found with id nope"})


# -- links -----------------------------------------------------------------------------------------


def test_link(customer: Customer, scene_id: str, origin: DemoOrigin) -> None:
    """`redirect=false` gives the link as JSON, anything else a redirect to it."""
    path = f"/telluric/scenes/{scene_id}/attachments/delivery_zip/download/"
    body = customer.get(f"{path}?redirect=false").json()
    assert list(body) == ["url"]
    assert body["url"].startswith(f"{origin.store_url}/")
    for query in ("", "?redirect=true"):
        reply = customer.get(path + query)
        assert reply.status == 302
        assert ask(reply.headers["location"], headers={"Range": "bytes=0-0"}).status == 206


def test_links_in_the_listing_open(customer: Customer, scene_id: str) -> None:
    """The attachments of a listed scene carry links that open without any header."""
    scene = customer.get(f"/telluric/scenes/{scene_id}/").json()
    assert {a["name"] for a in scene["attachments"]} == {"preview", "delivery_zip"}
    assert all(ask(a["url"]).status == 200 for a in scene["attachments"])


def test_unknown_attachment(customer: Customer, scene_id: str) -> None:
    """An unknown attachment is 404."""
    path = f"/telluric/scenes/{scene_id}/attachments/nope/download/?redirect=false"
    assert customer.get(path).status == 404


def test_credential_in_the_query_is_noticed(origin: DemoOrigin, customer: Customer) -> None:
    """A token in a query would be in every log on the way: refused, and noticed."""
    bearer = customer.headers["authorizationToken"].removeprefix("Bearer ")
    assert customer.get(f"/contracts?access_token={bearer}").status == 400
    assert [(leak.side, leak.place) for leak in origin.leaks] == [("api", "query")]


# -- hostile catalogues ----------------------------------------------------------------------------

HOSTILE = ("a/b", "..", "ü n i", "x" * 300, "a\nb", "%2F", "q?x=1", "#")


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_ids_work(name: str) -> None:
    """Any text is an id, a capture's name, a file name; its objects open."""
    from urllib.parse import quote

    scene = make_scene(name, [make_delivery(name, b"bytes of it", file_name=name)])
    catalogue = Catalogue([make_task(name, [make_capture(name, [scene])])])
    with DemoOrigin(catalogue) as origin:
        customer = Customer(origin)
        quoted = quote(name, safe="")
        assert customer.get(f"/tasking/tasks/{quoted}/").json()["task_id"] == name
        captures = customer.results(f"/tasking/tasks/{quoted}/captures/")
        assert captures[0]["capture_id"] == name
        scenes = customer.results(f"/telluric/scenes/?sceneset_id={quoted}")
        assert scenes[0]["attachments"][0]["file_name"] == name
        path = f"/telluric/scenes/{quoted}/attachments/delivery_zip/download/?redirect=false"
        assert ask(customer.get(path).json()["url"]).body == b"bytes of it"


def test_records_are_sent_as_they_are() -> None:
    """Nulls, missing fields and unknown ones reach the client untouched."""
    odd = Attachment("delivery_zip", "x.zip", None, record={"name": None, "odd": [1]})
    scene = make_scene("s", [odd], footprint=None, timestamp=OMIT, extra={"a": 1})
    task = make_task(7, [make_capture("c", [scene], status="published")], client=None, target=OMIT)
    with DemoOrigin(Catalogue([task])) as origin:
        customer = Customer(origin)
        body = customer.get("/tasking/tasks/7/").json()
        assert body["client"] is None
        assert "target" not in body
        body = customer.get("/telluric/scenes/s/").json()
        assert (body["footprint"], body["extra"]) == (None, {"a": 1})
        assert "timestamp" not in body
        assert body["attachments"] == [{"name": None, "odd": [1]}]


def test_routes_are_told_apart() -> None:
    """Each path shape is one endpoint, with its arguments decoded."""
    assert route("/tasking/tasks/5/captures/") == ("captures", ("5",))
    assert route("/telluric/scenes/a%2Fb/") == ("scene", ("a/b",))
    assert route("/telluric/scenes/s/attachments/preview/download/") == ("sign", ("s", "preview"))
    assert route("//telluric/scenes/")[0] == "other"
