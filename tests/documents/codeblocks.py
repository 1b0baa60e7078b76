"""The code blocks of a page as steps to run: commands with what they print, Python, remarks.

A console block holds commands after `$ ` (continued after `> `), each followed by what it prints;
`…` stands for anything, and no output for any output. A remark for the runner is an HTML comment
on the line before a block, which readers do not see:

    <!-- not run: REASON -->    the next block is left alone
    <!-- run with: NAME -->     the next block is Python for another interpreter
    <!-- before: COMMAND -->    something happens that is no business of the reader's
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_PART = re.compile(
    r"^<!-- (?P<kind>not run|run with|before): (?P<value>.+?) -->$"
    r"|^```(?P<language>\w*)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Step:
    """Something to run: a shell's command, or Python when `interpreter` is set."""

    line: int
    code: str
    expected: str = ""
    interpreter: str | None = None


@dataclass(frozen=True)
class Page:
    """The steps of a page to run, and the reasons for the others."""

    steps: tuple[Step, ...]
    left_alone: tuple[str, ...]


def read_page(text: str) -> Page:
    """Return the steps of a page.

    Raises:
        ValueError: a console or Python block has nothing to run, or a remark has no block.
    """
    steps: list[Step] = []
    left_alone: list[str] = []
    remark: tuple[str, str] | None = None
    for part in _PART.finditer(text):
        line = text.count("\n", 0, part.start()) + 1
        if part["kind"] == "before":
            steps.append(Step(line, part["value"]))
        elif part["kind"]:
            remark = (part["kind"], part["value"])
        elif remark and remark[0] == "not run":
            left_alone.append(remark[1])
            remark = None
        elif part["language"] == "console":
            steps.extend(_commands(part["code"], line + 1))
        elif part["language"] == "python":
            steps.append(Step(line, part["code"], "", remark[1] if remark else "python"))
            remark = None
        elif remark:
            raise ValueError(f"line {line}: {remark} stands before a block that is not run")
    return Page(tuple(steps), tuple(left_alone))


def _commands(block: str, first_line: int) -> Iterator[Step]:
    command, line = "", first_line
    output: list[str] = []
    for number, text in enumerate(block.splitlines(), first_line):
        if text.startswith("$ "):
            if command:
                yield Step(line, command, "\n".join(output))
            command, output, line = text[2:], [], number
        elif text.startswith("> ") and not output:
            command += "\n" + text[2:]
        elif command:
            output.append(text)
        else:
            raise ValueError(f"line {number}: output before a command")
    if not command:
        raise ValueError(f"line {first_line}: a console block without a command")
    yield Step(line, command, "\n".join(output))


def answers(expected: str, shown: str) -> bool:
    """Return whether *shown* is what the page says, blanks at line ends aside."""
    wanted = "\n".join(line.rstrip() for line in expected.strip().splitlines())
    found = "\n".join(line.rstrip() for line in shown.strip().splitlines())
    pattern = ".*".join(map(re.escape, wanted.split("…")))
    return re.fullmatch(pattern, found, re.DOTALL) is not None
