"""Which hosts do not respond now, so that no second task waits for them.

When a call has spent all its time and tries on a host without one response, the host counts as
offline: further calls fail at once. Every few seconds one of them is let through as a probe; the
first response of any kind puts the host back. A refusal (a 500, a 403) is a response: only silence
and broken connections make a host offline.

A healthy host may be silent about one request alone. So after silence the next call with another
request is a probe at once, and another one soon after it; as long as none of them has failed, the
host is in doubt, and further calls wait for the result (`is_deciding`). A call with the same
request fails at once as the last one did.

*Pure*: moments come in as numbers of seconds, on any clock that never runs backwards.
"""

from __future__ import annotations

from msgspec import Struct, field

#: Time between the end of one probe and the next: recovery is noticed within this, plus one try.
PROBE_INTERVAL_S = 2.0
#: Time that a probe waits for a response. A caller waits for it, so it is short…
PROBE_PATIENCE_S = 4.0
#: …but a host that has become slow must be recognised as well: each eighth probe waits in full.
PATIENT_PROBE_EVERY = 8
#: Time that a probe waits after silence, where a host that is well responds as quickly as ever; and
#: how long after one such probe began the next one may. Seconds.
DOUBT_PATIENCE_S = 2.0
SECOND_OPINION_S = 0.5


class Admission(Struct, frozen=True):
    """Permission to send a request; of a probe for one try, at most *patience_s* (None: any)."""

    is_probe: bool = False
    patience_s: float | None = None


class _Host(Struct):
    responded_at_s: float = float("-inf")
    offline_since: float | None = None
    reason: str = ""
    #: Requests that it did not respond to since it counts as offline.
    silent_about: set[str] = field(default_factory=set)
    next_probe_at: float = 0.0
    probed_at: float = 0.0
    n_probes: int = 0
    n_failed_probes: int = 0

    def is_in_doubt(self, about: str) -> bool:
        """Return whether a request with this *about* may get a response."""
        is_silent = bool(self.silent_about) and about not in self.silent_about
        return is_silent and self.n_failed_probes == 0

    def may_be_probed(self, now_s: float, about: str) -> bool:
        if self.is_in_doubt(about):
            return not self.n_probes or now_s - self.probed_at >= SECOND_OPINION_S
        return not self.n_probes and now_s >= self.next_probe_at


class Reachability(Struct):
    """The state of each origin (`satfs.net.addresses.origin_of`). Never waits."""

    probe_interval_s: float = PROBE_INTERVAL_S
    probe_patience_s: float = PROBE_PATIENCE_S
    _hosts: dict[str, _Host] = field(default_factory=dict)

    def admit(self, origin: str, now_s: float, about: str = "") -> Admission | None:
        """Return permission to send a request; None when *origin* is offline and no probe is due.

        *about* names the request: it is equal for equal ones. A probe's caller must report
        `probe_ended` for every result.
        """
        host = self._hosts.get(origin)
        if host is None or host.offline_since is None:
            return Admission()
        if not host.may_be_probed(now_s, about):
            return None
        host.n_probes += 1
        host.probed_at = now_s
        if host.is_in_doubt(about):
            return Admission(is_probe=True, patience_s=DOUBT_PATIENCE_S)
        is_patient = host.n_failed_probes % PATIENT_PROBE_EVERY == PATIENT_PROBE_EVERY - 1
        return Admission(is_probe=True, patience_s=None if is_patient else self.probe_patience_s)

    def is_deciding(self, origin: str, about: str = "") -> bool:
        """Return whether a probe is finding out if *origin* is silent *about* this, too."""
        host = self._hosts.get(origin)
        return (
            host is not None
            and host.offline_since is not None
            and host.is_in_doubt(about)
            and host.n_probes > 0
        )

    def responded(self, origin: str, now_s: float) -> None:
        """Note that *origin* sent a response, of any kind."""
        host = self._hosts.setdefault(origin, _Host())
        host.responded_at_s = now_s
        host.offline_since = None
        host.n_failed_probes = 0
        host.silent_about.clear()

    def gave_up(
        self,
        origin: str,
        *,
        since_s: float,
        now_s: float,
        reason: str = "",
        silent_about: str | None = None,
    ) -> bool:
        """Note that a call begun at *since_s* reached its deadline; return whether that is news.

        *reason* is the last failure of the call, for display (`offline_reason`). *silent_about*
        names the request where it was silence, and no broken connection. A host that responded to
        any request since is slow, not away, and stays as it is.
        """
        host = self._hosts.setdefault(origin, _Host())
        if host.offline_since is not None or host.responded_at_s >= since_s:
            return False
        host.offline_since = now_s
        host.reason = reason
        host.silent_about = set() if silent_about is None else {silent_about}
        host.next_probe_at = now_s + self.probe_interval_s
        host.n_failed_probes = 0
        return True

    def probe_ended(self, origin: str, now_s: float, about: str = "") -> None:
        """Note the end of a probe; without a response the next one is due in a while."""
        host = self._hosts.setdefault(origin, _Host())
        host.n_probes = max(0, host.n_probes - 1)
        if host.offline_since is not None:
            # Silence about the same request again changes nothing.
            is_first = host.n_failed_probes or about not in host.silent_about
            host.n_failed_probes += bool(is_first)
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
        """Let the next call to each offline host through: the network has changed, for example."""
        for host in self._hosts.values():
            host.next_probe_at = float("-inf")
