"""The plots of docs/PERFORMANCE.md, drawn from the same results as its tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.names import plain_title
from benchmarks.profiles import MB, PROFILES
from benchmarks.rasters import LAYOUTS, WORK
from benchmarks.results import Results, Run
from benchmarks.window_figures import window_ratios
from benchmarks.window_works import WINDOW_READERS

#: satfs stands out; a limit is grey; everybody else looks alike.
OURS, LIMIT, PEER, POINT = "#d1495b", "#8d99ae", "#9cc5d9", "#22333b"

#: Drawn the same way by everybody who runs it: no dates, no random ids, text as text.
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "satfs",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "figure.facecolor": "white",
}


@dataclass(frozen=True, slots=True)
class Bars:
    """A plot of horizontal bars: one panel for each profile, one bar for each contender."""

    workload: str
    key: str
    axis: str
    scale: float
    logarithmic: bool = False


BARS = (
    Bars("sequential", "rate", "MB/s (more is better)", 1 / MB),
    Bars("checksum", "rate", "MB/s (more is better)", 1 / MB),
    Bars("first-byte", "warm_s", "ms to the first byte, link known (less is better)", 1000, True),
    Bars("eight-readers", "line_rate", "MB/s of the file (more is better)", 1 / MB),
    Bars("two-files", "rate", "MB/s of both (more is better)", 1 / MB),
)


def draw_all(results: Results, directory: Path) -> list[Path]:
    """Write every plot there are results for as perf-WORKLOAD.svg; return the files.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    directory.mkdir(parents=True, exist_ok=True)
    drawn: list[Path] = []

    def keep(figure: Any, workload: str) -> None:
        path = directory / f"perf-{workload}.svg"
        figure.savefig(path, metadata={"Date": None, "Creator": None}, bbox_inches="tight")
        pyplot.close(figure)
        # Trailing blanks are of no use to a drawing, and an eyesore to git.
        path.write_text("\n".join(line.rstrip() for line in path.read_text().splitlines()) + "\n")
        drawn.append(path)

    with pyplot.rc_context(STYLE):
        for bars in BARS:
            runs = _runs(results, bars.workload, bars.key)
            if runs:
                keep(_draw_bars(pyplot.subplots, runs, bars), bars.workload)
        runs = _runs(results, "window", "took_s")
        if any(window_ratios(run, WINDOW_READERS[0]) for run in runs):  # the line of most works
            most = max(runs, key=lambda run: len(window_ratios(run, WINDOW_READERS[0])))
            keep(_draw_windows(pyplot.subplots, most), "window")
        runs = _runs(results, "random", "median_s")
        if runs:
            keep(_draw_random(pyplot.subplots, runs), "random")
    return drawn


def _runs(results: Results, workload: str, key: str) -> list[Run]:
    found = [run for run in results.runs if run.workload == workload]
    found = [run for run in found if any(run.values(name, key) for name in run.contenders())]
    return sorted(found, key=lambda run: list(PROFILES).index(run.profile))


def _draw_bars(subplots: Callable[..., Any], runs: Sequence[Run], bars: Bars) -> Any:
    names = [[n for n in run.contenders() if run.values(n, bars.key)] for run in runs]
    figure, panels = subplots(
        len(runs),
        1,
        figsize=(8, 0.6 * len(runs) + 0.26 * sum(map(len, names))),
        squeeze=False,
        layout="constrained",
        height_ratios=[len(shown) + 1 for shown in names],
    )
    for run, shown, panel in zip(runs, names, panels[:, 0], strict=True):
        # The best at the top, whichever way is better.
        fast_first = sorted(shown, key=lambda name: run.median(name, bars.key) or 0.0)
        ordered = fast_first if "more" in bars.axis else fast_first[::-1]
        for height, name in enumerate(ordered):
            values = [value * bars.scale for value in run.values(name, bars.key)]
            median = (run.median(name, bars.key) or 0.0) * bars.scale
            panel.barh(height, median, color=_colour(name), height=0.7, zorder=2)
            panel.plot(values, [height] * len(values), "|", color=POINT, markersize=7, zorder=3)
            panel.annotate(
                f"{median:,.0f}" if median >= 10 else f"{median:.2g}",
                (max([median, *values]), height),
                xytext=(5, 0),
                textcoords="offset points",
                va="center",
                fontsize=8,
            )
        panel.set_yticks(range(len(ordered)), [plain_title(name) for name in ordered])
        panel.tick_params(axis="y", length=0)
        panel.set_title(PROFILES[run.profile].title)
        panel.grid(axis="x", color="#e5e5e5", zorder=0)
        if bars.logarithmic:
            panel.set_xscale("log")
        panel.margins(x=0.09)
    panels[-1, 0].set_xlabel(bars.axis)
    return figure


def _draw_random(subplots: Callable[..., Any], runs: Sequence[Run]) -> Any:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    figure, panels = subplots(
        1, len(runs), figsize=(4.6 * len(runs), 3.8), squeeze=False, layout="constrained"
    )
    for run, panel in zip(runs, panels[0], strict=True):
        shown = []
        for name in run.contenders():
            latency_s, factor = run.median(name, "median_s"), run.median(name, "amplification")
            if latency_s is None or factor is None:
                continue
            shown.append((factor, latency_s * 1000))
            panel.scatter(
                [factor], [latency_s * 1000], s=55, color=_colour(name), edgecolor=POINT, zorder=3
            )
            panel.annotate(
                plain_title(name),
                (factor, latency_s * 1000),
                xytext=(6, 4),
                textcoords="offset points",
                fontsize=8,
            )
        factors, times_ms = zip(*shown, strict=True)
        panel.set(xscale="log", yscale="log")
        panel.set_xlim(min(factors) / 1.7, max(20, max(factors) * 12))
        panel.set_ylim(min(times_ms) / 2, max(times_ms) * 2)
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(NullFormatter())
        panel.grid(color="#e5e5e5", zorder=0)
        panel.set_title(PROFILES[run.profile].title)
        panel.set_xlabel("bytes fetched per byte asked for")
    panels[0, 0].set_ylabel("median of a read, ms")
    return figure


def _draw_windows(subplots: Callable[..., Any], run: Run) -> Any:
    """Draw the times of satfs over those of GDAL without a mount: a point for each work."""
    ratios = window_ratios(run, WINDOW_READERS[0])
    layouts = [layout for layout in LAYOUTS if any(layout == one for one, _ in ratios)]
    height = 0.32 * len(layouts) + 1.2
    figure, panel = subplots(1, 1, figsize=(8, height), layout="constrained")
    for marker, work in zip("osD^vPX*hd", WORK, strict=True):
        points = [(ratios[lay, work], y) for y, lay in enumerate(layouts) if (lay, work) in ratios]
        if points:
            panel.scatter(*zip(*points, strict=True), marker=marker, s=34, label=work, zorder=3)
    panel.axvline(1, color=LIMIT, zorder=1)
    panel.set_yticks(range(len(layouts)), layouts)
    panel.invert_yaxis()
    panel.set_xlim(left=0)
    panel.grid(axis="x", color="#e5e5e5", zorder=0)
    panel.set_title(PROFILES[run.profile].title)
    panel.set_xlabel("time through contents/ over that of GDAL without a mount (less is better)")
    panel.legend(ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.25), frameon=False)
    return figure


def _colour(name: str) -> str:
    if name.startswith("satfs"):
        return OURS
    if name.startswith("curl") or name in (
        "vsicurl",
        "local-file",
        "memory-file",
        "vsizip-vsicurl",
    ):
        return LIMIT
    return PEER
