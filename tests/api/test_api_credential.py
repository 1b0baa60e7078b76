"""Credentials for the vendor: tokens, keys, and what may be shown of them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
import trio
from fakes.vendor import CLIENT_SECRET, Vendor, settings_for_vendor
from hypothesis import given
from hypothesis import strategies as st

from satfs.api.credential import Credential, account_key, usable_for_s
from satfs.api.token_request import MAX_REDIRECTS
from satfs.errors import Garbled, NeedsLogin, Unreachable
from satfs.net.http import Http
from satfs.net.retry import MAX_GARBLED
from satfs.net.retry_loop import Retries


@asynccontextmanager
async def credential_for(vendor: Vendor, **changes: Any) -> AsyncIterator[Credential]:
    """Open a credential of *vendor*."""
    async with Http(
        connect_timeout_s=5,
        progress_timeout_s=15,
        max_connections=4,
        transport=vendor.transport(),
    ) as http:
        settings = settings_for_vendor(**changes)
        yield Credential(http, Retries(http.reachability), settings)


async def test_many_who_need_a_token_cause_one_request(vendor: Vendor, autojump_clock: Any) -> None:
    """For any number of callers at once."""
    vendor.delay_s = 0.5
    async with credential_for(vendor) as credential, trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(credential.headers)
    assert vendor.n_tokens == 1


@pytest.mark.parametrize(
    ("stated", "used_s"),
    [
        (86400, 86340),
        ("3600", 3540),
        (" 3600.5 ", 3540.5),
        (3600.25, 3540.25),
        ("NaN", 540),
        (float("inf"), 540),
        (100, 50),
        (2, 1),
        (None, 540),
        ("soon", 540),
        (0, 540),
        (-5, 540),
        (10**12, 540),
        ([], 540),
        (True, 0.5),
    ],
)
async def test_a_token_is_used_until_shortly_before_its_end(
    vendor: Vendor, autojump_clock: Any, stated: Any, used_s: float
) -> None:
    """A minute before, or half its life when that is short; early when no lifetime is stated."""
    vendor.token_lifetime_s = stated
    async with credential_for(vendor) as credential:
        await credential.headers()
        await trio.sleep(used_s - 0.1)
        await credential.headers()
        assert vendor.n_tokens == 1
        await trio.sleep(0.2)
        await credential.headers()
        assert vendor.n_tokens == 2


@given(st.floats(0.001, 1e7))
def test_a_token_is_never_used_beyond_its_life(lifetime_s: float) -> None:
    """And for at least half of it."""
    assert lifetime_s / 2 <= usable_for_s(lifetime_s) < lifetime_s


async def test_only_the_token_that_was_refused_is_renewed(
    vendor: Vendor, autojump_clock: Any
) -> None:
    """A late refusal of the old token does not throw away the new one."""
    async with credential_for(vendor) as credential:
        first = await credential.headers()
        assert credential.refused(first)
        second = await credential.headers()
        assert second != first
        assert credential.refused(first)
        assert await credential.headers() == second
    assert vendor.n_tokens == 2


async def test_a_wrong_secret_says_what_to_check(
    vendor: Vendor, autojump_clock: Any, expect_log: Any
) -> None:
    """In the vendor's words, with the variables, and without the secret."""
    expect_log("credential refused", auth_url="https://auth.vendor.test/oauth/token")
    async with credential_for(vendor, client_secret="wrong-secret") as credential:
        with pytest.raises(NeedsLogin, match=r"401: Unauthorized.*SATFS_CLIENT_SECRET") as failure:
            await credential.headers()
        assert "wrong-secret" not in str(failure.value)
        for _ in range(10):
            with pytest.raises(NeedsLogin):
                await credential.headers()
        assert len(vendor.requests) == 1, "a wrong secret is not tried at the speed of `ls`"
        await trio.sleep(6)
        with pytest.raises(NeedsLogin):
            await credential.headers()
        assert len(vendor.requests) == 2


