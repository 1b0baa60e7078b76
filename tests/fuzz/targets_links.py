"""Links and addresses from the API: the response to a sign request, and where a link may lead."""

from __future__ import annotations

import math
from urllib.parse import urlsplit

from fuzz.target import Target
from hypothesis import strategies as st

from satfs.api.presigned import from_url, link
from satfs.errors import Garbled, NotAllowed
from satfs.net.addresses import LinkRule, literal_address, origin_of, shown

_RULE = LinkRule("https://api.satellogic.com")
_PIECES = st.sampled_from(
    ["https://", "http://", "HTTPS:", "//", "/", "\\", "@", ":", "[", "]", "%", "%25", "#", "?",
     "&", "=", ".", "..", "127.1", "0x7f.1", "[::1]", "[::ffff:10.0.0.1%25eth0]", "169.254.169.254",
     "fec0::1", "xn--", "\u3002", "\u0130", "\x00", "\r\n", "X-Amz-Date=20250101T000000Z",
     "X-Amz-Expires=9", "Expires=1", ":0", ":65536", "a" * 64, "store.example", " "]
)  # fmt: skip
urls = st.lists(_PIECES | st.text(max_size=8), max_size=12).map("".join)
_bodies = (
    st.binary(max_size=400)
    | urls.map(lambda url: b'{"url": "%s"}' % url.encode("utf-8", "replace"))
    | st.sampled_from([b"null", b"[]", b'{"url": 7}', b'{"url": "\\ud800"}', b"[" * 100_000])
)


def check_url(url: str) -> None:
    """A link is allowed or refused; one that is allowed leads where the rule looked."""
    end = from_url(url).expires_at_s
    assert end is None or math.isfinite(end)
    shown(url)
    try:
        _RULE.check(url)
    except (NotAllowed, Garbled):
        return
    assert origin_of(url).startswith("https://")
    address = literal_address(urlsplit(url).hostname or "")
    assert address is None or address.is_global


def check_answer(given: tuple[int, str, bytes]) -> None:
    """The response to a sign request is a link or `Garbled`."""
    status, location, body = given
    try:
        found = link(status, {"location": location}, body, request_url="https://api.example/sign")
    except Garbled:
        return
    assert found.url


TARGETS = (
    Target(
        "links",
        "where a link may lead, and when it ends (net/addresses.py, api/presigned.py)",
        urls,
        check_url,
        ("https://" + "a" * 64 + "/x", "https://[fec0::1]/x"),
    ),
    Target(
        "signed",
        "the response to a sign request (api/presigned.py)",
        st.tuples(st.sampled_from([200, 201, 302, 307]), urls, _bodies),
        check_answer,
    ),
)
