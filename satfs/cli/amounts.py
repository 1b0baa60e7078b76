"""Numbers as people read them."""

from __future__ import annotations

from typing import Final

_UNITS: Final = ("B", "kB", "MB", "GB", "TB")


def amount(n_bytes: float) -> str:
    """Return a number of bytes with a unit, in powers of ten."""
    for unit in _UNITS[:-1]:
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} {_UNITS[-1]}"


def counted(number: int, noun: str) -> str:
    """Return *number* and *noun*, in the plural where that is due."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def age(seconds: float) -> str:
    """Return how long ago something was."""
    for length_s, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= length_s:
            return f"{counted(int(seconds / length_s), unit)} ago"
    return "just now"
