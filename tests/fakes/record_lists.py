"""Lists of records, made of entries as the vendor sends them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from satfs.api.record_list import RecordList, packed
from satfs.api.record_parsers import RecordParser
from satfs.model import Json

R = TypeVar("R")


def list_of(entries: Iterable[Json], parser: RecordParser[R]) -> RecordList[R]:
    """Return the records of *entries*; those without an id are left out."""
    return packed(parser, list(filter(None, map(parser.clean, entries))))
