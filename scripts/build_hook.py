"""The build hook of hatchling: man pages, completions and the systemd unit, as files of a package.

They are written from the program itself, which takes all that satfs needs to be installed. An sdist
always holds them, in `share/`; a wheel made from an sdist takes them from there, and one made in a
checkout writes them if it can, else it goes without: `satfs man` and `satfs completion` write the
same. So `pip install .` needs nothing more than hatchling to build.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

#: Where shells look for what completes a command, below the prefix of an installation.
COMPLETIONS = {
    "bash": "bash-completion/completions/satfs",
    "zsh": "zsh/site-functions/_satfs",
    "fish": "fish/vendor_completions.d/satfs.fish",
}
#: Where systemd looks for user units, below each directory of XDG_DATA_DIRS (systemd.unit(5)).
UNIT = "systemd/user/satfs@.service"


class SharedFiles(BuildHookInterface):  # type: ignore[type-arg]  # the configuration is not ours
    """Adds the files to an sdist (`share/`) or a wheel (its data directory)."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the files to *build_data*; an editable installation has none."""
        if version == "editable":
            return
        root = Path(self.root)
        share = root / "share"  # of an unpacked sdist
        if not share.is_dir():
            share = root / "build" / "share"
            shutil.rmtree(share, ignore_errors=True)
            try:
                write_files(root, share)
            except ImportError as failure:
                if self.target_name == "sdist":
                    raise
                self.app.display_warning(
                    f"no man pages, completions and unit in this wheel: {failure.name} is missing"
                )
                return
        if self.target_name == "sdist":
            build_data["force_include"][str(share)] = "share"
        else:
            build_data["shared_data"][str(share)] = "share"


def write_files(root: Path, share: Path) -> None:
    """Write the files below *share*, from the satfs that lies in *root*.

    Raises:
        ImportError: something that satfs needs is not installed.
    """
    sys.path.insert(0, str(root))
    try:
        from satfs.cli.commands.completion import completion_script
        from satfs.cli.commands.man import man_pages
        from satfs.cli.main import satfs
        from satfs.cli.systemd import template_unit_text

        files = {f"man/man{name[-1]}/{name}": text for name, text in man_pages(satfs).items()}
        for shell, name in COMPLETIONS.items():
            files[name] = completion_script(satfs, shell)
        files[UNIT] = template_unit_text()
    finally:
        sys.path.remove(str(root))
    for name, text in files.items():
        path = share / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
