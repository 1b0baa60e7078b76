"""Bytes, durations and foreign text as people read them. *Pure*."""

from __future__ import annotations

from typing import Final

#: Ranges of a regular expression: characters that no terminal, log or listing may show as they are.
#: C0, DEL and C1, which terminals obey; line and paragraph separators; bidirectional embeddings,
#: overrides and isolates, which change the order of text.
CONTROLS: Final = "\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069"
#: Halves of a character (UTF-16), which no UTF-8 has.
SURROGATES: Final = "\ud800-\udfff"

_UNITS: Final = ("B", "kB", "MB", "GB", "TB")
#: Lengths of a day, an hour, and so on, in seconds; each word is two letters at most, or "min".
_SPANS: Final = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def format_bytes(n_bytes: float) -> str:
    """Return *n_bytes* with a unit: powers of ten, as disks are sold."""
    for unit in _UNITS[:-1]:
        if abs(n_bytes) < 999.95:
            return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} {_UNITS[-1]}"


def format_duration(seconds: float) -> str:
    """Return *seconds* in its two largest units: `3 h 12 min`."""
    if seconds < 1:
        return f"{max(0.0, seconds) * 1000:.0f} ms"
    left = round(seconds)
    words = []
    for length_s, unit in _SPANS:
        count, left = divmod(left, length_s)
        if count:
            words.append(f"{count} {unit}")
        elif words:
            break
        if len(words) == 2:
            break
    return " ".join(words)


def format_count(number: int, noun: str, plural: str = "") -> str:
    """Return *number* and *noun*, or its *plural*, which ends in s by default."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {plural or f'{noun}s'}"


def format_age(seconds: float) -> str:
    """Return how long ago something was."""
    for length_s, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= length_s:
            return f"{format_count(int(seconds / length_s), unit)} ago"
    return "just now"


def first_up(text: str) -> str:
    """Return *text* with its first letter in upper case."""
    return text[:1].upper() + text[1:]
