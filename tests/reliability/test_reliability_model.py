"""The one property: any calls, under any faults, give right bytes or a reason, in time."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from reliability.model import Reliability

#: A bounded run; `scripts/soak` takes more, and other ones each time.
N_EXAMPLES = int(os.environ.get("SATFS_TEST_MODEL_EXAMPLES", "4"))
N_STEPS = int(os.environ.get("SATFS_TEST_MODEL_STEPS", "15"))


@pytest.mark.timeout(60 + 60 * N_EXAMPLES)
def test_any_calls_under_any_faults_give_right_bytes_or_a_reason_in_time(
    stand_is_possible: None,
) -> None:
    """Bytes of the version that was opened, or an errno that what is broken explains, in time."""
    run_state_machine_as_test(
        Reliability,
        settings=settings(
            max_examples=N_EXAMPLES,
            stateful_step_count=N_STEPS,
            deadline=None,
            derandomize="SATFS_TEST_MODEL_EXAMPLES" not in os.environ,
            database=None,
            # A step takes a second: a failure is reported as it is, with its steps.
            phases=(Phase.generate,),
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
        ),
    )
