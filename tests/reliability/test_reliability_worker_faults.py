"""Each named fault of the store, met by a transfer of a worker process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from reliability.faults import STORE_FAULTS, Fault, suffer
from reliability.stand import Stand

#: Faults that meet a transfer by a worker process otherwise than one in the loop.
BY_WORKERS = [each for each in STORE_FAULTS if not each.is_before and not each.is_about_links]


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """Return one mount for many faults; each is about a file of its own."""
    with Stand(tmp_path_factory.mktemp("faults"), workers=2) as stand:
        yield stand
        assert stand.origin.leaks == []


@pytest.mark.parametrize("fault", BY_WORKERS, ids=lambda fault: fault.name)
def test_a_fault_of_the_store_met_by_a_worker(stand: Stand, fault: Fault) -> None:
    """With every such fault, a read gives the right bytes or the table's errno, in time."""
    suffer(stand, fault)
