"""Counts and ages as people read them. Pure."""

from __future__ import annotations


def format_count(number: int, noun: str) -> str:
    """Return *number* and *noun*, in the plural where that is due."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def format_age(seconds: float) -> str:
    """Return how long ago something was."""
    for length_s, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= length_s:
            return f"{format_count(int(seconds / length_s), unit)} ago"
    return "just now"
