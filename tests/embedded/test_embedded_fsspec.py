"""`satfs://` by fsspec: names, bytes, versions and failures, without a mount and without FUSE.

Longer than 600 lines, since all share one filesystem and its catalogue.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import multiprocessing
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fsspec
import pytest
from embedded.conftest import OpenFs, StartOrigin, catalogue_with, satfs_threads
from fakes.processes import wait_until
from fsspec.callbacks import Callback
from fsspec.tests.abstract import AbstractFixtures, AbstractGetTests
from hypothesis import given
from hypothesis import strategies as st

from satfs.demo.catalogue import Catalogue, make_capture, make_delivery, make_scene, make_task
from satfs.demo.contents import RampContent
from satfs.demo.server import DemoOrigin
from satfs.embedded.tree import merged
from satfs.fsspec import SatfsFileSystem
from satfs.model import ByteRange, names_in

MIB = 1024 * 1024


def ramp_catalogue(n_scenes: int = 1, size_bytes: int = 8 * MIB) -> Catalogue:
    """Return scenes `s0`, `s1` … whose delivery is a ramp: a wrong slice has wrong values."""
    scenes = [
        make_scene(f"s{n}", [make_delivery(f"s{n}", RampContent(size_bytes, n + 1))])
        for n in range(n_scenes)
    ]
    return Catalogue([make_task(1, [make_capture("capture", scenes)])])


def path_of(number: int = 0) -> str:
    return f"scenes/s{number}/s{number}.zip"


def content_of(origin: DemoOrigin, number: int = 0) -> bytes:
    content = origin.catalogue.content(f"s{number}")
    return bytes(content.read(0, content.size_bytes))


# -- fsspec's own tests --------------------------------------------------------------------------


class _Scenarios(AbstractFixtures):  # type: ignore[misc]  # fsspec has no types
    """The trees that fsspec's tests want to read, as members of one delivery.

    Those tests write their trees to the filesystem; a read-only one has them beforehand.
    """

    @pytest.fixture
    def fs(
        self, start_origin: StartOrigin, open_fs: OpenFs, monkeypatch: pytest.MonkeyPatch
    ) -> SatfsFileSystem:
        names = {
            "file1",
            "file2",
            "subdir/subfile1",
            "subdir/subfile2",
            "subdir/nesteddir/nestedfile",
        }
        edges = {"file1", "file2"} | {
            f"subdir{n}/{name}"
            for n in range(2)
            for name in ("subfile1", "subfile2", "nesteddir/nestedfile")
        }
        hashed = {hashlib.md5(str(n).encode()).hexdigest(): str(n).encode() for n in range(10)}
        start_origin(
            catalogue_with(
                {
                    **{f"bulk/source/{name}": b"" for name in names},
                    **{f"edges/source/{name}": b"" for name in edges},
                    "prefix/source/subdir.txt": b"",
                    "prefix/source/subdir/subfile.txt": b"",
                    **{f"hashed/source/{name}.txt": data for name, data in hashed.items()},
                    "src/file": b"",
                }
            )
        )
        fs = open_fs()
        # One of the tests makes the directory `src` and a file in it first: they are there.
        for name in ("mkdir", "touch"):
            monkeypatch.setattr(fs, name, fs.info)
        return fs

    @pytest.fixture
    def fs_path(self) -> str:
        return "scenes/one/contents"

    @pytest.fixture
    def fs_bulk_operations_scenario_0(self, fs_path: str) -> str:
        return f"{fs_path}/bulk/source"

    @pytest.fixture
    def fs_glob_edge_cases_files(self, fs_path: str) -> str:
        return f"{fs_path}/edges/source"

    @pytest.fixture
    def fs_dir_and_file_with_same_name_prefix(self, fs_path: str) -> str:
        return f"{fs_path}/prefix/source"

    @pytest.fixture
    def fs_10_files_with_hashed_names(self, fs_path: str) -> str:
        return f"{fs_path}/hashed/source"


class TestGet(_Scenarios, AbstractGetTests):  # type: ignore[misc]  # fsspec has no types
    """fsspec's own tests of `get`."""


