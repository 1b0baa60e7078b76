"""Where the processor seconds of a cold sequential read go: by process, and by function.

The seconds are those of an ordinary read of 1 GiB. Functions come from a second read, in the first
round only, with every Python process sampled (`sampler`), which costs some percent itself.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeAlias

from benchmarks import flame, sampler
from benchmarks.contenders import is_satfs
from benchmarks.profiles import MB

Sample: TypeAlias = dict[str, Any]

#: Flame graphs are left here, for `render` to find: flame-CONTENDER-PROFILE-PROCESS.svg.
FLAMES: Final = Path(__file__).parent.parent.parent / "build" / "bench"
GB: Final = 1000 * MB
#: Functions of each process that are printed.
MAX_FUNCTIONS: Final = 15

#: User and system seconds.
Spent: TypeAlias = tuple[float, float]


def by_process(
    before: Mapping[int, Spent], after: Mapping[int, Spent], head: int, n_bytes: int
) -> Sample:
    """Return the seconds per GB between two looks at all processes of a mount.

    *head* is the process of the mount itself; the others are its workers.
    """
    spent = {"mount": [0.0, 0.0], "workers": [0.0, 0.0]}
    for pid, seconds in after.items():
        who = spent["mount" if pid == head else "workers"]
        for kind in (0, 1):
            who[kind] += seconds[kind] - before.get(pid, (0.0, 0.0))[kind]
    per_gb = GB / n_bytes
    sample = {
        f"{who}_{kind}_s_per_gb": seconds[number] * per_gb
        for who, seconds in spent.items()
        for number, kind in enumerate(("user", "system"))
    }
    return sample | {"cpu_s_per_gb": sum(sample.values())}


def keep_profiles(directory: Path, head: int, name: str, profile: str) -> str:
    """Draw what was sampled in *directory*, and return the functions that took most, as text."""
    merged = {"mount": Counter[str](), "worker": Counter[str]()}
    for pid, stacks in sampler.read(directory).items():
        merged["mount" if pid == head else "worker"].update(stacks)
    FLAMES.mkdir(parents=True, exist_ok=True)
    lines = []
    for who, stacks in merged.items():
        n_samples = stacks.total()
        if not n_samples:
            continue
        title = f"{name}, {who}, cold sequential read ({profile}): {n_samples} samples"
        (FLAMES / f"flame-{name}-{profile}-{who}.svg").write_text(flame.draw(stacks, title))
        lines.append(f"{name}, {who}: {n_samples * sampler.INTERVAL_S:.2f} s of processor time")
        for function, count in sampler.own_time(stacks).most_common(MAX_FUNCTIONS):
            lines.append(f"  {100 * count / n_samples:5.1f} %  {function}")
    return "\n".join(lines)


def sampled_directory(name: str, repetition: int) -> Path | None:
    """Return a new directory to sample into, where this round is to be sampled."""
    if not is_satfs(name) or repetition:
        return None
    return sampler.installed(Path(tempfile.mkdtemp(prefix="satfs-bench-samples-")))
