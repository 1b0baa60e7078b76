"""Failures below the FUSE operations: an errno in time, one line in the log, no end."""

from __future__ import annotations

import errno
import inspect
import os
from collections.abc import Callable

import pyfuse3
import pytest
import trio
import trio.testing
from conftest import LogBook
from pyfuse3 import FUSEError
from story.conftest import ZIP, MountIt
from story.kernel import Kernel, Token
from story.shelves import FakeCatalogue, FakeObjects, Listed, failing, make_capture, make_task

from satfs import errors
from satfs.fuse.attributes import Limits
from satfs.fuse.errnos import errno_of, is_result
from satfs.fuse.error_reporting import QUIET_S
from satfs.fuse.inodes import ROOT
from satfs.fuse.operations import Operations

SCENE = "tasks/341271/cap-1/scene-a"
FILE = f"{SCENE}/scene-a.zip"
Announce = Callable[..., None]

EVERY = [
    *(
        cls("why")
        for _, cls in inspect.getmembers(errors, inspect.isclass)
        if issubclass(cls, errors.SatfsError)
    ),
    KeyError("a bug"),
    MemoryError("a bug"),
    RecursionError("a bug"),
    trio.TooSlowError("a bug"),
    failing(errors.NotThere("x"), errors.Unreachable("y")),
    failing(failing(ZeroDivisionError("a bug"))),
]


@pytest.mark.parametrize("failure", EVERY, ids=repr)
async def test_every_failure_is_an_errno(
    mount_it: MountIt, catalogue: FakeCatalogue, failure: Exception, log_book: LogBook
) -> None:
    """Every exception of the tree, groups included, becomes an errno; and the mount lives."""
    kernel = mount_it()
    tasks = (await kernel.walk("tasks")).st_ino
    catalogue.failures = {"task": failure, "tasks": failure}
    if isinstance(failure, errors.NotThere):
        assert (await kernel.lookup(tasks, "1")).st_ino == 0
    else:
        with pytest.raises(FUSEError) as caught:
            await kernel.lookup(tasks, "1")
        assert caught.value.errno == errno_of(failure)
    with pytest.raises(FUSEError) as caught:
        await kernel.ls("tasks")
    assert caught.value.errno == errno_of(failure)
    lines = [line for line in log_book.lines if line.event.startswith("call failed")]
    assert len(lines) == (0 if is_result(failure) else 2)
    log_book.lines.clear()
    catalogue.failures.clear()
    assert await kernel.ls("tasks")


async def test_an_errno_is_called_as_in_the_table(
    mount_it: MountIt, catalogue: FakeCatalogue, log_book: LogBook
) -> None:
    """On Linux EOPNOTSUPP and ENOTSUP are one number; users look for the one that is documented."""
    kernel = mount_it()
    catalogue.failures["tasks"] = errors.Unsupported("packed by imploding")
    with pytest.raises(FUSEError):
        await kernel.ls("tasks")
    (line,) = log_book.named("call failed")
    assert line.fields["errno"] == "EOPNOTSUPP"
    log_book.lines.clear()


async def test_an_episode_is_one_line(
    mount_it: MountIt, catalogue: FakeCatalogue, autojump_clock: object, log_book: LogBook
) -> None:
    """A failure that repeats is logged once, and once more after a while without it."""
    kernel = mount_it()
    catalogue.failures["tasks"] = errors.Unreachable("api.example is away")

    async def fail() -> None:
        with pytest.raises(FUSEError):
            await kernel.ls("tasks")

    for _ in range(5):
        await fail()
        await trio.sleep(QUIET_S / 2)
    (line,) = log_book.named("call failed")
    assert line.fields == {
        "operation": "readdir",
        "path": "/tasks",
        "errno": "EIO",
        "error": "Unreachable",
        "reason": "api.example is away",
        "cause": None,
    }
    await trio.sleep(QUIET_S)
    await fail()
    assert len(log_book.named("call failed")) == 2
    log_book.lines.clear()


async def test_a_bug_is_told_with_where_it_is_but_not_what_it_held(
    mount_it: MountIt, catalogue: FakeCatalogue, log_book: LogBook
) -> None:
    """A foreign error may quote a secret: the log has the lines of code, not the message."""
    kernel = mount_it()
    catalogue.failures["tasks"] = KeyError("https://store/x?X-Amz-Signature=secret")
    with pytest.raises(FUSEError) as caught:
        await kernel.ls("tasks")
    assert caught.value.errno == errno.EIO
    (line,) = log_book.named("call failed by a bug in satfs")
    assert "shelves.py" in line.fields["stack"]
    assert "secret" not in str(line)
    log_book.lines.clear()


