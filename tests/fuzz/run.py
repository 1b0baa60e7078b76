"""Run fuzz targets for minutes: `scripts/fuzz` calls this.

Inputs come from Hypothesis: it shrinks a finding to a small one and keeps it in `.hypothesis/`, so
that the next run begins with it.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import time
from collections.abc import Sequence
from typing import Any

from fuzz.target import Target, all_targets
from hypothesis import HealthCheck, given, seed, settings

#: Inputs drawn between two looks at the clock: some seconds for the slowest target.
ROUND_EXAMPLES = 2_000
DEFAULT_MINUTES = 5.0


def fuzz(target: Target, *, seconds: float, n_examples: int = ROUND_EXAMPLES) -> int:
    """Try inputs for *seconds*, at least one round of *n_examples*; return how many were tried.

    Raises the target's exception for the smallest input that was found.
    """
    n_tried = 0

    def check(given_input: Any) -> None:
        nonlocal n_tried
        n_tried += 1
        target.check(given_input)

    for example in target.examples:
        check(example)
    until_s = time.monotonic() + seconds
    while True:
        one_round = settings(
            max_examples=n_examples,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        )(given(target.strategy)(check))
        seed(secrets.randbits(64))(one_round)()
        if time.monotonic() >= until_s:
            return n_tried


def main(arguments: Sequence[str]) -> int:
    """Run the targets that are named, or all; return 0 when nothing was found."""
    targets = all_targets()
    listed = "\n".join(f"  {each.name:14} {each.sentence}" for each in targets.values())
    parser = argparse.ArgumentParser(
        prog="scripts/fuzz",
        description="Hand random foreign bytes to the parsers of satfs.",
        epilog=f"targets:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="targets; all if none is named")
    parser.add_argument("--minutes", type=float, default=DEFAULT_MINUTES, help="for each target")
    parser.add_argument("--list", action="store_true", help="print the names of the targets")
    options = parser.parse_args(arguments)
    if options.list:
        print(*targets, sep="\n")
        return 0
    unknown = set(options.names) - set(targets)
    if unknown:
        parser.error(f"no target is called {', '.join(sorted(unknown))}")
    for name in options.names or targets:
        print(f"{name}: {targets[name].sentence}", flush=True)
        n_tried = fuzz(targets[name], seconds=60 * options.minutes)
        print(f"{name}: {n_tried} inputs, nothing found", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
