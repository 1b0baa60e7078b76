"""Each named fault through a real mount: what a user sees, and by when."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from reliability.faults import API_FAULTS, STORE_FAULTS, Fault, suffer
from reliability.stand import Stand


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """Return one mount for many faults; each is about a file of its own."""
    with Stand(tmp_path_factory.mktemp("faults"), workers=0) as stand:
        yield stand
        assert stand.origin.leaks == []


@pytest.mark.parametrize("fault", STORE_FAULTS, ids=lambda fault: fault.name)
def test_a_fault_of_the_store(stand: Stand, fault: Fault) -> None:
    """With every fault of the store, a read gives the right bytes or the table's errno, in time."""
    suffer(stand, fault)


@pytest.mark.parametrize("fault", API_FAULTS, ids=lambda fault: fault.name)
def test_a_fault_of_the_api(stand: Stand, fault: Fault) -> None:
    """With every fault of the API, a read gives the right bytes or the table's errno, in time."""
    suffer(stand, fault)
