"""The parts of a mount that the commands of the control socket use."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from satfs.api.listings import Listings
from satfs.archive.archive import Archives
from satfs.content.attachments import Attachments
from satfs.content.cache.pins import Pins
from satfs.control.name_invalidation import NameInvalidation
from satfs.introspection.directory import Introspection
from satfs.tree.root import Root
from satfs.tree.stac_files import ItemFile


class MountComponents(Struct, frozen=True):
    """The parts of one mount. *cache_dir* is where it keeps content."""

    mountpoint: Path
    cache_dir: Path
    root: Root
    listings: Listings
    contents: Attachments
    archives: Archives
    pins: Pins
    kernel: NameInvalidation
    introspection: Introspection
    #: The STAC item of any scene, with the facts of its zip, also where the mount shows no items.
    items: ItemFile
