"""Which version of an object a response has, by its ETag.

*Pure*. Servers alter ETags for single responses: they make them weak, or append the coding that
they have or might have applied.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Final

from satfs.model import Version

#: Suffixes that servers add to the ETag of an object that they have coded for a response, or might
#: have: Apache's mod_deflate and mod_brotli (`"abc-gzip"`, before 2.4 `"abc"-gzip`), Jetty
#: (`"abc--gzip"`).
_CODING_SUFFIX: Final = re.compile(r'("?)--?(?:x-)?(?:gzip|deflate|br|zstd)("?)$')
#: ETags of which the stem is remembered: those of the objects that are being read.
MAX_STEMS: Final = 256
#: Begins the name of a version that has no ETag, only a date.
BY_DATE: Final = "modified:"


def version_of(headers: Mapping[str, str], size_bytes: int) -> Version:
    """Return the version that *headers* (lower-case names) name.

    Without an ETag, `Last-Modified` is used; without both, only the length is known.
    """
    etag = etag_of(headers)
    if not etag:
        etag = f"{BY_DATE}{headers.get('last-modified', '').strip()}"
    return Version(etag, size_bytes)


def etag_of(headers: Mapping[str, str]) -> str:
    """Return the ETag if it is ASCII: clients write other characters in different ways.

    The mark of a weak one is in upper case (RFC 9110 §8.8.3), whichever way the server writes it.
    """
    etag = headers.get("etag", "").strip()
    if etag.startswith('w/"'):
        etag = f"W{etag[1:]}"
    return etag if etag.isascii() else ""


def may_be_condition(version: Version) -> bool:
    """Return whether the store compares the ETag of *version* with that of the object.

    An ETag that was altered on its way, or for the response, differs from that of the store.
    """
    return version.is_strong and _stem(version.etag) == version.etag


def is_same(one: Version, other: Version) -> bool:
    """Return whether two versions hold the same bytes.

    A server may make an ETag weak for one response and not for the next (nginx does where it might
    have compressed), or add a suffix to it (Apache). With the same length it names the same object:
    identity was requested, and a coded form has another length.
    """
    is_same_etag = one.etag == other.etag or _stem(one.etag) == _stem(other.etag)
    return is_same_etag and one.size_bytes == other.size_bytes


@lru_cache(MAX_STEMS)
def _stem(etag: str) -> str:
    """Return *etag* without the suffix that a server adds for a response."""
    return _CODING_SUFFIX.sub(r"\1\2", etag.removeprefix("W/"))


def is_coded_of(one: Version, other: Version) -> bool:
    """Return whether two ETags differ in the suffix of a coding."""
    return one.etag.removeprefix("W/") != other.etag.removeprefix("W/") and is_same(one, other)
