"""The way to a host when its name, its port, its TLS or its answer is not as it should be."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme
from doctor.conftest import only
from fakes.certificates import inspection_box
from fakes.origin import serving

from satfs.doctor.connection_steps import (
    NAME_LIMIT_S,
    RESPONSE_LIMIT_S,
    Host,
    HostFindings,
    on_the_way,
    reach,
)
from satfs.doctor.findings import Area, Severity
from satfs.errors import BadSettings, SatfsError, Unreachable
from satfs.net.http import Http
from satfs.net.proxies import Proxies

DIRECTLY = Proxies()
API = Host("api", "the API", "https://api.test/contracts", variable="SATFS_API_URL")


@asynccontextmanager
async def asking(ca_file: Path | None = None, timeout_s: float = 5.0) -> AsyncIterator[Http]:
    """Yield a client, as a mount has one."""
    async with Http(
        connect_timeout_s=timeout_s,
        progress_timeout_s=timeout_s,
        max_connections=2,
        ca_file=ca_file,
    ) as http:
        yield http


async def way_to(url: str, proxies: Proxies = DIRECTLY, **more: Any) -> HostFindings:
    """Return what is found on the way to *url*."""
    host = Host("api", "the API", url, variable="SATFS_API_URL")
    async with asking(**more) as http:
        return await reach(http, host, proxies, {})


def server_side(authority: trustme.CA, name: str = "localhost", **more: Any) -> ssl.SSLContext:
    """Return the server's side of TLS, with a certificate for *name*."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name, **more).configure_cert(context)
    return context


async def test_an_answer_of_any_kind_is_what_is_wanted() -> None:
    """A refusal shows that the way works, and the time at which it came."""
    async with serving() as origin:
        way = await way_to(origin.url("/close"))

    assert [finding.severity for finding in way.findings] == [Severity.OK, Severity.OK]
    assert way.reply is not None
    assert way.reply.sent_at_s <= way.reply.received_at_s


async def test_a_trusted_certificate_is_told(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")

    async with serving(server_side(authority)) as origin:
        way = await way_to(origin.url("/close"), ca_file=tmp_path / "ca.pem")

    assert way.findings[-1].statement.endswith("its certificate trusted.")


async def test_an_unknown_authority_is_a_companys_proxy() -> None:
    async with serving(server_side(trustme.CA())) as origin:
        way = await way_to(origin.url("/close"))
    finding = way.findings[-1]

    assert (finding.severity, finding.cause) == (Severity.FAILURE, Unreachable)
    assert "CERTIFICATE_VERIFY_FAILED" in finding.explanation
    assert finding.commands[0].startswith("export SATFS_CA_FILE=")


async def test_a_certificate_that_only_a_strict_check_refuses_names_the_setting(
    tmp_path: Path,
) -> None:
    chain = inspection_box(tmp_path)

    async with serving(chain.server) as origin:
        way = await way_to(origin.url("/close"), ca_file=chain.ca_file)
    finding = way.findings[-1]

    assert (finding.severity, finding.cause) == (Severity.FAILURE, Unreachable)
    assert "curl and browsers accept it" in finding.explanation
    assert finding.commands[0] == "export SATFS_TLS_STRICT=false"


async def test_a_certificate_that_is_over_may_be_a_wrong_clock(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    long_ago = datetime.now(UTC) - timedelta(days=30)
    context = server_side(authority, not_after=long_ago)

    async with serving(context) as origin:
        way = await way_to(origin.url("/close"), ca_file=tmp_path / "ca.pem")

    assert "the clock of this machine is wrong" in way.findings[-1].explanation
    assert way.findings[-1].commands[0] == "timedatectl status"


async def test_a_certificate_of_another_host_is_somebody_else(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")

    async with serving(server_side(authority, "other.test")) as origin:
        way = await way_to(origin.url("/close"), ca_file=tmp_path / "ca.pem")

    assert "another host" in way.findings[-1].explanation


@asynccontextmanager
async def saying(response: bytes) -> AsyncIterator[int]:
    """Serve on a port of this machine, which sends *response* to every request."""

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.receive_some()
            await stream.send_all(response)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, serve, 0)
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def test_what_speaks_no_tls_is_told_from_what_is_not_trusted() -> None:
    async with saying(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n") as port:
        way = await way_to(f"https://localhost:{port}")

    assert "does not respond with TLS" in way.findings[-1].statement


async def test_a_closed_port_refuses() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]

    way = await way_to(f"http://127.0.0.1:{port}")

    assert "refuses connections" in way.findings[-1].statement
    assert "SATFS_API_URL" in way.findings[-1].remedy


async def test_a_server_that_says_nothing_is_not_waited_for() -> None:
    async with serving() as origin:
        with trio.fail_after(3):
            way = await way_to(origin.url("/silent"), timeout_s=0.2)

    assert way.findings[-1].severity is Severity.FAILURE
    assert "did not answer" in way.findings[-1].statement


class Resolver(trio.abc.HostnameResolver):
    """DNS as this test wants it: a failure, or silence."""

    def __init__(self, failure: Exception | None) -> None:
        self.failure = failure

    async def getaddrinfo(self, *_: Any) -> Any:
        if self.failure is not None:
            raise self.failure
        await trio.sleep_forever()

    async def getnameinfo(self, *_: Any) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (
            socket.gaierror(socket.EAI_NONAME, "Name or service not known"),
            "DNS does not know the name",
        ),
        (socket.gaierror(socket.EAI_AGAIN, "Temporary failure"), "No DNS server responds"),
        (UnicodeError("label too long"), "DNS does not know the name"),
        (None, "DNS servers of this machine do not respond"),
    ],
)
async def test_a_name_that_leads_nowhere_is_told_with_the_reason(
    autojump_clock: trio.testing.MockClock, failure: Exception | None, words: str
) -> None:
    trio.socket.set_custom_hostname_resolver(Resolver(failure))
    began = trio.current_time()

    async with asking() as http:
        way = await reach(http, API, DIRECTLY, {})

    finding = only(way.findings)
    assert (finding.check, finding.severity) == ("api-dns", Severity.FAILURE)
    assert words in finding.explanation
    assert "api.test" in finding.statement
    assert trio.current_time() - began <= NAME_LIMIT_S