# -- names ---------------------------------------------------------------------------------------


def test_the_protocol_is_known_where_satfs_is_installed() -> None:
    assert fsspec.get_filesystem_class("satfs") is SatfsFileSystem


def test_names_are_those_of_a_mount(start_origin: StartOrigin, open_fs: OpenFs) -> None:
    start_origin()
    fs = open_fs()
    names = ["README.txt", "captures", "catalog.json", "scenes", "tasks", "views"]
    assert fs.ls("", detail=False) == names
    kinds = ["file" if "." in name else "directory" for name in names]
    assert [each["type"] for each in fs.ls("satfs://")] == kinds
    found = fs.find("tasks/341271")
    assert found
    assert set(found) == {
        f"{directory}/{name}" for directory, _, files in fs.walk("tasks/341271") for name in files
    }
    assert fs.glob("tasks/*/*/*/*.zip") == [
        each for each in fs.find("tasks") if each.endswith(".zip")
    ]
    info = fs.info("/tasks/341271/")
    assert (info["name"], info["type"]) == ("tasks/341271", "directory")
    assert fs.isdir("tasks")
    assert fs.isfile("README.txt")
    assert fs.du("README.txt") == fs.size("README.txt") == len(fs.cat("README.txt"))


def test_a_rendered_file_has_a_size_once_it_is_looked_up(
    start_origin: StartOrigin, open_fs: OpenFs
) -> None:
    """A listing reads no zip to state the size of an item: it is not known there, and never 0."""
    start_origin()
    fs = open_fs()
    (task,) = fs.glob("tasks/341271")
    (collection,) = [each for each in fs.ls(task, detail=True) if "collection" in each["name"]]
    assert collection["size"] is None
    assert fs.info(collection["name"])["size"] == len(fs.cat_file(collection["name"])) > 100


def test_a_listing_costs_the_requests_of_a_mount_and_is_believed(
    start_origin: StartOrigin, open_fs: OpenFs
) -> None:
    origin = start_origin()
    fs = open_fs()
    fs.ls("tasks")
    n_asked = origin.counts("tasks")
    for _ in range(20):
        fs.ls("tasks")
        fs.info("tasks/341271")
    assert origin.counts("tasks") == n_asked == 1
    assert origin.counts("task") == 0


@given(
    st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 700))),
    st.integers(0, 300),
    st.integers(1, 2000),
)
def test_each_range_lies_in_one_read(
    pairs: list[tuple[int, int]], max_gap_bytes: int, max_bytes: int
) -> None:
    spans = [ByteRange(start, start + length) for start, length in pairs]
    reads = merged(spans, max_gap_bytes=max_gap_bytes, max_bytes=max_bytes)
    members = [index for _, indices in reads for index in indices]
    assert sorted(members) == list(range(len(spans)))
    for place, indices in reads:
        inside = [spans[index] for index in indices]
        assert place.start == min(each.start for each in inside)
        assert place.stop == max(each.stop for each in inside)
        assert len(place) <= max(max_bytes, *(len(each) for each in inside))


@pytest.mark.parametrize(
    ("directory", "target", "leads_to"),
    [
        ("views/by-name", "../../tasks/7", "tasks/7"),
        ("", "tasks", "tasks"),
        ("a/b", "/tasks/./7/", "tasks/7"),
        ("a", "../../../../etc/passwd", "etc/passwd"),
    ],
)
def test_a_link_stays_inside_the_tree(directory: str, target: str, leads_to: str) -> None:
    assert "/".join(names_in(target, filter(None, directory.split("/")))) == leads_to


