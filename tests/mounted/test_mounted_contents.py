"""Through the kernel: `contents/` and an unzipped copy are the same, and cost no byte twice."""

from __future__ import annotations

import errno
import functools
import io
import lzma
import os
import random
import shutil
import subprocess
import sys
import zipfile
from contextlib import ExitStack
from pathlib import Path

import pytest
from archive.cutzips import Big, build_cut
from archive.opening import wordy
from archive.zips import Entry, Layout, build
from fakes.sparse import SparseContent
from mounted.conftest import MountIt, StartOrigin
from mounted.mounting import RealMount
from reliability.measuring import usage_of

from satfs.demo.catalogue import (
    Catalogue,
    make_capture,
    make_delivery,
    make_scene,
    make_task,
)
from satfs.demo.contents import BytesContent
from satfs.demo.server import DemoOrigin

MIB = 1024 * 1024


def archive(methods: list[int], *, comment: bytes = b"") -> bytes:
    """Return a zip of a dozen files of all sizes, its methods in turn."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        made.mkdir("empty/")
        for number, size in enumerate([0, 1, 4095, 4096, 200_000, 3 * MIB, 70_000, 5 * MIB, 12]):
            name = f"{'/'.join('abc'[: number % 4])}/{number}.bin".lstrip("/")
            made.writestr(name, wordy(size, number), methods[number % len(methods)])
        made.comment = comment
    return buffer.getvalue()


NAMES = ("stored", "deflated", "mixed")


@functools.cache
def archives() -> dict[str, bytes]:
    """Return a zip for each of `NAMES`, made at the first use: packing takes seconds."""
    return {
        "stored": archive([zipfile.ZIP_STORED]),
        "deflated": archive([zipfile.ZIP_DEFLATED]),
        "mixed": archive(
            [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA],
            comment=b"a comment that is longer than a tail; " * 1700,
        ),
    }


def catalogue_of(zips: dict[str, bytes]) -> Catalogue:
    scenes = [
        make_scene(name, [make_delivery(name, BytesContent(data))]) for name, data in zips.items()
    ]
    return Catalogue([make_task(1, [make_capture("capture", scenes)])])


@pytest.fixture
def origin(start_origin: StartOrigin) -> DemoOrigin:
    return start_origin(catalogue_of(archives()))


def unzipped(data: bytes, directory: Path) -> Path:
    with zipfile.ZipFile(io.BytesIO(data)) as made:
        made.extractall(directory)
    return directory


def object_bytes(origin: DemoOrigin) -> int:
    return origin.journal.bytes_sent("object")


@pytest.mark.parametrize("name", NAMES)
def test_contents_equal_an_unzipped_copy(
    origin: DemoOrigin, mount_it: MountIt, tmp_path: Path, name: str
) -> None:
    """`diff -r` between `contents/` and an unzipped copy of the zip finds nothing."""
    contents = mount_it(origin).path / "scenes" / name / "contents"
    copy = unzipped(archives()[name], tmp_path / "copy")
    subprocess.run(["diff", "-r", contents, copy], check=True)
    subprocess.run(["cp", "-r", contents, tmp_path / "again"], check=True)
    subprocess.run(["diff", "-r", tmp_path / "again", copy], check=True)


@pytest.mark.parametrize("name", NAMES)
def test_the_zip_and_its_members_share_their_bytes(
    origin: DemoOrigin, mount_it: MountIt, tmp_path: Path, name: str
) -> None:
    """Bytes fetched through the zip are not fetched again through its members, nor the reverse."""
    for first in ("zip", "contents"):
        mount = mount_it(origin, cache=tmp_path / f"cache-{first}")
        scene = mount.path / "scenes" / name
        zip_path = scene / f"{name}.zip"
        contents = scene / "contents"
        members = [Path(top) / each for top, _, files in os.walk(contents) for each in files]
        order = [[zip_path], members] if first == "zip" else [members, [zip_path]]
        origin.journal.clear()
        for paths in order:
            for path in paths:
                path.read_bytes()
        assert object_bytes(origin) <= len(archives()[name])
        mount.stop()


def test_small_members_are_copied_in_few_requests(
    start_origin: StartOrigin, mount_it: MountIt, tmp_path: Path
) -> None:
    """Small members that lie side by side are fetched together, in whatever order they are read."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        for number in range(24):
            method = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)[number % 2]
            made.writestr(f"{number}.json", wordy(20_000, number), method)
        for name in ("image.tif", "mask.tif"):  # what is cached of the zip's end holds none of them
            made.writestr(name, random.Random(name).randbytes(3 * MIB), zipfile.ZIP_STORED)
    origin = start_origin(catalogue_of({"scene": buffer.getvalue()}), store_latency_s=0.02)
    contents = mount_it(origin).path / "scenes/scene/contents"
    names = [f"{number}.json" for number in range(24)]
    assert set(os.listdir(contents)) == {*names, "image.tif", "mask.tif"}
    origin.journal.clear()
    random.Random(1).shuffle(names)
    copy = unzipped(buffer.getvalue(), tmp_path / "copy")
    for name in names:
        assert (contents / name).read_bytes() == (copy / name).read_bytes()
    assert origin.journal.n_requests("object") <= 6
    assert object_bytes(origin) < sum((copy / name).stat().st_size for name in names) + MIB // 4


