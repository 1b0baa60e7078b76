"""The thread of the mount has short turns, and nothing that it starts has them."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from satfs.kernel_tuning import TURN_S

#: Prints the nice value and the turn in nanoseconds of this thread, of another one, and of a child.
SHOW = """
import ctypes, os, struct, subprocess, sys, threading
from satfs.kernel_tuning import take_short_turns

def show():
    room = ctypes.create_string_buffer(48)
    number = {"x86_64": 315}.get(os.uname().machine, 275)
    assert ctypes.CDLL(None).syscall(number, 0, room, 48, 0) == 0
    fields = struct.unpack("=IIQiIQQQ", room.raw)
    print(fields[3], fields[5], flush=True)

if len(sys.argv) == 1:
    os.nice(2)
    print(take_short_turns(), flush=True)
    show()
    thread = threading.Thread(target=show)
    thread.start()
    thread.join()
    subprocess.run([sys.executable, __file__, "child"], check=True)
else:
    show()
"""

is_new_enough = tuple(int(part) for part in platform.release().split(".")[:2]) >= (6, 12)


@pytest.mark.skipif(not is_new_enough, reason="the kernel knows no turns of a thread's own")
def test_the_thread_has_short_turns_and_what_it_starts_has_usual_ones(tmp_path: object) -> None:
    program = f"{tmp_path}/show.py"
    with open(program, "w", encoding="ascii") as file:
        file.write(SHOW)
    shown = subprocess.run(
        [sys.executable, program], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    taken, thread, other, child = shown
    assert taken == "True"
    assert thread == f"2 {round(TURN_S * 1e9)}"
    for each in (other, child):
        nice, turn_ns = (int(word) for word in each.split())
        assert nice == 2
        assert turn_ns > 2 * TURN_S * 1e9 or turn_ns == 0


def test_a_policy_that_was_chosen_stays() -> None:
    program = (
        "import os; from satfs.kernel_tuning import take_short_turns;"
        "os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0));"
        "print(take_short_turns(), os.sched_getscheduler(0) == os.SCHED_BATCH)"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    ).stdout
    assert shown.split() == ["False", "True"]


def test_without_a_way_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    from satfs import kernel_tuning

    monkeypatch.setattr(kernel_tuning, "_SCHED_SETATTR", {})
    before = os.sched_getscheduler(0)
    assert not kernel_tuning.take_short_turns()
    assert os.sched_getscheduler(0) == before
