"""The control socket: any bytes are a request, a message, or `Garbled`."""

from __future__ import annotations

from fuzz.target import Target
from hypothesis import strategies as st

from satfs.control.protocol import Failed as FailedMessage
from satfs.control.protocol import (
    LineSplitter,
    error_of,
    message_line,
    message_of,
    request_line,
    request_of,
)
from satfs.errors import Garbled, SatfsError

_PIECES = st.sampled_from(
    [b"{", b"}", b"[", b"]", b'"', b":", b",", b"\n", b"\\ud800", b"\xff", b"1e999", b"NaN",
     b"9" * 5000, b"[" * 20_000, b'{"satfs":1,"do":"list","with":{}}\n', b'{"alive":true}\n',
     b'{"told":{"a":1}}\n', b'{"done":{}}\n', b'{"failed":{"error":"NotThere","message":"x"}}\n',
     b'{"failed":{"error":"__class__","message":"x"}}\n', b'{"satfs":1,"do":"x","with":[]}\n']
)  # fmt: skip
_MAX_BYTES = 100_000


def check_lines(pieces: list[bytes]) -> None:
    """However the bytes are cut, the same lines come of them, and each is understood or refused."""
    whole = b"".join(pieces)
    lines = LineSplitter(_MAX_BYTES)
    try:
        found = [line for piece in pieces for line in lines.feed(piece)]
    except Garbled:
        assert any(len(line) > _MAX_BYTES for line in whole.split(b"\n"))
        return
    assert found == whole.split(b"\n")[:-1]
    for line in found:
        try:
            request = request_of(line)
        except Garbled:
            pass
        else:
            assert request_of(request_line(request)[:-1]).do == request.do
        try:
            message = message_of(line)
        except Garbled:
            continue
        message_of(message_line(message)[:-1])
        if isinstance(message, FailedMessage):
            assert isinstance(error_of(message), SatfsError)


TARGETS = (
    Target(
        "control",
        "requests and messages of the control socket (control/protocol.py)",
        st.lists(_PIECES | st.binary(max_size=20), max_size=12),
        check_lines,
        ([b'{"failed":{"error":"SatfsError","message":""}}', b"\n"],),
    ),
)