def test_a_link_that_was_listed_leads_on(start_origin: StartOrigin, open_fs: OpenFs) -> None:
    start_origin(ramp_catalogue())
    fs = open_fs()
    (task,) = fs.ls("views/task")
    links = {each["name"]: each for each in fs.ls(task["name"]) if each["type"] == "link"}
    (link,) = (name for name, each in links.items() if each["destination"] == "../../../tasks/1")
    assert fs.info(link)["type"] == "directory"
    assert [each.rpartition("/")[2] for each in fs.ls(link, detail=False)] == [
        each.rpartition("/")[2] for each in fs.ls("tasks/1", detail=False)
    ]


def test_a_path_of_thousands_of_names_is_not_there(
    start_origin: StartOrigin, open_fs: OpenFs
) -> None:
    start_origin(ramp_catalogue())
    with pytest.raises(FileNotFoundError):
        open_fs().info("tasks/" + "a/" * 2000)


# -- bytes ---------------------------------------------------------------------------------------


def test_bytes_are_those_of_the_object(start_origin: StartOrigin, open_fs: OpenFs) -> None:
    origin = start_origin(ramp_catalogue())
    fs, data = open_fs(), content_of(origin)
    assert fs.cat(path_of()) == data
    assert fs.cat_file(path_of(), 100, 200) == data[100:200]
    assert fs.cat_file(path_of(), -100) == data[-100:]
    assert fs.cat_file(path_of(), len(data), len(data) + 10) == b""
    assert fs.tail(path_of(), 77) == data[-77:]
    assert fs.read_block(path_of(), 5, 9) == data[5:14]


def test_an_open_file_reads_anywhere(start_origin: StartOrigin, open_fs: OpenFs) -> None:
    origin = start_origin(ramp_catalogue())
    fs, data = open_fs(), content_of(origin)
    with fs.open(path_of()) as file:
        assert file.size == len(data)
        position = 0
        for step in (1, 7, 4096, 16_384, 131_072, 131_073, 3 * MIB):
            assert file.read(step) == data[position : position + step]
            position += step
        file.seek(-5, 2)
        assert file.read() == data[-5:]
        assert file.read() == b""
        file.seek(16_380)
        buffer = bytearray(9)
        assert file.readinto(buffer) == 9
        assert bytes(buffer) == data[16_380:16_389]
        assert file.tell() == 16_389
    with pytest.raises(ValueError, match="closed"):
        file.read(1)


def test_a_cache_of_fsspec_is_as_it_was_chosen(start_origin: StartOrigin, open_fs: OpenFs) -> None:
    """`cache_type`, `block_size` and `cache_options`; by default satfs's own cache is enough."""
    origin = start_origin(ramp_catalogue())
    fs, data = open_fs(), content_of(origin)
    chosen = {"cache_type": "blockcache", "block_size": 4096, "cache_options": {"maxblocks": 3}}
    with fs.open(path_of(), **chosen) as file:
        assert (file.cache.name, file.cache.blocksize, file.cache.maxblocks) == (
            "blockcache",
            4096,
            3,
        )
        file.seek(5000)
        assert file.read(100) == data[5000:5100]
    with fs.open(path_of()) as file:
        assert file.cache.name == "none"


def test_small_reads_cost_no_byte_twice(start_origin: StartOrigin, open_fs: OpenFs) -> None:
    origin = start_origin(ramp_catalogue(size_bytes=2 * MIB))
    fs, data = open_fs(), content_of(origin)
    with fs.open(path_of()) as file:
        assert b"".join(iter(lambda: file.read(1000), b"")) == data
    origin.journal.wait_until_idle()
    # The tail, which tells the size, is kept: nothing is fetched again.
    assert origin.bytes_sent() <= len(data) + 64 * 1024


