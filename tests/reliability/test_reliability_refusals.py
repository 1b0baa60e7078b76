"""Credentials that are refused for a moment, and one that is refused for good."""

from __future__ import annotations

import errno
import time

import pytest
from mounted.mounting import RealMount
from reliability.conftest import MakeStand
from reliability.stand import AT_ONCE_S, KIB, MIB, Stand, refused

from satfs.demo.api import PageLimits

#: Runs in the mount's process: its clock is as far from the right time as a file holds, in seconds.
MOVED_CLOCK = """
import pathlib, time
real = time.time
time.time = lambda: real() + float(pathlib.Path({offset!r}).read_text() or 0)
"""


def walk(stand: Stand, limit_s: float = 5.0) -> None:
    """List everything down to the scenes, and look at each."""
    for task in [name for name in stand.list(stand.root / "tasks", limit_s) if name.isdigit()]:
        directory = stand.root / "tasks" / task
        for capture in [name for name in stand.list(directory, limit_s) if "-" in name]:
            assert stand.list(directory / capture, limit_s)


@pytest.mark.parametrize("status", [401, 403])
def test_a_token_that_is_not_valid_yet_is_tried_again(make_stand: MakeStand, status: int) -> None:
    """The issuer's clock is ahead: at a renewal in mid walk no name is refused, with one token."""
    stand = make_stand(workers=0)
    stand.publish(MIB)
    walk(stand)
    stand.origin.faults.add("token-not-yet-valid", "token", seconds=0.7, status=status)
    stand.origin.revoke_tokens()
    n_before = len(stand.origin.office.given_out)
    time.sleep(0.6)  # the listings are not believed any more
    walk(stand)
    assert len(stand.origin.office.given_out) == n_before + 1


def test_a_mount_begins_with_a_token_that_is_not_valid_yet(make_stand: MakeStand) -> None:
    """The log has nothing about client id and secret, which are right."""
    stand = make_stand(workers=0)
    stand.publish(MIB)
    stand.origin.faults.add("token-not-yet-valid", "token", seconds=1.0)
    n_before = len(stand.origin.office.given_out)
    stand.remount()
    walk(stand)
    assert len(stand.origin.office.given_out) == n_before + 1
    assert not stand.current.events("credential refused")


@pytest.mark.parametrize("code", ["AccessDenied", "RequestTimeTooSkewed"])
@pytest.mark.parametrize("workers", [0, 2], ids=["in the loop", "by workers"])
def test_a_link_that_is_not_valid_yet_is_tried_again(
    make_stand: MakeStand, workers: int, code: str
) -> None:
    """The signer's clock is ahead: sizes and bytes are right, soon."""
    stand = make_stand(workers=workers)
    scene = stand.publish(3 * MIB)
    stand.origin.faults.add("link-not-yet-valid", "sign", seconds=0.7, code=code)
    with stand.opened(scene) as file:
        stand.compare(file, stand.content(scene), limit_s=5)
    # A code for an expired link makes satfs request another link, as young as the first one.
    assert stand.origin.counts("sign") <= 3


def test_a_moment_of_401_is_not_seen(make_stand: MakeStand) -> None:
    """However many 401 there are to a token that was good a moment ago."""
    stand = make_stand(workers=0)
    scene = stand.publish(3 * MIB)
    with stand.opened(scene) as file:
        stand.compare(file, stand.content(scene), stop=MIB)
        walk(stand)
        time.sleep(0.6)
        with stand.origin_breaks("unauthorized", "api", seconds=1.0):
            stand.compare(file, stand.content(scene), stop=MIB, limit_s=AT_ONCE_S)
            walk(stand)
            new = stand.publish(MIB)
            assert stand.stat(stand.path(new), 6).st_size == MIB
        stand.compare(file, stand.content(scene), start=MIB)


@pytest.mark.parametrize("workers", [0, 2], ids=["in the loop", "by workers"])
def test_a_dead_link_that_is_handed_out_again_is_survived(
    make_stand: MakeStand, workers: int
) -> None:
    """An API that keeps links longer than they live: the bytes come once it has another."""
    stand = make_stand(workers=workers)
    scene = stand.publish(3 * MIB)
    with stand.opened(scene) as file:
        stand.compare(file, stand.content(scene), stop=64 * KIB)
        stand.origin.faults.add("repeated-link", "sign", seconds=1.5)
        stand.origin.expire_links()
        stand.compare(file, stand.content(scene), start=2 * MIB, limit_s=8)


def test_what_is_listed_never_depends_on_a_refusal(make_stand: MakeStand) -> None:
    """A token that is refused for good after it was accepted: what is known comes soon."""
    stand = make_stand(workers=0)
    scene = stand.publish(MIB)
    walk(stand)
    stand.list(stand.root / "scenes" / scene)
    with stand.opened(scene) as file:
        stand.compare(file, stand.content(scene))
        time.sleep(0.6)
        with stand.origin_breaks("unauthorized", "api"):
            walk(stand, limit_s=2.5)
            stand.list(stand.root / "scenes" / scene, 2.5)
            assert stand.stat(stand.path(scene), 2.5).st_size == MIB
            stand.compare(file, stand.content(scene), limit_s=AT_ONCE_S)
            with refused(errno.EACCES):
                stand.stat(stand.root / "scenes" / "20260128_999999_SN33_L1D_MS_1", 9)


@pytest.mark.parametrize("n_pages", [3])
def test_a_token_that_is_not_valid_yet_between_two_pages(
    make_stand: MakeStand, n_pages: int
) -> None:
    """A listing of several pages is whole, though its token was renewed in the middle of it."""
    stand = make_stand(workers=0, page_limit=10)
    stand.origin.api.limits = PageLimits(10, 10)
    for _ in range(10 * n_pages):
        stand.publish(1)
    stand.origin.faults.add("token-not-yet-valid", "token", seconds=0.5)
    stand.origin.faults.add("unauthorized", "captures", skip=1, count=1)
    directory = stand.root / "tasks" / "1"
    names = [name for name in stand.list(directory, 6) if "-" in name]
    assert len(names) == 10 * n_pages


@pytest.mark.parametrize("jump_s", [30 * 3600.0, -30 * 3600.0])
def test_the_clock_of_the_machine_is_set(make_stand: MakeStand, jump_s: float) -> None:
    """By NTP, by more than links and tokens live: nobody notices, and the vendor hardly does."""
    stand = make_stand(listing_ttl_s=0)
    offset = stand.directory / "offset"
    offset.write_text("0")
    stand.current.stop()
    stand.current.clean()
    log_path = stand.directory / "log.jsonl"
    clock = MOVED_CLOCK.format(offset=str(offset))
    mount = RealMount(stand.root, stand.environment(), log_path, sabotage=clock)
    stand.mounts.append(mount)
    mount.start()
    scene = stand.publish(8 * MIB)
    content = stand.content(scene)
    with stand.opened(scene) as file:
        stand.compare(file, content, stop=MIB)
        n_before = stand.origin.counts("token"), stand.origin.counts("sign")
        for offset_s in (jump_s, 0.0):  # and set right again
            offset.write_text(str(offset_s))
            start = 2 * MIB if offset_s else 5 * MIB
            stand.compare(file, content, start=start, stop=start + MIB)
            assert stand.list(stand.root / "tasks" / "1")
            other = stand.publish(MIB)
            with stand.opened(other) as another:
                stand.compare(another, stand.content(other))
        stand.compare(file, content)
    assert stand.origin.counts("token") - n_before[0] <= 2
    assert stand.origin.counts("sign") - n_before[1] <= 6