def test_one_or_two_small_members_are_read_by_themselves(
    start_origin: StartOrigin, mount_it: MountIt
) -> None:
    """A program that looks at a scene's metadata fetches that, and nothing beside it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        for number in range(24):
            made.writestr(f"{number}.json", wordy(20_000, number), zipfile.ZIP_STORED)
        made.writestr("image.tif", random.Random(1).randbytes(3 * MIB), zipfile.ZIP_STORED)
    origin = start_origin(catalogue_of({"scene": buffer.getvalue()}))
    contents = mount_it(origin).path / "scenes/scene/contents"
    os.listdir(contents)
    origin.journal.clear()
    for name in ("3.json", "17.json"):
        (contents / name).read_bytes()
    assert object_bytes(origin) <= 2 * (20_000 + 2 * 16 * 1024)


def test_open_members_share_the_memory_of_their_decoders(
    start_origin: StartOrigin, mount_it: MountIt
) -> None:
    """Twelve open members with dictionaries of 64 MiB, read far in, take no 300 MiB."""
    content = wordy(64 * 1024, 1) * (45 * 16)
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 64 * MIB}]
    packed = lzma.compress(content, lzma.FORMAT_XZ, filters=filters)
    names = [f"{number}.bin" for number in range(12)]
    data = build([Entry(name.encode(), content, method=95, packed=packed) for name in names])
    mount = mount_it(start_origin(catalogue_of({"xz": data})))
    contents = mount.path / "scenes/xz/contents"
    with ExitStack() as stack:
        files = [stack.enter_context(open(contents / name, "rb")) for name in names]
        for start in (0, 44 * MIB):
            for file in files:
                assert os.pread(file.fileno(), 9000, start) == content[start : start + 9000]
        assert usage_of(mount.process.pid).memory_bytes < 300 * MIB


def test_looking_in_costs_nothing_that_listing_the_scene_has_not_paid(
    origin: DemoOrigin, mount_it: MountIt
) -> None:
    """`ls -lR contents` after `ls` of the scene sends no request to the vendor."""
    scene = mount_it(origin).path / "scenes/deflated"
    os.listdir(scene)
    origin.journal.clear()
    subprocess.run(["ls", "-lR", scene / "contents"], check=True, stdout=subprocess.DEVNULL)
    assert sum(origin.journal.counts().values()) == 0


@pytest.mark.parametrize("name", ["stored", "deflated"])
def test_random_reads_of_members(origin: DemoOrigin, mount_it: MountIt, name: str) -> None:
    """Any range of any member, through the kernel, is what unzip makes of it."""
    contents = mount_it(origin).path / "scenes" / name / "contents"
    with zipfile.ZipFile(io.BytesIO(archives()[name])) as made:
        expected = {each: made.read(each) for each in made.namelist() if not each.endswith("/")}
    source = random.Random(1)
    for _ in range(150):
        path, content = source.choice(sorted(expected.items()))
        start = source.randrange(len(content) + 1)
        length = source.randrange(200_000)
        handle = os.open(contents / path, os.O_RDONLY)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_RANDOM)
        assert os.pread(handle, length, start) == content[start : start + length]
        os.close(handle)


def test_the_index_of_a_deflated_member_survives_a_remount(
    start_origin: StartOrigin, mount_it: MountIt
) -> None:
    """After a remount a far read of a deflated member goes to the nearest checkpoint."""
    content = wordy(24 * MIB, 5)
    data = build([Entry(b"big", content, method=8)])
    origin = start_origin(catalogue_of({"s": data}))
    first = mount_it(origin)
    assert (first.path / "scenes/s/contents/big").read_bytes() == content
    first.stop()
    second = mount_it(origin, sabotage=COUNTING)
    with open(second.path / "scenes/s/contents/big", "rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        file.seek(23 * MIB)
        assert file.read(1000) == content[23 * MIB : 23 * MIB + 1000]
    second.stop()
    inflated = sum(int(str(line["n"])) for line in second.events("inflated"))
    assert 0 < inflated < 4 * MIB


#: Makes the mount log each step's output.
COUNTING = """
from satfs.archive.cursor import Cursor
step = Cursor.step
def counting(self, *arguments):
    outcome = step(self, *arguments)
    structlog.get_logger().info("inflated", n=len(outcome.output))
    return outcome
