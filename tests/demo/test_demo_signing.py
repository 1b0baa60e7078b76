"""Presigned URLs are those of AWS, and nothing of them can be changed."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from satfs.demo.signing import MAX_LIFETIME_S, Check, SignatureState, SigningKey, check, presign

KEY = SigningKey("AKIAEXAMPLE", "secret")
NOW_S = 1_770_000_000.0
URL = "http://127.0.0.1:1234/bucket/l1d/scene.zip"


def state(url: str, method: str = "GET", now_s: float = NOW_S, host: str | None = None) -> Check:
    parts = urlsplit(url)
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    return check(method, parts.path, pairs, host or parts.netloc, keys=[KEY], now_s=now_s)


def test_signature_is_that_of_the_documentation() -> None:
    """The example in the S3 API reference comes out as printed there."""
    key = SigningKey(
        "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", region="us-east-1"
    )
    signed = presign(
        "https://examplebucket.s3.amazonaws.com/test.txt",
        key,
        now_s=1_369_353_600.0,
        lifetime_s=86_400,
    )
    printed = "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
    assert signed.endswith(f"X-Amz-Signature={printed}")


@given(
    lifetime_s=st.integers(1, MAX_LIFETIME_S),
    age_s=st.floats(0, MAX_LIFETIME_S + 10, allow_nan=False),
)
def test_link_is_good_until_its_lifetime_is_over(lifetime_s: int, age_s: float) -> None:
    """A link is good from its signing on for its lifetime, and then it has expired."""
    signed = presign(URL, KEY, now_s=NOW_S, lifetime_s=lifetime_s)
    expected = SignatureState.GOOD if age_s < lifetime_s else SignatureState.EXPIRED
    assert state(signed, now_s=NOW_S + age_s).state is expected


@given(at=st.integers(0, 2000), letter=st.sampled_from("abcXYZ019%&=~"))
def test_altered_link_is_refused(at: int, letter: str) -> None:
    """Changing any one character of path or query makes the link worthless."""
    signed = presign(URL, KEY, now_s=NOW_S, lifetime_s=60)
    start = len("http://127.0.0.1:1234/")
    at = start + at % (len(signed) - start)
    altered = signed[:at] + letter + signed[at + 1 :]
    is_same = parse_qsl(urlsplit(altered).query) == parse_qsl(urlsplit(signed).query)
    if is_same and urlsplit(altered).path == urlsplit(signed).path:
        return
    assert state(altered).state is not SignatureState.GOOD


@pytest.mark.parametrize("method", ["HEAD", "PUT", "DELETE", "POST"])
def test_method_is_signed(method: str) -> None:
    """A link for GET is for GET alone."""
    signed = presign(URL, KEY, now_s=NOW_S, lifetime_s=60)
    assert state(signed, method).state is SignatureState.MISMATCH


def test_host_is_signed() -> None:
    """A link for one host is good at no other."""
    signed = presign(URL, KEY, now_s=NOW_S, lifetime_s=60)
    assert state(signed, host="127.0.0.1:4321").state is SignatureState.MISMATCH


def test_extra_parameter_is_refused() -> None:
    """Overrides are signed along, or not accepted."""
    signed = presign(URL, KEY, now_s=NOW_S, lifetime_s=60)
    assert state(f"{signed}&partNumber=1").state is SignatureState.MISMATCH
    override = ("response-content-disposition", "attachment; filename=x.zip")
    along = presign(URL, KEY, now_s=NOW_S, lifetime_s=60, overrides=[override])
    assert state(along).state is SignatureState.GOOD


def test_link_from_the_future_is_not_valid_yet() -> None:
    """A clock may run ahead by a quarter of an hour, and no more."""
    signed = presign(URL, KEY, now_s=NOW_S, lifetime_s=60)
    assert state(signed, now_s=NOW_S - 899).state is SignatureState.GOOD
    assert state(signed, now_s=NOW_S - 901).state is SignatureState.NOT_YET


@pytest.mark.parametrize("lifetime_s", [0, -5, MAX_LIFETIME_S + 1])
def test_lifetime_has_bounds(lifetime_s: int) -> None:
    """No link lives longer than a week."""
    signed = presign(URL, KEY, now_s=NOW_S, lifetime_s=lifetime_s)
    assert state(signed).state is SignatureState.MALFORMED


def test_deleted_key_is_unknown() -> None:
    """A link dies with its key."""
    signed = presign(URL, SigningKey("AKIAGONE", "secret"), now_s=NOW_S, lifetime_s=60)
    assert state(signed).state is SignatureState.UNKNOWN_KEY


def test_session_token_belongs_to_the_link() -> None:
    """A link of temporary credentials carries their token, signed."""
    key = SigningKey("AKIAEXAMPLE", "secret", session_token="session/+=")
    signed = presign(URL, key, now_s=NOW_S, lifetime_s=60)
    parts = urlsplit(signed)
    pairs = parse_qsl(parts.query)
    found = check("GET", parts.path, pairs, parts.netloc, keys=[key], now_s=NOW_S)
    assert found.state is SignatureState.GOOD
    without = [(name, value) for name, value in pairs if name != "X-Amz-Security-Token"]
    found = check("GET", parts.path, without, parts.netloc, keys=[key], now_s=NOW_S)
    assert found.state is SignatureState.MISMATCH


@given(st.lists(st.tuples(st.text(max_size=30), st.text(max_size=30)), max_size=8))
def test_any_query_gives_a_verdict(pairs: list[tuple[str, str]]) -> None:
    """A query with any content is judged, and never found good."""
    found = check("GET", "/b/k", pairs, "host", keys=[KEY], now_s=NOW_S)
    assert found.state is not SignatureState.GOOD
