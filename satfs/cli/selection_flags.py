"""Options that choose scenes, their rasters, and parts of these."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import click

from satfs.facts.scene import RASTER_KINDS
from satfs.facts.selection import MAX_AREA_BYTES, plain_condition

where_flag = click.option(
    "--where",
    metavar="CONDITION",
    multiple=True,
    help="Only scenes that fulfil it; given several times, all of them: bbox=W,S,E,N,"
    " intersects=FILE.geojson, 'cloud<20', 'off-nadir<25', 'since 7 days', from=DATE, to=DATE,"
    " product=L1D_SR; or a field of the scene's record, or of its capture's or task's"
    " (capture.FIELD, task.FIELD). Operators: = != < <= > >= ~ (contains).",
    callback=lambda _context, _parameter, given: plain_conditions(given),
)
bands_flag = click.option(
    "--bands",
    type=click.Choice([kind.value for kind in RASTER_KINDS]),
    multiple=True,
    help="Only rasters of this kind, and no other byte of the deliveries; may be given several"
    " times.",
)


def four_numbers(kind: type[int] | type[float], form: str) -> Callable[..., list[float] | None]:
    """Return a callback of an option whose value is four numbers with commas between them."""

    def numbers_of(_context: object, _parameter: object, given: str | None) -> list[float] | None:
        if given is None:
            return None
        try:
            numbers = [kind(part) for part in given.split(",")]
        except ValueError:
            numbers = []
        if len(numbers) != 4 or not all(map(math.isfinite, numbers)):
            raise click.BadParameter(f"{given!r} is not of the form {form}")
        return numbers

    return numbers_of


def plain_conditions(texts: Sequence[str]) -> tuple[str, ...]:
    """Return conditions for a mount, which knows neither the user's files nor the present moment.

    Raises:
        BadSettings: a file cannot be read, or holds no area.
    """
    now = datetime.now(UTC)
    return tuple(plain_condition(text, now, read_area) for text in texts)


def read_area(path: Path) -> bytes:
    """Return the bytes of a file of an area, one more than may be at most."""
    with path.open("rb") as file:
        return file.read(MAX_AREA_BYTES + 1)