Cursor.step = counting
"""


def test_hostile_and_broken_zips_leave_the_mount_alone(
    start_origin: StartOrigin, mount_it: MountIt
) -> None:
    """Nothing escapes, nothing crashes; the zip stays readable, and the failure is reported."""
    zips = {
        "evil": build(
            [
                Entry(b"../../../../tmp/evil", b"x"),
                Entry(b"/etc/passwd", b"x"),
                Entry(b"link", b"/etc/passwd", mode=0o120777),
                Entry(b"secret", b"x" * 9, packed=b"?" * 21, flags=1),
                Entry(b"odd", b"x", method=98, packed=b"?"),
                Entry(b"bad", b"content", crc=1),
                Entry(b"bomb", b"", method=8, packed=bytes(MIB), size=1 << 30),
                Entry(b"fine", b"content"),
            ]
        ),
        "empty": b"",
        "html": b"<html>no</html>",
        "cut": archives()["stored"][:-1],
    }
    mount = mount_it(start_origin(catalogue_of(zips)))
    contents = mount.path / "scenes/evil/contents"
    names = {"link", "secret", "odd", "bad", "bomb", "fine", "etc", "UNREADABLE.txt"}
    assert set(os.listdir(contents)) == names
    assert (contents / "etc/passwd").read_bytes() == b"x"
    assert (contents / "fine").read_bytes() == b"content"
    assert not (contents / "link").is_symlink()
    for name, number in (
        ("secret", errno.EACCES),
        ("odd", errno.EOPNOTSUPP),
        ("bad", errno.EIO),
        ("bomb", errno.EIO),
    ):
        with pytest.raises(OSError, match=os.strerror(number)) as caught:
            (contents / name).read_bytes()
        assert caught.value.errno == number
    for scene in ("empty", "html", "cut"):
        directory = mount.path / "scenes" / scene
        assert os.listdir(directory / "contents") == ["UNREADABLE.txt"]
        assert (directory / "contents/UNREADABLE.txt").read_bytes()
        assert (directory / f"{scene}.zip").read_bytes() == zips[scene]
    assert not mount.events("call failed by a bug in satfs")


def test_zips_of_programs_with_habits_of_their_own(
    start_origin: StartOrigin, mount_it: MountIt, tmp_path: Path
) -> None:
    """Local names of another length, absolute names and bytes behind the zip are as with unzip."""
    content = wordy(200_000, 8)
    zips = {
        "short": build([Entry(b"a name.tif", b"1" * 40, local_name=b"a"), Entry(b"b", content)]),
        "long": build([Entry(b"a", b"1" * 40, local_name=b"a name.tif"), Entry(b"b", content)]),
        "padded": build([Entry(b"a", b"1"), Entry(b"b", content)], Layout(trailing=bytes(MIB))),
        "absolute": build([Entry(b"/a/b", b"1"), Entry(b"/c", content)]),
        "attributes": build(
            [Entry(b"dir", mode=0o040755), Entry(b"dir/a", b"1"), Entry(b"void", mode=0o040755)]
        ),
    }
    mount = mount_it(start_origin(catalogue_of(zips)))
    shown = {
        name: {
            str(path.relative_to(contents)): path.read_bytes() if path.is_file() else None
            for path in sorted(contents.rglob("*"))
        }
        for name in zips
        for contents in [mount.path / "scenes" / name / "contents"]
    }
    assert shown == {
        "short": {"a name.tif": b"1" * 40, "b": content},
        "long": {"a": b"1" * 40, "b": content},
        "padded": {"a": b"1", "b": content},
        "absolute": {"a": None, "a/b": b"1", "c": content},
        "attributes": {"dir": None, "dir/a": b"1", "void": None},
    }
    if shutil.which("unzip"):
        (tmp_path / "absolute.zip").write_bytes(zips["absolute"])
        unzip = ["unzip", "-q", str(tmp_path / "absolute.zip"), "-d", str(tmp_path / "copy")]
        subprocess.run(unzip, check=False, stderr=subprocess.DEVNULL)
        contents = mount.path / "scenes/absolute/contents"
        subprocess.run(["diff", "-r", contents, tmp_path / "copy"], check=True)


def test_a_zip_over_4_gib_with_numbers_of_32_bits(
    start_origin: StartOrigin, mount_it: MountIt
) -> None:
    """MacOS' Archive Utility cuts sizes and offsets: the true size is shown, or none."""
    end = b"the end of 5 GiB"
    size = 5 * 1024 * MIB
    zipped = build_cut(
        [
            Big(b"first.json", 300),
            Big(b"raster.tif", size),
            Big(b"unknown.tif", 6 * 1024 * MIB, 9 * 1024 * MIB, method=8),
            Big(b"last.json", 300),
        ]
    )
    start = next(at for at, piece in zipped.pieces.items() if b"raster.tif" in piece) + 30 + 26
    zipped.pieces[start + size - len(end)] = end
    delivery = make_delivery("s", SparseContent(zipped.size_bytes, zipped.pieces))
    catalogue = Catalogue([make_task(1, [make_capture("c", [make_scene("s", [delivery])])])])
    contents = mount_it(start_origin(catalogue)).path / "scenes/s/contents"
    assert {path.name: path.stat().st_size for path in contents.iterdir()} == {
        "first.json": 300,
        "raster.tif": size,
        "last.json": 300,
        "UNREADABLE.txt": (contents / "UNREADABLE.txt").stat().st_size,
    }
    assert "unknown.tif: its size was cut" in (contents / "UNREADABLE.txt").read_text()
    with (contents / "raster.tif").open("rb") as file:
        file.seek(size - 100)
        assert file.read() == bytes(100 - len(end)) + end


