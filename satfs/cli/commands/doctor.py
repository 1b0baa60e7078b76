"""`satfs doctor`: look for what keeps satfs from working, and print the remedy."""

from __future__ import annotations

import os
import textwrap
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final

import click
from rich.text import Text

from satfs.cli.bug_report import report_text, write_report
from satfs.cli.exit_codes import Exit, exit_code
from satfs.cli.flags import (
    OutputOptions,
    directory_argument,
    json_flag,
    profile_flag,
    values_for,
    verbosity_flags,
)
from satfs.cli.hints import hint
from satfs.cli.log_setup import logging_quietly
from satfs.cli.mount_status import mounts_of_user, read_log
from satfs.cli.output import console, print_json, print_sentence, show
from satfs.cli.waiting import run_alone
from satfs.doctor.examination import examine
from satfs.doctor.findings import Area, Check, Finding, Report, Severity, deciding_failure, worst
from satfs.doctor.machine import Machine
from satfs.errors import BadMountpoint, BadSettings
from satfs.mountpoints import DEMO_SOURCE, absolute
from satfs.redaction import redact
from satfs.settings import Settings, resolve_settings

_STYLES: Final = {
    Severity.OK: "green",
    Severity.NOTE: "cyan",
    Severity.WARNING: "yellow",
    Severity.FAILURE: "bold red",
}
#: Where sentences begin: behind two blanks, the longest of the words, and two blanks.
_MARGIN: Final = 11

_SETTINGS = Check(Area.SETTINGS, "settings", BadSettings)


@click.command(
    epilog="""\b
Examples:
  satfs doctor                           look at everything
  satfs doctor ~/aleph                   … and whether that can be mounted on
  satfs doctor --profile harbour         with the account of that profile
  satfs doctor -q                        only what is not as it should be
  satfs doctor --report report.txt       and write a file for an issue
  satfs doctor --json | jq '.findings[] | select(.severity != "ok")'

\b
Exit codes:
    0  all is well, or nothing worse than notes
    9  warnings: a mount works, and not as well as it could
  2-8  a failure; the code is the one that `satfs mount` would end with
       for the first of them (`satfs --help` lists them)
"""
)
@directory_argument
@json_flag
@profile_flag
@click.option(
    "--report",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    shell_complete=values_for("FILE"),
    help="Also write findings, versions, settings and logs to FILE, without secrets.",
)
@verbosity_flags
@click.pass_obj
def doctor(
    output_options: OutputOptions,
    mountpoint: str | None,
    as_json: bool,
    profile: str | None,
    report: Path | None,
) -> int:
    """Look for problems that keep satfs from working, and print their remedies.

    Checks this machine, every satfs mount, the connections to the API and the object store, and the
    account. Changes nothing, needs no privileges, and ends within 30 seconds, also when a check
    hangs.
    """
    began_s = time.monotonic()
    if report is not None and os.path.lexists(report):
        raise BadSettings(f"{show(str(report))} exists; name another file for the report")
    findings: list[Finding] = []
    with logging_quietly(output_options):
        if as_json:
            _examine(mountpoint, profile, findings.append)
        else:
            least = Severity.NOTE if output_options.verbosity < 0 else Severity.OK
            _examine_aloud(mountpoint, profile, findings, least)
    code = code_of(findings)
    if as_json:
        took_s = time.monotonic() - began_s
        print_json(as_record(findings, code, took_s))
    else:
        console().print(summary(findings))
    if report is not None:
        _write_report(report, findings, profile)
    return code


def _write_report(path: Path, findings: Sequence[Finding], profile: str | None) -> None:
    try:
        resolved = resolve_settings({"profile": profile})
    except BadSettings:  # the findings have it
        resolved = None
    logs = {}
    for mounted in mounts_of_user():
        try:
            logs[str(mounted.mountpoint)] = read_log(mounted)
        except BadMountpoint as failure:
            logs[str(mounted.mountpoint)] = f"(cannot be read: {failure})"
    write_report(path, report_text(findings, resolved, logs))
    print_sentence(f"The report is in {path}; read it before you attach it to an issue.")


def code_of(findings: Sequence[Finding]) -> Exit:
    """Return the exit code for *findings*: that of the first failure, else of a warning."""
    failure = deciding_failure(findings)
    if failure is not None:
        return exit_code(failure.cause(failure.statement))
    return Exit.WARNINGS if worst(findings) is Severity.WARNING else Exit.DONE


