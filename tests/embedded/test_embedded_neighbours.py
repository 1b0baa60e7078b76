"""Further offers of fsspec on top of a filesystem, and the end of programs that use it."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from embedded.conftest import OpenFs, StartOrigin, catalogue_with
from embedded.test_embedded_fsspec import MIB, content_of, path_of, ramp_catalogue
from fsspec.callbacks import Callback
from fsspec.generic import rsync
from fsspec.implementations.dirfs import DirFileSystem
from fsspec.implementations.reference import ReferenceFileSystem

from satfs.fsspec import SatfsFileSystem

OPTIONS = {"mount": "never"}
#: The members of the only delivery, below `scenes/one/contents`.
MEMBERS = {"a.txt": b"first\nsecond\n", "rasters/b.bin": bytes(range(256)) * 300, "empty": b""}


@pytest.fixture
def by_address(start_origin: StartOrigin, cache_dir: Path) -> Iterator[SatfsFileSystem]:
    """Return the filesystem that addresses with `OPTIONS` lead to; closed in the end."""
    start_origin(catalogue_with(MEMBERS))
    fs = fsspec.filesystem("satfs", **OPTIONS)
    yield fs
    fs.close()


def test_files_are_opened_by_a_pattern(by_address: SatfsFileSystem) -> None:
    files = fsspec.open_files("satfs://tasks/*/*/footprints.geojson", "rt", **OPTIONS)
    with files as opened:
        texts = [file.read() for file in opened]
    assert len(texts) == len(by_address.glob("tasks/*/*/footprints.geojson")) == 1
    assert all(text.startswith("{") for text in texts)


@pytest.mark.parametrize("cache", ["filecache", "simplecache"])
def test_a_cache_of_fsspec_keeps_whole_files(
    by_address: SatfsFileSystem, tmp_path: Path, cache: str
) -> None:
    expected = by_address.cat("README.txt")
    options: dict[str, Any] = {"satfs": OPTIONS, cache: {"cache_storage": str(tmp_path / cache)}}
    for _ in range(2):
        with fsspec.open(f"{cache}::satfs://README.txt", **options) as file:
            assert file.read() == expected


def test_a_zip_is_opened_by_fsspec_as_well(by_address: SatfsFileSystem) -> None:
    archive = by_address.glob("tasks/1/*/*/*.zip")[0]
    inside = fsspec.filesystem(
        "zip", fo=f"satfs://{archive}", target_protocol="satfs", target_options=OPTIONS
    )
    contents = f"{archive.rpartition('/')[0]}/contents"
    names = inside.find("")
    assert names == [each.removeprefix(f"{contents}/") for each in by_address.find(contents)]
    assert inside.cat(names[0]) == by_address.cat(f"{contents}/{names[0]}")


def test_cat_of_several_treats_failures_as_it_is_told(by_address: SatfsFileSystem) -> None:
    paths = ["README.txt", "none"]
    found = by_address.cat(paths, on_error="return")
    assert found["README.txt"] == by_address.cat("README.txt")
    assert isinstance(found["none"], FileNotFoundError)
    assert list(by_address.cat(paths, on_error="omit")) == ["README.txt"]
    with pytest.raises(FileNotFoundError, match="nothing is called 'none'"):
        by_address.cat(paths)


def test_a_directory_is_copied_with_progress(by_address: SatfsFileSystem, tmp_path: Path) -> None:
    source = by_address.glob("tasks/1/*/*/contents")[0]
    progress = Callback()
    by_address.get(source, str(tmp_path / "copy"), recursive=True, callback=progress)
    copied = {
        str(each.relative_to(tmp_path / "copy")): each.read_bytes()
        for each in (tmp_path / "copy").rglob("*")
        if each.is_file()
    }
    files = by_address.find(source)
    assert copied == {each.removeprefix(f"{source}/"): by_address.cat(each) for each in files}
    assert progress.value == progress.size >= len(files)


def test_another_filesystem_is_brought_up_to_date(
    by_address: SatfsFileSystem, tmp_path: Path
) -> None:
    source = by_address.glob("tasks/1/*/*/contents")[0]
    rsync(
        f"satfs://{source}",
        f"file://{tmp_path}/copy",
        inst_kwargs={"default_method": "options", "storage_options": {"satfs": OPTIONS}},
    )
    n_files = sum(each.is_file() for each in (tmp_path / "copy").rglob("*"))
    assert n_files == len(by_address.find(source))


def test_nothing_is_left_out_because_the_api_is_away(
    start_origin: StartOrigin,
    open_fs: OpenFs,
    expect_log: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`find`, `glob` and `walk` raise where a directory cannot be listed; fsspec leaves it out."""
    monkeypatch.setenv("SATFS_METADATA_DEADLINE_S", "1")
    expect_log("host counts as offline")
    expect_log("listing is served stale", kind="tasks")
    origin = start_origin(catalogue_with(MEMBERS))
    fs = open_fs()
    assert fs.find("none") == fs.glob("tasks/none*") == []
    fs.invalidate_cache()
    origin.faults.add("hang", endpoint="api")
    for call in (
        lambda: fs.find("tasks"),
        lambda: fs.glob("tasks/*/*"),
        lambda: fs.du("tasks"),
        lambda: list(fs.walk("tasks")),
    ):
        with pytest.raises(OSError, match=r"no response|offline"):
            call()
    left = fs.find("tasks", on_error="omit")
    assert all("/" not in path.removeprefix("tasks/") for path in left)
    assert [path for path, _, _ in fs.walk("tasks", on_error="omit")][:1] == ["tasks"]


