"""The page that people find by the words of an error has the words that are really printed."""

from __future__ import annotations

import ast
import errno
import os
import re
import shutil
from functools import cache
from pathlib import Path

import pytest

from satfs.cli.main import COMMANDS
from satfs.doctor.connection_steps import NOTE_FROM_S, WARN_FROM_S
from satfs.errors import Unneeded
from satfs.fuse.errnos import ERRNOS
from satfs.settings import Settings, load_settings, variable_of

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
HEADINGS = re.findall(r"^## (.*)$", PAGE, re.MULTILINE)

#: Every errno that a program can get from a mount, or from taking one away.
DOCUMENTED = {
    # Only the kernel gets this errno, for read-ahead in vain.
    *(number for error, number in ERRNOS.items() if error is not Unneeded),
    errno.ENOTCONN,  # the process is gone
    errno.EBUSY,  # umount(2)
    errno.EOVERFLOW,  # stat(2) of a 32-bit program
}
#: Words of other programs in headings: of fusermount3 (below), mount(8), OpenSSL through Python,
#: glibc, the shell, an HTTP proxy (RFC 9110 §15.5.8), the object store, the dynamic linker.
FOREIGN = {
    "option allow_other only allowed if 'user_allow_other' is set in /etc/fuse.conf",
    "/dev/fuse: No such file or directory",
    "No such device",
    "Operation not permitted",
    "libfuse3.so.3: cannot open shared object file",
    "unknown filesystem type 'satfs'",
    "CERTIFICATE_VERIFY_FAILED",
    "target is busy",
    "Name or service not known",
    "Temporary failure in name resolution",
    "Proxy Authentication Required",
    "Request has expired",
    "No space left on device",
    "responded with 401: Unauthorized",
    "Bus error",
}
#: Programs' names in headings.
PROGRAMS = {"df", "du", "ls", "ls -l", "kill -9"}


@cache
def our_words() -> tuple[str, ...]:
    """Return every literal text of the program, f-strings in their parts, the longest first."""
    found: set[str] = set()
    for path in (ROOT / "satfs").rglob("*.py"):
        if "demo" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.update(re.split(r"\{\w+\}", node.value))
    return tuple(sorted((each for each in found if len(each.strip()) >= 4), key=len, reverse=True))


def share_of_ours(sentence: str) -> float:
    """Return how much of *sentence* consists of texts of the program."""
    if any(sentence in words for words in our_words()):
        return 1.0
    covered = [False] * len(sentence)
    for words in our_words():
        start = sentence.find(words)
        if start >= 0:
            covered[start : start + len(words)] = [True] * len(words)
    return sum(covered) / len(sentence)


@pytest.mark.parametrize("number", sorted(DOCUMENTED), ids=errno.errorcode.get)
def test_every_errno_that_people_meet_has_a_heading(number: int) -> None:
    """By the words that programs print for it, which are what people search."""
    assert any(f"`{os.strerror(number)}`" in heading for heading in HEADINGS)


def test_words_in_headings_are_those_of_the_system_or_of_satfs() -> None:
    system = {os.strerror(number) for number in errno.errorcode}
    quoted = {words for heading in HEADINGS for words in re.findall(r"`([^`]+)`", heading)}

    for words in quoted - system - FOREIGN - PROGRAMS:
        assert share_of_ours(words) > 0.6, words
    assert quoted | system >= FOREIGN


def test_errors_of_satfs_are_quoted_as_it_says_them() -> None:
    sentences = re.findall(r"^Error: (.+)$", PAGE, re.MULTILINE)

    assert len(sentences) >= 5
    for sentence in sentences:
        assert share_of_ours(sentence) > 0.5, sentence


def test_the_share_tells_words_of_ours_from_others() -> None:
    """A guard for the tests above: a sentence that no program prints is found."""
    assert share_of_ours("the mount could not be established because reasons") < 0.5


@pytest.mark.parametrize(
    "words",
    [
        "only allowed if 'user_allow_other' is set in ",
        ": fuse device not found, try 'modprobe fuse' first",
        ": mount failed: ",
        ": failed to unmount ",
    ],
)
def test_fusermount3_is_quoted_as_it_says_it(words: str) -> None:
    assert words in PAGE
    program = shutil.which("fusermount3")
    if program is None:
        pytest.skip("fusermount3 is not installed")
    assert words.encode() in Path(program).read_bytes()


def test_doctor_is_quoted_as_it_speaks() -> None:
    sample = PAGE.partition("$ satfs doctor\n")[2].partition("```")[0]

    said = re.findall(r"^ {2}(?:ok|note|warning|failure)? +(\w.*|/.*)$", sample, re.MULTILINE)
    assert len(said) >= 4
    for words in said:
        assert share_of_ours(words) > 0.4, words


@pytest.mark.parametrize(
    "event", ["crawler kept out", "call failed", "egress limit near", "egress limit reached"]
)
def test_lines_of_the_log_are_quoted_as_they_are(event: str) -> None:
    assert f"`{event}`" in PAGE
    assert event in our_words()


def test_settings_commands_and_amounts_are_those_there_are() -> None:
    settings = {variable_of(name) for name in Settings.__struct_fields__}
    assert set(re.findall(r"SATFS_[A-Z_]+[A-Z]", PAGE)) <= settings

    commands = set(re.findall(r"^(?:  )?\$ satfs (\w+)|`satfs (\w+)", PAGE, re.MULTILINE))
    assert {first or second for first, second in commands} <= set(COMMANDS)

    defaults = load_settings({})
    assert f"`SATFS_READ_DEADLINE_S` ({defaults.read_deadline_s:.0f} s)" in PAGE
    assert f"`SATFS_METADATA_DEADLINE_S` ({defaults.metadata_deadline_s:.0f} s)" in PAGE
    assert f"from {NOTE_FROM_S:.0f} s on, and warns from {WARN_FROM_S:.0f} s on" in PAGE


def test_links_within_the_page_lead_to_headings() -> None:
    slugs = {re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-") for heading in HEADINGS}

    assert set(re.findall(r"\]\(#([^)]+)\)", PAGE)) <= slugs
