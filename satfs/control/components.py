"""The parts of a mount that the commands of the control socket use."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from satfs.api.listings import Listings
from satfs.archive.archive import Archives
from satfs.content.attachments import Attachments
from satfs.content.cache.pins import Pins
from satfs.introspection.directory import Introspection
from satfs.tree.root import Root
from satfs.tree.stac_files import ItemFile


class Kernel(Protocol):
    """The kernel's cache of the tree (`control.kernel.KernelMemory`)."""

    async def forget_below(self, path: Sequence[str], now: Sequence[bytes] | None) -> int:
        """Have the kernel forget what it knows of files at and below *path*; return how many names.

        *now* are the names in the directory *path* as they are listed now: of others, and of new
        ones, the kernel forgets what they led to.
        """
        ...


@dataclass(frozen=True, slots=True)
class MountComponents:
    """The parts of one mount. *cache_dir* is where it keeps content."""

    mountpoint: Path
    cache_dir: Path
    root: Root
    listings: Listings
    contents: Attachments
    archives: Archives
    keeping: Pins
    kernel: Kernel
    introspection: Introspection
    #: The STAC item of any scene, with the facts of its zip, also where the mount shows no items.
    items: ItemFile
