"""Going to the background: the reports that the command in the terminal gets, and when."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

_FRONT = """
import os, sys, time
from satfs.cli.mount_process import Failure, Waiter, in_background

def work(waiter: Waiter) -> int:
{work}

failure = in_background(work)
print("failure:", failure, flush=True)
raise SystemExit(0 if failure is None else failure.code)
"""


def front(work: str) -> subprocess.CompletedProcess[str]:
    """Run *work* in the background of a process of its own; return the output of its front."""
    return subprocess.run(
        [sys.executable, "-c", _FRONT.format(work=textwrap.indent(work, "    "))],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_the_front_ends_when_the_work_is_ready_and_not_with_it() -> None:
    """`capture_output` waits for every holder of the pipes: the work has closed them."""
    done = front("waiter.report_ready(); time.sleep(20); return 0")

    assert (done.returncode, done.stdout) == (0, "failure: None\n")


def test_a_failure_is_told_in_front_with_its_code() -> None:
    done = front("waiter.report_failure(Failure(4, 'no network', 'plug it in')); return 4")

    assert done.returncode == 4
    assert "sentence='no network', remedy='plug it in'" in done.stdout


@pytest.mark.parametrize("end", ["os._exit(0)", "os.abort()", "os.write(waiter._pipe, b'{\"re')"])
def test_an_end_without_a_word_is_a_failure(end: str) -> None:
    """A crash of the process, even in the middle of a word, is not taken for readiness."""
    done = front(f"{end}; os._exit(0)")

    assert done.returncode == 1
    assert "ended before it was ready" in done.stdout


def test_it_is_told_once() -> None:
    done = front(
        "waiter.report_ready(); waiter.report_failure(Failure(4, 'later'))\n"
        "return 4 if not waiter.is_waiting else 0"
    )

    assert (done.returncode, done.stdout) == (0, "failure: None\n")


def test_whatever_was_buffered_comes_out_once() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "print('before')\n" + _FRONT.format(work="    waiter.report_ready(); return 0"),
        ],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
        env={"PYTHONUNBUFFERED": ""},
    )

    assert done.stdout == "before\nfailure: None\n"
