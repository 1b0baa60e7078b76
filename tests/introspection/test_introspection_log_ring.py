"""The last lines of the log: bounded, whole, and followed by those that read on."""

from __future__ import annotations

import logging

from hypothesis import given
from hypothesis import strategies as st
from introspection.test_introspection_snapshots import EmptyDirectory

from satfs.introspection.log_ring import MAX_BYTES, MAX_LINE_BYTES, LogFile, LogRing, log_ring
from satfs.model import ByteRange


def log(lines: LogRing, message: str) -> None:
    lines.handle(logging.LogRecord("x", logging.INFO, "", 0, message, None, None))


@given(st.lists(st.text(st.characters(blacklist_characters="\n\r"), max_size=20_000), max_size=60))
def test_lines_are_bounded_and_the_last_is_there(messages: list[str]) -> None:
    """However much is logged, little is kept, all of it whole lines, the last one among them."""
    lines = LogRing()
    for message in messages:
        log(lines, message)
        assert len(lines.text) <= MAX_BYTES
        assert lines.text.endswith(b"\n")
        shown = message.encode("utf-8", "backslashreplace")
        if len(shown) <= MAX_LINE_BYTES:
            assert lines.text.endswith(shown + b"\n")


async def test_a_reader_reads_on_and_begins_anew_after_the_older_half_went() -> None:
    lines = LogRing()
    file = LogFile(EmptyDirectory(None, b""), b"log", lines)
    log(lines, "one")
    reader = await file.open()
    assert await reader.read(ByteRange(0, 4)) == b"one\n"
    log(lines, "two")
    assert reader.size_bytes == file.attributes().size_bytes == 8
    assert await reader.read(ByteRange(4, 8)) == b"two\n"
    for number in range(MAX_BYTES // 100):
        log(lines, f"{number:0150}")
    size = file.attributes().size_bytes
    assert size == len(lines.text) < MAX_BYTES
    assert (await reader.read(ByteRange(0, 8))) == bytes(lines.text[:8])
    assert reader.size_bytes == size
    assert bytes(lines.text[:1]) != b"o"


def test_it_is_found_among_the_handlers_of_the_log() -> None:
    """The set-up of the log puts it there; without a set-up it is empty and harmless."""
    assert len(log_ring().text) == 0
    lines, root = LogRing(), logging.getLogger()
    root.addHandler(lines)
    try:
        assert log_ring() is lines
    finally:
        root.removeHandler(lines)
