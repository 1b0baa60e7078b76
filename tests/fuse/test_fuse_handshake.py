"""The FUSE_INIT message, byte by byte."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from satfs.fuse.handshake import PARALLEL_DIROPS, accept_parallel_dirops, is_init

FLAGS = st.integers(0, 2**32 - 1)


def request(flags: int, *, opcode: int = 26, major: int = 7, unique: int = 2) -> bytes:
    header = struct.pack("=IIQQIIII", 104, opcode, unique, 0, 0, 0, 0, 0)
    return header + struct.pack("=IIII", major, 38, 131072, flags) + bytes(48)


def response(flags: int, *, error: int = 0, major: int = 7, unique: int = 2) -> bytes:
    body = struct.pack("=IIII", major, 38, 131072, flags) + bytes(48)
    return struct.pack("=IiQ", 16 + len(body), error, unique) + body


@given(offered=FLAGS, accepted=FLAGS)
def test_the_one_flag_is_set_if_it_is_offered(offered: int, accepted: int) -> None:
    """Nothing else of the response changes, and nothing is accepted that was not offered."""
    both = accepted | PARALLEL_DIROPS if offered & PARALLEL_DIROPS else accepted
    assert accept_parallel_dirops(request(offered), response(accepted)) == response(both)


@given(asked=st.binary(max_size=200), responded=st.binary(max_size=200))
def test_bytes_that_are_no_handshake_pass_unchanged(asked: bytes, responded: bytes) -> None:
    """Random bytes are no whole response to a FUSE_INIT."""
    assert accept_parallel_dirops(asked, responded) == responded
    assert accept_parallel_dirops(request(2**32 - 1), responded) == responded


def test_other_requests_and_refusals_pass_unchanged() -> None:
    """Another opcode, major version, response or an error: the response is libfuse's alone."""
    offered = request(PARALLEL_DIROPS)
    assert is_init(offered)
    assert not is_init(request(PARALLEL_DIROPS, opcode=3))
    for asked, responded in (
        (request(PARALLEL_DIROPS, opcode=3), response(0)),
        (request(PARALLEL_DIROPS, major=8), response(0)),
        (offered, response(0, unique=4)),
        (offered, response(0, error=-71)),
        (offered, response(0, major=8)),
        (offered, response(0)[:-1]),
        (offered, struct.pack("=IiQ", 16, -71, 2)),
    ):
        assert accept_parallel_dirops(asked, responded) == responded
