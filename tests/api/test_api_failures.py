"""Requests that fail, scenes and links: against a vendor in memory."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
import trio
from fakes.vendor import CONTRACT, STORE, Vendor, VendorRequest, some_scene, some_tasks

from satfs.api.endpoints import MAX_LINK_BYTES
from satfs.errors import (
    DeadlineReached,
    Garbled,
    NeedsLogin,
    NotAllowed,
    NotThere,
    Throttled,
    Unreachable,
)
from satfs.model import AttachmentName, CaptureId, SceneId, TaskId
from satfs.net.retry import MAX_GARBLED

ZIP = AttachmentName("delivery_zip")
HTML = httpx.Response(200, content=b"<html><title>Maintenance</title></html>")


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
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
        took_s = trio.current_time() - began
        assert 0.9 * 15 < took_s < 15
        with pytest.raises(Unreachable):
            await aleph.tasks()
        assert trio.current_time() - began == pytest.approx(took_s, abs=0.1)


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


async def test_an_html_page_each_time_is_an_error(
    vendor: Vendor, connect: Any, autojump_clock: Any
) -> None:
    """…and when it is not, the error states that; it is no empty listing."""
    vendor.fail_next(HTML, path="/tasking", times=1 + MAX_GARBLED)
    async with connect() as aleph:
        with pytest.raises(Garbled, match="HTML"):
            await aleph.tasks()
    assert vendor.n_requests("/tasking/tasks/") == 1 + MAX_GARBLED


@pytest.mark.parametrize(
    ("status", "error"), [(403, NotAllowed), (404, NotThere), (410, NotThere), (400, Garbled)]
)
async def test_a_refusal_carries_the_vendors_words(
    vendor: Vendor, connect: Any, autojump_clock: Any, status: int, error: type[Exception]
) -> None:
    """The message has the vendor's own words: users search for them."""
    said = httpx.Response(status, json={"detail": "You may not.\x00\nGo away."})
    vendor.fail_next(said, path="/tasking", times=2 * (1 + MAX_GARBLED))  # with and without limit
    async with connect() as aleph:
        with pytest.raises(error, match=f"list tasks: .* {status}: You may not. Go away."):
            await aleph.tasks()


LIFETIMES: list[Any] = ["3600", 3600.5, 0, -1, None, 1e300, "soon", [], 1e-9]


@pytest.mark.parametrize(
    "stated",
    [
        {},
        *({"expires_in": lifetime} for lifetime in LIFETIMES),
        {"expires_in": 3600, "token_type": "bearer"},
        {"expires_in": 3600, "token_type": "BEARER", "scope": None},
        {"token_type": 7},
    ],
    ids=str,
)
async def test_a_token_is_used_whatever_is_stated_beside_it(
    vendor: Vendor, connect: Any, autojump_clock: Any, stated: dict[str, Any]
) -> None:
    """Its lifetime as text, as a fraction, none or nonsense, and its type in any case."""
    vendor.accept_token("odd-token")
    odd = httpx.Response(200, json={"access_token": "odd-token", **stated})
    vendor.fail_next(odd, path="/oauth", times=99)
    async with connect() as aleph:
        for _ in range(3):
            await aleph.tasks()
    assert vendor.n_requests("/oauth/token") <= 4


PAGE = httpx.Response(403, html="<html><title>Request blocked</title></html>")


async def test_a_page_of_a_box_on_the_way_is_no_refusal(
    vendor: Vendor, connect: Any, autojump_clock: Any
) -> None:
    """A firewall's 403 says nothing about the token or the listing, and is gone a moment later."""
    vendor.fail_next(PAGE, path="/tasking", times=3)
    vendor.fail_next(PAGE, path="/oauth", times=2)
    async with connect() as aleph:
        await aleph.tasks()
        assert aleph.refusal() is None


@pytest.mark.parametrize("path", ["/tasking", "/oauth"])
async def test_a_page_of_a_box_on_the_way_that_stays_is_a_refusal(
    vendor: Vendor, connect: Any, autojump_clock: Any, path: str
) -> None:
    """With the deadline, and in the words of the page."""
    vendor.fail_next(PAGE, path=path, times=1000)
    async with connect() as aleph:
        began_s = trio.current_time()
        with pytest.raises(NotAllowed, match="403: an HTML page 'Request blocked'") as refusal:
            await aleph.tasks()
        assert not isinstance(refusal.value, NeedsLogin)
        assert trio.current_time() - began_s > 5


async def test_a_page_is_the_reason_when_the_try_after_it_is_cut_off(
    vendor: Vendor, connect: Any, autojump_clock: Any
) -> None:
    """The deadline comes while a response is waited for; the one before it was the page."""
    vendor.fail_next(PAGE, path="/tasking")

    def fall_silent(request: VendorRequest) -> None:
        vendor.is_silent = request.path.startswith("/tasking")

    vendor.meanwhile = fall_silent
    async with connect(progress_timeout_s=100) as aleph:
        with pytest.raises(NotAllowed, match="403: an HTML page 'Request blocked'"):
            await aleph.tasks()


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
    assert sum(sent) < (2 + MAX_GARBLED) * MAX_LINK_BYTES


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("query", ["?redirect=false&stage=prod", ""])
async def test_a_redirect_of_a_request_for_a_link_to_itself_is_no_link(
    vendor: Vendor, connect: Any, autojump_clock: Any, status: int, query: str
) -> None:
    """A gateway that adds a parameter or removes a slash is followed."""
    path = "/telluric/scenes/s/attachments/delivery_zip/download"
    place = f"{path}/{query}" if query else f"{path}?redirect=false"
    vendor.fail_next(httpx.Response(status, headers={"Location": place}), path=path)
    async with connect() as aleph:
        link = await aleph.sign(SceneId("s"), ZIP)
    assert link.url.startswith(f"{STORE}/bucket/s/delivery_zip?X-Amz-")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("headers", [{}, {"Location": " "}])
async def test_a_redirect_to_no_address_is_reported_as_such(
    vendor: Vendor, connect: Any, autojump_clock: Any, status: int, headers: dict[str, str]
) -> None:
    """It is sent again as often as other responses that cannot be right, and no more."""
    async with connect() as aleph:
        await aleph.check()
        vendor.fail_next(httpx.Response(status, headers=headers), times=99)
        for call in (aleph.check, lambda: aleph.sign(SceneId("s"), ZIP)):
            n_before = len(vendor.requests)
            with pytest.raises(Garbled, match=f"{status} redirects to no address"):
                await call()
            assert len(vendor.requests) == n_before + 1 + MAX_GARBLED


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
    request = vendor.requests[-1]
    assert request.path == "/telluric/scenes/a%2Fb/attachments/delivery_zip/download/"
    assert request.query == {"redirect": "false"}


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
    assert vendor.requests == []


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
