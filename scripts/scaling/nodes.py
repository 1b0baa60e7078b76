"""Simulated nodes: network namespaces with a line of their own each, and one line of the origin.

    origin ── origin's line ── router ── node's line ── node 1 … node N

Lines are limited by the kernel (tc-tbf(8)). Takes root; nothing outside the namespaces is touched,
and they are gone with the block.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

#: An address of the origin that is reached from every node, in a network that is not routed.
ORIGIN_ADDRESS = "10.78.0.1"


@dataclass(frozen=True, slots=True)
class Nodes:
    """The words that start a program at the origin, and on each node."""

    origin: tuple[str, ...]
    nodes: tuple[tuple[str, ...], ...]


def what_is_missing() -> str | None:
    """Return why nodes cannot be simulated here, or None when they can."""
    if os.geteuid() != 0:
        return "network namespaces take root"
    missing = [name for name in ("ip", "tc") if shutil.which(name) is None]
    return f"not installed: {', '.join(missing)} (iproute2)" if missing else None


@contextlib.contextmanager
def simulated(n_nodes: int, node_mb_s: float, origin_mb_s: float) -> Iterator[Nodes]:
    """Hold *n_nodes* namespaces whose lines carry *node_mb_s*, the origin's *origin_mb_s*."""
    tag = f"satfs{os.getpid()}"
    origin, router = f"{tag}o", f"{tag}r"
    names = [f"{tag}n{number}" for number in range(n_nodes)]
    made: list[str] = []
    try:
        for name in (origin, router, *names):
            _ip("netns", "add", name)
            made.append(name)
            _ip("-n", name, "link", "set", "lo", "up")
        _run("ip", "netns", "exec", router, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        _connect(origin, router, 0, origin_mb_s)
        _ip("-n", origin, "address", "add", f"{ORIGIN_ADDRESS}/32", "dev", "lo")
        _ip("-n", origin, "route", "add", "default", "via", "10.78.1.2")
        _ip("-n", router, "route", "add", f"{ORIGIN_ADDRESS}/32", "via", "10.78.1.1")
        for number, name in enumerate(names, start=1):
            _connect(router, name, number, node_mb_s)
            _ip("-n", name, "route", "add", "default", "via", f"10.78.{number + 1}.1")
        yield Nodes(
            ("ip", "netns", "exec", origin),
            tuple(("ip", "netns", "exec", name) for name in names),
        )
    finally:
        for name in made:
            subprocess.run(["ip", "netns", "delete", name], check=False)


def _connect(upper: str, lower: str, number: int, mb_s: float) -> None:
    """Connect two namespaces; what goes from *upper* to *lower* is limited to *mb_s*."""
    up, down = f"u{number}", f"d{number}"
    _ip("-n", upper, "link", "add", "name", up, "type", "veth", "peer", "name", down)
    _ip("-n", upper, "link", "set", down, "netns", lower)
    for name, device, end in ((upper, up, 1), (lower, down, 2)):
        _ip("-n", name, "address", "add", f"10.78.{number + 1}.{end}/24", "dev", device)
        _ip("-n", name, "link", "set", device, "up")
    rate = f"{mb_s * 8:.3f}mbit"
    # Half a second of queue: a sender learns from loss before a reader's deadline matters.
    limit = ("rate", rate, "burst", "128kb", "latency", "500ms")
    _run("tc", "-n", upper, "qdisc", "add", "dev", up, "root", "tbf", *limit)


def _ip(*words: str) -> None:
    _run("ip", *words)


def _run(*command: str) -> None:
    subprocess.run(command, check=True)
