"""Each named fault of the store, met by a transfer of a worker process."""

from __future__ import annotations

import pytest
from reliability.conftest import StandFor
from reliability.faults import STORE_FAULTS, Fault, suffer

#: Faults that meet a transfer by a worker process otherwise than one in the loop.
BY_WORKERS = [each for each in STORE_FAULTS if not each.is_before and not each.is_about_links]

SETTINGS = {"workers": 2}


@pytest.mark.parametrize("fault", BY_WORKERS, ids=lambda fault: fault.name)
def test_a_fault_of_the_store_met_by_a_worker(stand_for: StandFor, fault: Fault) -> None:
    """With every such fault, a read gives the right bytes or the table's errno, in time."""
    suffer(stand_for(fault.sees), fault)
