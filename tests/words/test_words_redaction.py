"""Secrets are removed from text before people see it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from satfs.redaction import for_people, redact

SECRET = "Zq7vR1pXw9"


@pytest.mark.parametrize(
    "text",
    [
        f"GET https://s.example/a.zip?X-Amz-Signature={SECRET} failed",
        f"GET HTTPS://s.example/a.zip?x={SECRET}",
        f"s3://bucket/key?versionId=1&sig={SECRET}",
        f"https://login.example/done#access_token={SECRET}",
        f"https://ana:{SECRET}@proxy.example:3128 refused",
        f"X-Amz-Security-Token={SECRET}",
        f"x-goog-signature={SECRET}",
        f"Key-Pair-Id={SECRET}",
        f"AWSAccessKeyId={SECRET}&Expires=1",
        f"SATFS_CLIENT_SECRET={SECRET}",
        f"client_secret={SECRET}",
        f"api_key={SECRET}",
        f"authorizationToken: Bearer {SECRET}",
        f"BEARER {SECRET}",
        f"Authorization: Key,Secret {SECRET}",
        f"token eyJhbGciOiJIUzI1.{SECRET}.sig",
    ],
)
def test_a_secret_is_in_no_log_and_in_no_message(text: str) -> None:
    """Logs and messages have one list of patterns: what one of them hides, the other hides too."""
    assert SECRET not in redact(text)
    assert SECRET not in for_people(text)
    assert redact(redact(text)) == redact(text)


def test_what_is_no_secret_stays() -> None:
    text = "scene 20260128_SN33 at https://s.example/a.zip: 503, tried 3 times in 2.5 s"

    assert redact(text) == text


@given(st.text(), st.sampled_from(["…", "***"]))
def test_redacting_twice_changes_nothing_more(text: str, mark: str) -> None:
    assert redact(redact(text, mark), mark) == redact(text, mark)
