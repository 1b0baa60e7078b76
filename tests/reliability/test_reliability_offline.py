"""Without network: what was known is there, what was not fails at once, and it comes back."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest
from fakes import forking
from mounted.mounting import MountFailed
from reliability.conftest import MakeStand
from reliability.stand import AT_ONCE_S, KIB, MIB, QUICK_DEADLINES, Stand, refused

STALE = "listing is served stale"
FAILS = (errno.EIO, errno.ETIMEDOUT)
#: Items and views are made of what zips hold: a walk that looks at them fetches parts of both.
WITHOUT_LOOKS = {"contents": "off", "stac": "off", "views": "off"}


def walk(root: Path) -> dict[str, int]:
    """Return every path below *root*, with its size."""
    found = {}
    for directory, names, files in os.walk(root, onerror=_raise):
        for name in (*names, *files):
            path = os.path.join(directory, name)
            found[os.path.relpath(path, root)] = os.lstat(path).st_size
    return found


def walk_twice(stand: Stand) -> dict[str, int]:
    """Return a walk of what is known: `scenes/` shows what walks have made known before."""
    stand.calls.make("walk", 10, walk, stand.root)
    return stand.calls.make("walk", 10, walk, stand.root)


def _raise(failure: OSError) -> None:
    raise failure


def test_a_mount_that_loses_its_network_at_once_shows_the_tasks(make_stand: MakeStand) -> None:
    """It has seen the first page of them when it began, and that is all of them."""
    stand = make_stand(workers=0)
    stand.origin.stop_listening()
    assert "1" in stand.list(stand.root / "tasks")


def test_without_network_what_is_known_stays_and_it_comes_back(make_stand: MakeStand) -> None:
    """Listed stays listed, cached stays readable, missing fails fast, recovery takes seconds."""
    stand = make_stand(workers=2, **WITHOUT_LOOKS, **QUICK_DEADLINES)
    cached, other = stand.publish(3 * MIB), stand.publish(3 * MIB)
    content = stand.content(cached)
    known = walk_twice(stand)
    with stand.opened(cached) as descriptor:
        stand.compare(descriptor, content)
    with stand.opened(other) as unread:
        stand.origin.stop_listening()
        time.sleep(0.7)  # no listing may be believed any more, and the kernel knows no name
        with refused(*FAILS):
            stand.pread(unread, MIB, KIB)  # the beginning may be cached: it comes beside the size
        assert stand.calls.make("walk", 5 * stand.path_call_s, walk, stand.root) == known
        with stand.opened(cached) as descriptor:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            stand.compare(descriptor, content)
        for start in range(0, 2 * MIB, MIB):
            with refused(*FAILS):
                stand.pread(unread, start, KIB, limit_s=4 + AT_ONCE_S)  # a probe's patience
        quick = 0
        for n in range(10):
            began = time.monotonic()
            with refused(*FAILS):
                stand.stat(stand.root / "scenes" / f"never-seen-{n}")
            quick += time.monotonic() - began < 0.2
        assert quick >= 8  # the others were probes
    assert stand.current.events(STALE)
    stand.origin.resume_listening()
    began = time.monotonic()
    stand.until(10, lambda: stand.read_at(other, MIB, KIB))
    stand.until(10, lambda: stand.stat(stand.path(stand.publish(KIB))))
    assert time.monotonic() - began < 10


def test_while_the_api_sends_garbage_what_is_listed_stays(make_stand: MakeStand) -> None:
    """For any time: logged once as stale, and renewed when the responses make sense again."""
    stand = make_stand(workers=0, contents="off", metadata_deadline_s=4)
    scene, tasks = stand.publish(KIB), stand.root / "tasks"

    def look() -> list[list[str]]:
        return [sorted(stand.list(each)) for each in (tasks, tasks / "1")]

    faults: list[tuple[str, dict[str, object]]] = [
        ("html", {}),
        ("wrong-types", {"shape": "null"}),
        ("server-error", {"status": 500}),
    ]
    stand.read_at(scene, 0, KIB)
    for fault, how in faults:
        known = look()
        n_reported = len(stand.current.events(STALE))
        with stand.origin_breaks(fault, "api", **how):
            for _ in range(2):
                time.sleep(0.7)  # no listing may be believed any more; the kernel knows no name
                assert look() == known
                assert stand.read_at(scene, 0, KIB) == stand.content(scene).read(0, KIB)
        reported = [(each["kind"], each["id"]) for each in stand.current.events(STALE)[n_reported:]]
        assert reported
        assert len(reported) == len(set(reported))
        newer = stand.publish(KIB)
        stand.until(10, lambda: stand.read_at(newer, 0, KIB))  # noqa: B023 - called at once
        stand.until(10, lambda: _must_differ(look(), known))  # noqa: B023


def _must_differ(now: object, before: object) -> None:
    """Raise OSError while nothing is new."""
    if now == before:
        raise FileNotFoundError


def test_a_mount_without_network_comes_up_with_what_was_known(make_stand: MakeStand) -> None:
    """`--offline`: tree, sizes and cached bytes of an earlier mount, without any request."""
    stand = make_stand(workers=0, **WITHOUT_LOOKS, **QUICK_DEADLINES)
    cached, other = stand.publish(3 * MIB), stand.publish(3 * MIB)
    content = stand.content(cached)
    with stand.opened(cached) as descriptor:
        stand.compare(descriptor, content)
    known = walk_twice(stand)
    stand.origin.stop_listening()
    with pytest.raises(MountFailed, match="Unreachable"):
        stand.remount()
    began = time.monotonic()
    stand.mount(is_offline=True)
    assert time.monotonic() - began < 5
    assert stand.calls.make("walk", 30, walk, stand.root) == known
    with stand.opened(cached) as descriptor:
        stand.compare(descriptor, content)
    with stand.opened(other) as descriptor, refused(*FAILS):
        stand.pread(descriptor, MIB, KIB)
    stand.origin.resume_listening()
    stand.until(10, lambda: stand.read_at(other, MIB, KIB))


def test_the_command_line_mounts_without_network_with_its_option(make_stand: MakeStand) -> None:
    """`satfs mount` reports the remedy when the vendor is away; with `--offline` it mounts."""
    stand = make_stand(workers=0)
    stand.list(stand.root / "tasks")
    stand.current.stop()
    stand.origin.stop_listening()
    done = forking.satfs("mount", stand.root, environment=stand.environment())
    assert done.returncode == 4
    assert "--offline" in done.stderr
    done = forking.satfs("mount", "--offline", stand.root, environment=stand.environment())
    try:
        assert done.returncode == 0, done.stderr
        assert sorted(stand.list(stand.root / "tasks")) == ["1", "catalog.json"]
    finally:
        done = forking.satfs("umount", "-z", stand.root, environment=stand.environment())
        assert done.returncode == 0, done.stderr
