"""One setting's value, made from the text, number or truth value that was given for it.

The type of the setting decides what is accepted. Functions beside the type, in an `Annotated`, are
called with the value: each returns its final form, or raises a ValueError.
"""

from __future__ import annotations

import math
import operator
import os
import re
import shlex
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Final, TypeAlias, Union, get_args, get_origin
from urllib.parse import urlsplit

from msgspec import Struct

#: Sizes without this mark are no sizes: plain integers.
_SIZE: Final = "bytes"
#: A number of bytes, or text such as `20GB` (powers of ten) or `512MiB` (powers of two).
Bytes: TypeAlias = Annotated[int, _SIZE]

_SIZE_TEXT: Final = re.compile(r"\s*(\d*\.?\d+)\s*(?:([kmgtpe]?)(i?)b?)?\s*", re.IGNORECASE)
_TRUTHS: Final = {
    **dict.fromkeys(("1", "true", "t", "yes", "y", "on"), True),
    **dict.fromkeys(("0", "false", "f", "no", "n", "off"), False),
}


class Bounds(Struct, frozen=True):
    """The least and the greatest value of a number: exclusive (gt, lt) or inclusive (ge, le)."""

    gt: float | None = None
    ge: float | None = None
    lt: float | None = None
    le: float | None = None

    def __call__(self, number: float) -> float:
        """Return *number*; raise a ValueError that names the bound which it is beyond."""
        for bound, words, is_within in (
            (self.gt, "greater than", operator.gt),
            (self.ge, "greater than or equal to", operator.ge),
            (self.lt, "less than", operator.lt),
            (self.le, "less than or equal to", operator.le),
        ):
            if bound is not None and not is_within(number, bound):
                raise ValueError(f"must be {words} {bound}")
        return number


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
    marks: tuple[Any, ...] = ()
    if get_origin(kind) is Annotated:
        kind, *others = get_args(kind)
        marks = tuple(others)
    value = _size(given) if _SIZE in marks else _of_type(kind, given)
    for mark in marks:
        if callable(mark):
            value = mark(value)
    return value


def web_address(value: str) -> str:
    """Return an address of http or https without anything that does not belong to it."""
    try:
        parts = urlsplit(value)
        is_address = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # a port or a bracket that cannot be; its text may quote a password
        is_address = False
    if not is_address:
        raise ValueError("must be an http or https address")
    if parts.query or parts.fragment or any(map(str.isspace, value)):
        raise ValueError("must be an address without a query, a fragment or blanks")
    if parts.username or parts.password:
        raise ValueError("must not contain a user name or password")
    return value.rstrip("/") if value.endswith("/") and parts.path == "/" else value


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


def _of_type(kind: type, given: Any) -> Any:
    if issubclass(kind, StrEnum):
        return _choice(kind, given)
    return _MAKERS[kind](given)


def _choice(kind: type[StrEnum], given: Any) -> StrEnum:
    if given in list(kind):
        return kind(given)
    *first, last = (f"'{choice}'" for choice in kind)
    raise ValueError(f"must be {', '.join(first)} or {last}")


def _text(given: Any) -> str:
    if not isinstance(given, str):
        raise ValueError("must be text")
    return str(given)


def _truth(given: Any) -> bool:
    truth = _TRUTHS.get(str(given).lower())
    if truth is None:
        raise ValueError("must be true or false")
    return truth


def _integer(given: Any) -> int:
    try:
        number = int(given) if isinstance(given, str) else given
    except ValueError:
        number = None
    if isinstance(number, float) and number.is_integer():
        return int(number)
    if not isinstance(number, int) or isinstance(number, bool):
        raise ValueError("must be a valid integer")
    return number


def _number(given: Any) -> float:
    try:
        number = math.nan if isinstance(given, bool) else float(given)
    except (ValueError, TypeError, OverflowError):
        raise ValueError("must be a valid number") from None
    if not math.isfinite(number):
        raise ValueError("must be a finite number")
    return number


def _size(given: Any) -> int:
    if not isinstance(given, str):
        return _integer(given)
    parts = _SIZE_TEXT.fullmatch(given)
    if parts is None:
        raise ValueError("must be a number of bytes, such as 20GB or 512MiB")
    number, unit, is_binary = parts.groups("")
    return int(
        float(number) * (1024 if is_binary else 1000) ** " kmgtpe".index(unit.lower() or " ")
    )


_MAKERS: Final[Mapping[type, Callable[[Any], Any]]] = {
    bool: _truth,
    int: _integer,
    float: _number,
    str: _text,
    Path: lambda given: given if isinstance(given, Path) else Path(_text(given)),
    SecretStr: lambda given: given if isinstance(given, SecretStr) else SecretStr(_text(given)),
}
