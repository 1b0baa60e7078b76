"""The egress limit: counted, written down, shared, and kept to."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
from content.fakestore import SCENE, ZIP, FakeStore, learn, opened, run
from hypothesis import given
from hypothesis import strategies as st

from satfs.content.fetch.egress_limit import DayUsage, EgressLimit, add_to_file, settle
from satfs.content.fetch.tails import TAIL_BYTES
from satfs.errors import OverEgressLimit
from satfs.model import ByteRange

MIB = 1024 * 1024
DAY_S = 24 * 3600


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now_s


@given(st.lists(st.integers(0, 10**9), max_size=30), st.integers(1, 10**10))
def test_all_that_is_fetched_counts(pieces: list[int], limit: int) -> None:
    """The limit less the fetched bytes is left, and never less than 0."""
    egress = EgressLimit(limit, wall_clock=Clock())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("satfs.content.fetch.egress_limit.log.warning", lambda *_, **__: None)
        for piece in pieces:
            egress.note(piece)
    assert egress.spent() == DayUsage("2023-11-14", sum(pieces), limit)
    assert egress.left_bytes() == max(0, limit - sum(pieces))
    assert egress.spent().is_over == (sum(pieces) >= limit)
    if egress.spent().is_over:
        with pytest.raises(OverEgressLimit, match="egress_limit"):
            egress.check("scene/zip")
    else:
        egress.check("scene/zip")


def test_without_a_limit_nothing_is_refused() -> None:
    """Bytes are counted without a limit, too, and none is refused."""
    egress = EgressLimit(wall_clock=Clock())
    egress.note(10**15)
    egress.check("scene/zip")
    assert egress.left_bytes() is None
    assert egress.spent() == DayUsage("2023-11-14", 10**15, None)


def test_a_new_day_begins_at_nothing(expect_log: Callable[..., None]) -> None:
    """The limit is for a day of UTC."""
    clock = Clock()
    egress = EgressLimit(100, wall_clock=clock)
    expect_log("egress limit reached", spent_bytes=100, limit_bytes=100)
    egress.note(100)
    assert egress.left_bytes() == 0
    clock.now_s += DAY_S
    assert egress.left_bytes() == 100
    assert egress.spent() == DayUsage("2023-11-15", 0, 100)


def test_the_limit_warns_before_it_bites(expect_log: Callable[..., None], log_book: object) -> None:
    """At 80 % of the limit there is a warning, and one more at its end; each once a day."""
    egress = EgressLimit(1000, wall_clock=Clock())
    egress.note(799)
    expect_log("egress limit near", spent_bytes=800, limit_bytes=1000)
    expect_log("egress limit reached", spent_bytes=1000, limit_bytes=1000)
    for _ in range(300):
        egress.note(1)
    assert len(log_book.named("egress limit near")) == 1  # type: ignore[attr-defined]
    assert len(log_book.named("egress limit reached")) == 1  # type: ignore[attr-defined]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 10**12)), max_size=20))
def test_mounts_add_up(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, int]]
) -> None:
    """However several mounts take turns, each comes to know what all have fetched."""
    path = tmp_path_factory.mktemp("egress") / "egress.json"
    clock = Clock()
    mounts = [EgressLimit(wall_clock=clock) for _ in range(4)]

    def settle_now(egress: EgressLimit) -> None:
        day, n_bytes = egress.unsettled()
        egress.settle(day, n_bytes, add_to_file(path, day, n_bytes))

    for number, n_bytes in steps:
        mounts[number].note(n_bytes)
        settle_now(mounts[number])
    for egress in mounts:
        settle_now(egress)
        assert egress.spent().spent_bytes == sum(n_bytes for _, n_bytes in steps)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"nonsense",
        b"[]",
        b'{"day": "2023-11-14"}',
        b'{"day": 1, "bytes": 5}',
        b'{"bytes": "x"}',
    ],
)
def test_a_file_of_nonsense_counts_as_nothing(tmp_path: Path, content: bytes) -> None:
    """When the file is unreadable, the count begins at 0, and the file is written again."""
    path = tmp_path / "account" / "egress.json"
    path.parent.mkdir()
    path.write_bytes(content)
    assert add_to_file(path, "2023-11-14", 7) == 7
    assert json.loads(path.read_bytes()) == {"day": "2023-11-14", "bytes": 7}
    assert add_to_file(path, "2023-11-15", 1) == 1


async def test_a_full_disk_stops_no_reader(tmp_path: Path) -> None:
    """Bytes that cannot be written down stay counted, and are written down when they can be."""
    (tmp_path / "blocked").write_text("no directory")
    egress = EgressLimit(wall_clock=Clock())
    egress.note(5)
    await settle(egress, tmp_path / "blocked" / "egress.json")
    assert egress.spent().spent_bytes == 5
    egress.note(2)
    await settle(egress, tmp_path / "egress.json")
    assert egress.spent().spent_bytes == 7
    assert json.loads((tmp_path / "egress.json").read_bytes())["bytes"] == 7


def test_beyond_the_limit_the_cache_still_serves(
    tmp_path: Path, expect_log: Callable[..., None]
) -> None:
    """Beyond `egress_limit` what is cached can be read, and the rest is EDQUOT."""
    store = FakeStore()
    content = store.add(8 * MIB)
    expect_log("egress limit near")
    expect_log("egress limit reached")

    async def main() -> None:
        async with opened(store, tmp_path, cache_bytes=10**9, egress_limit=MIB) as contents:
            reader = await contents.open(SCENE, ZIP, await learn(contents))
            got = 0

            async def read_all() -> None:
                nonlocal got
                while got < content.size_bytes:
                    piece = ByteRange(got, got + 128 * 1024)
                    expected = bytes(content.read(piece.start, piece.stop))
                    assert bytes(await reader.read(piece)) == expected
                    got = piece.stop

            with pytest.raises(OverEgressLimit):
                await read_all()
            # A read more than the limit at the most: the one that reached it.
            assert got >= MIB - TAIL_BYTES - 128 * 1024
            assert store.bytes_sent <= MIB + 128 * 1024
            assert len(await reader.read(ByteRange(0, got))) == got
            spent = contents.egress.spent()
            assert spent.is_over
            assert spent.spent_bytes == store.bytes_sent
            reader.close()

    run(main)


def test_a_remount_does_not_begin_at_nothing(
    tmp_path: Path, expect_log: Callable[..., None]
) -> None:
    """The bytes fetched today are remembered across mounts."""
    store = FakeStore()
    store.add(8 * MIB)
    expect_log("egress limit reached")

    async def main() -> None:
        async with opened(store, tmp_path, cache_bytes=10**9) as contents:
            reader = await contents.open(SCENE, ZIP, await learn(contents))
            for start in (MIB, 5 * MIB):
                await reader.read(ByteRange(start, start + MIB))
            await trio.sleep(60)
            spent_bytes = contents.egress.spent().spent_bytes
            assert 2 * MIB <= spent_bytes == store.bytes_sent
            reader.close()
        async with opened(store, tmp_path, cache_bytes=10**9, egress_limit=2 * MIB) as contents:
            assert contents.egress.spent().spent_bytes == spent_bytes
            reader = await contents.open(SCENE, ZIP, await learn(contents))
            assert len(await reader.read(ByteRange(MIB, 2 * MIB))) == MIB
            with pytest.raises(OverEgressLimit):
                await reader.read(ByteRange(3 * MIB, 3 * MIB + 10))
            reader.close()

    run(main)
