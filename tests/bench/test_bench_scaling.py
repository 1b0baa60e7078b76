"""The model of a cluster: no part is busier than it can be, and no work beats its limits."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scaling.model import Cluster, run

CLUSTERS = st.builds(
    Cluster,
    n_nodes=st.integers(1, 40),
    rasters_per_node=st.integers(1, 5),
    raster_bytes=st.floats(1e3, 1e9),
    node_bytes_per_s=st.floats(1e5, 1e9),
    origin_bytes_per_s=st.floats(1e5, 1e10),
    api_requests_per_s=st.floats(0.1, 1000),
    api_round_trip_s=st.floats(0, 2),
    n_askers=st.integers(1, 8),
    n_copies=st.floats(1, 8),
    spread_s=st.floats(0, 60),
)


@given(CLUSTERS)
def test_no_part_is_busier_than_it_can_be(cluster: Cluster) -> None:
    outcome = run(cluster)
    n_rasters = cluster.n_nodes * cluster.rasters_per_node
    n_bytes = n_rasters * cluster.raster_bytes * cluster.n_copies
    n_requests = n_rasters * cluster.requests_per_raster * cluster.n_askers
    limits_s = (
        n_bytes / cluster.origin_bytes_per_s,
        n_bytes / cluster.n_nodes / cluster.node_bytes_per_s,
        n_requests / cluster.api_requests_per_s,
    )
    assert outcome.took_s >= max(limits_s) * (1 - 1e-6)
    for busy in (outcome.api_busy, outcome.origin_busy, outcome.node_busy):
        assert busy <= 1 + 1e-6
    # All bytes are carried, none twice.
    carried = outcome.origin_busy * cluster.origin_bytes_per_s * outcome.took_s
    assert carried == pytest.approx(n_bytes, rel=1e-6)


@given(CLUSTERS)
def test_a_node_alone_takes_what_its_parts_take(cluster: Cluster) -> None:
    alone = replace(cluster, n_nodes=1, spread_s=0.0)
    rate = min(alone.node_bytes_per_s, alone.origin_bytes_per_s)
    each_s = (
        alone.requests_per_raster * alone.n_askers / alone.api_requests_per_s
        + alone.api_round_trip_s
        + alone.raster_bytes * alone.n_copies / rate
    )
    assert run(alone).took_s == pytest.approx(alone.rasters_per_node * each_s, rel=1e-6)
