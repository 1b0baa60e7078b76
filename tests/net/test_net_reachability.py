"""Which hosts are known to be away."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from satfs.net.reachability import (
    DOUBT_PATIENCE_S,
    PATIENT_PROBE_EVERY,
    PROBE_INTERVAL_S,
    PROBE_PATIENCE_S,
    Reachability,
)

HOST, OTHER = "https://a:443", "https://b:443"


def offline_at(now_s: float) -> Reachability:
    """Return the record of a host that went away at *now_s*."""
    hosts = Reachability()
    assert hosts.gave_up(HOST, since_s=now_s - 15, now_s=now_s)
    return hosts


def test_an_unknown_host_may_be_asked() -> None:
    """Everybody is innocent."""
    admission = Reachability().admit(HOST, 0)
    assert admission is not None
    assert not admission.is_probe


def test_silence_makes_a_host_offline_and_no_other() -> None:
    """The API may be down while the store lives."""
    hosts = offline_at(100)
    assert hosts.admit(HOST, 100) is None
    assert hosts.admit(OTHER, 100) is not None
    assert hosts.offline_since(HOST) == 100
    assert hosts.offline_origins() == (HOST,)


def test_one_probe_is_let_through_every_few_seconds() -> None:
    """One at a time, and the next one only a while after it ended."""
    hosts = offline_at(100)
    assert hosts.admit(HOST, 100 + PROBE_INTERVAL_S - 0.1) is None
    probe = hosts.admit(HOST, 100 + PROBE_INTERVAL_S)
    assert probe is not None
    assert probe.is_probe
    assert probe.patience_s == PROBE_PATIENCE_S
    assert hosts.admit(HOST, 200) is None, "the first probe is still under way"
    hosts.probe_ended(HOST, 200)
    assert hosts.admit(HOST, 200.1) is None
    assert hosts.admit(HOST, 200 + PROBE_INTERVAL_S) is not None


def test_an_answer_of_any_kind_brings_the_host_back() -> None:
    """Also when another caller received it."""
    hosts = offline_at(100)
    hosts.responded(HOST, 101)
    admission = hosts.admit(HOST, 101)
    assert admission is not None
    assert not admission.is_probe


def test_a_slow_host_is_not_offline() -> None:
    """It responded to another caller while this call ran out of time."""
    hosts = Reachability()
    hosts.responded(HOST, 95)
    assert not hosts.gave_up(HOST, since_s=90, now_s=105)
    assert hosts.admit(HOST, 105) is not None
    assert hosts.gave_up(HOST, since_s=96, now_s=111)


def test_now_and_then_a_probe_is_patient() -> None:
    """A host that came back slow would never respond to a hasty probe."""
    hosts, now_s, patience = offline_at(0), 0.0, []
    for _ in range(2 * PATIENT_PROBE_EVERY):
        now_s += PROBE_INTERVAL_S
        probe = hosts.admit(HOST, now_s)
        assert probe is not None
        patience.append(probe.patience_s)
        hosts.probe_ended(HOST, now_s)
    assert patience.count(None) == 2


def test_a_change_of_network_lets_the_next_call_through() -> None:
    """No call waits for the next probe when the machine has just woken up."""
    hosts = offline_at(100)
    hosts.retry_now()
    probe = hosts.admit(HOST, 100.1)
    assert probe is not None
    assert probe.is_probe


class ReachabilityModel(RuleBasedStateMachine):
    """For any events in any order: never two probes at once, never locked out for good."""

    def __init__(self) -> None:
        super().__init__()
        self.hosts = Reachability()
        self.now_s = 0.0
        self.n_probes = 0

    @rule(seconds=st.floats(0, 20))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds

    @rule()
    def ask(self) -> None:
        admission = self.hosts.admit(HOST, self.now_s)
        if admission is not None and admission.is_probe:
            # At most one at a time, but where it is in doubt whether the silence is everybody's.
            assert self.n_probes == 0 or admission.patience_s == DOUBT_PATIENCE_S
            self.n_probes += 1
        if self.hosts.offline_since(HOST) is None:
            assert admission is not None

    @rule()
    def response(self) -> None:
        self.hosts.responded(HOST, self.now_s)
        assert self.hosts.admit(HOST, self.now_s) is not None

    @rule(spent_s=st.floats(0, 20))
    def give_up(self, spent_s: float) -> None:
        self.hosts.gave_up(HOST, since_s=self.now_s - spent_s, now_s=self.now_s)

    @rule(spent_s=st.floats(0, 20))
    def give_up_in_silence(self, spent_s: float) -> None:
        since_s = self.now_s - spent_s
        self.hosts.gave_up(HOST, since_s=since_s, now_s=self.now_s, silent_about="a")

    @precondition(lambda self: self.n_probes > 0)
    @rule()
    def end_probe(self) -> None:
        self.n_probes -= 1
        self.hosts.probe_ended(HOST, self.now_s)

    @invariant()
    def a_probe_is_due_soon(self) -> None:
        if self.n_probes == 0 and self.hosts.offline_since(HOST) is not None:
            later = self.now_s + PROBE_INTERVAL_S
            assert self.hosts.admit(HOST, later) is not None
            self.hosts.probe_ended(HOST, self.now_s)


TestReachabilityModel = ReachabilityModel.TestCase