CALLS: dict[str, Callable[[Kernel, int, int], object]] = {
    "lookup": lambda k, inode, fh: k.operations.lookup(inode, b"1", None),  # type: ignore[arg-type]
    "readdir": lambda k, inode, fh: k.ls("tasks"),
    "open": lambda k, inode, fh: k.open(FILE),
    "read": lambda k, inode, fh: k.operations.read(fh, 0, 10),
}


@pytest.mark.parametrize("operation", CALLS)
async def test_every_call_is_answered_within_its_deadline(
    mount_it: MountIt,
    catalogue: FakeCatalogue,
    objects: FakeObjects,
    autojump_clock: object,
    expect_log: Announce,
    operation: str,
) -> None:
    """However late the vendor responds: ETIMEDOUT after the metadata or the read deadline."""
    kernel = mount_it(limits=Limits(metadata_deadline_s=15, read_deadline_s=60))
    fh = await kernel.open(FILE)
    inode = (await kernel.walk("tasks")).st_ino
    catalogue.delay_s = objects.delay_s = 10_000
    started = trio.current_time()
    with pytest.raises(FUSEError) as caught:
        await CALLS[operation](kernel, inode, fh)  # type: ignore[misc]
    assert caught.value.errno == errno.ETIMEDOUT
    allowed_s = 60 if operation == "read" else 15
    assert trio.current_time() - started == allowed_s
    expect_log("call failed", errno="ETIMEDOUT", reason=f"no response within {allowed_s} s")


async def test_one_read_never_lasts_two_deadlines(
    mount_it: MountIt, objects: FakeObjects, autojump_clock: object, log_book: LogBook
) -> None:
    """The kernel requests again bytes that its read-ahead did not get: that fails at once."""
    kernel = mount_it(limits=Limits(read_deadline_s=60))
    fh = await kernel.open(FILE)

    async def read(offset: int) -> tuple[int, float]:
        started_s = trio.current_time()
        with pytest.raises(FUSEError) as caught:
            await kernel.operations.read(fh, offset, 4096)
        return caught.value.errno, trio.current_time() - started_s

    objects.delay_s = 10_000
    assert await read(0) == (errno.ETIMEDOUT, 60)
    assert await read(4000) == (errno.ETIMEDOUT, 0)
    objects.delay_s, objects.read_failure = 20, errors.NotAllowed("no")
    assert await read(8192) == (errno.EACCES, 20)
    assert await read(8192) == (errno.EACCES, 0)
    objects.delay_s = 0
    await trio.sleep(1)
    objects.read_failure = None
    assert bytes(await kernel.operations.read(fh, 8192, 10)) == ZIP[8192:8202]
    log_book.lines.clear()


async def test_a_read_that_failed_at_once_is_tried_again(
    mount_it: MountIt, objects: FakeObjects, log_book: LogBook
) -> None:
    """A read that failed quickly may succeed when the kernel repeats it, unseen by programs."""
    kernel = mount_it()
    fh = await kernel.open(FILE)
    objects.read_failure = errors.Unreachable("a blip")
    with pytest.raises(FUSEError):
        await kernel.operations.read(fh, 0, 10)
    objects.read_failure = None
    assert bytes(await kernel.operations.read(fh, 0, 10)) == ZIP[:10]
    log_book.lines.clear()


async def test_metadata_never_queues_behind_data(
    mount_it: MountIt, objects: FakeObjects, autojump_clock: object
) -> None:
    """With 150 reads waiting for the network, `ls` and `stat` return at once."""
    kernel = mount_it()
    fh = await kernel.open(FILE)
    objects.delay_s = 30
    async with trio.open_nursery() as nursery:
        for _ in range(150):
            nursery.start_soon(kernel.operations.read, fh, 0, 10)
        await trio.testing.wait_all_tasks_blocked()
        assert len(kernel.operations.calls) == 150
        started = trio.current_time()
        assert await kernel.ls("tasks/341271")
        assert (await kernel.walk(SCENE)).st_ino
        assert trio.current_time() == started


