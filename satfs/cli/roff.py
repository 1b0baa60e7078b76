"""A command's manual as the text of a man page, in the macros of man(7).

Written here, and not by a library: click-man knows no examples and no sections of an epilog. The
rules of man(7) and groff_char(7) are few: macros at the beginning of a line, four characters
escaped, and nothing outside of ASCII.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from typing import Final

from satfs.cli.manual import Manual, Section, Term


def man_page(
    manual: Manual,
    *,
    version: str,
    date: str,
    number: int = 1,
    environment: Iterable[Term] = (),
    see_also: Iterable[str] = (),
) -> str:
    """Return the man page of *manual*, the commands of a group included.

    The commands of `satfs` itself have pages of their own, and are listed. *number* is the section
    of the manual, *date* a day (2026-01-31), *environment* variables to list, *see_also* other
    pages (`mount(8)`).
    """
    name = page_name(manual)
    lines = [f'.TH "{_text(name.upper())}" "{number}" "{date}" "satfs {version}" "satfs"']
    lines += [".SH NAME", f"{_text(name)} \\- {_text(_without_stop(manual.summary))}"]
    lines += [".SH SYNOPSIS", *_usage(manual), ".SH DESCRIPTION", *_prose(manual.paragraphs)]
    lines += _terms(".SH OPTIONS", manual.options)
    if " " not in manual.name:
        listed = (
            Term(f"{page_name(child)}(1)", _capital(child.summary)) for child in manual.children
        )
        lines += _terms(".SH COMMANDS", listed)
    else:
        for child in manual.children:
            lines += [f".SH {_text(child.name.upper())}", *_usage(child)]
            lines += [".PP", *_prose(child.paragraphs), *_terms("", child.options)]
            for section in child.sections:
                lines += _section(section, ".SS")
    for section in manual.sections:
        lines += _section(section, ".SH")
    lines += _terms(".SH ENVIRONMENT", environment)
    parted = (page.partition("(") for page in see_also)
    if others := [f".BR {_text(name)} ({part}" for name, _, part in parted]:
        lines += [".SH SEE ALSO", *(f"{each} ," for each in others[:-1]), others[-1]]
    return "\n".join(lines) + "\n"


def _upper(title: str) -> str:
    words, bracket, flag = title.partition("(")
    return words.upper() + bracket + flag


def page_name(manual: Manual) -> str:
    """Return the name under which man(1) finds the page: `satfs-mount`."""
    return manual.name.replace(" ", "-")


def _usage(manual: Manual) -> Iterator[str]:
    yield f".B {_text(manual.name)}"
    if manual.usage:
        yield _line(manual.usage)


def _prose(paragraphs: Iterable[str]) -> Iterator[str]:
    for number, paragraph in enumerate(paragraphs):
        if number:
            yield ".PP"
        yield from _wrapped(paragraph)


def _terms(heading: str, terms: Iterable[Term]) -> Iterator[str]:
    for number, term in enumerate(terms):
        if not number and heading:
            yield heading
        yield ".TP"
        yield f".B {_text(term.name)}"
        yield from _wrapped(term.meaning)


def _section(section: Section, macro: str) -> Iterator[str]:
    title = {"Exit codes": "EXIT STATUS"}.get(section.title, _upper(section.title))
    yield f"{macro} {_text(title)}"
    if section.verbatim:
        yield from (".nf", *map(_line, section.lines), ".fi")
    else:
        for line in section.lines:
            yield from _wrapped(line)


def _wrapped(text: str) -> Iterator[str]:
    """Yield prose in lines of under 80 bytes, as `mandoc -T lint` likes them."""
    lines = textwrap.wrap(_text(text), 76, break_long_words=False, break_on_hyphens=False)
    yield from map(_guarded, lines)


def _line(text: str) -> str:
    """Return *text* as a line that is no macro (groff(7): a dot or a quote at the beginning)."""
    return _guarded(_text(text))


def _guarded(escaped: str) -> str:
    return rf"\&{escaped}" if escaped.startswith((".", "'")) else escaped or r"\&"


#: A bare hyphen is typeset as one that cannot be pasted into a shell (groff_char(7)).
_SPECIAL: Final = {
    "\\": r"\e", "-": r"\-", '"': r"\(dq", "'": r"\(aq", "`": r"\(ga", "~": r"\(ti", "^": r"\(ha",
}  # fmt: skip


def _text(text: str) -> str:
    return "".join(
        _SPECIAL.get(letter, letter if letter.isascii() else rf"\[u{ord(letter):04X}]")
        for letter in text
    )


def _without_stop(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:].removesuffix(".")


def _capital(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]
