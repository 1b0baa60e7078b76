"""The names of contenders, for people. Pure."""

from __future__ import annotations

from benchmarks.contenders import MOUNTED

TITLES = {one.name: one.title for one in MOUNTED} | {
    "vsicurl": "GDAL `/vsicurl/` (no mount)",
    "curl-matched": "curl, as many connections as satfs",
    "curl-1": "curl, one warm connection",
    "local-file": "a file on the local disk",
    "memory-file": "a file in tmpfs (pages of 4 KiB, as FUSE has)",
    "satfs-contents": "satfs `contents/`",
    "satfs-vsizip": "satfs: `/vsizip/` on the mounted zip",
    "vsizip-vsicurl": "GDAL `/vsizip//vsicurl/` (no mount)",
}


def title(contender: str) -> str:
    """Return the name of a contender as people say it, in Markdown."""
    if "@" in contender:
        reader, layout, work = contender.split("@")
        return f"{title(reader)}: {layout}, {work}"
    if contender.startswith("curl-") and contender not in TITLES:
        return f"curl, {contender.removeprefix('curl-')} connections"
    return TITLES.get(contender, contender)


def plain_title(contender: str) -> str:
    """Return the name of a contender without Markdown."""
    return title(contender).replace("`", "")
