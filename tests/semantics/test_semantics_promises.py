"""docs/SEMANTICS.md and the tests hold each other: no promise without a test that quotes it."""

from __future__ import annotations

import ast
import errno
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from satfs.fuse.errnos import ERRNOS

TESTS = Path(__file__).parent.parent
DOCUMENT = TESTS.parent / "docs" / "SEMANTICS.md"

_PROMISE = re.compile(r"^- \*\*(S-\d+)\*\* (.+(?:\n  .+)*)", re.MULTILINE)
_ROW = re.compile(r"^\| (\w+) \| (E[A-Z]+) \|", re.MULTILINE)


def plain(text: str) -> str:
    """Return *text* with every run of white space as one blank."""
    return " ".join(text.split())


def promises() -> list[tuple[str, str]]:
    return [(name, plain(text)) for name, text in _PROMISE.findall(DOCUMENT.read_text())]


def docstrings() -> Iterator[str]:
    """Yield what each test says that is promised."""
    for path in TESTS.rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                said = ast.get_docstring(node) if node.name.startswith("test_") else None
                if said:
                    yield plain(said)


@pytest.fixture(scope="module")
def said() -> set[str]:
    return set(docstrings())


@pytest.mark.parametrize(("name", "text"), promises())
def test_each_promise_is_what_a_test_says(name: str, text: str, said: set[str]) -> None:
    """A promise is kept by a test that quotes it, word for word."""
    assert any(text in each for each in said), f"no test says {name}: {text}"


def test_promises_are_numbered_once() -> None:
    """A number means one promise, so that people can speak of it, wherever it stands."""
    numbers = sorted(int(name.removeprefix("S-")) for name, _ in promises())
    assert numbers == list(range(1, len(numbers) + 1))
    assert numbers
    assert len(re.findall(r"\*\*S-\d+\*\*", DOCUMENT.read_text())) == len(numbers)


def test_the_errno_table_is_the_one_in_use() -> None:
    """Programs get the errnos of the document, for every error."""
    rows = {name: number for name, number in _ROW.findall(DOCUMENT.read_text()) if name != "error"}
    table = {error.__name__: errno.errorcode[number] for error, number in ERRNOS.items()}
    # One number may have two names (EOPNOTSUPP is ENOTSUP on Linux), so numbers are compared.
    assert {name: getattr(errno, number) for name, number in rows.items()} == {
        name: getattr(errno, number) for name, number in table.items()
    }
