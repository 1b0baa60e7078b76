"""Contracts and tokens, as the account has them: what is said, and what is quoted for a shell."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from satfs.doctor.account import TOKEN_NOTE_S, contract_finding, credential_finding, refusal
from satfs.doctor.findings import Severity
from satfs.errors import (
    DeadlineReached,
    Garbled,
    NeedsContract,
    NeedsLogin,
    NotAllowed,
    NotThere,
    SatfsError,
    Throttled,
    Unreachable,
)
from satfs.model import Contract, ContractId
from satfs.settings import load_settings

ONE = Contract(ContractId("cont.1"), "One")
TWO = Contract(ContractId("cont.2"), "Two")


@pytest.mark.parametrize(
    ("contracts", "chosen", "severity"),
    [
        ((ONE,), None, Severity.OK),
        ((ONE, TWO), "cont.2", Severity.OK),
        ((ONE, TWO), None, Severity.FAILURE),
        ((ONE, TWO), "cont.3", Severity.FAILURE),
        ((), None, Severity.FAILURE),
        ((), "cont.1", Severity.FAILURE),
    ],
)
def test_a_contract_holds_when_it_is_the_only_one_or_named(
    contracts: tuple[Contract, ...], chosen: str | None, severity: Severity
) -> None:
    finding = contract_finding(contracts, chosen)

    assert finding.severity is severity
    if severity is Severity.FAILURE:
        assert finding.cause is NeedsContract
        assert len(finding.commands) == len(contracts)


@given(st.text(min_size=1))
def test_ids_of_the_vendor_are_quoted_for_the_shell(text: str) -> None:
    """Users copy a remedy into a shell, so no other party may have written a part of it."""
    (command,) = contract_finding((Contract(ContractId(text), "x"),), f"{text}-other").commands

    assert shlex.split(command) == ["export", f"SATFS_CONTRACT_ID={text}"]


@given(left_s=st.floats(-1e6, 1e6))
def test_only_a_token_that_nobody_renews_can_run_out(left_s: float) -> None:
    given_token = load_settings({}, token="t")
    renewed = load_settings({}, client_id="x", client_secret="y")

    severity = credential_finding(given_token, 1e9 + left_s, 1e9).severity
    assert (severity is Severity.NOTE) is (left_s < TOKEN_NOTE_S)
    assert credential_finding(renewed, 1e9 + left_s, 1e9).severity is Severity.OK
    assert credential_finding(given_token, None, 1e9).severity is Severity.OK


@pytest.mark.parametrize(
    "failure",
    [
        NeedsLogin("refused"),
        NeedsContract("which?"),
        NotAllowed("no."),
        NotThere("none"),
        Garbled("an HTML page"),
        Unreachable("away"),
        DeadlineReached("late"),
        Throttled("slow down"),
        SatfsError(),
    ],
    ids=lambda failure: type(failure).__name__,
)
def test_each_kind_of_failure_is_told_with_a_reason(failure: SatfsError) -> None:
    """And keeps its kind, which decides the exit code."""
    finding = refusal("tasks", failure)

    assert (finding.severity, finding.cause) == (Severity.FAILURE, type(failure))
    assert finding.explanation
    assert not finding.statement.endswith("..")
