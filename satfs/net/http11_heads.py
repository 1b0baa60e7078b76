"""Heads of HTTP/1.1 messages that are simple: written and read at once, without a parser's states.

A head is simple where there is one way to read it (RFC 9112): complete, in the form of the RFC, and
with one `Content-Length` that is a number. Of any other nothing is concluded here: h11 reads it, or
writes it, and decides. *Pure*.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from msgspec import Struct

_TOKEN: Final = rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+"
#: The head of a request (RFC 9112 §3): visible characters in its target, and printable ones of
#: ASCII in its fields, none of them empty.
_REQUEST: Final = re.compile(
    rb"[A-Z]+ [!-~]+ HTTP/1\.1\r\n(?:" + _TOKEN + rb": [!-~](?:[ -~]*[!-~])?\r\n)+\r\n"
)
#: The head of a final response. Where folded lines, other characters, or spaces before a colon
#: are, h11 decides.
_RESPONSE: Final = re.compile(
    rb"HTTP/1\.1 ([2-5][0-9]{2})(?: [\t -~]*)?\r\n((?:" + _TOKEN + rb":[\t -~]*\r\n)+)\r\n"
)
#: Lengths of eighteen digits hold any offset that a file system knows.
_LENGTH: Final = re.compile(rb"[0-9]{1,18}")
#: Responses without a body, whatever their fields (RFC 9110 §6.4.1).
_BODILESS: Final = frozenset({204, 304})
#: Fields of a request that determine what follows its head, or what becomes of the connection.
_FRAMING: Final = frozenset(
    {b"connection", b"content-length", b"expect", b"te", b"transfer-encoding", b"upgrade"}
)


class SimpleHead(Struct, frozen=True):
    """The head of a response whose body has *length_bytes*.

    *rest* came behind it. *is_kept*: the other side keeps the connection open.
    """

    status: int
    headers: list[tuple[bytes, bytes]]
    length_bytes: int
    is_kept: bool
    rest: bytes


def request_head(target: bytes, headers: Sequence[tuple[bytes, bytes]]) -> bytes | None:
    """Return the head of a GET without a body; None where it is not simple."""
    names = [name.lower() for name, _ in headers]
    if names.count(b"host") != 1 or not _FRAMING.isdisjoint(names):
        return None
    lines = [b"%s: %s\r\n" % field for field in headers]
    head = b"GET %s HTTP/1.1\r\n%s\r\n" % (target, b"".join(lines))
    # A field with a line break in it would be two.
    is_simple = head.count(b"\n") == len(lines) + 2 and _REQUEST.fullmatch(head) is not None
    return head if is_simple else None


def simple_head(data: bytes) -> SimpleHead | None:
    """Return the head of the response to a GET that *data* begins with; None if it is not simple.

    *data* is what was received at once: a head that comes in pieces is not simple.
    """
    found = _RESPONSE.match(data)
    if found is None:
        return None
    status = int(found[1])
    headers: list[tuple[bytes, bytes]] = []
    length: bytes | None = None
    is_kept = True
    for line in found[2].split(b"\r\n")[:-1]:
        name, _, value = line.partition(b":")
        value = value.strip(b" \t")
        headers.append((name, value))
        lower = name.lower()
        if lower == b"content-length":
            if length is not None or _LENGTH.fullmatch(value) is None:
                return None
            length = value
        elif lower == b"transfer-encoding":
            return None
        elif lower == b"connection":
            is_kept = is_kept and b"close" not in value.lower()
    if length is None or status in _BODILESS:
        return None
    return SimpleHead(status, headers, int(length), is_kept, data[found.end() :])