@pytest.mark.parametrize(
    ("response", "error"),
    [
        (
            httpx.Response(
                403,
                json={
                    "error": "access_denied",
                    "error_description": 'Client is not authorized to access "https://x"',
                },
            ),
            NeedsLogin,
        ),
        (httpx.Response(400, json={"error": "invalid_request"}), NeedsLogin),
        (httpx.Response(404, content=b"<html>"), Garbled),
        (httpx.Response(302, headers={"Location": "https://evil.test"}), Garbled),
        (httpx.Response(200, content=b"<html>"), Garbled),
        (httpx.Response(200, json={"token": "x"}), Garbled),
        (httpx.Response(200, json={"access_token": None}), Garbled),
        (httpx.Response(200, json={"access_token": " \n"}), Garbled),
        (httpx.Response(200, json={"access_token": "a\r\nX-Evil: 1"}), Garbled),
        (httpx.Response(501), Unreachable),
    ],
)
async def test_every_odd_answer_has_its_error(
    vendor: Vendor,
    autojump_clock: Any,
    expect_log: Any,
    response: httpx.Response,
    error: type[Exception],
) -> None:
    """A refusal is NeedsLogin; nonsense is Garbled; no redirect is followed elsewhere."""
    if error is NeedsLogin:
        expect_log("credential refused")
    vendor.fail_next(response, times=5)
    async with credential_for(vendor) as credential:
        with pytest.raises(error) as failure:
            await credential.headers()
    assert type(failure.value) is error
    assert CLIENT_SECRET not in str(failure.value)
    assert all(request.path == "/oauth/token" for request in vendor.requests)


@pytest.mark.parametrize(
    "fields",
    [("accessToken", "expiresIn"), ("Access-Token", "Expires_In"), ("ACCESS_TOKEN", "EXPIRES_IN")],
)
async def test_the_fields_of_a_token_may_be_written_otherwise(
    vendor: Vendor, autojump_clock: Any, fields: tuple[str, str]
) -> None:
    vendor.token_fields, vendor.token_lifetime_s = fields, 3600
    async with credential_for(vendor) as credential:
        await credential.headers()
        await trio.sleep(3539)
        await credential.headers()
        assert vendor.n_tokens == 1
        await trio.sleep(2)
        await credential.headers()
        assert vendor.n_tokens == 2


@pytest.mark.parametrize(
    ("status", "location"),
    [
        (307, "https://auth.vendor.test/v2/token"),
        (308, "/v2/token"),
        (308, "//auth.vendor.test:443/v2/token"),
        (301, "https://auth.vendor.test/oauth/token/"),
        (302, "/oauth/token/?stage=prod"),
    ],
)
async def test_a_redirect_within_the_host_of_the_token_endpoint_is_followed(
    vendor: Vendor, autojump_clock: Any, status: int, location: str
) -> None:
    """With method and body."""
    vendor.moved_auth = str(httpx.URL("https://auth.vendor.test/").join(location))
    vendor.moved_auth = vendor.moved_auth.replace(":443", "")
    vendor.fail_next(httpx.Response(status, headers={"Location": location}))
    async with credential_for(vendor) as credential:
        await credential.headers()
    assert [request.method for request in vendor.requests] == ["POST", "POST"]
    assert vendor.n_tokens == 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "location",
    [
        "https://evil.test/oauth/token",
        "https://auth.vendor.test:8443/oauth/token",
        "http://auth.vendor.test/oauth/token",
        "https://auth.vendor.test@evil.test/oauth/token",
        "//evil.test/oauth/token",
        "file:///etc/passwd",
        "",
    ],
)
async def test_no_other_host_gets_the_client_secret(
    vendor: Vendor, autojump_clock: Any, status: int, location: str
) -> None:
    """Nor another port, nor a host without encryption."""
    vendor.fail_next(httpx.Response(status, headers={"Location": location}), times=9)
    async with credential_for(vendor) as credential:
        with pytest.raises(Garbled, match=r"redirects to .*SATFS_AUTH_URL"):
            await credential.headers()
    assert {request.url for request in vendor.requests} == {"https://auth.vendor.test/oauth/token"}
    assert len(vendor.requests) == 1 + MAX_GARBLED


