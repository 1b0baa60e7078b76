"""Which address of a name is tried when (RFC 8305), and which ones are tried last.

*Pure*: addresses are texts, moments are seconds on a clock that never runs backwards. The waiting
is done by `net/backend.py` in the event loop and by `content/transfer/opener.py` in the workers.

A name may lead to addresses that drop packets: of a network without IPv6 routing, of a server that
is gone. Addresses are tried in parallel, each a moment after the one before it. Those that were
slower are remembered, so that they delay only the first connection.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

#: Time after which the next address is tried as well, in seconds (RFC 8305 §8).
ATTEMPT_DELAY_S: Final = 0.25
#: How long a slower address is tried after the others, in seconds. After that the network of the
#: machine may have changed, and to try it costs one delay.
SLOW_S: Final = 600.0
#: Limit of the addresses that are remembered. A name has a handful.
MAX_REMEMBERED: Final = 256


def interleaved(addresses: Iterable[str]) -> list[str]:
    """Return *addresses* with IPv6 and IPv4 in turn, beginning with the family of the first.

    The order within a family, which is that of the resolver (RFC 6724), stays (RFC 8305 §4).
    """
    distinct = list(dict.fromkeys(addresses))
    first = [each for each in distinct if _is_ipv6(each) == _is_ipv6(distinct[0])]
    second = [each for each in distinct if _is_ipv6(each) != _is_ipv6(distinct[0])]
    n_pairs = min(len(first), len(second))
    pairs = [each for pair in zip(first, second, strict=False) for each in pair]
    return [*pairs, *first[n_pairs:], *second[n_pairs:]]


def _is_ipv6(address: str) -> bool:
    return ":" in address


class SlowAddresses:
    """Addresses that were slower than another address of the same name, each for `SLOW_S`."""

    def __init__(self) -> None:
        self._until_s: dict[str, float] = {}

    def ordered(self, addresses: Iterable[str], now_s: float) -> list[str]:
        """Return *addresses* in the order in which they are to be tried.

        An address that was accepted last and one that is not known yet keep the resolver's order,
        so that a name with many good addresses still spreads connections over them.
        """
        slow = set(self.at(now_s))
        return sorted(interleaved(addresses), key=slow.__contains__)

    def connected(self, address: str, losers: Iterable[str], now_s: float) -> None:
        """Note that *address* was connected to, and that *losers* were tried before it in vain."""
        self._until_s.pop(address, None)
        self.add(losers, now_s)

    def add(self, addresses: Iterable[str], now_s: float) -> None:
        """Note that *addresses* are slow."""
        for each in addresses:
            self._until_s.pop(each, None)
            self._until_s[each] = now_s + SLOW_S
        while len(self._until_s) > MAX_REMEMBERED:
            del self._until_s[next(iter(self._until_s))]

    def at(self, now_s: float) -> tuple[str, ...]:
        """Return the addresses that are slow at *now_s*."""
        return tuple(each for each, until_s in self._until_s.items() if now_s < until_s)


class Race:
    """The attempts to connect to one of *addresses*, in that order."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._left = list(addresses)
        self._running: list[str] = []
        self._failed: list[str] = []
        self._next_at_s = float("-inf")

    @property
    def is_lost(self) -> bool:
        """Return whether every attempt has failed."""
        return not self._left and not self._running

    def due(self, now_s: float) -> str | None:
        """Return the address that is to be tried now, as begun; None: not yet, or none is left."""
        if not self._left or now_s < self._next_at_s:
            return None
        address = self._left.pop(0)
        self._running.append(address)
        self._next_at_s = now_s + ATTEMPT_DELAY_S
        return address

    def wait_s(self, now_s: float) -> float | None:
        """Return the seconds until the next address is due; None: none is left."""
        return max(0.0, self._next_at_s - now_s) if self._left else None

    def failed(self, address: str) -> None:
        """Note that the attempt for *address* failed: the next one is due at once (§5)."""
        self._running.remove(address)
        self._failed.append(address)
        self._next_at_s = float("-inf")

    def losers(self, winner: str) -> list[str]:
        """Return the addresses that were tried before *winner*, which was connected to."""
        return [*self._failed, *self._running[: self._running.index(winner)]]
