"""The name and the icon by which desktops show a mount.

`.xdg-volume-info` is what GVfs reads from the top of a volume (GNOME's and other GTK desktops); it
names an icon beside it. Both are made here, without a request to the vendor.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from satfs.tree.nodes import BytesFile, Directory, Node

VOLUME_INFO: Final = ".xdg-volume-info"
ICON: Final = ".volume-icon.svg"

#: A satellite between two panels, above a horizon.
_ICON: Final = """\
<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64" viewBox="0 0 64 64">
<rect width="64" height="64" rx="14" fill="#16324f"/>
<path d="M0 50 Q32 34 64 50 V50 A14 14 0 0 1 50 64 H14 A14 14 0 0 1 0 50 Z" fill="#3f8f6b"/>
<g transform="rotate(-30 32 26)" fill="#9cc3e6">
<rect x="8" y="20" width="15" height="12" rx="1"/>
<rect x="41" y="20" width="15" height="12" rx="1"/>
<rect x="23" y="24.5" width="18" height="3"/>
<rect x="26" y="18" width="12" height="16" rx="2" fill="#f4f1e6"/>
</g>
</svg>
"""


def volume_files(top: Directory, source: str) -> Mapping[bytes, Node]:
    """Return the files that name the mount of *source* (`satfs:default`), to be hidden in *top*."""
    profile = "".join(each for each in source.removeprefix("satfs:") if each.isprintable())
    name = "Satellite imagery" if profile in ("", "default") else f"Satellite imagery ({profile})"
    info = f"[Volume Info]\nName={_escaped(name)}\nIconFile={ICON}\n"
    return {
        name.encode(): BytesFile(top, name.encode(), content.encode())
        for name, content in ((VOLUME_INFO, info), (ICON, _ICON))
    }


def _escaped(value: str) -> str:
    """Return *value* as a desktop entry holds it, where a backslash escapes."""
    return value.replace("\\", "\\\\")