async def test_closing_answers_all_who_wait(
    mount_it: MountIt, objects: FakeObjects, autojump_clock: object
) -> None:
    """When the mount is taken down no caller is left waiting, and every file is closed."""
    kernel = mount_it()
    fh = await kernel.open(FILE)
    objects.delay_s = 30
    answers = []

    async def read() -> None:
        with pytest.raises(FUSEError) as caught:
            await kernel.operations.read(fh, 0, 10)
        answers.append((caught.value.errno, trio.current_time()))

    async with trio.open_nursery() as nursery:
        started = trio.current_time()
        for _ in range(20):
            nursery.start_soon(read)
        await trio.testing.wait_all_tasks_blocked()
        await kernel.operations.close()
        assert objects.n_open == 0
    assert answers == [(errno.ENOTCONN, started)] * 20
    with pytest.raises(FUSEError) as caught:
        await kernel.operations.getattr(ROOT, None)  # type: ignore[arg-type]
    assert caught.value.errno == errno.ENOTCONN


async def test_cancellation_passes(mount_it: MountIt, objects: FakeObjects) -> None:
    """Only from outside can a call be cancelled without a reply; nothing is left of it."""
    kernel = mount_it()
    fh = await kernel.open(FILE)
    objects.delay_s = 1e9
    async with trio.open_nursery() as nursery:
        nursery.start_soon(kernel.operations.read, fh, 0, 10)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert len(kernel.operations.calls) == 0


async def test_a_replaced_object_is_another_file(
    mount_it: MountIt, objects: FakeObjects, expect_log: Announce
) -> None:
    """The name leads to the new version; the old inode can be read if open, but not opened."""
    kernel = mount_it()
    before = await kernel.walk(FILE)
    fh = await kernel.open(FILE)
    objects.put("scene-a", b"new", etag="2")
    with pytest.raises(FUSEError) as caught:
        await kernel.operations.open(before.st_ino, os.O_RDONLY, None)  # type: ignore[arg-type]
    assert caught.value.errno == errno.ESTALE
    expect_log("call failed", errno="ESTALE", operation="open")
    after = await kernel.walk(FILE)
    assert after.st_ino != before.st_ino
    assert after.st_size == 3
    assert await kernel.read(FILE) == b"new"
    assert await kernel.operations.read(fh, 0, 100) == ZIP[:100]
    old = await kernel.operations.getattr(before.st_ino, None)  # type: ignore[arg-type]
    assert old.st_size == len(ZIP)
    objects.put("scene-a", ZIP)
    assert (await kernel.walk(FILE)).st_ino == before.st_ino
    await kernel.forget_all()


@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC])
async def test_opening_for_writing_is_refused(kernel: Kernel, flags: int) -> None:
    """The mount is read-only: EROFS."""
    with pytest.raises(FUSEError) as caught:
        await kernel.open(FILE, flags)
    assert caught.value.errno == errno.EROFS


WRITING = [
    "setattr",
    "mknod",
    "mkdir",
    "unlink",
    "rmdir",
    "symlink",
    "rename",
    "link",
    "create",
    "write",
    "setxattr",
    "removexattr",
]


@pytest.mark.parametrize("operation", WRITING)
async def test_whatever_would_write_is_refused(kernel: Kernel, operation: str) -> None:
    """Every operation that writes fails with EROFS, should the kernel ever send it."""
    parameters = inspect.signature(getattr(pyfuse3.Operations, operation)).parameters
    with pytest.raises(FUSEError) as caught:
        await getattr(kernel.operations, operation)(*[None] * (len(parameters) - 1))
    assert caught.value.errno == errno.EROFS


def test_every_operation_is_decided() -> None:
    """Of the operations that pyfuse3 knows, each is served, refused, or left out on purpose."""
    known = {
        name
        for name, thing in vars(pyfuse3.Operations).items()
        if inspect.iscoroutinefunction(thing)
    }
    left_out = {"flush", "fsync", "fsyncdir", "poll"}
    assert known - set(vars(Operations)) == left_out


