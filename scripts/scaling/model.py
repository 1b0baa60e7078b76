"""An event model of a cluster that reads deliveries: what saturates first as nodes are added.

*Pure*: figures in, times out. Each node reads its rasters one after the other: an API request for
the record and one for the link, then the bytes. The API serves a limited number of requests a
second for one account, in the order in which they come. The origin's line is shared equally by the
nodes that read, each at most as fast as its own line.
"""

from __future__ import annotations

import heapq
import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster and its work. Rates are per second, sizes in bytes.

    *n_askers* processes of a node send API requests, each for itself (1: a node requests once).
    *n_copies* is how often a node fetches each byte. *spread_s* is the time over which nodes begin.
    """

    n_nodes: int
    rasters_per_node: int
    raster_bytes: float
    node_bytes_per_s: float
    origin_bytes_per_s: float
    api_requests_per_s: float
    api_round_trip_s: float
    requests_per_raster: int = 2
    n_askers: int = 1
    n_copies: float = 1.0
    spread_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How long the work took, and how busy each shared part was (1.0: all the time)."""

    took_s: float
    api_busy: float
    origin_busy: float
    node_busy: float

    @property
    def first_limit(self) -> str:
        """Return what limits: the part that is busy most."""
        parts = {
            "API requests": self.api_busy,
            "origin's line": self.origin_busy,
            "nodes' lines": self.node_busy,
        }
        return max(parts, key=lambda name: parts[name])


def run(cluster: Cluster, seed: int = 1) -> Outcome:
    """Return what becomes of the work of *cluster*."""
    draw = random.Random(seed)
    n_requests = cluster.requests_per_raster * cluster.n_askers
    raster_bytes = cluster.raster_bytes * cluster.n_copies
    starts = [draw.uniform(0.0, cluster.spread_s) for _ in range(cluster.n_nodes)]
    #: (moment, node): the node's API requests for its next raster are sent.
    asking = [(at_s, node) for node, at_s in enumerate(starts)]
    heapq.heapify(asking)
    left = [cluster.rasters_per_node] * cluster.n_nodes
    api_free_s = api_used_s = carried_bytes = now_s = 0.0
    #: The bytes that every flow has received since the beginning; flows that read now end at a
    #: level.
    level = 0.0
    reading: list[tuple[float, int]] = []
    waiting: list[tuple[float, int]] = []
    while asking or reading or waiting:
        rate = _rate(cluster, len(reading))
        ends_s = now_s + (reading[0][0] - level) / rate if reading else float("inf")
        begins_s = waiting[0][0] if waiting else float("inf")
        asks_s = asking[0][0] if asking else float("inf")
        then_s = min(ends_s, begins_s, asks_s)
        carried_bytes += rate * len(reading) * (then_s - now_s)
        level += rate * (then_s - now_s)
        now_s = then_s
        if then_s == asks_s:
            _, node = heapq.heappop(asking)
            service_s = n_requests / cluster.api_requests_per_s
            api_free_s = max(api_free_s, now_s) + service_s
            api_used_s += service_s
            heapq.heappush(waiting, (api_free_s + cluster.api_round_trip_s, node))
        elif then_s == begins_s:
            _, node = heapq.heappop(waiting)
            heapq.heappush(reading, (level + raster_bytes, node))
        else:
            _, node = heapq.heappop(reading)
            left[node] -= 1
            if left[node]:
                heapq.heappush(asking, (now_s, node))
    took_s = max(now_s, 1e-9)
    return Outcome(
        took_s,
        api_used_s / took_s,
        carried_bytes / (cluster.origin_bytes_per_s * took_s),
        carried_bytes / (cluster.node_bytes_per_s * cluster.n_nodes * took_s),
    )


def _rate(cluster: Cluster, n_reading: int) -> float:
    if not n_reading:
        return cluster.node_bytes_per_s
    return min(cluster.node_bytes_per_s, cluster.origin_bytes_per_s / n_reading)
