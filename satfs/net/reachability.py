"""Which hosts are known to be away, so that nobody waits for them twice.

When a call has spent all its time and tries on a host without one answer, the host counts as
offline: further calls fail at once. Every few seconds one of them is let through as a probe; the
first answer of any kind puts the host back. What refuses us (a 500, a 403) is an answer: only
silence and broken connections make a host offline.

*Pure*: moments come in as numbers of seconds, on any clock that never runs backwards.
"""

from __future__ import annotations

from dataclasses import dataclass, field

#: Time between the end of one probe and the next: recovery is noticed within this, plus one try.
PROBE_INTERVAL_S = 2.0
#: Time that a probe waits for an answer. A caller pays it, so it is short…
PROBE_PATIENCE_S = 4.0
#: …but a host that has become slow must find its way back: each eighth probe waits in full.
PATIENT_PROBE_EVERY = 8


@dataclass(frozen=True, slots=True)
class Admission:
    """Leave to ask. A probe has one try, and at most *patience_s* (None: the call's own time)."""

    is_probe: bool = False
    patience_s: float | None = None


@dataclass(slots=True)
class _Host:
    answered_at: float = float("-inf")
    offline_since: float | None = None
    reason: str = ""
    next_probe_at: float = 0.0
    is_probed: bool = False
    n_failed_probes: int = 0


@dataclass(slots=True)
class Reachability:
    """What is known of each origin (`satfs.net.addresses.origin_of`). Never waits."""

    probe_interval_s: float = PROBE_INTERVAL_S
    probe_patience_s: float = PROBE_PATIENCE_S
    _hosts: dict[str, _Host] = field(default_factory=dict)

    def admit(self, origin: str, now_s: float) -> Admission | None:
        """Return leave to ask *origin*, or None when it is offline and no probe is due.

        A probe's caller must say `probe_ended`, whatever came of it.
        """
        host = self._hosts.get(origin)
        if host is None or host.offline_since is None:
            return Admission()
        if host.is_probed or now_s < host.next_probe_at:
            return None
        host.is_probed = True
        is_patient = host.n_failed_probes % PATIENT_PROBE_EVERY == PATIENT_PROBE_EVERY - 1
        return Admission(is_probe=True, patience_s=None if is_patient else self.probe_patience_s)

    def answered(self, origin: str, now_s: float) -> None:
        """Note that *origin* sent an answer, of whatever kind."""
        host = self._hosts.setdefault(origin, _Host())
        host.answered_at = now_s
        host.offline_since = None
        host.n_failed_probes = 0

    def gave_up(self, origin: str, *, since_s: float, now_s: float, reason: str = "") -> bool:
        """Note that a call begun at *since_s* spent its time; return True if that is news.

        *reason* is what the call met last, for people (`offline_reason`).
        A host that answered anybody meanwhile is slow, not away, and stays as it is.
        """
        host = self._hosts.setdefault(origin, _Host())
        if host.offline_since is not None or host.answered_at >= since_s:
            return False
        host.offline_since = now_s
        host.reason = reason
        host.next_probe_at = now_s + self.probe_interval_s
        host.n_failed_probes = 0
        return True

    def probe_ended(self, origin: str, now_s: float) -> None:
        """Note the end of a probe; if it was not answered, the next one is due in a while."""
        host = self._hosts.setdefault(origin, _Host())
        host.is_probed = False
        if host.offline_since is not None:
            host.n_failed_probes += 1
            host.next_probe_at = now_s + self.probe_interval_s

    def offline_since(self, origin: str) -> float | None:
        """Return the moment from which *origin* counts as offline; None while it does not."""
        host = self._hosts.get(origin)
        return None if host is None else host.offline_since

    def offline_reason(self, origin: str) -> str:
        """Return why *origin* counts as offline, as far as that is known; empty while it is not."""
        host = self._hosts.get(origin)
        return "" if host is None or host.offline_since is None else host.reason

    def offline_origins(self) -> tuple[str, ...]:
        """Return the origins that count as offline, for a status display."""
        return tuple(o for o, host in self._hosts.items() if host.offline_since is not None)

    def retry_now(self) -> None:
        """Let the next call to each offline host through: the network has changed, say."""
        for host in self._hosts.values():
            host.next_probe_at = float("-inf")
