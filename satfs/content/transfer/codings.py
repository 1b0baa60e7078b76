"""The coding that a store labels an object with, and whether the object is coded.

Pure. Identity is requested of a store (RFC 9110 §12.5.3). Uploads leave `gzip` or `aws-chunked` on
objects that are not coded, and some servers code what they send all the same: the first bytes tell
one from the other, for a coding that has a mark.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

#: The first bytes of coded content, by the coding (RFC 1952, RFC 1950, RFC 8878, compress(1); the
#: first chunk's size and signature of S3's aws-chunked). Other codings have no mark of their own.
_MARKS: Final = {
    "gzip": re.compile(rb"\x1f\x8b"),
    "x-gzip": re.compile(rb"\x1f\x8b"),
    "deflate": re.compile(rb"\x78[\x01\x5e\x9c\xda]"),
    "zstd": re.compile(rb"\x28\xb5\x2f\xfd"),
    "compress": re.compile(rb"\x1f[\x9d\xa0]"),
    "x-compress": re.compile(rb"\x1f[\x9d\xa0]"),
    "aws-chunked": re.compile(rb"[0-9A-Fa-f]{1,16}(;|\r)"),
}
#: Names of objects whose content itself begins with them.
_MEANT: Final = {
    "gzip": (".gz", ".tgz", ".svgz"),
    "x-gzip": (".gz", ".tgz", ".svgz"),
    "zstd": (".zst", ".tzst"),
    "compress": (".z",),
    "x-compress": (".z",),
}
#: Bytes from the beginning of an object that are needed to see this.
BEGINNING_BYTES: Final = 16


def encodings_of(headers: Mapping[str, str]) -> tuple[str, ...]:
    """Return the codings that a response's label names, `identity` left out."""
    named = headers.get("content-encoding", "").lower().split(",")
    return tuple(each.strip() for each in named if each.strip() not in ("", "identity"))


def is_object_itself(encodings: tuple[str, ...], beginning: bytes, path: str) -> bool:
    """Return whether a labelled object is the object, and not a coded form of it.

    A server may also serve ranges of the coded form, which are right in themselves (RFC 9110
    §14.2). The label of a coding without a mark (brotli) is ignored: identity was requested, and
    range and length are right. *beginning* are the first bytes that it serves, *path* that of the
    address.
    """
    if not beginning:
        return True
    for coding in encodings:
        mark = _MARKS.get(coding)
        if (
            mark is not None
            and mark.match(beginning)
            and not path.lower().endswith(_MEANT.get(coding, ()))
        ):
            return False
    return True
