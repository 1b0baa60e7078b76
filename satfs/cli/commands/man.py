"""`satfs man`: write the man pages of all commands, in the macros of man(7).

Not by a library: click-man knows no examples and no sections of an epilog. The rules of man(7) and
groff_char(7) are few: macros at the beginning of a line, four characters escaped, and nothing
outside of ASCII.
"""

from __future__ import annotations

import os
import textwrap
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

import click
import platformdirs

from satfs import __version__
from satfs.atomic_file import mode_for_all, write_atomically
from satfs.cli.flags import OutputOptions, verbosity_flags
from satfs.cli.manual import Manual, Section, Term, manual_of, variables
from satfs.cli.mount_helper import MountExit
from satfs.cli.output import print_sentence, show
from satfs.errors import BadSettings
from satfs.humanize import first_up

#: As mount(8), "EXIT STATUS", has them; in our words.
_HELPER_CODES: Final = {
    MountExit.DONE: "mounted",
    MountExit.USAGE: "wrong usage, or a setting that is not valid",
    MountExit.SYSTEM: "FUSE is missing, or not allowed",
    MountExit.BUG: "a bug in satfs",
    MountExit.INTERRUPTED: "interrupted",
    MountExit.FAILED: "not mounted: credentials, network, mountpoint or cache",
}


@click.command(
    epilog="""\b
Examples:
  satfs man                              for yourself; then: man satfs-mount
  sudo satfs man /usr/local/share/man    for everybody on this machine
"""
)
@click.argument("directory", metavar="[DIRECTORY]", required=False, type=click.Path(path_type=Path))
@verbosity_flags
@click.pass_context
def man(context: click.Context, directory: Path | None) -> None:
    """Write the man pages of all commands below DIRECTORY, in man1 and man8.

    Without DIRECTORY they go to ~/.local/share/man, where man(1) looks if ~/.local/bin is in PATH.
    They have the text of `--help`, and are made from it.
    """
    place = directory or platformdirs.user_data_path() / "man"
    pages = man_pages(context.find_root().command)
    try:
        for name, text in pages.items():
            file = place / f"man{name[-1]}" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file, text, mode=mode_for_all(file))
    except OSError as failure:
        raise BadSettings(
            f"the man pages cannot be written to {show(str(place))}: {failure.strerror}; "
            "name a directory of your own: satfs man DIRECTORY"
        ) from failure
    if context.ensure_object(OutputOptions).verbosity >= 0:
        print_sentence(f"{len(pages)} man pages are in {show(str(place))}; try: man satfs")


def man_pages(root: click.Command) -> dict[str, str]:
    """Return the text of each page by its file name: *root*, each command of it, mount.satfs(8)."""
    manual = manual_of(root, "satfs")
    others = [f"{page_name(each)}(1)" for each in manual.children]
    pages = {"satfs.1": man_page(manual, environment=variables(), see_also=others)}
    for each in manual.children:
        pages[f"{page_name(each)}.1"] = man_page(each, see_also=["satfs(1)"])
    mount = next(each for each in manual.children if each.name == "satfs mount")
    pages["mount.satfs.8"] = man_page(
        helper_manual(mount),
        number=8,
        see_also=["satfs-mount(1)", "satfs-service(1)", "fstab(5)", "mount(8)"],
    )
    return pages


def helper_manual(mount: Manual) -> Manual:
    """Return the manual of `mount.satfs`, which takes what *mount* takes with `-o`."""
    codes = [f"{int(code):>3}  {meaning}" for code, meaning in _HELPER_CODES.items()]
    return Manual(
        name="mount.satfs",
        summary="Mount satellite imagery deliveries with mount(8), or from fstab.",
        usage="satfs:PROFILE DIRECTORY [-sfnv] [-o OPTION,...]",
        paragraphs=(
            "mount(8) runs this program for the types satfs and fuse.satfs, at the command line, "
            "for a line of fstab(5), or for a mount unit of systemd. The source names a profile of "
            "config.toml; `default` is the one that needs no name.",
            "Link it to where mount(8) looks for it with `satfs service install-helper`, as root.",
        ),
        options=(
            Term("-o OPTION,...", "Mount options; see below, and satfs-mount(1)."),
            Term("-o setuid=USER", "Act as this user: with his profiles, keyring and cache."),
            Term("-s", "Ignore options that are not known."),
            Term("-f", "Do everything but mount."),
            Term("-n", "Accepted, without effect: there is no mtab to write."),
            Term("-v", "Print more."),
        ),
        sections=(
            *(each for each in mount.sections if each.title.startswith("Mount options")),
            Section(
                "Examples",
                (
                    "mount -t satfs satfs:default /srv/aleph",
                    "mount -t satfs -o allow_other,setuid=ann satfs:harbour /srv/aleph",
                    "",
                    "# in /etc/fstab",
                    "satfs:default /srv/aleph satfs _netdev,nofail,allow_other,setuid=ann 0 0",
                ),
                verbatim=True,
            ),
            Section("Exit codes", tuple(codes), verbatim=True),
        ),
        children=(),
    )


def _day() -> str:
    """Return today, or the day of the release that is being built (reproducible-builds.org)."""
    moment_s = float(os.environ.get("SOURCE_DATE_EPOCH") or time.time())
    return time.strftime("%Y-%m-%d", time.gmtime(moment_s))


def man_page(
    manual: Manual,
    *,
    number: int = 1,
    environment: Iterable[Term] = (),
    see_also: Iterable[str] = (),
) -> str:
    """Return the man page of *manual*, the commands of a group included.

    The commands of `satfs` itself have pages of their own, and are listed. *number* is the section
    of the manual, *environment* variables to list, *see_also* other pages (`mount(8)`).
    """
    name = page_name(manual)
    lines = [f'.TH "{_text(name.upper())}" "{number}" "{_day()}" "satfs {__version__}" "satfs"']
    lines += [".SH NAME", f"{_text(name)} \\- {_text(_without_stop(manual.summary))}"]
    lines += [".SH SYNOPSIS", *_usage(manual), ".SH DESCRIPTION", *_prose(manual.paragraphs)]
    lines += _terms(".SH OPTIONS", manual.options)
    if " " not in manual.name:
        listed = (
            Term(f"{page_name(child)}(1)", first_up(child.summary)) for child in manual.children
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
