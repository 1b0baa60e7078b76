"""docs/SCALING.md and its plots, from the measured figures and the model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.plots import LIMIT, OURS, PEER, STYLE

from scaling.model import Cluster, Outcome, run

MB = 1e6
#: Numbers of nodes in the model.
SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)

#: The cluster of the model: the document states what is assumed.
BASE = Cluster(
    n_nodes=1,
    rasters_per_node=20,
    raster_bytes=400 * MB,
    node_bytes_per_s=125 * MB,
    origin_bytes_per_s=12_500 * MB,
    api_requests_per_s=50,
    api_round_trip_s=0.3,
)

#: Each case of the model: its name, and how it differs.
CASES: dict[str, dict[str, Any]] = {
    "satfs: a node requests once, fetches once": {},
    "eight processes that share nothing": {"n_askers": 8, "n_copies": 8.0},
    "as satfs, on an origin of 10 Gbit/s": {"origin_bytes_per_s": 1_250 * MB},
    "as satfs, an API of 5 requests a second": {"api_requests_per_s": 5.0},
}

#: The document, with places for figures.
TEXT = Path(__file__).with_name("document.md")


def write(figures: dict[str, Any], docs: Path) -> None:
    """Write SCALING.md and its plot into *docs*."""
    sequential, ranges = figures["sequential"], figures["random"]
    cache, measured = figures["one cache"], figures["nodes"]
    ratio = sequential["fsspec"] / sequential["mount"]
    took_s, cpu_s = ranges["took_s"], ranges["cpu_s"]
    gain = took_s["in turn"] / took_s["at once"]
    against = took_s["at once"] / took_s["aiohttp"]
    outcomes = {
        name: [run(replace(BASE, **changes, n_nodes=n)) for n in SIZES]
        for name, changes in CASES.items()
    }
    text = TEXT.read_text().format(
        day=figures["day"],
        machine=figures["machine"],
        load=figures.get("load", "two processors shared with other work"),
        sequential="\n".join(
            f"| {title} | {sequential[key]:.0f} MB/s |"
            for key, title in (("fsspec", "`satfs://`"), ("mount", "a mount"))
        ),
        sequential_verdict=f"`satfs://` reads at {ratio:.2f} times the mount's rate.",
        random="\n".join(
            f"| {title} | {took_s[key]:.2f} | {cpu_s[key]:.2f} |"
            for key, title in (
                ("at once", "`cat_ranges`"),
                ("first", "`cat_ranges`, at a host that no process has read from in the last day"),
                ("in turn", "one after another"),
                ("aiohttp", "aiohttp over 64 connections, with the link at hand"),
            )
        ),
        random_verdict=f"`cat_ranges` is {gain:.1f} times as fast as one after another, and takes"
        f" {against:.2f} times as long as aiohttp.",
        n_processes=4,
        share=cache["share"],
        signs=cache["counts"].get("sign", 0),
        node_mb_s=measured["node_mb_s"],
        nodes="\n".join(_node_row(measured, n) for n in ("1", "2", "4")),
        nodes_verdict=_nodes_verdict(measured),
        rasters=BASE.rasters_per_node,
        raster_mb=BASE.raster_bytes / MB,
        model=_model_table(outcomes),
    )
    (docs / "SCALING.md").write_text(text)
    _draw(outcomes, docs / "images" / "scaling-speedup.svg")


def _node_row(measured: dict[str, Any], n_nodes: str) -> str:
    cells = [n_nodes]
    for line in ("wide", "narrow"):
        took_s = measured[line][n_nodes]
        speedup = measured[line]["1"] / took_s
        cells += [f"{took_s:.1f} s", f"{speedup / int(n_nodes):.2f}"]
    return f"| {' | '.join(cells)} |"


def _nodes_verdict(measured: dict[str, Any]) -> str:
    worst = min(measured["wide"]["1"] / measured["wide"][n] / int(n) for n in ("2", "4"))
    full = measured["narrow"]["2"] / measured["narrow"]["4"]
    return (
        f"Until the origin's line is full, the speed is at least {worst:.2f} of linear. Where it is"
        f" full with two nodes, four take {1 / full:.2f} times as long as two."
    )


def _model_table(outcomes: dict[str, list[Outcome]]) -> str:
    chosen = (1, 10, 100, 1000)
    lines = [
        "| | " + " | ".join(f"{n} nodes" for n in chosen) + " | busiest at 1000 |",
        "| --- |" + " --- |" * (len(chosen) + 1),
    ]
    for name, found in outcomes.items():
        at = dict(zip(SIZES, found, strict=True))
        cells = [f"{at[n].took_s:.0f} s" for n in chosen]
        lines.append(f"| {name} | {' | '.join(cells)} | {at[1000].first_limit} |")
    return "\n".join(lines)


def _draw(outcomes: dict[str, list[Outcome]], path: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    path.parent.mkdir(exist_ok=True)
    colours = (OURS, LIMIT, PEER, "#22333b")
    with pyplot.rc_context(STYLE):
        figure, axes = pyplot.subplots(figsize=(7, 4))
        axes.plot(SIZES, SIZES, linestyle=":", color="#cccccc", label="linear")
        for (name, found), colour in zip(outcomes.items(), colours, strict=True):
            # The work grows with the nodes: the speed-up is that of work done in a second.
            speedups = [
                n * outcomes[next(iter(outcomes))][0].took_s / each.took_s
                for n, each in zip(SIZES, found, strict=True)
            ]
            axes.plot(SIZES, speedups, marker="o", markersize=3, color=colour, label=name)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("nodes")
        axes.set_ylabel("rasters a second, over one node of satfs")
        axes.legend(frameon=False, fontsize=8)
        figure.savefig(path, metadata={"Date": None, "Creator": None}, bbox_inches="tight")
        pyplot.close(figure)
    path.write_text("\n".join(line.rstrip() for line in path.read_text().splitlines()) + "\n")
