"""All checks together: in order, in time, with any failure of one."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from doctor.conftest import MadeUp
from hypothesis import given
from hypothesis import strategies as st

from satfs.cli.commands.doctor import as_record, code_of, shown, summary
from satfs.cli.exit_codes import Exit
from satfs.demo.server import DemoOrigin
from satfs.doctor import examination
from satfs.doctor.findings import Area, Check, Finding, Severity, deciding_failure, worst
from satfs.errors import BadCache, FuseMissing, NeedsLogin, NotAllowed, SatfsError, Throttled
from satfs.net.addresses import LinkRule
from satfs.settings import load_settings

LocalCheck = tuple[Check, Any]


def with_checks(monkeypatch: pytest.MonkeyPatch, *checks: LocalCheck) -> None:
    """Have these made, in place of those of a machine."""
    monkeypatch.setattr(examination, "local_checks", lambda *_: list(checks))


async def findings_of(made: MadeUp) -> list[Finding]:
    """Return the findings of the checks that use no network."""
    found: list[Finding] = []
    await examination.examine(made.machine, None, None, found.append)
    return found


async def test_a_check_that_hangs_costs_its_time_and_no_more(
    made: MadeUp, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """And those after it are reported all the same, in their order."""
    never = threading.Event()

    def hang() -> Iterable[Finding]:
        never.wait(20)
        return []

    with_checks(
        monkeypatch,
        (Check(Area.FUSE, "stuck"), hang),
        (Check(Area.CACHE, "quick"), lambda: [Check(Area.CACHE, "quick").fine("Fine.")]),
    )
    try:
        # The quick one needs a moment of real time, of which this clock knows nothing.
        found = await findings_of(made)
    finally:
        never.set()

    assert found[0].check == "stuck"
    assert (found[0].severity, found[0].area) == (Severity.WARNING, Area.FUSE)
    assert found[1].check == "quick"
    assert trio.current_time() <= examination.LOCAL_LIMIT_S + 1


async def test_a_check_that_breaks_is_told_by_the_kind_of_its_error(
    made: MadeUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A foreign error's words may quote a secret; earlier findings of its check are dropped."""

    def broken() -> Iterator[Finding]:
        yield Check(Area.FUSE, "broken").fine("So far.")
        raise RuntimeError("token eyJhbGciOi")

    with_checks(monkeypatch, (Check(Area.FUSE, "broken"), broken))

    (finding,) = await findings_of(made)

    assert finding.severity is Severity.WARNING
    assert "RuntimeError" in finding.statement
    assert "eyJ" not in repr(finding)


async def test_a_machine_without_anything_is_looked_at_to_the_end(made: MadeUp) -> None:
    """No /proc, no /etc, no programs: each check says something, and none breaks."""
    found = await findings_of(made)

    assert {each.area for each in found} == {
        Area.FUSE,
        Area.MOUNTS,
        Area.CRAWLERS,
    }
    assert [each for each in found if "itself failed" in each.statement] == []


async def test_what_is_stuck_on_the_way_ends_in_time(
    made: MadeUp, monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    """The network has one limit over all of its steps."""

    async def never(*_: Any) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(examination, "_network", never)
    with_checks(monkeypatch)
    found: list[Finding] = []

    await examination.examine(made.machine, load_settings({}), None, found.append)

    assert [(each.area, each.severity) for each in found] == [(Area.NETWORK, Severity.WARNING)]
    assert trio.current_time() == pytest.approx(examination.NETWORK_LIMIT_S)


def test_all_limits_together_stay_below_thirty_seconds() -> None:
    """Local checks and the network are looked at side by side, after a second of starting up."""
    assert max(examination.NETWORK_LIMIT_S, examination.LOCAL_LIMIT_S) + 5 < 30


def test_only_an_exchange_of_tokens_asks_the_token_service() -> None:
    with_secret = load_settings({}, client_id="x", client_secret="y")
    with_token = load_settings({}, token="t")

    assert [host.check for host in examination.hosts_of(with_secret)] == ["api", "auth"]
    assert [host.check for host in examination.hosts_of(with_token)] == ["api"]


# -- what is made of findings ----------------------------------------------------------------------

sentences = st.text(max_size=300)
causes = st.sampled_from([SatfsError, BadCache, FuseMissing, NeedsLogin, Throttled])
some_findings = st.lists(
    st.builds(
        Finding,
        area=st.sampled_from(Area),
        check=st.just("check"),
        severity=st.sampled_from(Severity),
        statement=sentences,
        explanation=sentences,
        remedy=sentences,
        commands=st.tuples(sentences),
        cause=causes,
    )
)


@given(some_findings)
def test_the_exit_code_is_zero_for_notes_and_tells_the_first_failure(
    findings: list[Finding],
) -> None:
    code = code_of(findings)

    assert (code == Exit.DONE) is (worst(findings) <= Severity.NOTE)
    assert (code == Exit.WARNINGS) is (worst(findings) is Severity.WARNING)
    failure = deciding_failure(findings)
    if failure is not None and failure.cause is FuseMissing:
        assert code == Exit.FUSE


@given(some_findings, st.integers(40, 120))
def test_findings_of_any_text_fit_the_screen_but_for_commands(
    findings: list[Finding], width: int
) -> None:
    """Words longer than a line stay whole, as commands do: both are copied from the screen."""
    for finding in findings:
        for line in shown(finding, width).plain.split("\n"):
            is_one_word = " " not in line[11:].strip(" ")
            assert len(line) <= width or is_one_word or line.startswith(" " * 13)
    assert summary(findings).plain.endswith(".")


@given(some_findings)
def test_scripts_are_told_everything_that_people_are(findings: list[Finding]) -> None:
    record = as_record(findings, 0, 1.23456)

    assert [each["severity"] for each in record["findings"]] == [
        each.severity.word for each in findings
    ]
    assert record["worst"] == worst(findings).word


def test_secrets_are_blacked_out_wherever_they_came_from() -> None:
    link = "https://store.test/x?X-Amz-Signature=5ec2e7"
    finding = Finding(
        Area.STORE, "store", Severity.FAILURE, f"See {link}.", link, link, (f"curl {link}",)
    )

    output = shown(finding, 80).plain + repr(as_record([finding], 0, 0.0))

    assert "5ec2e7" not in output


def test_checks_of_a_machine_have_names_of_their_own(made: MadeUp) -> None:
    settings = load_settings({}, cache_dir=Path("/c"))
    checks = [each for each, _ in examination.local_checks(made.machine, settings, Path("/m"))]

    assert len({each.name for each in checks}) == len(checks)


async def test_the_store_is_connected_to_by_the_rule_of_a_mount(
    made: MadeUp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An address that a mount would not connect to is reported, and not connected to here."""

    def refuse(rule: LinkRule, host: str, address: str) -> None:
        raise NotAllowed(f"the name {host} leads to a private address")

    monkeypatch.setattr(LinkRule, "check_peer", refuse)
    found: list[Finding] = []
    with DemoOrigin() as origin:
        settings = load_settings(origin.environment())
        await examination.examine(made.machine, settings, None, found.append)
        n_requests = origin.journal.counts().get("object", 0)

    (finding,) = [each for each in found if each.check == "store-connection"]
    assert (finding.severity, finding.cause) == (Severity.FAILURE, NotAllowed)
    assert "leads to a private address" in finding.statement
    assert finding.commands == ("export SATFS_ALLOW_PRIVATE_STORE=true",)
    assert n_requests == 0