def test_hidden_contents_are_reached_by_name(origin: DemoOrigin, mount_it: MountIt) -> None:
    """Hidden, contents/ is reached by name and not listed: `cp -r` copies nothing twice."""
    scene = mount_it(origin, contents="hidden").path / "scenes/stored"
    assert "contents" not in os.listdir(scene)
    assert "7.bin" in os.listdir(scene / "contents/a/b/c")


VRT = """<VRTDataset rasterXSize="2048" rasterYSize="2048">
  <VRTRasterBand dataType="UInt16" band="1">
    <SimpleSource>
      <SourceFilename relativeToVRT="1">rasters/scene_TOA_0.tif</SourceFilename>
      <SourceBand>1</SourceBand>
    </SimpleSource>
  </VRTRasterBand>
</VRTDataset>
"""

#: Runs in a child: a program that reads its own parent's mount must be free to be killed.
READ_WINDOW = """
import sys, rasterio
from rasterio.windows import Window
with rasterio.open(sys.argv[1]) as image:
    print(image.read(1, window=Window(700, 900, 256, 256)).tobytes().hex())
"""


def geotiff(path: Path) -> bytes:
    """Return a tiled, LZW-compressed GeoTIFF of noise, 2048 by 2048."""
    numpy = pytest.importorskip("numpy")
    rasterio = pytest.importorskip("rasterio")
    affine = pytest.importorskip("affine")
    pixels = numpy.random.default_rng(1).integers(0, 60_000, (2048, 2048), dtype="uint16")
    profile = {
        "driver": "GTiff",
        "width": 2048,
        "height": 2048,
        "count": 1,
        "dtype": "uint16",
        "tiled": True,
        "compress": "lzw",
        "crs": "EPSG:32721",
        "transform": affine.Affine(1, 0, 500_000, 0, -1, 6_000_000),
    }
    with rasterio.open(path, "w", **profile) as image:
        image.write(pixels, 1)
    return path.read_bytes()


def read_window(path: Path) -> str:
    child = subprocess.run(
        [sys.executable, "-c", READ_WINDOW, path], check=True, capture_output=True, text=True
    )
    return child.stdout


def test_a_raster_and_a_vrt_beside_it_open_from_contents(
    start_origin: StartOrigin, mount_it: MountIt, tmp_path: Path
) -> None:
    """A raster opens inside the zip, and so does a VRT that names it by a relative path."""
    tiff = geotiff(tmp_path / "local.tif")
    expected = read_window(tmp_path / "local.tif")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        made.writestr("rasters/scene_TOA_0.tif", tiff)
        made.writestr("scene_TOA.vrt", VRT)
        made.writestr("rasters/scene_CLOUD_0.tif", wordy(MIB, 3))
    origin = start_origin(catalogue_of({"s": buffer.getvalue()}))
    mount: RealMount = mount_it(origin)
    contents = mount.path / "scenes/s/contents"
    assert read_window(contents / "rasters/scene_TOA_0.tif") == expected
    assert read_window(contents / "scene_TOA.vrt") == expected
