"""Contents give the bytes they hold, at any place."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from satfs.demo.contents import PART_BYTES, BytesContent, FileContent, RampContent


@given(
    seed=st.integers(0, 1000),
    start=st.integers(0, 3_000_000_000),
    n_bytes=st.integers(0, 2000) | st.integers(1_048_000, 1_050_000),
)
def test_ramp_is_what_it_says(seed: int, start: int, n_bytes: int) -> None:
    """Byte k is (seed + k) mod 251, anywhere, without the file existing."""
    ramp = RampContent(4_000_000_000, seed)
    data = bytes(ramp.read(start, start + n_bytes))
    assert len(data) == n_bytes
    assert all(
        data[k] == (seed + start + k) % 251
        for k in {0, 1, n_bytes // 2, n_bytes - 1}
        if 0 <= k < n_bytes
    )


def test_file_is_read_where_asked(tmp_path: Path) -> None:
    """A file's content is the file's."""
    path = tmp_path / "x"
    path.write_bytes(bytes(range(256)))
    content = FileContent(path)
    assert content.size_bytes == 256
    assert content.read(250, 256) == bytes(range(250, 256))


def test_etag_tells_how_it_was_uploaded() -> None:
    """A small object's ETag is its MD5; a large one's has the number of parts; both are quoted."""
    assert BytesContent(b"").etag == '"d41d8cd98f00b204e9800998ecf8427e"'
    assert RampContent(3 * PART_BYTES + 1).etag.endswith('-4"')


def test_other_bytes_have_another_etag() -> None:
    """Two objects that differ have ETags that differ."""
    etags = {RampContent(9, 1).etag, RampContent(9, 2).etag, RampContent(10, 1).etag}
    assert len(etags) == 3
