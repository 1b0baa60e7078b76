"""Every name of ours in the documents and docstrings exists: files, classes, functions, settings.

A name is looked for in code spans and code blocks. Prose may use other words.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import click
import pytest

from satfs.cli.main import COMMANDS, OLD_NAMES
from satfs.cli.main import satfs as program
from satfs.settings import Settings, variable_of

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path.relative_to(ROOT)
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("docs/decisions/*.md"))
    # The changelog also has names that are gone.
    if path.name != "CHANGELOG.md"
)

#: Names of other programs and libraries.
FOREIGN = {
    *(
        "AT_STATX_FORCE_SYNC",
        "SEEK_DATA",
        "posix_fallocate",
        "CONFIG_TLS",
        "sched_runtime",
    ),  # Linux
    "OP_ENABLE_KTLS",  # OpenSSL, CPython
    *("FUSE_PARALLEL_DIROPS", "fuse_lowlevel_notify_inval_entry", "fuse_session_custom_io"),
    *("fuse_init_in", "fuse_init_out", "fuse_out_header", "fuse_lowlevel_ops"),
    *("GDAL_TIFF_USE_MMAP", "gdal_translate", "gdalvrt"),
    *("analytic_0", "analytic_1"),  # keys of assets in an item with several rasters of a kind
    "Containerfile",  # Podman
    *("AsyncRetrying", "SSLSocket", "indexed_gzip", "zran.c", "Z_BLOCK"),  # tenacity, CPython, zlib
}

_FENCE = re.compile(r"^(`{3,})(\w*)[^\n]*\n(.*?)^\1", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"(?<!`)`([^`\n]+(?:\n[^`\n]+)?)`(?!`)")
_FILE = re.compile(r"(?<![\w./~$*<-])((?:[\w-]+/)*[\w-]+\.py|(?:satfs|tests|scripts)/[\w./-]*\w/?)")
_CLASS = re.compile(r"[A-Z][a-z]+(?:[A-Z][a-z]+)*")
_DOTTED = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+(?:\(\))?")
_SNAKE = re.compile(r"_?[a-z][a-z0-9]*(?:_[a-z0-9]+)+(?:\(\))?")
_CONSTANT = re.compile(r"_?[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+")


@cache
def vocabulary() -> frozenset[str]:
    """Return every identifier in our code, and every word of its texts that could be one."""
    found: set[str] = set()
    for top in ("satfs", "scripts", "tests"):
        for path in (ROOT / top).rglob("*.py"):
            if path == Path(__file__):
                continue
            found.add(path.stem)
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                match node:
                    case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                        found.add(node.name)
                    case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name):
                        found.add(name)
                    case ast.keyword(arg=str(name)):
                        found.add(name)
                    case ast.Constant(value=str(text)) if len(text) < 200:
                        found.update(re.findall(r"\w+", text))
                    case ast.alias(name=name):
                        found.update(name.split("."))
    found |= {variable_of(name) for name in Settings.__struct_fields__}
    return frozenset(found)


@cache
def options() -> frozenset[str]:
    """Return every option of every command."""

    def walk(command: click.Command) -> Iterator[str]:
        for parameter in command.params:
            yield from (*parameter.opts, *parameter.secondary_opts)
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                found = command.get_command(context, name)
                assert found is not None
                yield from walk(found)

    return frozenset({*walk(program), "--help", "-h"})


def code_of(text: str) -> Iterator[str]:
    """Yield the code spans and the code blocks of a page."""
    for fence in _FENCE.finditer(text):
        if fence[2] in ("python", "console", "bash"):
            yield from fence[3].splitlines()
    yield from (span[1].replace("\n", " ") for span in _SPAN.finditer(_FENCE.sub("", text)))


def unknown_names(text: str) -> list[str]:
    """Return the names in the code of a page that nothing has. Reads our own files only."""
    return sorted({name for code in code_of(text) for name in _unknown(code)})


def _unknown(code: str) -> Iterator[str]:
    yield from (name for name in _FILE.findall(code) if not _is_file(name))
    # "satfs is mounted at …" is what the program prints.
    if command := re.match(r"(?:\$ )?satfs (?!is mounted)([a-z][\w-]*)(.*)", code):
        if command[1] not in COMMANDS and command[1] not in OLD_NAMES:
            yield f"satfs {command[1]}"
        own = re.split(r" [|>&#;]| -- ", command[2])[0]
        yield from (
            flag for flag in re.findall(r"(?<!\S)--[a-z][a-z-]+", own) if flag not in options()
        )
    if re.fullmatch(_CLASS, code) and code not in FOREIGN and code not in vocabulary():
        yield code
    if re.fullmatch(_DOTTED, code) and not _FILE.fullmatch(code):
        words = code.removesuffix("()").split(".")
        if not FOREIGN.intersection((*words, code)):
            yield from (code for word in words if word not in vocabulary())
    if re.fullmatch(_SNAKE, code) or re.fullmatch(_CONSTANT, code):
        name = code.removesuffix("()")
        if name not in vocabulary() and name not in FOREIGN:
            yield code


def docstrings(path: Path) -> Iterator[str]:
    """Yield the docstrings of a module, its classes and its functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""


def _is_file(name: str) -> bool:
    """Return whether a file or directory of that name is there, from the top or from a package."""
    places = (ROOT, ROOT / "satfs", ROOT / "satfs/content", ROOT / "tests", ROOT / "docs")
    return name in file_names() or any((place / name).exists() for place in places)


@cache
def file_names() -> frozenset[str]:
    """Return the names of the tests' files, which RELIABILITY.md has without their directory."""
    return frozenset(path.name for path in (ROOT / "tests").rglob("test_*.py"))


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_name_in_the_code_of_a_page_exists(page: Path) -> None:
    assert unknown_names((ROOT / page).read_text(encoding="utf-8")) == []


def test_every_name_in_a_docstring_exists() -> None:
    """A docstring that names a class, a module or a function of satfs names one that is there."""
    wrong = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in sorted((ROOT / "satfs").rglob("*.py"))
        for text in docstrings(path)
        for name in unknown_names(text)
        if not (path.parent / name).exists()  # a module of the same package
    ]
    assert wrong == []


@pytest.mark.parametrize(
    "code",
    [
        "satfs/net/carrier_pigeon.py",
        "net/carrier_pigeon.py",
        "CarrierPigeon",
        "Fetcher.fly_home",
        "fly_home()",
        "MAX_PIGEONS",
        "SATFS_PIGEONS",
        "satfs fly",
        "satfs mount --pigeons",
        "pigeons_at_once",
    ],
)
def test_a_name_that_nothing_has_is_found(code: str) -> None:
    """In a span, and in a block where a command or a file may stand."""
    assert unknown_names(f"Of `{code}` more below.\n") != []


def test_no_exception_outlives_its_use() -> None:
    """Each foreign name stands in a page or in a docstring."""
    texts = [(ROOT / page).read_text(encoding="utf-8") for page in PAGES]
    for path in (ROOT / "satfs").rglob("*.py"):
        texts += docstrings(path)
    prose = "\n".join(texts)
    for name in FOREIGN:
        assert name in prose, name
