"""Names of files that programs obey in any directory, without a command of the user.

A shell's prompt runs git in the current directory, and git runs the program that `.git/config`
there names as its file system monitor; a file manager draws the icon that `.directory` names; an
editor runs the commands in `.vscode` or `.envrc`. In an archive from elsewhere the user wants none
of that, so members of these names are not shown (`paths.NameProblem.OBEYED`). Compared without
regard to case: a mount that is exported to another system is read there without regard to case,
too.
"""

from __future__ import annotations

from typing import Final

_NAMES: Final = frozenset(
    {
        # Version control: configuration and hooks that run commands. A directory with a file HEAD
        # may be a bare repository, which git obeys as it does a `.git`.
        ".git", "head", ".hg", ".svn", ".bzr", "_darcs", "cvs", ".jj", ".sl", ".fslckout",
        "_fossil_", ".repo", ".pijul",
        # Shells, and what sets their environment by directory.
        ".envrc", ".env", ".autoenv", ".autoenv.zsh", ".autoenv_leave.zsh", ".mise.toml",
        "mise.toml", ".tool-versions",
        # Editors: settings, tasks and code by directory.
        ".vscode", ".vs", ".idea", ".fleet", ".zed", ".devcontainer", ".devcontainer.json", ".exrc",
        ".vimrc", ".nvimrc", ".nvim.lua", ".lvimrc", ".local.vimrc", ".dir-locals.el",
        ".dir-locals-2.el", ".editorconfig",
        # Interpreters and debuggers that run a file of the directory they are started in.
        ".gdbinit", ".lldbinit", ".pdbrc", "sitecustomize.py", "usercustomize.py", ".rprofile",
        ".renviron", ".rdata", ".octaverc", "startup.m", ".pnp.cjs", ".yarnrc", ".yarnrc.yml",
        ".npmrc",
        # Web servers of a directory that is exported.
        ".htaccess", ".user.ini",
        # Desktops: how to draw a folder, what to run when a volume appears, what to hide.
        ".directory", "desktop.ini", ".hidden", ".autorun", ".autoopen", "autoopen",
        ".xdg-volume-info", ".volumeicon.icns", ".volume.icns",
    }
)  # fmt: skip
#: Programs that start when a volume appears (freedesktop.org's autostart specification; Windows).
_BEGINNING: Final = "autorun"
#: Launchers and links that a file manager draws and opens as what they name (freedesktop.org's
#: desktop entries); Windows fetches the icons of the others from wherever they lead.
_ENDINGS: Final = (".desktop", ".lnk", ".url", ".scf", ".library-ms", ".searchconnector-ms")


def is_obeyed(name: str) -> bool:
    """Return whether *name*, one part of a path, is one that programs obey."""
    folded = name.casefold()
    return folded in _NAMES or folded.startswith(_BEGINNING) or folded.endswith(_ENDINGS)
