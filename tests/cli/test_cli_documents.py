"""The documents are right about commands, settings and exit codes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from satfs.cli.exit_codes import MEANINGS
from satfs.cli.flags import SETTING_FLAGS
from satfs.cli.main import COMMANDS
from satfs.cli.mount_options import FOR_OTHERS, KERNEL_FLAGS, REFUSED
from satfs.settings import Settings, load_settings, meanings, variable_of

ROOT = Path(__file__).parents[2]
USAGE = (ROOT / "docs" / "USAGE.md").read_text(encoding="utf-8")


def settings_rows() -> list[str]:
    """Return the rows of the settings' table, as they must be."""
    rows = []
    meaning_of = meanings()
    for name in Settings.__struct_fields__:
        default = getattr(load_settings({}), name)
        shown = {"cache_dir": "`~/.cache/satfs`"}.get(
            name, "" if default is None else f"`{default}`"
        )
        meaning = " ".join(meaning_of[name].split())
        rows.append(f"| `{variable_of(name)}` | {shown} | {meaning} |")
    return rows


def test_every_setting_is_documented_as_it_is() -> None:
    rows = re.findall(r"^\| `SATFS_.*", USAGE.partition("## Settings")[2], re.MULTILINE)

    assert rows == settings_rows()


def test_every_exit_code_is_documented_as_it_is() -> None:
    table = USAGE.partition("## Exit codes")[2].partition("##")[0]

    assert re.findall(r"^\| \d+ .*", table, re.MULTILINE) == [
        f"| {int(code)} | {meaning} |" for code, meaning in MEANINGS.items()
    ]


@pytest.mark.parametrize("name", [*KERNEL_FLAGS, *(n for n in REFUSED if n != "bind"), "_netdev"])
def test_mount_options_are_documented(name: str) -> None:
    assert name in FOR_OTHERS | set(KERNEL_FLAGS) | set(REFUSED)
    assert f"`{name}`" in USAGE.partition("## Mount options")[2].partition("## The demo")[0]


@pytest.mark.parametrize("document", ["README.md", "docs/USAGE.md"])
def test_commands_and_flags_that_are_named_exist(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")

    commands = set(re.findall(r"^\$ satfs (\w+)", text, re.MULTILINE))
    flags = set(re.findall(r"satfs mount[^\n`]* (--[a-z-]+)", text))
    assert commands
    assert commands <= set(COMMANDS)
    assert flags <= {flag for flag, *_ in SETTING_FLAGS} | {"--foreground", "--offline"}


@pytest.mark.parametrize(
    "document",
    [
        path.relative_to(ROOT).as_posix()
        for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    ],
)
def test_links_between_documents_lead_somewhere(document: str) -> None:
    path = ROOT / document
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text(encoding="utf-8"))

    missing = [target for target in targets if not (path.parent / target).exists()]
    assert missing == []


def test_the_readme_opens_with_two_commands_and_four_lines() -> None:
    """The README begins with what satfs is, how to try it, how to test it, and the real mount."""
    blocks = re.findall(r"```console\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)

    assert re.findall(r"scripts/\w+", blocks[0]) == ["scripts/demo", "scripts/test"]
    assert len(blocks[1].splitlines()) == 4