async def test_the_wrong_kind_of_thing_is_told_as_such(kernel: Kernel) -> None:
    """A directory is not read, a file not listed, and neither is a link."""
    directory, file = await kernel.walk(SCENE), await kernel.walk(FILE)
    for ask, number in (
        (kernel.operations.open(directory.st_ino, os.O_RDONLY, None), errno.EISDIR),  # type: ignore[arg-type]
        (kernel.operations.opendir(file.st_ino, None), errno.ENOTDIR),  # type: ignore[arg-type]
        (kernel.operations.lookup(file.st_ino, b"x", None), errno.ENOTDIR),  # type: ignore[arg-type]
        (kernel.operations.readlink(file.st_ino, None), errno.EINVAL),  # type: ignore[arg-type]
        (kernel.operations.access(file.st_ino, os.W_OK, None), errno.EROFS),  # type: ignore[arg-type]
        (kernel.operations.lookup(12345678901, b".", None), errno.ESTALE),  # type: ignore[arg-type]
    ):
        with pytest.raises(FUSEError) as caught:
            await ask
        assert caught.value.errno == number
    assert await kernel.operations.access(file.st_ino, os.R_OK, None)  # type: ignore[arg-type]
    assert not await kernel.operations.access(file.st_ino, os.X_OK, None)  # type: ignore[arg-type]
    assert await kernel.operations.access(directory.st_ino, os.X_OK | os.R_OK, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: bytes(data) + b"x"])
async def test_never_fewer_bytes_and_never_others(
    mount_it: MountIt,
    objects: FakeObjects,
    expect_log: Announce,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[memoryview], bytes],
) -> None:
    """Should a reader ever return too few or too many bytes, the caller gets an error."""
    kernel = mount_it()
    fh = await kernel.open(FILE)
    reader = kernel.operations._files[fh]._reader
    honest = reader.read

    async def read(span: object) -> bytes:
        return damage(await honest(span))  # type: ignore[arg-type]

    monkeypatch.setattr(type(reader), "read", lambda self, span: read(span))
    with pytest.raises(FUSEError) as caught:
        await kernel.operations.read(fh, 0, 100)
    assert caught.value.errno == errno.EIO
    expect_log("call failed by a bug in satfs", operation="read", path=f"/{FILE}")


async def test_reading_past_the_end_is_the_end(kernel: Kernel) -> None:
    """Beyond the last byte there is nothing; across it there is what there is."""
    fh = await kernel.open(FILE)
    size = len(ZIP)
    assert bytes(await kernel.operations.read(fh, size - 10, 4096)) == ZIP[-10:]
    assert bytes(await kernel.operations.read(fh, size, 4096)) == b""
    assert bytes(await kernel.operations.read(fh, 2**40, 4096)) == b""


async def test_misuse_of_handles_and_references_is_survived(
    mount_it: MountIt, expect_log: Announce
) -> None:
    """A handle or reference that the kernel cannot have is an error in the log, and no more."""
    kernel = mount_it()
    expect_log("call failed by a bug in satfs", error="Misuse")
    await kernel.operations.forget([(99999999999, 1), (ROOT, 5)])
    for ask in (kernel.operations.read(7, 0, 1), kernel.operations.readdir(7, 0, Token(1))):  # type: ignore[arg-type]
        with pytest.raises(FUSEError) as caught:
            await ask
        assert caught.value.errno == errno.EIO
    await kernel.operations.release(7)
    await kernel.operations.releasedir(7)
    assert await kernel.ls()


async def test_a_listing_that_changes_while_it_is_read(
    mount_it: MountIt, catalogue: FakeCatalogue
) -> None:
    """Entries that stay are listed once, also when the directory is opened again in between."""
    kernel = mount_it()
    for number in range(20):
        catalogue.put(make_task(str(number)), make_capture("c"))
    inode = (await kernel.walk("tasks")).st_ino
    first = await kernel.operations.opendir(inode, None)  # type: ignore[arg-type]
    token = Token(9)
    await kernel.operations.readdir(first, 0, token)  # type: ignore[arg-type]
    listed = [name for name, _, _ in token.entries]
    position = token.entries[-1][2]
    gone = [listed[-1], b"3"]
    catalogue._tasks = Listed(t for t in catalogue._tasks if t.task_id.encode() not in gone)
    for number in range(100, 110):
        catalogue.put(make_task(str(number)))
    second = await kernel.operations.opendir(inode, None)  # type: ignore[arg-type]
    rest = Token(1000)
    await kernel.operations.readdir(second, position, rest)  # type: ignore[arg-type]
    listed += [name for name, _, _ in rest.entries]
    for number in (n for n in range(20) if str(n).encode() not in gone):
        assert listed.count(str(number).encode()) == 1
    assert len(set(listed)) == len(listed)