def test_a_walk_goes_upwards_as_well(by_address: SatfsFileSystem) -> None:
    down = [path for path, _, _ in by_address.walk("scenes", 3)]
    up = [path for path, _, _ in by_address.walk("scenes", 3, False)]
    assert sorted(down) == sorted(up)
    assert (down[0], up[-1]) == ("scenes", "scenes")


def test_text_is_read_by_lines(by_address: SatfsFileSystem) -> None:
    data = by_address.cat("README.txt")
    with by_address.open("README.txt", "rt", encoding="utf-8") as file:
        assert "".join(file) == data.decode()
    with by_address.open("README.txt") as file:
        assert list(file) == data.splitlines(keepends=True)
    assert by_address.read_text("README.txt") == data.decode()


def test_ranges_count_from_the_end_as_well(by_address: SatfsFileSystem) -> None:
    data = by_address.cat("README.txt")
    assert by_address.cat_file("README.txt", -20, -5) == data[-20:-5]
    assert by_address.cat_file("README.txt", 5, -5) == data[5:-5]
    assert by_address.cat_file("README.txt", 10, 5) == b""
    ends: list[int | None] = [None, -3]
    assert by_address.cat_ranges(["README.txt"] * 2, [-10, 0], ends) == [data[-10:], data[:-3]]


@pytest.mark.parametrize("cache_type", ["readahead", "bytes", "all", "background", "first"])
def test_a_file_is_read_through_fsspec_s_own_buffers(
    by_address: SatfsFileSystem, cache_type: str
) -> None:
    data = by_address.cat("README.txt")
    with by_address.open("README.txt", cache_type=cache_type, block_size=100) as file:
        file.seek(50)
        assert file.read(20) == data[50:70]
        file.seek(0)
        assert file.read() == data


def test_odd_names_are_names(by_address: SatfsFileSystem) -> None:
    for path in (
        "satfs://tasks//1/",
        "/tasks/1/.",
        "tasks/x/../1",
        "satfs:///tasks",
    ):
        assert by_address.isdir(path)
    for name in ("a?b", "a#b", "ü", "%20", "a\nb", "[x]", "a\0b", "x" * 300, "\udcff", "a b"):
        assert not by_address.exists(f"tasks/{name}")
        with pytest.raises(OSError):  # noqa: PT011 - which one is the tree's matter
            by_address.cat_file(f"tasks/{name}")


def test_a_directory_is_a_mapping_and_a_filesystem(by_address: SatfsFileSystem) -> None:
    source = by_address.glob("tasks/1/*/*/contents")[0]
    mapping = by_address.get_mapper(source)
    below = DirFileSystem(source, by_address)
    assert sorted(mapping) == sorted(below.find("")) != []
    name = next(iter(mapping))
    assert mapping[name] == below.cat(name) == by_address.cat(f"{source}/{name}")
    assert "none" not in mapping


