"""Hooks of the site (mkdocs.yml): pages that live elsewhere, and links that work in both places.

The documents are read in the repository and on the site. In the repository a link may lead to any
file; the site has the files of `docs/`, and these of the root. A link to anything else becomes its
text, and a link to a directory leads to its README. Any error ends a strict build.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any, Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from reference import commands_page, settings_page

ROOT: Final = Path(__file__).resolve().parents[1]
#: Files of the root that are pages of the site.
FROM_ROOT: Final = ("CONTRIBUTING.md", "CHANGELOG.md")
WRITTEN: Final = {"reference/settings.md": settings_page, "reference/commands.md": commands_page}

_LINK: Final = re.compile(
    r"(?<!!)\[(?P<text>[^\]]+)\]\((?P<target>[^)\s#]+)(?P<anchor>#[^)\s]*)?\)"
)
_FENCED: Final = re.compile(r"^(?P<fence>```+|~~~+).*?^(?P=fence)[ ]*$", re.MULTILINE | re.DOTALL)
#: Elements of pages and style sheets that load from another host. Links to click are allowed.
_LOADED: Final = re.compile(
    r"<(?:script|img|iframe|source|video)\b[^>]*?\bsrc=[\"']?(?:https?:)?//[^\"'\s>]*"
    r"|<link\b[^>]*?\brel=[\"']?(?:stylesheet|preload|preconnect|icon)[^>]*?href=[\"']?(?:https?:)?//[^\"'\s>]*"
    r"|url\([\"']?(?:https?:)?//[^)]*|@import[^;]*//[^;]*"
)


def on_config(config: MkDocsConfig) -> None:
    """Put into the navigation what a directory holds, where it names a directory."""
    config.nav = _expanded(config.nav)


def _expanded(entry: Any) -> Any:
    if isinstance(entry, list):
        return [_expanded(each) for each in entry]
    if isinstance(entry, dict):
        return {title: _expanded(each) for title, each in entry.items()}
    if not entry.endswith("/"):
        return entry
    pages = sorted(path.name for path in (ROOT / "docs" / entry).glob("[0-9]*.md"))
    return [entry + name for name in ("README.md", *pages)]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are not in `docs/`, and leave out what is no page."""
    for name in FROM_ROOT:
        files.append(File.generated(config, name, content=(ROOT / name).read_text("utf-8")))
    for name, write in WRITTEN.items():
        files.append(File.generated(config, name, content=write()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Return the page with links as the site has them; code is left alone."""
    source = page.file.src_uri
    parts, position = [], 0
    for fenced in _FENCED.finditer(markdown):
        parts += [relinked(markdown[position : fenced.start()], source), fenced.group()]
        position = fenced.end()
    return "".join([*parts, relinked(markdown[position:], source)])


def relinked(markdown: str, source: str) -> str:
    """Return *markdown* of the page *source* (`decisions/0001.md`), linked as the site is."""

    def link(found: re.Match[str]) -> str:
        target = site_target(found["target"], source)
        if target is None:
            return found["text"]
        return f"[{found['text']}]({target}{found['anchor'] or ''})"

    return _LINK.sub(link, markdown)


def site_target(target: str, source: str) -> str | None:
    """Return where *target* of the page *source* is on the site; None: not there."""
    if re.match(r"[a-z]+:", target) or source in WRITTEN:
        return target
    in_repository = source if source in FROM_ROOT else f"docs/{source}"
    path = posixpath.normpath(posixpath.join(posixpath.dirname(in_repository), target))
    if (ROOT / path).is_dir():
        path += "/README.md"
    if path.startswith("docs/"):
        page = path.removeprefix("docs/")
    elif path in FROM_ROOT:
        page = path
    elif (ROOT / path).exists():
        return None
    else:
        return target  # leads nowhere; mkdocs says so
    return posixpath.relpath(page, posixpath.dirname(source) or ".")


def on_post_build(config: MkDocsConfig) -> None:
    """End the build if a page would load anything from another host: the site is read offline."""
    foreign = {
        f"{path.relative_to(config.site_dir)}: {loaded}"
        for path in Path(config.site_dir).rglob("*")
        if path.suffix in (".html", ".css")
        for loaded in _LOADED.findall(path.read_text(encoding="utf-8"))
    }
    if foreign:
        raise PluginError("the site would load from elsewhere:\n" + "\n".join(sorted(foreign)))
