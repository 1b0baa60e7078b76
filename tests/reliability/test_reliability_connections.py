"""A host that lets few connections through: right bytes, soon, and few of its refusals."""

from __future__ import annotations

import os

import pytest
from reliability.conftest import MakeStand
from reliability.stand import MIB

LONG = {"read_deadline_s": 20, "metadata_deadline_s": 10, "progress_timeout_s": 5}


@pytest.mark.parametrize("how", ["reset", "close", "503", "queue"])
@pytest.mark.parametrize("n_let_through", [1, 2, 4])
def test_a_file_is_read_over_the_connections_there_are(
    make_stand: MakeStand, n_let_through: int, how: str
) -> None:
    """Every byte is right, at most 3 N connections are refused, and the store is not away.

    Meanwhile another file's size and bytes are got over the same connections.
    """
    stand = make_stand(workers=2, range_bytes="8MiB", **LONG)
    stand.origin.store_line.bytes_per_s = 10e6
    scene, other = stand.publish(24 * MIB), stand.publish(MIB)
    limit = stand.origin.faults.add(
        "connection-limit", "object", connections=n_let_through, how=how
    )
    content = stand.content(scene)
    with stand.opened(scene) as file:
        stand.compare(file, content, stop=8 * MIB, limit_s=20)
        assert stand.stat(stand.path(other), 20).st_size == MIB
        stand.compare(file, content, start=8 * MIB, limit_s=20)
    with stand.opened(other) as file:
        stand.compare(file, stand.content(other), limit_s=20)
    assert limit.hits, "the limit was never met"
    assert limit.hits <= 3 * n_let_through
    assert not stand.current.events("host counts as offline")
    assert os.stat(stand.path(scene)).st_size == content.size_bytes