def test_references_lead_to_ranges(start_origin: StartOrigin, open_fs: OpenFs) -> None:
    """The way of kerchunk, with more references than connections."""
    origin = start_origin(ramp_catalogue(1, 4 * MIB))
    fs, data = open_fs(), content_of(origin)
    starts = range(0, 4 * MIB - 1000, 20_000)
    references = {f"x/{start}": [path_of(), start, 1000] for start in starts}
    found = ReferenceFileSystem(references, fs=fs).cat(list(references))
    assert found == {f"x/{start}": data[start : start + 1000] for start in starts}


def test_threads_share_a_filesystem(start_origin: StartOrigin, open_fs: OpenFs) -> None:
    origin = start_origin(ramp_catalogue(1, 2 * MIB))
    fs, data = open_fs(), content_of(origin)
    wrong: list[object] = []

    def read(number: int) -> None:
        try:
            for step in range(10):
                start = (number * 7919 + step * 104_729) % (2 * MIB - 1000)
                with fs.open(path_of()) as file:
                    file.seek(start)
                    found = (fs.cat_file(path_of(), start, start + 1000), file.read(1000))
                if found != (data[start : start + 1000],) * 2:
                    wrong.append(start)
        except BaseException as failure:
            wrong.append(failure)

    threads = [threading.Thread(target=read, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_coroutines_open_list_and_copy(
    start_origin: StartOrigin, open_fs: OpenFs, tmp_path: Path
) -> None:
    """In a program's own loop, and in the next one after that has ended."""
    origin = start_origin(ramp_catalogue(1, MIB))
    data = content_of(origin)

    async def use(fs: SatfsFileSystem) -> None:
        async with await fs.open_async(path_of()) as file:
            assert file.size == len(data)
            assert await file.read(10) == data[:10]
            file.seek(-5, 2)
            assert await file.read() == data[-5:]
            assert await file.read() == b""
        assert path_of() in await fs._ls("scenes/s0", detail=False)
        await fs._get_file(path_of(), str(tmp_path / "copy"))
        both = await fs._cat([path_of(), "none"], on_error="omit")
        assert both == {path_of(): data}

    for _ in range(2):
        asyncio.run(use(open_fs(asynchronous=True)))
    asyncio.run(use(open_fs()))
    assert (tmp_path / "copy").read_bytes() == data


def read_there(fs: SatfsFileSystem, results: Any) -> None:
    results.put(fs.cat_file(path_of(), 5, 15))


def test_a_spawned_process_is_given_the_filesystem(
    start_origin: StartOrigin, open_fs: OpenFs
) -> None:
    origin = start_origin(ramp_catalogue(1, MIB))
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    child = context.Process(target=read_there, args=(open_fs(), results))
    child.start()
    try:
        assert results.get(timeout=60) == content_of(origin)[5:15]
        child.join(20)
        assert child.exitcode == 0
    finally:
        child.kill()
        child.join()
        results.close()


@pytest.mark.parametrize(
    ("program", "code"),
    [
        ("file = fs.open(path); file.read(100)", 0),
        ("file = fs.open('README.txt', 'rt'); file.readline()", 0),
        ("fs.open(path).read(9); import os; os._exit(0)", 0),
        ("fs.open(path).read(9); sys.exit(4)", 4),
        (
            "import threading; threading.Thread(target=fs.cat, args=[path], daemon=True).start();"
            " fs.cat_file(path, 0, 10)",
            0,
        ),
        (
            "import asyncio\n"
            "async def main():\n"
            "    task = asyncio.create_task(fs._cat_file(path)); await asyncio.sleep(0.2)\n"
            "asyncio.run(main())",
            0,
        ),
    ],
    ids=["open file", "open text", "os._exit", "sys.exit", "daemon reads", "task reads"],
)
def test_a_program_ends_in_whatever_it_was_doing(
    start_origin: StartOrigin, cache_dir: Path, program: str, code: int
) -> None:
    start_origin(ramp_catalogue(1, 8 * MIB), bytes_per_s=4 * MIB)
    head = "import sys; from satfs.fsspec import SatfsFileSystem; path = sys.argv[1]; "
    done = subprocess.run(
        [
            *(sys.executable, "-W", "error", "-c"),
            f"{head}fs = SatfsFileSystem(mount='never')\n{program}",
            path_of(),
        ],
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (code, "", "")
