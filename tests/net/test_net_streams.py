"""TLS of the loop's connections: sessions are resumed, and a body shows before its first record."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trio
import trustme
from fakes.origin import ramp, serving
from fakes.tls_servers import serving_by_openssl, serving_half_a_record, serving_in_turn

from satfs.errors import Unreachable
from satfs.net.addresses import origin_of
from satfs.net.http import Http


@pytest.fixture
def context(tmp_path: Path) -> ssl.SSLContext:
    """Return the context of a server; the authority that it is trusted by is in `ca.pem`."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    return context


def client(directory: Path) -> Http:
    return Http(
        connect_timeout_s=5,
        progress_timeout_s=5,
        max_connections=8,
        ca_file=directory / "ca.pem",
    )


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_later_connection_resumes_the_session_of_an_earlier_one(
    context: ssl.SSLContext, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    context.maximum_version = version
    async with serving(context) as origin, client(tmp_path) as http:
        for n_resumed in range(3):
            async with http.stream(origin.url("/ramp/1000"), headers={}) as response:
                assert b"".join([chunk async for chunk in response.chunks()]) == ramp(0, 1000)
            http.close_idle()
            assert context.session_stats()["hits"] == n_resumed
        assert origin.n_connections == 3


async def test_a_host_that_resumes_no_session_is_connected_to_in_full(
    context: ssl.SSLContext, tmp_path: Path
) -> None:
    """No caller sees a failure, and the host is not taken for one that lets few through."""
    with serving_in_turn(context, [True, False, True, True]) as (port, resumed):
        url = f"https://127.0.0.1:{port}/x"
        async with client(tmp_path) as http:
            for _ in range(3):
                async with http.stream(url, headers={}) as response:
                    assert [chunk async for chunk in response.chunks()] == [b"x"]
                http.close_idle()
            assert http.permits.limit(origin_of(url)) is None
    assert resumed == [False, False, False]


async def test_a_refused_connection_is_not_tried_again_in_full(
    context: ssl.SSLContext, tmp_path: Path
) -> None:
    """One that ends without a byte was not let through: another one at once would not be, either.

    After two of them no session is offered again, since a box on the way may not understand it.
    """
    with serving_in_turn(context, [True, None, True, None, True, True]) as (port, resumed):
        url = f"https://127.0.0.1:{port}/x"
        async with client(tmp_path) as http:
            for is_refused in (False, True, False, True, False, False):
                if is_refused:
                    with pytest.raises(Unreachable):
                        async with http.stream(url, headers={}):
                            pass
                else:
                    async with http.stream(url, headers={}) as response:
                        assert [chunk async for chunk in response.chunks()] == [b"x"]
                http.close_idle()
    assert resumed == [False, False, False, False]


async def test_the_beginning_of_a_long_record_counts_as_a_response(
    context: ssl.SSLContext, tmp_path: Path
) -> None:
    """Its first bytes can be decrypted a round trip later; by then more connections may be open."""
    with serving_half_a_record(context, 64 * 1024) as half:
        url = f"https://127.0.0.1:{half.port}/x"
        async with client(tmp_path) as http, trio.open_nursery() as nursery:
            permit = await http.permits.take(origin_of(url), [http.holder])
            found: list[bytes] = []

            async def read() -> None:
                async with http.stream(url, headers={}, permit=permit) as response:
                    found.append(b"".join([chunk async for chunk in response.chunks()]))
                permit.end()

            nursery.start_soon(read)
            with trio.fail_after(10):
                while not permit.has_responded:  # noqa: ASYNC110 - real sockets, real time
                    await trio.sleep(0.001)
            assert half.half_sent.is_set()
            assert not half.may_go_on.is_set()
            half.may_go_on.set()
        assert found == [half.body]


@pytest.mark.parametrize(("option", "order"), [("-tls1_2", b"r"), ("-tls1_3", b"K")])
async def test_a_server_may_exchange_keys_in_the_middle_of_a_body(
    tmp_path: Path, option: str, order: bytes
) -> None:
    """By another handshake (TLS 1.2), of which the server waits for our part, or new keys."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    pem = tmp_path / "server.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(pem))
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 2000\r\n\r\n"
    pieces = [head + bytes(1000), order, bytes(1000)]
    with serving_by_openssl(pem, [option], pieces) as port:
        async with client(tmp_path) as http:
            with trio.fail_after(4):
                response = await http.request("GET", f"https://127.0.0.1:{port}/", headers={})
    assert response.body == bytes(2000)
