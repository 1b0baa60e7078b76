"""Conditions on records (`--where`): parsed and evaluated.

    task.status=completed    metadata.cloud_cover<20    timestamp>=2026-01-15    productname~L1D

A condition is a field, an operator and a value. The field is looked for in the scene's record,
then in its capture's, then in its task's, unless it begins with `scene.`, `capture.` or `task.`;
dots go down into nested objects. A missing field fulfils no condition, not even `!=`.

Fields that imagery people know (`bbox`, `cloud`, `product`, …: `satfs.facts.selection`) are looked
for in the facts of the scene instead, under any name that its record has for them. Where the record
does not state such a fact, its delivery may: `verdict` is then None, and `holds_with` decides.

*Pure*. Numbers compare as numbers, dates as moments (a date without a time is a day of UTC),
anything else as text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from fnmatch import fnmatchcase
from typing import Any, ClassVar, Final, TypeAlias

from msgspec import Struct

from satfs.api import record_parsers
from satfs.errors import BadSettings
from satfs.facts.record import facts_of_record
from satfs.facts.scene import SceneFacts
from satfs.facts.selection import COMPARISONS, DAY, SceneCondition, scene_condition
from satfs.model import Json

#: The kinds of records, the nearest to a scene first.
LEVELS: Final = ("scene", "capture", "task")

_CONDITION: Final = re.compile(r"\s*([^\s=!<>~]+)\s*(!=|<=|>=|==|=|<|>|~)\s*(.*?)\s*", re.DOTALL)


class Condition(Struct, frozen=True):
    """One condition; `level` is the record it is about, None the nearest that has the field."""

    level: str | None
    field: tuple[str, ...]
    operator: str
    value: str

    def holds(self, records: Mapping[str, Json]) -> bool:
        """Return whether *records* (by level) fulfil it."""
        for level in LEVELS if self.level is None else (self.level,):
            found, actual = _look_up(records.get(level), self.field)
            if found:
                return _compares(actual, self.operator, self.value)
        return False


class FactCondition(Struct, frozen=True):
    """A condition on what the record of a scene states, in words of `satfs.facts.selection`."""

    condition: SceneCondition
    level: ClassVar[str] = "scene"

    def holds(self, records: Mapping[str, Json]) -> bool:
        """Return whether the scene's record fulfils it."""
        return self.verdict(records) is True

    def verdict(self, records: Mapping[str, Json]) -> bool | None:
        """Return whether the scene's record fulfils it; None where it does not state the fact."""
        record = records.get(self.level)
        scene = record_parsers.scene(dict(record)) if isinstance(record, Mapping) else None
        if scene is None:
            return False
        facts = facts_of_record(scene)
        return self.condition.holds(facts) if self.condition.is_stated(facts) else None


AnyCondition: TypeAlias = Condition | FactCondition


def parse_condition(text: str) -> AnyCondition:
    """Return the condition that *text* is.

    Raises:
        BadSettings: it is no condition.
    """
    matched = _CONDITION.fullmatch(text)
    if matched is None:
        raise BadSettings(
            f"--where {text!r} is no condition; it must be like productname=L1D,"
            " 'cloud<20', 'since 7 days', bbox=W,S,E,N or 'task.status=completed'"
        )
    field, sign, value = matched.groups()
    by_facts = scene_condition(field.lower(), "=" if sign == "==" else sign, value)
    if by_facts is not None:
        return FactCondition(by_facts)
    words = tuple(field.split("."))
    level = words[0] if len(words) > 1 and words[0] in LEVELS else None
    return Condition(level, words[1:] if level else words, "=" if sign == "==" else sign, value)


def may_hold(conditions: Iterable[AnyCondition], records: Mapping[str, Json]) -> bool:
    """Return whether no condition is broken already by *records*, of which some may be missing.

    A condition on a record that is not there yet, or on the nearest one that has the field, is
    judged when all are there; one on a fact that the record does not state, by the delivery.
    """
    return all(
        _verdict(each, records) is not False
        for each in conditions
        if each.level is not None and each.level in records
    )


def verdict(conditions: Iterable[AnyCondition], records: Mapping[str, Json]) -> bool | None:
    """Return whether *records* fulfil every condition.

    None: they break none, and do not state a fact that one is about.
    """
    found = [_verdict(each, records) for each in conditions]
    return None if None in found and False not in found else all(found)


def holds_with(
    conditions: Iterable[AnyCondition], records: Mapping[str, Json], facts: SceneFacts
) -> bool:
    """Return whether every condition is fulfilled by *records*, or else by *facts*.

    *facts*, those of the scene with its delivery, decide where the record does not state the fact.
    """
    return all(
        each.condition.holds(facts)
        if isinstance(each, FactCondition) and each.verdict(records) is None
        else each.holds(records)
        for each in conditions
    )


def _verdict(condition: AnyCondition, records: Mapping[str, Json]) -> bool | None:
    if isinstance(condition, FactCondition):
        return condition.verdict(records)
    return condition.holds(records)


def _look_up(record: Json, field: tuple[str, ...]) -> tuple[bool, Json]:
    here = record
    for word in field:
        if not isinstance(here, Mapping) or word not in here:
            return False, None
        here = here[word]
    return here is not None, here


def _compares(actual: Json, sign: str, wanted: str) -> bool:
    if isinstance(actual, list):
        # A list fulfils a condition that one of its elements fulfils; `!=` is for all of them.
        if sign == "!=":
            return all(_compares(each, sign, wanted) for each in actual)
        return any(_compares(each, sign, wanted) for each in actual)
    if isinstance(actual, Mapping) or actual is None:
        return False
    text = {True: "true", False: "false"}[actual] if isinstance(actual, bool) else str(actual)
    if sign == "~":
        return fnmatchcase(text.casefold(), f"*{wanted.casefold()}*")
    left, right = _comparable(text, wanted)
    return COMPARISONS[sign](left, right)


def _comparable(text: str, wanted: str) -> tuple[Any, Any]:
    numbers = _number(text), _number(wanted)
    if None not in numbers:
        return numbers
    moment, wanted_moment = _moment(text), _moment(wanted)
    if moment is None or wanted_moment is None:
        return text, wanted
    if DAY.fullmatch(wanted):
        return moment.date(), wanted_moment.date()
    return moment, wanted_moment


def _number(text: str) -> Decimal | None:
    # Exact: an id may have more digits than a float.
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def _moment(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
