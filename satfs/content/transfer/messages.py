"""The messages between the mount and its worker processes, as bytes.

Pure. Each message is one packet of a Unix SEQPACKET socket, which keeps boundaries; a file travels
beside its message as a descriptor. Orders are JSON; reports are packed, since there are thousands.
"""

from __future__ import annotations

import json
import struct
from array import array
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

from msgspec import Struct
from msgspec.json import Decoder, encode
from msgspec.structs import asdict

from satfs.content.transfer.store_responses import ResponseClass

#: Longer than any message: a report holds the checksums of at most 1024 blocks.
MAX_BYTES: Final = 64 * 1024
#: Blocks reported at once.
MAX_BLOCKS: Final = 1024

#: Kind, move, front, microseconds since the first byte, and from the request to it.
_REPORT: Final = struct.Struct("<BQQQQ")
_PROGRESS: Final = 1
_OUTCOME: Final = 2
_CONNECTIONS: Final = 3
_LOOKED: Final = 4


class MoveOrder(Struct, frozen=True):
    """Fetch [start, stop) of the object at *url* into file number *file*.

    *start* is a block boundary. *etag* and *size_bytes* are the version that it must be.
    *is_conditional*: the store is to refuse any other.
    """

    move: int
    file: int
    url: str
    start: int
    stop: int
    etag: str
    size_bytes: int
    is_conditional: bool = True


class ProgressReport(Struct, frozen=True):
    """Blocks up to *front* are in the file; *hashes* are those of the blocks since the last one.

    *receiving_s* is the time since the first byte of the body came, *response_s* that from the
    request to it, on a connection that was open.
    """

    move: int
    front: int
    hashes: list[int]
    receiving_s: float = 0.0
    response_s: float = 0.0


#: A report about no move. The first one of a worker means that it is ready for orders; later ones
#: mean that it runs, also when no bytes arrive.
ALIVE: Final = ProgressReport(0, 0, [])
#: While a worker has moves it sends `ALIVE` this many times in each progress timeout.
ALIVE_PER_TIMEOUT: Final = 4


class OutcomeReport(Struct, frozen=True):
    """A move has ended, by a response that is not the bytes where *response_class* names it.

    Otherwise it is complete, or the connection broke as *broken* describes. *is_permanent*: another
    connection will break in the same way. *is_file_failure*: not the connection has failed, but the
    cache file. *retry_after_s*: the wait that a refusal requires. *is_refused*: a new connection
    could not be opened, broke before its first byte or began with a 503. *is_kept*: the connection
    is idle now. *passed_to*: the move that has it now. *is_taken_back*: the bytes were not
    requested.
    """

    move: int
    response_class: ResponseClass | None = None
    broken: str | None = None
    is_timeout: bool = False
    is_file_failure: bool = False
    retry_after_s: float | None = None
    is_permanent: bool = False
    is_refused: bool = False
    is_kept: bool = False
    passed_to: int | None = None
    is_taken_back: bool = False


_OUTCOMES: Final = Decoder(OutcomeReport)


class LookReport(Struct, frozen=True):
    """Whether the response to *move* has begun; all bytes that have come are received.

    Sent when it was ordered, and when a response has begun of which no block is whole so far.
    *waited_s*: how long the host has been the one to send, in seconds; less than the time since the
    order if the worker itself was late.
    """

    move: int
    has_begun: bool
    waited_s: float = 0.0


class Connections(Struct, frozen=True):
    """The connections of a worker to *origin* that no move has, when that changes.

    *n_idle* have responded before; *n_unused* have not, or are being opened. *n_refused* that were
    to be opened ahead of need have failed since the last report. *orders* about this origin, moves
    among them, were carried out since the last report.
    """

    origin: str
    n_idle: int
    n_unused: int
    n_refused: int = 0
    orders: Sequence[int] = ()


#: All reports of a worker.
Report: TypeAlias = ProgressReport | OutcomeReport | LookReport | Connections


def pack_order(kind: str, fields: Mapping[str, object]) -> bytes:
    """Return an order from the mount to a worker."""
    return json.dumps({"do": kind, **fields}).encode()


def pack_move(move: MoveOrder) -> bytes:
    """Return the order for *move*."""
    return pack_order("move", asdict(move))


def read_order(packet: bytes) -> tuple[str, dict[str, object]]:
    """Return the kind and the fields of an order."""
    fields: dict[str, object] = json.loads(packet)
    return str(fields.pop("do")), fields


def pack_progress(progress: ProgressReport) -> bytes:
    """Return a progress report."""
    receiving_us = round(progress.receiving_s * 1e6)
    response_us = round(progress.response_s * 1e6)
    head = _REPORT.pack(_PROGRESS, progress.move, progress.front, receiving_us, response_us)
    return head + array("Q", progress.hashes).tobytes()


def pack_outcome(outcome: OutcomeReport) -> bytes:
    """Return the report of an ending."""
    return _REPORT.pack(_OUTCOME, outcome.move, 0, 0, 0) + encode(outcome)


def pack_connections(connections: Connections) -> bytes:
    """Return the report of a change in the connections that no move has."""
    return _REPORT.pack(_CONNECTIONS, 0, 0, 0, 0) + json.dumps(asdict(connections)).encode()


def pack_look(look: LookReport) -> bytes:
    """Return the report of whether a response has begun."""
    waited_us = round(look.waited_s * 1e6)
    return _REPORT.pack(_LOOKED, look.move, int(look.has_begun), waited_us, 0)


def read_report(packet: bytes) -> Report:
    """Return the report of a worker.

    Raises:
        ValueError: no report.
    """
    try:
        kind, move, front, receiving_us, response_us = _REPORT.unpack_from(packet)
    except struct.error as problem:
        raise ValueError("a packet too short for a report") from problem
    rest = packet[_REPORT.size :]
    if kind == _PROGRESS:
        hashes = array("Q")
        hashes.frombytes(rest)
        return ProgressReport(move, front, hashes.tolist(), receiving_us / 1e6, response_us / 1e6)
    if kind == _LOOKED:
        return LookReport(move, bool(front), receiving_us / 1e6)
    if kind == _CONNECTIONS:
        try:
            return Connections(**json.loads(rest))
        except TypeError as problem:
            raise ValueError("a report that lacks something") from problem
    if kind != _OUTCOME:
        raise ValueError("a report of no known kind")
    return _OUTCOMES.decode(rest)