async def test_behind_a_proxy_the_proxys_name_is_resolved(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The host's own may be unknown here, and need not be known."""
    unknown = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    trio.socket.set_custom_hostname_resolver(Resolver(unknown))
    proxies = Proxies({"https": "http://me:secret@proxy.test:3128"})

    async with asking() as http:
        way = await reach(http, API, proxies, {})

    assert (
        only(way.findings).statement
        == "The name of the proxy to the API, proxy.test, has no address."
    )


async def test_a_login_page_of_the_network_is_recognised() -> None:
    portal = (
        b"HTTP/1.1 302 Found\r\nLocation: http://login.hotel.test/?u=x\r\n"
        b"Content-Length: 0\r\nConnection: close\r\n\r\n"
    )
    async with saying(portal) as port:
        way = await way_to(f"http://localhost:{port}")

    assert way.findings[-1].severity is Severity.WARNING
    assert "redirects to login.hotel.test" in way.findings[-1].statement


async def test_of_a_link_only_the_host_is_ever_shown(caplog: pytest.LogCaptureFixture) -> None:
    """Neither path nor query: they let their holder read the object."""
    host = Host(
        "store",
        "the object store",
        "http://127.0.0.1:9/bucket/key?X-Amz-Signature=5ec2e7",
        Area.STORE,
    )
    async with asking() as http:
        way = await reach(http, host, DIRECTLY, {})
    async with serving() as origin:
        served = Host("store", "the object store", origin.url("/cut/9/1?sig=5ec2e7"), Area.STORE)
        async with asking() as http:
            way.findings += (await reach(http, served, DIRECTLY, {})).findings

    output = repr(way.findings) + caplog.text
    assert "127.0.0.1" in output
    for secret in ("bucket", "5ec2e7", "/cut"):
        assert secret not in output


# -- proxies ---------------------------------------------------------------------------------------


def test_no_proxy_is_fine() -> None:
    assert only(on_the_way((API,), DIRECTLY)).statement == "No proxy is used."


def test_a_proxy_is_named_without_its_password() -> None:
    finding = only(on_the_way((API,), Proxies({"https": "http://me:secret@proxy.test:3128"})))

    assert finding.severity is Severity.OK
    assert finding.statement == "The API: reached through http://proxy.test:3128."


@pytest.mark.parametrize(
    ("proxy", "words", "cause"),
    [
        ("socks5://proxy.test:1080", "does not support socks5", BadSettings),
        ("https://proxy.test", "TLS inside of TLS", Unreachable),
        ("http://me:secret@[::1", "all_proxy is not the address of a proxy", BadSettings),
        ("http://proxy.test:port", "all_proxy is not the address of a proxy", BadSettings),
    ],
)
def test_proxies_that_cannot_be_spoken_to_are_failures(
    proxy: str, words: str, cause: type[SatfsError]
) -> None:
    finding = only(on_the_way((API,), Proxies({"all": proxy})))

    assert (finding.severity, finding.cause) == (Severity.FAILURE, cause)
    assert words.lower() in finding.statement.lower()
    assert "secret" not in finding.statement


def test_hosts_that_are_excepted_are_asked_directly() -> None:
    proxies = Proxies({"https": "http://proxy.test:3128", "no": "api.test"})

    assert only(on_the_way((API,), proxies)).statement == "No proxy is used."


def test_the_limits_leave_room_below_thirty_seconds() -> None:
    """Each step of a way may take its whole time, and the next one is not tried then."""
    assert NAME_LIMIT_S + RESPONSE_LIMIT_S <= 10
