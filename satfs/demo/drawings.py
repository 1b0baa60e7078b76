"""Where the drawn imagery of the demo is kept, by seed and size; looked at without drawing it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import platformdirs

#: The version of a directory's content: raised when the drawing or the packing changes.
GENERATION: Final = 5
#: Written last: a directory that holds it is complete.
MANIFEST: Final = "manifest.json"


def default_directory() -> Path:
    """Return the directory of the user's cache that holds all drawings."""
    return platformdirs.user_cache_path("satfs-demo")


def home_of(directory: Path, *, seed: int, large_mb: int) -> Path:
    """Return where below *directory* the drawings of one seed and size are, or will be."""
    return directory / f"g{GENERATION}-seed{seed}-{large_mb}mb"


def is_drawn(home: Path) -> bool:
    """Return whether the drawings in *home* are there, all of them."""
    return (home / MANIFEST).exists()
