"""The text of `UNREADABLE.txt`: the members that an archive cannot show, and why."""

from __future__ import annotations

from typing import Final

from satfs.archive.members import Members

_HEAD: Final = (
    "The zip beside this directory is as it was delivered, and can be read or copied whole."
)


def of_members(members: Members) -> bytes | None:
    """Return the text about members that are not shown; None when all are."""
    if not members.n_refused:
        return None
    lines = [
        f"{_HEAD} Here, {members.n_refused} of its members cannot be shown:",
        "",
        *(f"{_printable(refused.name)}: {refused.refusal}" for refused in members.refused),
    ]
    if members.n_refused > len(members.refused):
        lines.append(f"and {members.n_refused - len(members.refused)} more")
    return "\n".join((*lines, "")).encode()


def of_damage(cause: str) -> bytes:
    """Return the text about an archive of which nothing can be shown, because of *cause*."""
    return f"{_HEAD} Here, nothing of it can be shown:\n\n{_printable(cause)}\n".encode()


def _printable(text: str) -> str:
    """Return *text* with what a terminal would act on, or not show, written as an escape."""
    return "".join(
        each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
    )
