"""The trusted authorities, and the strictness of the checks, on every Python alike."""

from __future__ import annotations

import select
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import certifi
import pytest
import trio
import trustme
from fakes.certificates import Chain, inspection_box
from fakes.origin import serving

from satfs.content.transfer.opener import Opener
from satfs.errors import BadSettings, Unreachable
from satfs.net.http import Http
from satfs.net.trust import Roots, tls_context, trusted_roots


@asynccontextmanager
async def request_scope(
    chain: Chain, *, tls_strict: bool
) -> AsyncIterator[Callable[[], Awaitable[bytes]]]:
    """Yield a function that fetches three bytes from a server with *chain*."""
    async with (
        serving(chain.server) as origin,
        Http(
            connect_timeout_s=5,
            progress_timeout_s=5,
            max_connections=1,
            ca_file=chain.ca_file,
            tls_strict=tls_strict,
        ) as http,
    ):

        async def fetch() -> bytes:
            return (await http.request("GET", origin.url("/ramp/3"), headers={})).body

        yield fetch


@pytest.mark.slow
async def test_a_strict_check_can_be_relaxed(tmp_path: Path) -> None:
    """Certificates of an inspection box: refused with the setting's name, accepted with it."""
    chain = inspection_box(tmp_path)

    async with request_scope(chain, tls_strict=True) as fetch:
        with pytest.raises(Unreachable, match="SATFS_TLS_STRICT=false") as refused:
            await fetch()
        assert refused.value.is_permanent
    async with request_scope(chain, tls_strict=False) as fetch:
        assert await fetch() == b"\0\1\2"


@pytest.mark.parametrize("tls_strict", [True, False])
async def test_a_worker_checks_as_strictly_as_the_loop(tmp_path: Path, *, tls_strict: bool) -> None:
    """The same chain is refused, or accepted with the setting, where bulk is received."""
    chain = inspection_box(tmp_path)
    async with serving(chain.server) as origin:
        parts = urlsplit(origin.url("/ramp/3"))
        opener = Opener()
        opener.ca_file, opener.tls_strict = str(chain.ca_file), tls_strict
        opener.open((parts.scheme, parts.netloc))
        await trio.to_thread.run_sync(select.select, [opener.wake_reader], [], [], 10)
        ((_, found),) = opener.opened()
        opener.close()

    assert isinstance(found, ssl.SSLCertVerificationError) is tls_strict
    if not isinstance(found, Exception):
        found.close()


@pytest.mark.slow
async def test_a_relaxed_check_is_still_a_check(tmp_path: Path) -> None:
    """An unknown authority is refused, and the error does not name a setting that cannot help."""
    chain = inspection_box(tmp_path)

    async with request_scope(Chain(Path(certifi.where()), chain.server), tls_strict=False) as fetch:
        with pytest.raises(Unreachable, match="certificate is not trusted") as refused:
            await fetch()
        assert "TLS_STRICT" not in str(refused.value)


@pytest.mark.parametrize("is_strict", [True, False])
def test_the_flags_are_ours_on_every_python(*, is_strict: bool) -> None:
    """The requirements of a connection do not change with Python's version."""
    context = tls_context(None, is_strict=is_strict)

    assert bool(context.verify_flags & ssl.VERIFY_X509_STRICT) is is_strict
    assert context.verify_flags & ssl.VERIFY_X509_PARTIAL_CHAIN
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2


@pytest.fixture
def no_system_roots(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Have OpenSSL find no authority of the system's, as in a slim container."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "nowhere"))


def test_authorities_that_everybody_may_change_are_refused(tmp_path: Path) -> None:
    """A user who changes that file decides whom satfs trusts; the sentence names the remedy."""
    file = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(file)
    tls_context(file, is_strict=True)
    file.chmod(0o666)
    with pytest.raises(BadSettings, match=f"every user may change .*chmod o-w {file}"):
        tls_context(file, is_strict=True)


def test_the_systems_authorities_are_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them, where the environment names no others."""
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    n_roots = ssl.create_default_context().cert_store_stats()["x509_ca"]
    if not n_roots:
        pytest.skip("OpenSSL finds no file of the system's authorities here")

    assert tls_context(None, is_strict=True).cert_store_stats()["x509_ca"] == n_roots
    assert trusted_roots().is_system


@pytest.mark.usefixtures("no_system_roots")
def test_without_system_roots_those_of_certifi_are_taken(tmp_path: Path) -> None:
    """A slim container reaches public hosts; its own authorities are added to that."""
    trustme.CA().cert_pem.write_to_path(tmp_path / "ca.pem")

    n_roots = tls_context(None, is_strict=True).cert_store_stats()["x509_ca"]
    assert n_roots > 50
    more = tls_context(tmp_path / "ca.pem", is_strict=True).cert_store_stats()["x509_ca"]
    assert more == n_roots + 1
    assert trusted_roots() == Roots("certifi", is_system=False)


def test_with_system_roots_no_others_are_taken(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An authority that the administrator removed is not trusted because certifi ships it."""
    trustme.CA().cert_pem.write_to_path(tmp_path / "system.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "system.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "nowhere"))

    assert tls_context(None, is_strict=True).cert_store_stats()["x509_ca"] == 1
    assert trusted_roots().is_system


def test_a_directory_of_hashed_certificates_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """OpenSSL reads such a directory when a certificate is looked for, and counts none before."""
    trustme.CA().cert_pem.write_to_path(tmp_path / "0123abcd.0")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("SSL_CERT_DIR", f"{tmp_path / 'nowhere'}:{tmp_path}")

    assert tls_context(None, is_strict=True).cert_store_stats()["x509_ca"] == 0
    assert trusted_roots() == Roots(str(tmp_path), is_system=True)
