"""Connections of a host that are silent while others receive bytes: their requests get other ones.

A new connection on which no byte comes waits for another one to end: that is a limit of the host.
Nothing here waits.
"""

from __future__ import annotations

from typing import Final

import trio

from satfs.net.host_connections import LOOKING_S, HostConnections, Permit

#: From this many silent connections at once on, the cause is no lost packet: the host makes them
#: wait for others to end, and connections that were begun after them wait as well.
MIN_QUEUED: Final = 2


def close_queued(host: HostConnections) -> bool:
    """Close connections without a request for one with a request that waits behind them.

    A host that serves one connection at a time, in the order in which they came, waits for a
    request on the first of them. Returns whether a request is silent, and nothing has responded.
    """
    now_s = trio.current_time()
    if host.n_responding() or not any(
        each.is_opening and host.is_silent(each, now_s) for each in host.permits
    ):
        return False
    host.close_unused()
    return True


def end_silent(host: HostConnections) -> None:
    """Cancel the requests on connections that are silent while others receive bytes, or could.

    Silence of a new connection is a limit. That of another one may be a slow response, or a
    connection that was exchanged for a new one behind it: its request is only moved, and later.
    """
    now_s = trio.current_time()
    for permit in host.permits:
        if permit.wait_s is not None and now_s - permit.recalled_at_s >= LOOKING_S:
            permit.scope.cancel()  # nothing was reported
    silence_s = host.limit.silence_s()
    silent = [
        permit
        for permit in list(host.permits)
        if permit.is_new
        and permit.is_counted
        and not permit.has_responded
        and not permit.is_last_try
        and host.is_silent(permit, now_s)
        and (host.carried_at_s > permit.began_s or host.n_idle_proven() > 0)
        and permit.is_looked_at(now_s)
    ]
    for permit in silent:
        permit.is_counted = False
    for permit in silent:
        wait_s = host.note_refused(silent_since_s=permit.silent_since_s)
        if wait_s is None:
            permit.is_counted = True
        else:
            permit.end_in_silence(wait_s)
    if any(permit.wait_s is not None for permit in silent):
        host.close_unused()
        if len(silent) >= MIN_QUEUED:
            host.queue_seen_s = now_s
    for permit in host.permits:
        if (
            permit.is_counted
            and not (permit.is_new or permit.is_patient or permit.has_responded)
            and now_s - permit.silent_since_s >= 2 * silence_s
            and host.carried_at_s > permit.began_s
            and permit.is_looked_at(now_s)
        ):
            _move(permit)


def move_late(host: HostConnections) -> None:
    """Move requests from connections that are late to idle ones that have responded before.

    Those that began first. To be called where no other request waits. It costs nothing where the
    connection is only slow.
    """
    n_idle = host.n_idle_proven()
    if not n_idle:
        return
    now_s, in_time = trio.current_time(), host.not_late()
    late = [
        permit
        for permit in host.permits
        if permit.is_counted
        and not permit.is_proven
        and permit not in in_time
        and permit.is_looked_at(now_s)
    ]
    for permit in late[:n_idle]:
        _move(permit)


def _move(permit: Permit) -> None:
    """End the request on the connection of *permit*, which is then begun on another one at once."""
    permit.is_counted = False
    permit.wait_s = 0.0
    permit.scope.cancel()
