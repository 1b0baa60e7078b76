"""The results of a run, as they are kept in a file: samples, and the machine. Pure."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

FORMAT = 1
#: The workload whose runs may be parts of one table.
IN_PARTS = "window"

Sample = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Run:
    """One interleaved run of one workload over one profile, with all that a page needs of it.

    `samples` are in the order in which they were taken; each has "contender" and "repetition", and
    either numbers, or "skipped" or "failed" with a reason.
    """

    workload: str
    profile: str
    date: str
    command: str
    machine: dict[str, str]
    versions: dict[str, str]
    line: dict[str, Any]
    sizes: dict[str, Any]
    samples: list[Sample] = field(default_factory=list)

    def contenders(self) -> list[str]:
        """Return who took part, in the order of first appearance."""
        return list(dict.fromkeys(sample["contender"] for sample in self.samples))

    def values(self, contender: str, key: str) -> list[float]:
        """Return the numbers that *contender* reached, one for each repetition that has one."""
        return [
            sample[key]
            for sample in self.samples
            if sample["contender"] == contender and isinstance(sample.get(key), int | float)
        ]

    def median(self, contender: str, key: str) -> float | None:
        """Return the median of `values`, or None without values."""
        found = self.values(contender, key)
        return statistics.median(found) if found else None

    def reasons(self, contender: str) -> list[str]:
        """Return why *contender* has no numbers, where it has none."""
        return [
            sample.get("skipped") or sample["failed"]
            for sample in self.samples
            if sample["contender"] == contender and ("skipped" in sample or "failed" in sample)
        ]

    def ratios(self, contender: str, others: Iterable[str], key: str) -> list[float]:
        """Return *contender*'s number over the best of *others*', within each repetition.

        Only what was taken in the same round is compared: the machine may have been busy in
        another.
        """
        found = []
        by_round: dict[int, dict[str, float]] = {}
        for sample in self.samples:
            if isinstance(sample.get(key), int | float):
                by_round.setdefault(sample["repetition"], {})[sample["contender"]] = sample[key]
        rivals = set(others)
        for numbers in by_round.values():
            best = max((value for name, value in numbers.items() if name in rivals), default=0)
            if contender in numbers and best > 0:
                found.append(numbers[contender] / best)
        return found


@dataclass(frozen=True, slots=True)
class Results:
    """Runs, at most one of each workload and profile: the latest."""

    runs: tuple[Run, ...]

    def run(self, workload: str, profile: str) -> Run | None:
        """Return the run of *workload* over *profile*, if there is one."""
        for run in self.runs:
            if (run.workload, run.profile) == (workload, profile):
                return run
        return None

    def merged(self, later: Results) -> Results:
        """Return these runs, with those of *later* in place of their like.

        A table of rasters is measured in parts: what the later one did not measure is kept.
        """
        chosen = {(run.workload, run.profile): run for run in self.runs}
        for run in later.runs:
            before = chosen.get((run.workload, run.profile))
            if before is not None and run.workload == IN_PARTS:
                names = set(run.contenders())
                kept = [s for s in before.samples if s["contender"] not in names]
                kept = [sample for sample in kept if "least_bytes" in sample]
                run = replace(run, samples=[*kept, *run.samples])
            chosen[run.workload, run.profile] = run
        return Results(tuple(chosen.values()))

    def to_json(self) -> str:
        """Return the text that `from_json` reads."""
        return json.dumps({"format": FORMAT, "runs": [asdict(run) for run in self.runs]}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Results:
        """Return what `to_json` wrote.

        Raises:
            ValueError: it is of another format.
        """
        found = json.loads(text)
        if found.get("format") != FORMAT:
            raise ValueError(f"results of format {found.get('format')}, not {FORMAT}")
        return cls(tuple(Run(**run) for run in found["runs"]))


def median_of(values: Sequence[float], then: Callable[[float], float] = float) -> float | None:
    """Return *then* of the median, or None when there is nothing to take it of."""
    return then(statistics.median(values)) if values else None
