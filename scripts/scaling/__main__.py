"""Measure, model, and write docs/SCALING.md from docs/scaling.json."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scaling import measure, nodes, render

DOCS = Path(__file__).parent.parent.parent / "docs"
FIGURES = DOCS / "scaling.json"

#: The measurements, by the name of their figures.
PARTS: dict[str, Callable[[], Any]] = {
    "sequential": lambda: measure.sequential(3, 256, 20),
    "random": lambda: measure.random_ranges(9, 50, 64),
    "one cache": lambda: measure.one_cache(4, 4, 32),
    "nodes": lambda: {
        "node_mb_s": 2,
        "wide": measure.scaled((1, 2, 4), 2, 20, 60),
        "narrow": measure.scaled((1, 2, 4), 2, 4, 60),
    },
}


def main() -> int:
    """Do what the command line names; return 0 when the document is written."""
    parser = argparse.ArgumentParser("scripts/scale", description=__doc__)
    parser.add_argument("--render", action="store_true", help="measure nothing")
    parser.add_argument("--only", choices=sorted(PARTS), help="measure one part")
    options = parser.parse_args()
    figures: dict[str, Any] = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    for name, work in PARTS.items():
        if options.render or options.only not in (None, name):
            continue
        if name == "nodes" and (missing := nodes.what_is_missing()) is not None:
            print(f"nodes are not simulated: {missing}", file=sys.stderr)
            continue
        print(f"measuring: {name}", file=sys.stderr)
        figures[name] = work()
        figures["machine"] = f"{platform.machine()}, Linux {platform.release().split('-')[0]}"
        figures["day"] = measure.stamp()
        FIGURES.write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n")
    render.write(json.loads(FIGURES.read_text()), DOCS)
    return 0


if __name__ == "__main__":
    sys.exit(main())
