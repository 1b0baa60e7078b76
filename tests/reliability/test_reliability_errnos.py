"""Each row of the errno table in docs/SEMANTICS.md, reached through a real mount."""

from __future__ import annotations

import errno
import io
import re
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from reliability.conftest import StandFor
from reliability.stand import KIB, MIB, Stand

from satfs.demo.contents import RampContent

SEMANTICS = Path(__file__).parents[2] / "docs" / "SEMANTICS.md"

#: Rows that nothing from outside can bring about in a mount that works.
ELSEWHERE = {
    "NeedsContract": "an account that loses its contract: tests/api",
    "Misuse": "a bug: tests/story has one for every call",
    "OverEgressLimit": "a limit that is reached: tests/content",
    "TooManyOpen": "a limit of descriptors: tests/mounted",
    "Unneeded": "the kernel gets it, and no program: tests/story",
    "CannotMount": "raised before there is a mount: tests/cli",
}

SETTINGS = {"workers": 0, "contents": "visible"}


def rows() -> dict[str, str]:
    """Return errno by error, as the document has them."""
    text = SEMANTICS.read_text(encoding="utf-8").partition("## Errors")[2].partition("\n## ")[0]
    return dict(re.findall(r"^\| ([A-Z]\w+) \| ([A-Z]+) \|", text, re.MULTILINE))


def not_there(stand: Stand) -> None:
    stand.stat(stand.root / "scenes" / "nobody-knows")


def not_allowed(stand: Stand) -> None:
    scene = stand.publish(MIB)
    stand.origin.faults.add("forbidden", "object", path_contains=scene)
    stand.read_at(scene, 0, 10)


def needs_login(stand: Stand) -> None:
    stand.origin.faults.add("unauthorized", "api")
    stand.stat(stand.root / "scenes" / "nobody-may-know")


def changed(stand: Stand) -> None:
    scene = stand.publish(8 * MIB)
    with stand.opened(scene) as file:
        stand.origin.catalogue.replace(scene, RampContent(7 * MIB, 3))
        stand.pread(file, 2 * MIB, 4 * KIB)


def unreachable(stand: Stand) -> None:
    scene = stand.publish(8 * MIB)
    with stand.opened(scene) as file:
        stand.origin.stop_listening("store")
        # Not at the beginning, which may have come beside the size (docs/CONCURRENCY.md).
        stand.pread(file, 4 * MIB, 4 * KIB)


def deadline_reached(stand: Stand) -> None:
    stand.origin.faults.add("hang", "api")
    stand.stat(stand.root / "scenes" / "nobody-says")


def throttled(stand: Stand) -> None:
    stand.origin.faults.add("throttled", "api", retry_after=3600)
    stand.stat(stand.root / "scenes" / "nobody-says-yet")


def garbled(stand: Stand) -> None:
    stand.origin.faults.add("html", "api")
    stand.stat(stand.root / "scenes" / "nobody-says-sense")


def a_zip(change: Callable[[bytearray, int, int], None]) -> bytes:
    """Return a zip with one stored member, its local and central headers changed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("member", bytes(5000))
    data = bytearray(buffer.getvalue())
    change(data, data.index(b"PK\x03\x04"), data.index(b"PK\x01\x02"))
    return bytes(data)


def read_member(stand: Stand, zipped: bytes) -> None:
    scene = stand.publish(zipped)
    member = stand.root / "scenes" / scene / "contents" / "member"
    stand.calls.make("read member", 2 * stand.path_call_s, member.read_bytes)


def damaged(stand: Stand) -> None:
    read_member(stand, a_zip(lambda data, local, central: data.__setitem__(central + 16, 7)))


def encrypted(stand: Stand) -> None:
    def change(data: bytearray, local: int, central: int) -> None:
        data[local + 6] |= 1
        data[central + 8] |= 1

    read_member(stand, a_zip(change))


def unsupported(stand: Stand) -> None:
    def change(data: bytearray, local: int, central: int) -> None:
        struct.pack_into("<H", data, local + 8, 77)
        struct.pack_into("<H", data, central + 10, 77)

    read_member(stand, a_zip(change))


WAYS: dict[str, Callable[[Stand], None]] = {
    "NotThere": not_there,
    "NotAllowed": not_allowed,
    "NeedsLogin": needs_login,
    "Encrypted": encrypted,
    "Changed": changed,
    "Unreachable": unreachable,
    "DeadlineReached": deadline_reached,
    "Throttled": throttled,
    "Garbled": garbled,
    "Damaged": damaged,
    "Unsupported": unsupported,
}

#: Those that are reached at a deadline.
BY_DEADLINE = {"Unreachable", "DeadlineReached", "Throttled", "Garbled"}


def test_every_row_is_reached_or_tested_elsewhere() -> None:
    """No row of the table goes without a test."""
    assert set(rows()) == set(WAYS) | set(ELSEWHERE)


@pytest.mark.parametrize("error", WAYS)
def test_a_row_of_the_errno_table_is_what_a_program_gets(stand_for: StandFor, error: str) -> None:
    """The errno is that of the table, and the log has the reason under the error's own name."""
    stand = stand_for(frozenset({errno.ETIMEDOUT}) if error in BY_DEADLINE else frozenset())
    n_lines = len(stand.current.events())
    try:
        with pytest.raises(OSError) as raised:  # noqa: PT011 - the errno is looked at below
            WAYS[error](stand)
        assert raised.value.errno == getattr(errno, rows()[error])
    finally:
        stand.settle()
    lines = [
        line for line in stand.current.events()[n_lines:]
        if line["event"] in ("call failed", "refused") and line["error"] == error
    ]  # fmt: skip
    # The kernel caches what is not there, and satfs gets no request for it again.
    if error != "NotThere":
        assert lines, f"the log has no line about {error}"