def test_ranges_are_requested_at_once(start_origin: StartOrigin, open_fs: OpenFs) -> None:
    origin = start_origin(ramp_catalogue(2))
    fs = open_fs()
    contents = [content_of(origin, n) for n in range(2)]
    paths = [path_of(n % 2) for n in range(40)]
    starts = [n * 200_001 for n in range(40)]
    ends = [start + 1000 for start in starts]
    for path in set(paths):
        fs.info(path)
    # The first responses show how many connections the store lets through. Then responses are held
    # back until ten ranges have been requested together: a busy machine only delays this.
    held = origin.faults.add("held", "object", skip=8)
    with ThreadPoolExecutor() as threads:
        results = threads.submit(fs.cat_ranges, paths, starts, ends)
        try:
            wait_until(lambda: held.hits >= 10, what="ten requests at once")
        finally:
            origin.faults.remove(held)
        assert results.result() == [contents[n % 2][starts[n] : ends[n]] for n in range(40)]


def test_a_range_that_cannot_be_had_is_told_in_its_place(
    start_origin: StartOrigin, open_fs: OpenFs
) -> None:
    origin = start_origin(ramp_catalogue())
    fs, data = open_fs(), content_of(origin)
    good, bad = fs.cat_ranges([path_of(), "scenes/s0/none"], [0, 0], [10, 10])
    assert good == data[:10]
    assert isinstance(bad, FileNotFoundError)
    with pytest.raises(FileNotFoundError):
        fs.cat_ranges([path_of(), "scenes/s0/none"], 0, 10, on_error="raise")


def test_get_reports_its_progress_and_leaves_no_part(
    start_origin: StartOrigin, open_fs: OpenFs, tmp_path: Path
) -> None:
    origin = start_origin(ramp_catalogue(size_bytes=20 * MIB))
    fs, data = open_fs(), content_of(origin)

    class Noted(Callback):  # type: ignore[misc]  # fsspec has no types
        def __init__(self) -> None:
            super().__init__()
            self.values: list[int] = []

        def call(self, *args: Any, **kwargs: Any) -> None:
            self.values.append(self.value)

    noted = Noted()
    fs.get_file(path_of(), str(tmp_path / "copy"), callback=noted)
    assert (tmp_path / "copy").read_bytes() == data
    assert noted.size == noted.value == len(data)
    assert len(set(noted.values)) >= 3
    with pytest.raises(FileNotFoundError):
        fs.get_file("scenes/s0/none", str(tmp_path / "other"))
    assert [each.name for each in tmp_path.iterdir() if each.is_file()] == ["copy"]
    longest = tmp_path / ("x" * 255)
    fs.get_file(path_of(), str(longest))
    assert longest.read_bytes() == data
    with (tmp_path / "open").open("wb") as file:
        fs.get_file(path_of(), file)
    assert (tmp_path / "open").read_bytes() == data


def test_coroutines_wait_in_the_program_s_own_loop(
    start_origin: StartOrigin, open_fs: OpenFs
) -> None:
    origin = start_origin(ramp_catalogue(3))
    fs = open_fs(asynchronous=True)

    async def read() -> list[bytes]:
        assert [each["name"] for each in await fs._ls("")][-1] == "views"
        return list(await asyncio.gather(*(fs._cat_file(path_of(n)) for n in range(3))))

    assert asyncio.run(read()) == [content_of(origin, n) for n in range(3)]


def test_a_cancelled_read_ends_its_work(start_origin: StartOrigin, open_fs: OpenFs) -> None:
    origin = start_origin(ramp_catalogue())
    fs = open_fs(asynchronous=True)

    async def read() -> None:
        await fs._info(path_of())
        origin.faults.add("hang", endpoint="object")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(fs._cat_file(path_of(), 0, MIB), 0.3)

    asyncio.run(read())
    thread = fs._access.thread
    assert thread is not None
    wait_until(lambda: thread.parts.contents.statistics()["active"] == 0)


# -- versions ------------------------------------------------------------------------------------


