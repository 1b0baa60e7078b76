"""The text of `UNREADABLE.txt`: the members that an archive cannot show or open, and why."""

from __future__ import annotations

from typing import Final

from satfs.archive.decoders import METHOD_NAMES
from satfs.archive.members import Members

_HEAD: Final = (
    "The zip beside this directory is as it was delivered, and can be read or copied whole."
)


def of_members(members: Members) -> bytes | None:
    """Return the text about members that are not shown, or not opened; None when all are."""
    lines: list[str] = []
    if members.n_refused:
        lines += [
            f"{_HEAD} Here, {members.n_refused} of its members cannot be shown:",
            "",
            *(f"{_printable(refused.name)}: {refused.refusal}" for refused in members.refused),
            *_more(members.n_refused - len(members.refused)),
        ]
    if members.n_unopened:
        lines += [
            *([""] if lines else []),
            f"{'' if lines else _HEAD + ' '}Here, {members.n_unopened} of its members are shown and"
            " cannot be opened:",
            "",
            *(f"{_printable(each.name)}: {_why(each.method)}" for each in members.unopened),
            *_more(members.n_unopened - len(members.unopened)),
        ]
    return "\n".join((*lines, "")).encode() if lines else None


def _more(n: int) -> list[str]:
    return [f"and {n} more"] if n else []


def _why(method: int | None) -> str:
    """Return why a member of a compression *method* cannot be opened; None: it is encrypted."""
    if method is None:
        return "it is encrypted, and satfs has no password"
    name = METHOD_NAMES.get(method, f"method {method}")
    return f"it is compressed in a way that satfs cannot undo ({name})"


def of_damage(cause: str) -> bytes:
    """Return the text about an archive of which nothing can be shown, because of *cause*."""
    return f"{_HEAD} Here, nothing of it can be shown:\n\n{_printable(cause)}\n".encode()


def _printable(text: str) -> str:
    """Return *text* with what a terminal would act on, or not show, written as an escape."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )
