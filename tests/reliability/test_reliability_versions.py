"""Stores that show one object under several names: few requests, right bytes or a clear error."""

from __future__ import annotations

import errno
import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from reliability.stand import KIB, MIB, Stand


@pytest.fixture(params=[0, 2], ids=["in the loop", "by workers"])
def stand(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stand]:
    with Stand(tmp_path, workers=request.param, listing_ttl_s=60, read_deadline_s=10) as stand:
        yield stand


def n_object_requests(stand: Stand) -> int:
    return sum(each.endpoint == "object" for each in stand.origin.requests)


def test_an_object_in_an_archive_is_not_asked_for_at_each_look(stand: Stand) -> None:
    """A refusal that no link can change costs one request; then it is known for a while."""
    stand.stat(stand.path(stand.publish(MIB)))  # the first file of a mount takes two requests
    scene = stand.publish(MIB)
    stand.origin.faults.add("archived", "object", path_contains=scene)

    for _ in range(5):
        with pytest.raises(PermissionError):
            stand.stat(stand.path(scene))

    endpoints = [each.endpoint for each in stand.origin.requests if scene in each.path]
    assert endpoints.count("object") == 1
    assert endpoints.count("sign") == 1


def test_a_refused_object_is_not_looked_into_at_each_look(stand: Stand) -> None:
    """Three links and a second are spent once; the next looks cost nothing."""
    scene = stand.publish(MIB)
    stand.origin.faults.add("forbidden", "object", path_contains=scene)
    with pytest.raises(PermissionError):
        stand.stat(stand.path(scene))
    before, began_s = len(stand.origin.requests), time.monotonic()

    for _ in range(5):
        with pytest.raises(PermissionError):
            stand.stat(stand.path(scene))

    assert time.monotonic() - began_s < 0.9
    assert not [each for each in stand.origin.requests[before:] if each.endpoint == "object"]


def test_etags_in_turn_are_read_through(stand: Stand) -> None:
    """Two replicas with different ETags: bytes of one version, with a few tries for each range."""
    scene = stand.publish(24 * MIB)
    stand.origin.faults.add("flipping-etag", "object", every=2)
    before = n_object_requests(stand)

    with stand.opened(scene) as descriptor:
        stand.compare(descriptor, stand.content(scene))

    assert n_object_requests(stand) - before < 150


def test_an_object_under_another_etag_is_not_asked_for_again_and_again(stand: Stand) -> None:
    """A program that reads on after ESTALE costs a few requests a second, not hundreds."""
    scene = stand.publish(24 * MIB)
    with stand.opened(scene) as descriptor:
        stand.compare(descriptor, stand.content(scene), 24 * MIB - KIB)
        stand.origin.faults.add("flipping-etag", "object", path_contains=scene)
        n_before, n_first, began_s = len(stand.origin.requests), 0, time.monotonic()
        seen = set()
        while (took_s := time.monotonic() - began_s) < 2:
            for start in range(0, 8 * MIB, MIB):
                try:
                    os.pread(descriptor, 4 * KIB, start)
                except OSError as failure:
                    seen.add(failure.errno)
                    n_first = n_first or len(stand.origin.requests)
        assert seen == {errno.ESTALE}
    # Each range that was in flight at the first ESTALE is tried three times. After that a second
    # passes between the tries of one range and those of the next.
    requests = [each for each in stand.origin.requests[n_before:] if each.endpoint == "object"]
    in_flight = {each.range for each in stand.origin.requests[n_before:n_first]}
    n_of = Counter(each.range for each in requests)
    n_later = sum(max(0, n - 3) if span in in_flight else n for span, n in n_of.items())
    assert n_later <= 3 * (1 + took_s), n_of