def test_another_version_has_another_key(start_origin: StartOrigin, open_fs: OpenFs) -> None:
    """A replaced object is another file: `ukey` and `checksum` differ, an open file stays."""
    origin = start_origin(ramp_catalogue(size_bytes=MIB))
    fs = open_fs()
    before, key, number = content_of(origin), fs.ukey(path_of()), fs.checksum(path_of())
    assert (key, number) == (fs.ukey(path_of()), fs.checksum(path_of()))
    with fs.open(path_of()) as file:
        assert file.read() == before
        origin.catalogue.replace(
            "s0", RampContent(MIB, 77), moment=datetime(2027, 1, 1, tzinfo=UTC)
        )
        fs.invalidate_cache()
        assert fs.ukey(path_of()) != key
        assert fs.checksum(path_of()) != number
        assert fs.cat(path_of()) == content_of(origin) != before
        file.seek(0)
        assert file.read() == before
    assert fs.modified(path_of()).tzinfo is not None


def test_no_read_mixes_versions(start_origin: StartOrigin, open_fs: OpenFs) -> None:
    """An open file is one version; what is read by path is read again from the new one."""
    origin = start_origin(ramp_catalogue())
    fs = open_fs()
    with fs.open(path_of()) as file:
        assert file.read(10) == content_of(origin)[:10]
        origin.catalogue.replace("s0", RampContent(8 * MIB, 77))
        file.seek(4 * MIB)
        with pytest.raises(OSError, match="replaced") as changed:
            file.read(10)
        assert changed.value.errno == errno.ESTALE
    origin.catalogue.replace("s0", RampContent(8 * MIB, 78))
    starts = [0, 3 * MIB, 6 * MIB]
    found = fs.cat_ranges([path_of()] * 3, starts, [start + 20 for start in starts])
    assert found == [content_of(origin)[start : start + 20] for start in starts]


# -- failures ------------------------------------------------------------------------------------


def test_what_is_not_there_is_a_file_not_found_error_with_our_sentence(
    start_origin: StartOrigin, open_fs: OpenFs
) -> None:
    start_origin()
    fs = open_fs()
    for call in (fs.info, fs.ls, fs.cat, fs.open):
        with pytest.raises(FileNotFoundError, match="nothing is called 'none'"):
            call("tasks/none" if call is None else "none")
    assert not fs.exists("none")
    with pytest.raises(IsADirectoryError):
        fs.open("tasks")
    with pytest.raises(NotADirectoryError):
        fs.info("README.txt/none")
    assert not fs.exists("README.txt/none")


