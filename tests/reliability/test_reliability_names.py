"""Names that hang do not hold up the other names of their directory."""

from __future__ import annotations

import errno
import os
import time

import pytest
from reliability.conftest import MakeStand
from reliability.stand import AT_ONCE_S, KIB, Stand, refused

from satfs.demo.catalogue import (
    Attachment,
    capture_uuid,
    make_capture,
    make_delivery,
    make_scene,
    make_task,
)
from satfs.demo.contents import BytesContent

#: Longer than the stand's usual deadlines, so that a call that waits for another one is seen.
DEADLINE_S = 8.0
N_HANGING = 20


def hanging_stand(make_stand: MakeStand, **settings: object) -> Stand:
    """Return a stand where nothing ends a request that hangs but the call's own deadline."""
    return make_stand(
        workers=0,
        metadata_deadline_s=DEADLINE_S,
        progress_timeout_s=60,
        listing_ttl_s=60,
        **settings,
    )


def test_twenty_names_that_hang_hold_up_no_other(make_stand: MakeStand) -> None:
    """S-132 Beside twenty lookups that hang, a new name and `ls` of their directory are at once."""
    stand = hanging_stand(make_stand)
    good = stand.publish(64 * KIB)
    for n in range(N_HANGING):
        stand.origin.faults.add("hang", "scene", path_contains=f"hang{n}x")
    top = stand.root / "scenes"
    hanging = [
        stand.calls.start(f"stat hang{n}x", DEADLINE_S + 2, os.stat, top / f"hang{n}x")
        for n in range(N_HANGING)
    ]
    time.sleep(0.3)
    assert good not in stand.list(top, AT_ONCE_S)
    stand.stat(top / good, AT_ONCE_S)
    assert good in stand.list(top, AT_ONCE_S)
    time.sleep(1.0)  # beside a response, the connections of the others count as silent
    with refused(errno.ENOENT):
        stand.stat(top / "nosuchscene", AT_ONCE_S)
    assert not any(call.done() for call in hanging)
    for call in hanging:
        with refused(errno.ETIMEDOUT):
            stand.calls.end("stat of a name that hangs", DEADLINE_S + 2, call)
    stand.origin.faults.clear()


def test_a_name_that_hangs_is_found_once_the_vendor_responds(make_stand: MakeStand) -> None:
    """A look-up whose response comes late, within its deadline, gets the truth."""
    stand = hanging_stand(make_stand)
    late = stand.publish(64 * KIB)
    stand.origin.faults.add("latency", "scene", path_contains=late, seconds=0.3)
    top = stand.root / "scenes"
    found = stand.calls.start("late", DEADLINE_S, os.stat, top / late)
    absent = stand.calls.start("absent", DEADLINE_S, os.stat, top / "nosuchscene")
    with refused(errno.ENOENT):
        stand.calls.end("absent", AT_ONCE_S, absent)
    assert os.path.isdir(top / late)
    assert stand.calls.end("late", DEADLINE_S, found).st_ino == os.stat(top / late).st_ino


@pytest.mark.parametrize("contents", ["visible", "off"])
def test_the_record_beside_a_stuck_object(make_stand: MakeStand, contents: str) -> None:
    """S-26 One object that hangs does not hide the other names of its scene."""
    stand = hanging_stand(make_stand, contents=contents)
    scene_id = "20260128_000001_SN33_L1D_MS_stuck"
    preview = Attachment("preview", "small.png", BytesContent(b"small"))
    scene = make_scene(scene_id, [make_delivery(scene_id, b"PK stuck"), preview])
    stand.origin.catalogue.add_task(make_task(7, [make_capture(capture_uuid("s", 1), [scene])]))
    directory = stand.root / "scenes" / scene_id
    stand.stat(directory)
    with stand.origin_breaks("hang", "object", path_contains=f"{scene_id}.zip"):
        stuck = stand.calls.start(
            "stat the zip", DEADLINE_S + 2, os.stat, directory / f"{scene_id}.zip"
        )
        time.sleep(0.3)
        stand.stat(directory / "scene.json", AT_ONCE_S)
        stand.stat(directory / "small.png", AT_ONCE_S)
        assert (directory / "small.png").read_bytes() == b"small"
        assert not stuck.done()
        with refused(errno.ETIMEDOUT):
            stand.calls.end("stat the zip", DEADLINE_S + 2, stuck)


def test_twenty_objects_that_hang_leave_the_others_their_sizes(make_stand: MakeStand) -> None:
    """`ls` of a scene with twenty stuck objects learns the sizes of all others."""
    stand = hanging_stand(make_stand)
    scene_id = "20260128_000002_SN33_L1D_MS_many"
    stuck = [Attachment(f"stuck{n}", f"stuck{n}.bin", BytesContent(b"?")) for n in range(N_HANGING)]
    well = Attachment("well", "well.bin", BytesContent(b"well"))
    scene = make_scene(scene_id, [*stuck, well])
    stand.origin.catalogue.add_task(make_task(8, [make_capture(capture_uuid("s", 2), [scene])]))
    directory = stand.root / "scenes" / scene_id
    with stand.origin_breaks("hang", "object", path_contains="stuck"):
        names = stand.list(directory, DEADLINE_S)
        assert stand.stat(directory / "well.bin", AT_ONCE_S).st_size == len(b"well")
    assert set(names) >= {"well.bin", "scene.json", *(f"stuck{n}.bin" for n in range(N_HANGING))}
