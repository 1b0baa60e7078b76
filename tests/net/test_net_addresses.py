"""Where links may lead."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from satfs.errors import Garbled, NotAllowed
from satfs.net.addresses import (
    LinkRule,
    escaped,
    is_loopback,
    literal_address,
    may_connect,
    origin_of,
    request_target,
    resolved,
    shown,
)

PUBLIC = LinkRule("https://api.example.com")
LOCAL = LinkRule("http://127.0.0.1:8080")


@pytest.mark.parametrize(
    "url",
    [
        "https://bucket.s3.amazonaws.com/key?X-Amz-Signature=1",
        "https://bucket.s3.amazonaws.com:8443/key",
        "https://8.8.8.8/key",
        "https://[2606:4700::1111]/key",
        "https://xn--bcher-kva.example/",
    ],
)
def test_public_hosts_over_https_are_allowed(url: str) -> None:
    """The ordinary case, by name and by address."""
    PUBLIC.check(url)
    LOCAL.check(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://bucket.s3.amazonaws.com/key",
        "file:///etc/passwd",
        "ftp://host/x",
        "gopher://host/x",
        "data:text/plain,x",
        "nonsense",
        "/only/a/path",
        "https://user@host/x",
        "https://user:pw@host/x",
        "https://@host/x",
        "https://10.1.2.3/x",
        "https://172.16.0.1/x",
        "https://192.168.1.1/x",
        "https://100.64.0.1/x",
        "https://127.0.0.1/x",
        "https://localhost/x",
        "https://LOCALHOST./x",
        "https://db.localhost/x",
        "https://[::1]/x",
        "https://[fd00::1]/x",
    ],
)
def test_a_public_api_leads_nowhere_private(url: str) -> None:
    """No other scheme, no user name, no private address, no plain http."""
    with pytest.raises(NotAllowed):
        PUBLIC.check(url)


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "169.254.0.1",
        "[fe80::1]",
        "[fe80::1%25eth0]",
        "0.0.0.0",
        "[::]",
        "224.0.0.1",
        "[ff02::1]",
        "255.255.255.255",
        "240.0.0.1",
        # The same, in notations that resolvers take.
        "0xa9fea9fe",
        "2852039166",
        "169.254.43518",
        "0251.0376.0251.0376",
        "[::ffff:169.254.169.254]",
        "[64:ff9b::a9fe:a9fe]",
        "[2002:a9fe:a9fe::]",
        "169.254.169.254.",
    ],
)
@pytest.mark.parametrize(
    "rule", [PUBLIC, LinkRule("https://api.example.com", allow_private=True), LOCAL]
)
def test_addresses_that_serve_no_objects_are_refused_always(host: str, rule: LinkRule) -> None:
    """Link-local, multicast, unspecified: with any setting, in any notation."""
    with pytest.raises(NotAllowed):
        rule.check(f"https://{host}/x")


@pytest.mark.parametrize("host", ["10.1.2.3", "127.0.0.1", "localhost", "[::1]", "127.1"])
def test_private_stores_are_a_setting_or_beside_a_private_api(host: str) -> None:
    """A private object store is allowed by the operator, or because the API is private itself."""
    url = f"https://{host}/x"
    LinkRule("https://api.example.com", allow_private=True).check(url)
    LinkRule("https://10.9.9.9").check(url)
    LOCAL.check(url)
    LOCAL.check(url.replace("https", "http"))


@pytest.mark.parametrize(
    "url",
    [
        "https://",
        "https:///x",
        "https://host:99999/x",
        "https://host:x/",
        "https://[::1/x",
        "https://host\\@evil/x",
        "https://ho st/x",
        "https://host/\nx",
        "https://①②⑦.⓪.⓪.①/x",
        "",
    ],
)
def test_what_parsers_disagree_about_is_no_address(url: str) -> None:
    """An address that two parsers may read differently is not requested at all."""
    with pytest.raises((Garbled, NotAllowed)):
        LinkRule("https://api.example.com", allow_private=True).check(url)


@given(st.text())
@example("https://[")
def test_any_text_is_allowed_or_refused_by_our_errors(text: str) -> None:
    """The rule never fails in another way."""
    with contextlib.suppress(Garbled, NotAllowed):
        PUBLIC.check(text)


@given(st.ip_addresses())
def test_every_private_address_is_refused_in_every_spelling(address: object) -> None:
    """An address that `ipaddress` calls not global never passes for a public API."""
    literal = literal_address(str(address))
    assert literal is not None
    host = f"[{address}]" if ":" in str(address) else str(address)
    if not literal.is_global or literal.is_multicast:
        with pytest.raises(NotAllowed):
            PUBLIC.check(f"https://{host}/")


def test_origins_are_comparable() -> None:
    """Case and default ports make no difference; scheme, host and port do."""
    assert origin_of("https://API.example.com/x?y#z") == origin_of("https://api.example.com:443")
    assert origin_of("http://h") != origin_of("https://h")
    assert origin_of("https://h:444") != origin_of("https://h")
    assert origin_of("http://[::1]:80/") == "http://[::1]:80"
    for bad in ("ftp://h", "h", "", "https://h:0x50", "//h/x"):
        with pytest.raises(Garbled):
            origin_of(bad)


def test_what_is_shown_has_no_secrets() -> None:
    """Neither query, fragment, user nor password appears in messages."""
    assert shown("https://u:p@h:8/a/b?X-Amz-Signature=1#f") == "https://h:8/a/b"
    assert "secret" not in shown("not an address?secret")


def test_loopback_names() -> None:
    """Names and addresses that are this machine."""
    for host in (
        "localhost",
        "a.localhost",
        "127.0.0.1",
        "127.9.9.9",
        "::1",
        "127.1",
        "LocalHost.",
    ):
        assert is_loopback(host)
    for host in ("localhost.example.com", "128.0.0.1", "::2", "api"):
        assert not is_loopback(host)


def test_a_reference_is_an_address_or_garbled() -> None:
    """A `Location` with a bracket that does not close is refused with one of our errors."""
    assert resolved("https://a.example/x/y", "../z?q") == "https://a.example/z?q"
    assert resolved("https://a.example/x", "//b.example/a b") == "https://b.example/a%20b"
    for reference in (
        *("https://[", "//[::1", "https://[::1]]/", "https://[[::1]]/", "https://[::1]a/"),
        *("https://a[::1]/", "https://[a]b@[::1]x/", "https://[v1.a]/", "https://[::g]/"),
    ):
        with pytest.raises(Garbled):
            origin_of(resolved("https://a.example/", reference))


@pytest.mark.parametrize(
    "host", ["a" * 64 + ".example", "a..example", ".example", "a." * 127 + "b"]
)
def test_what_cannot_be_resolved_is_no_address(host: str) -> None:
    """A label of 64 characters is an error of ours, and no bug that a resolver meets."""
    with pytest.raises(Garbled):
        PUBLIC.check(f"https://{host}/x")


@pytest.mark.parametrize(
    ("address", "is_public", "is_private"),
    [
        ("8.8.8.8", True, False),
        ("2606:4700::1111", True, False),
        ("127.0.0.1", False, True),
        ("10.1.2.3", False, True),
        ("::1", False, True),
        ("::ffff:10.0.0.1", False, True),
        ("fd12::1", False, True),
        ("100.64.0.1", False, True),
        ("169.254.169.254", False, False),
        ("::ffff:169.254.169.254", False, False),
        ("fe80::1%eth0", False, False),
        ("fec0::1", False, False),
        ("192.0.0.192", False, False),
        ("168.63.129.16", False, False),
        ("100.100.100.200", False, False),
        ("fd00:ec2::254", False, False),
        ("224.0.0.1", False, False),
        ("0.0.0.0", False, False),
    ],
)
def test_what_a_name_resolves_to_is_judged_as_a_literal_is(
    address: str, *, is_public: bool, is_private: bool
) -> None:
    """Public addresses may be connected to, private ones beside a private API, others never."""
    assert may_connect(address, allows_private=False) is is_public
    assert may_connect(address, allows_private=True) is (is_public or is_private)


@pytest.mark.parametrize(
    ("url", "target"),
    [
        ("https://h", b"/"),
        ("https://h/a/../b//?x=%2f#f", b"/a/../b//?x=%2f"),
        ("https://h/\u00e9", None),
        ("https://h/a b", None),
        ("https://[h", None),
    ],
)
def test_a_target_is_what_is_written(url: str, target: bytes | None) -> None:
    """None for what has to be encoded, or is no address."""
    assert request_target(url) == target


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("https://a.example/x?q=%20", "https://a.example/x?q=%20"),
        ("/a b?c=\u00e9#\u4e2d", "/a%20b?c=%C3%A9#%E4%B8%AD"),
        ("https://b\u00e9.example/\u00e9", "https://b\u00e9.example/%C3%A9"),
        ("https://a b/c d", "https://a b/c%20d"),
        ("/x\u202ey\n", "/x\u202ey\n"),
    ],
)
def test_what_browsers_escape_is_escaped(reference: str, expected: str) -> None:
    """Not in the host, and not what would be refused anyway."""
    assert escaped(reference) == expected