def test_a_refusal_is_a_permission_error_with_our_sentence(
    start_origin: StartOrigin,
    open_fs: OpenFs,
    expect_log: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expect_log("request refused", reason="NeedsLogin")
    expect_log("credential refused")
    start_origin()
    monkeypatch.setenv("SATFS_CLIENT_SECRET", "wrong")
    with pytest.raises(PermissionError, match="SATFS_CLIENT_SECRET"):
        open_fs().ls("tasks")


def test_silence_is_a_timeout_error_within_the_deadline(
    start_origin: StartOrigin,
    open_fs: OpenFs,
    expect_log: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SATFS_METADATA_DEADLINE_S", "1")
    expect_log("host counts as offline")
    origin = start_origin()
    origin.faults.add("hang", endpoint="api")
    began_s = time.monotonic()
    with pytest.raises(TimeoutError, match="no response"):
        open_fs().ls("tasks")
    assert time.monotonic() - began_s < 5


def test_whatever_would_write_is_refused(start_origin: StartOrigin, open_fs: OpenFs) -> None:
    start_origin()
    fs = open_fs()
    for call in (
        lambda: fs.open("README.txt", "wb"),
        lambda: fs.pipe("new", b""),
        lambda: fs.rm("README.txt"),
        lambda: fs.mkdir("new"),
        lambda: fs.makedirs("new/new"),
        lambda: fs.touch("README.txt"),
        lambda: fs.cp("README.txt", "new"),
        lambda: fs.put(__file__, "new"),
        lambda: fs.rmdir("tasks"),
    ):
        with pytest.raises(OSError, match="Read-only") as refused:
            call()
        assert refused.value.errno == errno.EROFS


def test_settings_that_cannot_be_are_a_value_error(
    open_fs: OpenFs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SATFS_API_CONCURRENCY", "0")
    with pytest.raises(ValueError, match="api_concurrency"):
        open_fs().ls("")
    with pytest.raises(ValueError, match="auto, never or only"):
        open_fs(mount="perhaps")


# -- processes, threads, secrets -----------------------------------------------------------------


def test_what_is_pickled_names_a_profile_and_holds_no_secret(
    start_origin: StartOrigin, open_fs: OpenFs
) -> None:
    origin = start_origin()
    fs = open_fs(profile="default")
    fs.cat("README.txt")
    fs.ls("tasks")
    shown = pickle.dumps(fs) + fs.to_json().encode() + repr(fs).encode() + str(fs.__dict__).encode()
    secrets = [
        value
        for name, value in origin.environment().items()
        if "SECRET" in name or "TOKEN" in name or name == "SATFS_CLIENT_ID"
    ]
    assert secrets
    for secret in secrets:
        assert secret.encode() not in shown
    assert json.loads(fs.to_json())["profile"] == "default"
    other = pickle.loads(pickle.dumps(fs))
    try:
        assert other.ls("tasks") == fs.ls("tasks")
        with other.open("README.txt") as file:
            assert pickle.loads(pickle.dumps(file)).read() == file.read()
    finally:
        other.close()


def test_two_profiles_in_one_process_are_two_accounts(
    start_origin: StartOrigin, cache_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    origins = {name: start_origin(ramp_catalogue(n + 1)) for n, name in enumerate(("one", "two"))}
    lines = []
    for name, origin in origins.items():
        lines.append(f"[profiles.{name}]")
        for variable, value in origin.environment().items():
            monkeypatch.delenv(variable, raising=False)
            if variable != "SATFS_CLIENT_SECRET":
                lines.append(f"{variable.removeprefix('SATFS_').lower()} = {json.dumps(value)}")
    config = tmp_path / "config.toml"
    config.write_text("\n".join(lines))
    config.chmod(0o600)
    monkeypatch.setenv("SATFS_CONFIG_FILE", str(config))
    monkeypatch.setenv("SATFS_CLIENT_SECRET", origins["one"].environment()["SATFS_CLIENT_SECRET"])
    opened = {name: SatfsFileSystem(name, "never", skip_instance_cache=True) for name in origins}
    try:
        n_scenes = {
            name: len(fs.ls("tasks/1/capture", detail=False)) for name, fs in opened.items()
        }
        assert n_scenes["two"] == n_scenes["one"] + 1
        for name, fs in opened.items():
            assert fs.cat(path_of()) == content_of(origins[name])
    finally:
        for fs in opened.values():
            fs.close()
    assert not satfs_threads()


def test_filesystems_of_one_profile_share_one_thread(
    start_origin: StartOrigin, open_fs: OpenFs
) -> None:
    origin = start_origin(ramp_catalogue())
    one, other = open_fs(), open_fs(batch_size=3)
    assert one.cat(path_of()) == other.cat(path_of()) == content_of(origin)
    assert len(satfs_threads()) == 1
    one.close()
    assert other.cat_file(path_of(), 0, 3) == content_of(origin)[:3]
    other.close()
    assert satfs_threads() == []


def test_closing_leaves_no_thread_no_socket_and_no_lock(
    start_origin: StartOrigin, open_fs: OpenFs, cache_dir: Path
) -> None:
    origin = start_origin(ramp_catalogue(3))

    def opened() -> set[str]:
        names = set()
        for number in os.listdir("/proc/self/fd"):
            try:
                names.add(os.readlink(f"/proc/self/fd/{number}"))
            except FileNotFoundError:
                continue
        return {each for each in names if str(cache_dir) in each or each.startswith("socket:")}

    fs = open_fs()
    fs.ls("")  # fsspec's own loop has a socket pair
    fs.close()
    before = opened()
    for number in range(3):
        assert fs.cat(path_of(number)) == content_of(origin, number)
    file = fs.open(path_of())
    fs.close()
    assert satfs_threads() == []
    # The origin closes its side of each connection when it has seen the other's end.
    wait_until(lambda: opened() <= before)
    assert str(cache_dir) not in Path("/proc/locks").read_text()
    # Used again, it starts again; so does an open file.
    assert file.read(3) == content_of(origin)[:3]
    file.close()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_reads_with_a_thread_of_its_own(
    start_origin: StartOrigin, open_fs: OpenFs, cache_dir: Path
) -> None:
    origin = start_origin(ramp_catalogue(2))
    fs = open_fs()
    file = fs.open(path_of())
    assert file.read(10) == content_of(origin)[:10]
    expected = [content_of(origin, n) for n in range(2)]

    def read_there(pipe: Any) -> None:
        held = [
            os.readlink(f"/proc/self/fd/{number}")
            for number in os.listdir("/proc/self/fd")
            if os.path.exists(f"/proc/self/fd/{number}")
        ]
        inherited = [each for each in held if each.startswith(str(cache_dir / "objects"))]
        rest = file.read()
        other = fs.cat(path_of(1))
        pipe.send((inherited, file.tell(), expected[0][10:] == rest, other == expected[1]))
        fs.close()

    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=read_there, args=(theirs,))
    child.start()
    assert ours.recv() == ([], len(expected[0]), True, True)
    child.join(20)
    assert child.exitcode == 0
    assert file.read() == expected[0][10:]


_SPAWNED = """
import pickle, sys
if __name__ == "__main__":
    fs = pickle.loads(bytes.fromhex(sys.argv[1]))
    print(len(fs.cat(sys.argv[2])), flush=True)
    assert "pyfuse3" not in sys.modules
"""


def _in_new_process(fs: SatfsFileSystem, path: str, program: str = _SPAWNED) -> list[str]:
    return [sys.executable, "-W", "error", "-c", program, pickle.dumps(fs).hex(), path]


def test_a_new_process_reads_from_a_pickle_and_ends_by_itself(
    start_origin: StartOrigin, open_fs: OpenFs
) -> None:
    """Nothing is closed here: the thread ends with the program, and what was fetched is kept."""
    origin = start_origin(ramp_catalogue())
    fs = open_fs()
    done = subprocess.run(
        _in_new_process(fs, path_of()), capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr, done.returncode) == (f"{8 * MIB}\n", "", 0)
    origin.journal.wait_until_idle()
    n_bytes = origin.bytes_sent()
    assert fs.cat(path_of()) == content_of(origin)
    assert origin.bytes_sent() == n_bytes


_KILLED = """
import os, pickle, signal, sys
fs = pickle.loads(bytes.fromhex(sys.argv[1]))
file = fs.open(sys.argv[2])
file.read(2_000_000)
print("reading", flush=True)
file.read()
"""


def test_a_killed_process_leaves_nothing_that_keeps_others_from_reading(
    start_origin: StartOrigin, open_fs: OpenFs
) -> None:
    origin = start_origin(ramp_catalogue(size_bytes=24 * MIB), bytes_per_s=4 * MIB)
    fs = open_fs()
    child = subprocess.Popen(
        _in_new_process(fs, path_of(), _KILLED), stdout=subprocess.PIPE, text=True
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "reading\n"
    finally:
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()
    origin.store_line.bytes_per_s = None
    assert fs.cat(path_of()) == content_of(origin)


def test_neither_import_nor_use_takes_fuse() -> None:
    """Nothing of FUSE is imported, nor anything heavy before it is used."""
    program = (
        "import sys, satfs.fsspec; heavy = {'pyfuse3', 'trio', 'httpx', 'shapely', "
        "'numpy', 'sqlite3'} & set(sys.modules); assert not heavy, heavy;"
        "import satfs.embedded.loop_thread; assert 'pyfuse3' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_library_says_nothing_unless_something_is_wrong(
    start_origin: StartOrigin, open_fs: OpenFs
) -> None:
    start_origin(ramp_catalogue())
    done = subprocess.run(
        _in_new_process(open_fs(), path_of()), capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
