"""One setting's value, made from the text, number or truth value that was given for it.

msgspec converts it to the type of the setting, within the bounds of a `msgspec.Meta` beside that.
Functions in the same `Annotated` are called with the value: each returns its final form, or raises
a ValueError.
"""

from __future__ import annotations

import math
import os
import re
import shlex
from enum import StrEnum
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Final, TypeAlias, Union, get_args, get_origin
from urllib.parse import urlsplit

from msgspec import Meta, ValidationError, convert

#: Beside the type of a size.
_SIZE: Final = "bytes"
#: A number of bytes, or text such as `20GB` (powers of ten) or `512MiB` (powers of two).
Bytes: TypeAlias = Annotated[int, _SIZE]

_SIZE_TEXT: Final = re.compile(
    r"\s*(\d{0,15}\.?\d{1,15})\s*(?:([kmgtpe])(i)?)?b?\s*", re.IGNORECASE
)
_TRUTHS: Final = {
    **dict.fromkeys(("t", "yes", "y", "on"), True),
    **dict.fromkeys(("f", "no", "n", "off"), False),
}
#: How each bound of a `msgspec.Meta` is written.
BOUNDS: Final = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}
_NAMES: Final = {bool: "true or false", int: "an integer", float: "a finite number"}


class SecretStr:
    """Text that no repr, message or traceback shows."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def get_secret_value(self) -> str:
        """Return the text."""
        return self._text

    def __len__(self) -> int:
        return len(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretStr) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return "SecretStr('**********')"

    __str__ = __repr__


def value_of(kind: Any, given: Any) -> Any:
    """Return *given* as a value of the type *kind*.

    Raises:
        ValueError: it cannot be. Its text follows a setting's name, and does not show the value,
            which may be a secret in the wrong place.
    """
    if get_origin(kind) in (Union, UnionType):
        kind = get_args(kind)[0]  # such as `int | None`, of which None is never given
    plain, *marks = get_args(kind) if get_origin(kind) is Annotated else (kind,)
    try:
        if isinstance(given, str):
            given = _from_text(plain, marks, given)
        value = convert(given, kind, strict=False, dec_hook=_wrapped)
        is_value = not isinstance(value, float) or math.isfinite(value)
    except ValidationError:  # its text may quote the value
        is_value = False
    if not is_value:
        raise ValueError(f"must be {_described(plain, marks)}")
    for final in filter(callable, marks):
        value = final(value)
    return value


def is_web_address(value: str) -> bool:
    """Return whether *value* is an address of http or https, with a host that can be."""
    try:
        parts = urlsplit(value)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port or a bracket that cannot be; its text may quote a password
        return False


def web_address(value: str) -> str:
    """Return an address of http or https without anything that does not belong to it."""
    if not is_web_address(value):
        raise ValueError("must be an http or https address")
    parts = urlsplit(value)
    if parts.query or parts.fragment or any(map(str.isspace, value)):
        raise ValueError("must be an address without a query, a fragment or blanks")
    if parts.username or parts.password:
        raise ValueError("must not contain a user name or password")
    return value.rstrip("/") if value.endswith("/") and parts.path == "/" else value


def header_text(value: str) -> str:
    """Return a text that the header of a request can hold, without blanks around it."""
    value = value.strip()
    if not (value and value.isascii() and value.isprintable()):
        raise ValueError("must be printable characters of ASCII")
    return value


def command(value: str) -> str:
    """Return a command line that has a program."""
    try:
        is_command = bool(shlex.split(value))
    except ValueError:  # a quote that does not end
        is_command = False
    if not is_command:
        raise ValueError("must be a command and its arguments, quoted as in a shell")
    return value


def found_from_anywhere(value: Path) -> Path:
    """Return an absolute path: a mount in the background works from another directory."""
    # Not `Path.expanduser`, which raises for a `~name` that is no user's.
    return Path(os.path.expanduser(value)).absolute()


def _described(kind: type, marks: list[Any]) -> str:
    if issubclass(kind, StrEnum):
        *first, last = (f"'{choice}'" for choice in kind)
        return f"{', '.join(first)} or {last}"
    is_size = _SIZE in marks
    name = "a number of bytes, such as 20GB or 512MiB" if is_size else _NAMES.get(kind, "text")
    bounds = [
        f"{words} {limit}"
        for mark in marks
        if isinstance(mark, Meta)
        for bound, words in BOUNDS.items()
        if (limit := getattr(mark, bound)) is not None
    ]
    return ", ".join((name, *bounds))


def _from_text(kind: type, marks: list[Any], text: str) -> Any:
    """Return what *text* stands for where msgspec does not know it: a size, a word for a truth."""
    if kind is bool:
        return _TRUTHS.get(text.strip().lower(), text.strip())
    if _SIZE not in marks:
        return text.strip() if kind in (int, float) else text
    parts = _SIZE_TEXT.fullmatch(text)
    if parts is None:
        return ""  # also for more digits than any size has
    number, unit, is_binary = parts.groups("")
    return int(
        float(number) * (1024 if is_binary else 1000) ** " kmgtpe".index(unit.lower() or " ")
    )


def _wrapped(kind: type, given: Any) -> Any:
    """Return *given* as a path or a secret, which msgspec does not know."""
    return given if isinstance(given, kind) else kind(convert(given, str))
