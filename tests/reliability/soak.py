"""The reliability tests in long form: minutes or hours of use, faults and kills, with figures.

Run by `scripts/soak`. Each part has a share of the time; together they print a table, and plot what
the mount held over the steady part.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test
from reliability.crashing import CrashLoop
from reliability.loading import (
    Peak,
    cancel_reads,
    files_to_cancel,
    large_catalogue,
    open_files,
    read_sequentially,
    read_slowly,
    settled_usage,
    walk,
)
from reliability.measuring import Usage, usage_of
from reliability.model import Reliability
from reliability.stand import KIB, MIB, QUICK_DEADLINES, Stand
from reliability.tally import TALLY

from satfs.demo.server import DemoOrigin

#: Shares of the time; what is left belongs to loads of a fixed size.
STEADY_SHARE, CRASH_SHARE, MODEL_SHARE = 0.35, 0.25, 0.30
#: Disturbances of the steady part, each with its parameters; every one may pass.
DISTURBANCES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("reset", "object", {"at_byte": 100_000}),
    ("cut", "object", {"at_byte": 50_000}),
    ("stall", "object", {"at_byte": 1000, "seconds": 2.0}),
    ("short-body", "object", {"bytes": 70_000}),
    ("server-error", "*", {"status": 503}),
    ("throttled", "object", {"retry_after": None}),
    ("expired-link", "object", {}),
    ("html", "api", {}),
    ("latency", "*", {"seconds": 0.3}),
)


@dataclass
class Series:
    """The resources of a mount, second by second."""

    seconds: list[float] = field(default_factory=list)
    usages: list[Usage] = field(default_factory=list)


@dataclass
class Report:
    """Figures for people: what, and how much."""

    rows: list[tuple[str, str]] = field(default_factory=list)

    def add(self, name: str, value: str) -> None:
        """Enter a figure, and print it at once."""
        self.rows.append((name, value))
        print(f"  {name:<58} {value}", flush=True)  # noqa: T201 - this is a program


def say(text: str) -> None:
    """Tell what begins."""
    print(f"\n{text}", flush=True)  # noqa: T201


def mib(n_bytes: int) -> str:
    """Return *n_bytes* as people read it."""
    return f"{n_bytes / MIB:.0f} MiB"


def fresh(work: Callable[[Stand], None], **given: object) -> None:
    """Run *work* on a stand of its own."""
    with (
        tempfile.TemporaryDirectory(prefix="satfs-soak-") as directory,
        Stand(Path(directory), **given) as stand,  # type: ignore[arg-type]
    ):
        work(stand)
        if stand.origin.leaks:
            raise AssertionError(f"credentials leaked: {stand.origin.leaks}")


def steady(stand: Stand, seconds: float, report: Report, dice: random.Random) -> Series:
    """Readers come and go while one thing after the other breaks and is mended."""
    series, began_s = Series(), time.monotonic()
    disturbed_at_s = 0.0
    scenes: list[str] = []
    while (now_s := time.monotonic() - began_s) < seconds:
        if now_s - disturbed_at_s > 1.5:
            stand.count_faults()
            name, endpoint, parameters = dice.choice(DISTURBANCES)
            stand.origin.faults.add(
                name, endpoint, probability=0.2, seed=dice.randrange(99), **parameters
            )
            disturbed_at_s = now_s
        scenes = [*scenes[-20:], stand.publish(dice.choice((64 * KIB, MIB, 6 * MIB)))]
        scene = dice.choice(scenes)
        content = stand.content(scene)
        with suppress(OSError), stand.opened(scene) as file:
            start = dice.randrange(content.size_bytes)
            stand.compare(file, content, start, start + dice.choice((100, 64 * KIB, 4 * MIB)))
        with suppress(OSError):
            stand.list(stand.root / "tasks" / "1")
        if not series.seconds or now_s - series.seconds[-1] >= 1:
            series.seconds.append(now_s)
            series.usages.append(usage_of(stand.current.process.pid))
    report.add("most memory, steady", mib(max(usage.memory_bytes for usage in series.usages)))
    report.add("memory in the end", mib(series.usages[-1].memory_bytes))
    report.add("most descriptors", str(max(usage.n_descriptors for usage in series.usages)))
    stand.settle()
    return series


def crashes(stand: Stand, seconds: float, least: int, report: Report, dice: random.Random) -> None:
    """Kill the mount and its workers until the time is over, *least* times at any rate."""
    stand.origin.store_line.bytes_per_s = 30e6
    loop, n_rounds, began_s = CrashLoop(stand, dice), 0, time.monotonic()
    while n_rounds < least or time.monotonic() - began_s < seconds:
        loop.round()
        n_rounds += 1
    loop.check_kept()
    report.add("crash rounds, cache kept", str(n_rounds))


def model(seconds: float, report: Report, dice: random.Random) -> None:
    """Run the model test with new seeds until the time is over."""
    n_examples, began_s = 0, time.monotonic()
    while not n_examples or time.monotonic() - began_s < seconds:
        machine = seed(dice.randrange(2**32))(type("Machine", (Reliability,), {}))
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=2,
                stateful_step_count=25,
                deadline=None,
                database=None,
                phases=(Phase.generate,),
                suppress_health_check=list(HealthCheck),
            ),
        )
        n_examples += 2
    report.add("model runs of up to 25 steps", str(n_examples))


def cancelled(stand: Stand, report: Report) -> None:
    """2,000 readers killed in mid read: what is left of them."""
    scenes = files_to_cancel(stand)
    cancel_reads(stand, len(scenes), scenes)
    before = settled_usage(stand)
    cancel_reads(stand, 2000, scenes)
    after = settled_usage(stand)
    for name in ("n_descriptors", "n_sockets", "n_threads"):
        change = f"{getattr(before, name)} → {getattr(after, name)}"
        report.add(f"{name[2:]} before and after 2,000 cancelled reads", change)
    memory = f"{mib(before.memory_bytes)} → {mib(after.memory_bytes)}"
    report.add("memory before and after 2,000 cancelled reads", memory)
    stand.settle()


def loads(stand: Stand, report: Report) -> None:
    """The loads whose memory docs/RELIABILITY.md states, on a fresh mount each."""
    report.add("memory, idle", mib(usage_of(stand.current.process.pid).memory_bytes))
    with Peak(stand) as peak, open_files(stand, 100):
        pass
    report.add("memory, 100 open files", mib(peak.memory_bytes))
    stand.remount()
    with Peak(stand) as peak:
        read_sequentially(stand, 50, 16 * MIB)
    report.add("memory, 50 sequential readers", mib(peak.memory_bytes))
    stand.remount()
    with Peak(stand) as peak:
        read_slowly(stand, 64 * MIB, 16 * MIB)
    report.add("memory, one slow reader", mib(peak.memory_bytes))


def long_walk(stand: Stand, report: Report) -> None:
    """Look at a hundred thousand entries."""
    with Peak(stand) as peak:
        began_s = time.monotonic()
        n_entries = walk(stand)
        took_s = time.monotonic() - began_s
    report.add(f"memory, a walk of {n_entries:,} entries", mib(peak.memory_bytes))
    report.add("time of that walk, nothing known before", f"{took_s:.1f} s")


def plot(series: Series, path: Path) -> None:
    """Draw what the mount held over the steady part."""
    try:
        import matplotlib

        matplotlib.use("svg")
        from matplotlib import pyplot
    except ImportError:
        say("matplotlib is not installed: nothing is plotted")
        return
    figure, (top, bottom) = pyplot.subplots(2, 1, sharex=True, figsize=(8, 5))
    top.plot(series.seconds, [usage.memory_bytes / MIB for usage in series.usages])
    top.set_ylabel("memory, MiB")
    top.set_ylim(bottom=0)
    for name in ("n_descriptors", "n_sockets", "n_threads"):
        values = [getattr(usage, name) for usage in series.usages]
        bottom.plot(series.seconds, values, label=name[2:])
    bottom.set_xlabel("seconds under faults")
    bottom.set_ylim(bottom=0)
    bottom.legend(loc="upper left", frameon=False)
    for axes in (top, bottom):
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle("All processes of one mount, read from while its vendor breaks")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    say(f"plotted in {path}")


def main() -> int:
    """Run all parts; return 1 when a byte was wrong or a call late."""
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="how long; hours are fine")
    parser.add_argument("--crashes", type=int, default=20, help="kill at least so often")
    parser.add_argument("--seed", type=int, default=None, help="repeat an earlier run's choices")
    parser.add_argument(
        "--plot", type=Path, default=Path("docs/images/soak.svg"), help="where to plot"
    )
    given = parser.parse_args()
    chosen = time.time_ns() % 10**6 if given.seed is None else given.seed
    dice, seconds, report = random.Random(chosen), 60 * given.minutes, Report()
    series = Series()
    began_s = time.monotonic()
    say(f"seed {chosen}: use under faults")
    fresh(
        lambda stand: vars(series).update(
            vars(steady(stand, STEADY_SHARE * seconds, report, dice))
        ),
        workers=2,
        **QUICK_DEADLINES,
    )
    say("2,000 cancelled reads")
    fresh(lambda stand: cancelled(stand, report), workers=2, **QUICK_DEADLINES)
    say("loads")
    fresh(lambda stand: loads(stand, report), workers=2, read_deadline_s=60)
    fresh(
        lambda stand: long_walk(stand, report),
        origin=DemoOrigin(large_catalogue(33_300)),
        page_limit=100,
        listing_ttl_s=60,
        contents="visible",
    )
    say("crashes")
    fresh(
        lambda stand: crashes(stand, CRASH_SHARE * seconds, given.crashes, report, dice), workers=2
    )
    say("the model")
    model(MODEL_SHARE * seconds, report, dice)
    plot(series, given.plot)
    report.add("minutes", f"{(time.monotonic() - began_s) / 60:.1f}")
    say("in all")
    for name, value in TALLY.rows():
        report.add(name, value)
    return int(TALLY.n_wrong_bytes > 0 or TALLY.n_late > 0)


if __name__ == "__main__":
    sys.exit(main())
