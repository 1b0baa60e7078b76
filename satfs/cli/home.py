"""A home directory for whoever has none: neither `$HOME` nor an entry in passwd(5)."""

from __future__ import annotations

import os
from pathlib import Path


def settle_home() -> None:
    """Give a user without a home directory the one that container runtimes give: `/`.

    Nothing of ours is in `/`, and nothing can be written there: it is as a home that holds nothing,
    where files that are not there are asked for, and content is kept in memory. Must come before
    anybody asks where settings and caches are.
    """
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = "/"