def _examine(mountpoint: str | None, profile: str | None, report: Report) -> None:
    machine = Machine()
    place = None if mountpoint is None else _place(machine, Path(mountpoint))
    source = next((each.source for each in machine.mounts() if each.mountpoint == place), "")
    settings: Settings | None = None
    if source == DEMO_SOURCE and profile is None:
        statement = (
            f"{place} is a demo, which needs no settings, network or account: not looked at."
        )
        report(_SETTINGS.fine(statement))
    else:
        settings = _settings(profile, report)
    run_alone(examine, machine, settings, place, report)


def _settings(profile: str | None, report: Report) -> Settings | None:
    """Return the settings of a mount, and report their problems; None if they are unusable."""
    try:
        resolved = resolve_settings({"profile": profile})
    except BadSettings as failure:
        report(
            _SETTINGS.failure(
                f"{failure}.",
                "Nothing can be mounted; cache, network and account were not looked at.",
                "See where each value comes from:",
                "satfs config show --origin",
            )
        )
        return None
    for remark in resolved.remarks:
        report(
            _SETTINGS.note(
                remark,
                "It has no effect; its name is misspelt, perhaps.",
                "See which there are:",
                "satfs config show",
            )
        )
    named = resolved.settings.profile
    report(_SETTINGS.fine(f"The settings of the profile {named} can be used."))
    return resolved.settings


def _place(machine: Machine, path: Path) -> Path:
    """Return *path* as the kernel names it. One that is mounted is not looked at: it may hang."""
    plain = Path(os.path.abspath(path))
    named = plain.parent.resolve() / plain.name
    is_mounted = any(each.mountpoint == named for each in machine.mounts())
    return named if is_mounted else absolute(path)


# -- for people ------------------------------------------------------------------------------------


def _examine_aloud(
    mountpoint: str | None, profile: str | None, findings: list[Finding], least: Severity
) -> None:
    """Print each finding as soon as it is there, from *least* on; keep them all in *findings*."""
    screen = console()
    reported: list[Finding] = []

    def report(finding: Finding) -> None:
        findings.append(finding)
        if finding.severity < least:
            return
        if not reported or reported[-1].area is not finding.area:
            screen.print(Text(finding.area, style="bold"))
        reported.append(finding)
        screen.print(shown(finding, screen.width), soft_wrap=True)

    # Something that moves while the network is waited for; a pipe gets none of it.
    waiting = screen.status("Looking…") if screen.is_terminal else nullcontext()
    with waiting:
        _examine(mountpoint, profile, report)


def shown(finding: Finding, width: int) -> Text:
    """Return *finding* as lines of at most *width* columns; commands are not broken."""
    style = _STYLES[finding.severity]
    lines = Text()
    for n, line in enumerate(_wrapped(finding.statement, width)):
        word = finding.severity.word if n == 0 else ""
        lines.append(f"  {word:<{_MARGIN - 2}}", style=style)
        lines.append(f"{line}\n")
    if finding.severity is not Severity.OK:
        for text in (finding.explanation, finding.remedy):
            for line in _wrapped(text, width):
                lines.append(f"{'':<{_MARGIN}}{line}\n")
        for command in finding.commands:
            lines.append(f"{'':<{_MARGIN + 2}}")
            lines.append(f"{show(redact(hint(command)))}\n", style="bold")
    lines.rstrip()
    return lines


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(
        show(redact(text)), width - _MARGIN, break_long_words=False, break_on_hyphens=False
    )


def summary(findings: Sequence[Finding]) -> Text:
    """Return the number of findings of each severity, the highest severity first."""
    counts = Counter(finding.severity for finding in findings)
    parts = [
        _counted(each, counts[each]) for each in sorted(Severity, reverse=True) if counts[each]
    ]
    return Text("\n" + ", ".join(parts) + ".", style=_STYLES[worst(findings)])


def _counted(severity: Severity, n: int) -> str:
    plural = "s" if n != 1 and severity is not Severity.OK else ""
    return f"{n} {severity.word}{plural}"


# -- for scripts -----------------------------------------------------------------------------------


def as_record(findings: Sequence[Finding], code: int, took_s: float) -> dict[str, Any]:
    """Return all findings as JSON: `check` and `severity` stay the same from release to release."""
    return {
        "worst": worst(findings).word,
        "exit_code": int(code),
        "took_s": round(took_s, 3),
        "findings": [
            {
                "area": each.area.value,
                "check": each.check,
                "severity": each.severity.word,
                "says": redact(each.statement),
                "means": redact(each.explanation),
                "remedy": redact(each.remedy),
                "commands": [redact(command) for command in each.commands],
            }
            for each in findings
        ],
    }
