"""The explanation of a file's reads: true of its trace, and on lines that fit."""

from __future__ import annotations

import pytest

from satfs.errors import Unreachable
from satfs.introspection.explain import explain_object, reasons
from satfs.introspection.status import UnreachableHost
from satfs.model import ByteRange
from satfs.read_trace import BYTES, LINK, SIZE, ReadTrace, ReadTraces, TracedFailure

MIB = 1024 * 1024


class Scene:
    """A trace, and a clock to lay it by."""

    def __init__(self) -> None:
        self.now_s = 1_700_000_000.0
        self.trace: ReadTrace = ReadTraces(lambda: self.now_s, lambda: self.now_s).of("scene/zip")

    def ask(
        self, what: str, took_s: float, *, first_byte_s: float | None = None, n_bytes: int = 0
    ) -> None:
        with self.trace.request(what, ByteRange(0, n_bytes) if n_bytes else None) as request:
            self.now_s += took_s
            request.first_byte_s = first_byte_s
            request.received_bytes = n_bytes

    def wait(self, seconds: float) -> None:
        with self.trace.waiting():
            self.now_s += seconds

    def why(self) -> str:
        return " ".join(reasons(self.trace))


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_nothing_is_known_of_what_nobody_asked_for() -> None:
    assert "nothing is noted" in explain_object(None)


def test_nobody_has_read_it(scene: Scene) -> None:
    scene.ask(SIZE, 0.1)
    assert "No program has read it" in scene.why()


def test_all_was_here(scene: Scene) -> None:
    scene.trace.opened()
    scene.trace.served(100)
    text = explain_object(scene.trace)
    assert "All of them had the bytes here already." in text
    assert "- No: the longest wait was 0 ms." in text


def test_a_long_way_for_small_reads(scene: Scene) -> None:
    for _ in range(20):
        scene.ask(BYTES, 0.5, first_byte_s=0.45, n_bytes=128 * 1024)
        scene.wait(0.5)
        scene.trace.served(4096)
    why = scene.why()
    assert "A first byte took 450 ms as a rule, 90% of the time" in why
    assert "reading in order pays it seldom" in why


def test_a_narrow_line(scene: Scene) -> None:
    for _ in range(3):
        scene.ask(BYTES, 10, first_byte_s=0.05, n_bytes=8 * MIB)
        scene.wait(10)
        scene.trace.served(8 * MIB)
    assert "Bytes came at 843.1 kB/s on each connection: the line sets the pace." in scene.why()


def test_a_slow_link_and_a_slow_question(scene: Scene) -> None:
    scene.ask(LINK, 3)
    scene.ask(SIZE, 0.3)
    scene.wait(3)
    scene.trace.served(1)
    assert "A link from the API took 3.0 s." in scene.why()
    assert "A request for size and version took 300 ms." in scene.why()


def test_what_went_wrong_is_told(scene: Scene) -> None:
    def fail() -> None:
        with scene.trace.waiting(), scene.trace.request(BYTES, ByteRange(0, 100)):
            scene.now_s += 5
            raise Unreachable("scene/zip: the object store is silent")

    for _ in range(2):
        with pytest.raises(Unreachable):
            fail()
    text = explain_object(
        scene.trace, away=[UnreachableHost("https://store.test:443", 12.0, "silence")]
    )
    assert "- https://store.test:443 has not responded for 12 s (silence)." in text
    assert "- twice a read ended with an error; the last was Unreachable." in text
    assert "- 2 requests ended early (2 Unreachable)." in text
    assert "Unreachable: scene/zip: the object store is silent" in text


def test_texts_from_outside_are_cleaned(scene: Scene) -> None:
    with pytest.raises(Unreachable), scene.trace.waiting():
        raise Unreachable("s3ntinel")
    away = [UnreachableHost("https://store.test", 1.0, "s3ntinel")]
    text = explain_object(
        scene.trace, away=away, clean=lambda words: words.replace("s3ntinel", "***")
    )
    assert "s3ntinel" not in text


def test_the_table_fits(scene: Scene) -> None:
    """Requests for objects of terabytes fit the table's columns; the last ones are shown."""
    for number in range(100):
        with scene.trace.request(BYTES, ByteRange(10**12, 10**12 + number)):
            scene.now_s += 1
    lines = explain_object(scene.trace).splitlines()
    rows = [line for line in lines if " bytes " in line and "[" in line]
    assert len(rows) == 64
    assert any("the last 64 of 100" in line for line in lines)
    assert len({line.rindex("done") for line in rows}) == 1


def test_no_line_is_wider_than_a_terminal(scene: Scene) -> None:
    """Not the table, nor an outcome with its reason, nor a failure's words."""
    scene.trace.opened()
    for n in range(100):
        scene.ask(BYTES, 60.5, n_bytes=11_000_000_000 + n)
    with scene.trace.request(BYTES, ByteRange(10**10, 10**10 + 5)) as request:
        request.outcome = "Unreachable: the connection was reset by the other side, once more"
    words = "no response from a host with a long name " * 3
    scene.trace.failures.append(TracedFailure(scene.now_s, "Unreachable", words))
    scene.trace.served(10**12)

    text = explain_object(scene.trace, link_left_s=3536)

    assert max(len(line) for line in text.splitlines()) <= 80
    assert "Its link is good for 58 min 56 s more." in text


def test_what_was_predicted_of_a_raster(scene: Scene) -> None:
    scene.trace.opened()
    assert "raster blocks" not in explain_object(scene.trace)
    scene.trace.predicted(3_000_000, 500_000)
    assert (
        "Of raster blocks, 3.0 MB were fetched before they were read, and 500.0 kB were never read."
    ) in " ".join(explain_object(scene.trace).split())
