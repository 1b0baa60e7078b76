"""The lines that are measured over: how far the origin is, and how fast one connection may be."""

from __future__ import annotations

from dataclasses import dataclass

MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Profile:
    """One way from a client to the origin.

    `round_trip_s` is the time from a request to its first byte; 0 is loopback. `connection_rate`
    caps each connection to the store, in bytes per second; None leaves it to the machine.
    """

    name: str
    title: str
    tls: bool
    round_trip_s: float = 0.0
    connection_rate: int | None = None

    @property
    def is_far(self) -> bool:
        """Return whether packets travel over a line with a delay, not over loopback."""
        return self.round_trip_s > 0


PROFILES = {
    profile.name: profile
    for profile in (
        Profile("plain", "loopback, plain", tls=False),
        Profile("tls", "loopback, TLS", tls=True),
        Profile(
            "wan",
            "WAN: 30 ms, 50 MB/s per connection, TLS",
            tls=True,
            round_trip_s=0.030,
            connection_rate=50 * MB,
        ),
        Profile(
            "far",
            "far WAN: 120 ms, 10 MB/s per connection, TLS",
            tls=True,
            round_trip_s=0.120,
            connection_rate=10 * MB,
        ),
    )
}
