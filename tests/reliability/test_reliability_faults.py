"""Each named fault through a real mount: what a user sees, and by when."""

from __future__ import annotations

import pytest
from reliability.conftest import StandFor
from reliability.faults import API_FAULTS, STORE_FAULTS, Fault, suffer

SETTINGS = {"workers": 0}


@pytest.mark.parametrize("fault", STORE_FAULTS, ids=lambda fault: fault.name)
def test_a_fault_of_the_store(stand_for: StandFor, fault: Fault) -> None:
    """With every fault of the store, a read gives the right bytes or the table's errno, in time."""
    suffer(stand_for(fault.sees), fault)


@pytest.mark.parametrize("fault", API_FAULTS, ids=lambda fault: fault.name)
def test_a_fault_of_the_api(stand_for: StandFor, fault: Fault) -> None:
    """With every fault of the API, a read gives the right bytes or the table's errno, in time."""
    suffer(stand_for(fault.sees), fault)
