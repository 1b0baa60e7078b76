"""`satfs man`: write the man pages of all commands."""

from __future__ import annotations

import os
import time
from pathlib import Path

import click
import platformdirs

from satfs import __version__
from satfs.cli.flags import Manner, verbosity_flags
from satfs.cli.logs import show
from satfs.cli.manual import manual_of, variables
from satfs.cli.roff import man_page, page_name
from satfs.cli.speech import tell
from satfs.errors import BadSettings


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
    """Write the man pages of all commands below DIRECTORY, as man1/satfs.1 and so on.

    Without DIRECTORY they go to ~/.local/share/man, where man(1) looks if ~/.local/bin is in PATH.
    They say what `--help` says, and are written from it.
    """
    place = directory or platformdirs.user_data_path() / "man"
    pages = man_pages(context.find_root().command)
    try:
        for name, text in pages.items():
            file = place / "man1" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="ascii")
    except OSError as failure:
        raise BadSettings(
            f"the man pages cannot be written to {show(str(place))}: {failure.strerror}; "
            "name a directory of your own: satfs man DIRECTORY"
        ) from failure
    if context.ensure_object(Manner).verbosity >= 0:
        tell(f"{len(pages)} man pages are in {show(str(place / 'man1'))}; try: man satfs")


def man_pages(root: click.Command) -> dict[str, str]:
    """Return the text of each page by its file name: one for *root*, one for each command of it."""
    manual = manual_of(root, "satfs")
    names = [page_name(each) for each in (manual, *manual.children)]
    pages = {}
    for each in (manual, *manual.children):
        is_root = each is manual
        pages[f"{page_name(each)}.1"] = man_page(
            each,
            version=__version__,
            date=_day(),
            environment=variables() if is_root else (),
            see_also=names[1:] if is_root else names[:1],
        )
    return pages


def _day() -> str:
    """Return today, or the day of the release that is being built (reproducible-builds.org)."""
    moment_s = float(os.environ.get("SOURCE_DATE_EPOCH") or time.time())
    return time.strftime("%Y-%m-%d", time.gmtime(moment_s))