@pytest.mark.parametrize("status", [301, 302, 303])
async def test_a_redirect_that_may_lose_the_body_is_followed_to_the_same_resource_alone(
    vendor: Vendor, autojump_clock: Any, status: int
) -> None:
    vendor.fail_next(httpx.Response(status, headers={"Location": "/login"}), times=9)
    async with credential_for(vendor) as credential:
        with pytest.raises(Garbled, match=r"redirects to https://auth\.vendor\.test/login"):
            await credential.headers()
    assert {request.path for request in vendor.requests} == {"/oauth/token"}


async def test_a_token_endpoint_that_redirects_without_end_is_given_up(
    vendor: Vendor, autojump_clock: Any
) -> None:
    vendor.fail_next(httpx.Response(307, headers={"Location": "/oauth/token"}), times=99)
    async with credential_for(vendor) as credential:
        with pytest.raises(Garbled, match="without end"):
            await credential.headers()
    assert len(vendor.requests) == (1 + MAX_REDIRECTS) * (1 + MAX_GARBLED)


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_a_token_endpoint_that_stumbles_is_asked_again(
    vendor: Vendor, autojump_clock: Any, status: int
) -> None:
    """Within the deadline."""
    vendor.fail_next(status, times=3)
    async with credential_for(vendor) as credential:
        await credential.headers()


async def test_a_refusal_right_after_a_failure_is_not_believed_at_once(
    vendor: Vendor, autojump_clock: Any
) -> None:
    """A server that starts responds with 503, then refuses what it does not know yet."""
    vendor.fail_next(503)
    vendor.fail_next(httpx.Response(400, json={"error": "invalid_client"}), times=2)
    async with credential_for(vendor) as credential:
        await credential.headers()


async def test_a_wrong_secret_at_an_endpoint_that_fails_is_told_soon(
    vendor: Vendor, autojump_clock: Any, expect_log: Any
) -> None:
    expect_log("credential refused")
    vendor.fail_next(503)
    async with credential_for(vendor, client_secret="wrong-secret") as credential:
        with trio.fail_after(4), pytest.raises(NeedsLogin):
            await credential.headers()
    assert len(vendor.requests) == 4


@pytest.mark.parametrize(
    ("changes", "variable"),
    [
        ({"client_id": None}, "SATFS_CLIENT_ID"),
        ({"client_secret": None}, "SATFS_CLIENT_SECRET"),
        ({"client_secret": "  "}, "SATFS_CLIENT_SECRET"),
        ({"client_secret": "a\x00b"}, "SATFS_CLIENT_SECRET"),
        ({"auth_mode": "token"}, "SATFS_TOKEN"),
        ({"token": "a b\nc"}, "SATFS_TOKEN"),
        ({"auth_mode": "legacy", "client_secret": None}, "SATFS_CLIENT_SECRET"),
    ],
)
async def test_what_is_missing_is_named(
    vendor: Vendor, autojump_clock: Any, changes: Any, variable: str
) -> None:
    """Before any request, and without showing what was set."""
    async with credential_for(vendor, **changes) as credential:
        with pytest.raises(NeedsLogin, match=variable):
            await credential.headers()
    assert vendor.requests == []


def test_secrets_are_known_to_those_who_quote() -> None:
    """So that no message shows them; the settings' own text does not."""
    settings = settings_for_vendor(token="the-token")
    assert "the-token" not in repr(settings)
    assert CLIENT_SECRET not in repr(settings)


def test_an_account_has_a_name_without_secrets() -> None:
    """The same for the same account, another for another; no part of a secret is in it."""
    plain = account_key(settings_for_vendor())
    assert plain == account_key(settings_for_vendor(client_secret="changed"))
    keys = {
        plain,
        account_key(settings_for_vendor(client_id="other")),
        account_key(settings_for_vendor(contract_id="c")),
        account_key(settings_for_vendor(api_url="https://other.test")),
        account_key(settings_for_vendor(token="a-token")),
        account_key(settings_for_vendor(token="b-token")),
        account_key(settings_for_vendor(auth_mode="legacy")),
    }
    assert len(keys) == 7
    assert all(len(key) == 32 and int(key, 16) >= 0 for key in keys)
    assert "token" not in json.dumps(sorted(keys))
