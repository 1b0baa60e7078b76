"""Run the tests floor by floor, stop above a red one, and add up what pytest counted."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from pathlib import Path

TESTS = Path("tests")
#: From the ground up (docs/DESIGN.md), after what other tests lean on: the demo origin. From
#: `story` on, all floors together. Directories that are not named come last.
FLOORS = (
    *("words", "loglevel", "demo", "fresh", "net", "api", "content", "archive", "tree", "fuse"),
    *("about", "mountpoints", "notify", "garbage", "control", "doctor"),
    *("fuzz", "story", "mounted", "semantics", "cli", "documents", "reliability", "bench"),
)

#: Floors that take long, because their tests wait, each for something of its own, or compute: file
#: by file, in processes beside each other.
SEVERAL_AT_ONCE = dict.fromkeys(
    ("content", "archive", "mounted", "cli", "reliability"), ("-n", "3", "--dist", "loadfile")
)


def main() -> int:
    """Return 0 when every floor is green."""
    started = time.monotonic()
    present = {path.parent.relative_to(TESTS).parts[0] for path in TESTS.glob("*/**/test_*.py")}
    order = [floor for floor in FLOORS if floor in present]
    order += sorted(present - set(FLOORS))
    totals: Counter[str] = Counter()
    red = 0
    for floor in order:
        print(f"\n── {floor} " + "─" * (72 - len(floor)), flush=True)
        red = run(floor, totals)
        if red:
            above = ", ".join(order[order.index(floor) + 1 :])
            print(f"\nThe floor {floor} is red." + (f" Not run: {above}." if above else ""))
            break
    words = [f"{totals[word]} {word}" for word in ("failed", "passed", "skipped") if totals[word]]
    if totals["error"]:
        words.append(f"{totals['error']} errors")
    line = f" {', '.join(words) or 'no tests ran'} in {time.monotonic() - started:.2f}s "
    print(f"\n{line:=^79}")
    return red


def run(floor: str, totals: Counter[str]) -> int:
    """Run the tests of *floor*, add their outcomes to *totals*, return pytest's exit code."""
    with tempfile.NamedTemporaryFile(suffix=".xml") as report:
        code = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "-q", f"--junitxml={report.name}"),
                *SEVERAL_AT_ONCE.get(floor, ()),
                TESTS / floor,
            ],
            check=False,
        ).returncode
        content = Path(report.name).read_bytes()
    if content:
        for suite in ElementTree.fromstring(content).iter("testsuite"):
            counts = {word: int(suite.get(word, 0)) for word in ("failures", "errors", "skipped")}
            totals["failed"] += counts["failures"]
            totals["error"] += counts["errors"]
            totals["skipped"] += counts["skipped"]
            totals["passed"] += int(suite.get("tests", 0)) - sum(counts.values())
    return code


if __name__ == "__main__":
    sys.exit(main())
