"""One response on its way: at its speed, broken where it is to break, counted.

A file is sent by sendfile(2) when nothing is to be done to its bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import socket
import struct
from collections.abc import AsyncIterator
from typing import Final

from satfs.demo.contents import FileContent
from satfs.demo.effects import BodyPace
from satfs.demo.odd_responses import oddly_written
from satfs.demo.request_log import LoggedRequest
from satfs.demo.responses import Response, Span
from satfs.errors import Unsupported

try:
    from aiohttp import web
except ImportError as missing:
    raise Unsupported(f"the demo origin needs {missing.name}: install satfs[demo]") from missing

#: Bytes written at once. Larger saves calls; smaller makes a stall or a cut no more exact, since
#: pieces end there anyway.
PIECE_BYTES: Final = 256 * 1024
#: Pieces per second of a slow body: enough that it drips rather than gushes.
_PIECES_PER_S: Final = 20
#: Linux: the kernel itself paces what a socket sends (socket(7), <asm-generic/socket.h>).
_SO_MAX_PACING_RATE: Final = 47
#: Linux: a filter of what comes (socket(7), <asm-generic/socket.h>).
_SO_ATTACH_FILTER: Final = 26
_UNPACED: Final = 0xFFFFFFFF
#: Bytes per second below which the kernel's pacing is too lumpy on loopback, with its segments of
#: 64 KiB: slower bodies are sent in small pieces instead.
_MIN_PACED: Final = 2_000_000


async def send(
    request: web.BaseRequest, response: Response, way: BodyPace, entry: LoggedRequest
) -> web.StreamResponse:
    """Send *response* in the way *way*, and count the sent bytes in *entry*."""
    if way.shape is not None and response.body and request.transport is not None:
        body = bytes(_slice(response.body, 0, len(response.body)))
        entry.bytes_sent += len(body)
        request.transport.write(oddly_written(response, body, way.shape))
        await _flushed(request)
        request.transport.close()
        raise ConnectionResetError("the response is complete")
    outgoing = web.StreamResponse(status=response.status, headers=dict(response.headers))
    if "Transfer-Encoding" in outgoing.headers:
        del outgoing.headers["Transfer-Encoding"]
        outgoing.enable_chunked_encoding()
    else:
        outgoing.content_length = len(response.body)
    await outgoing.prepare(request)
    if way.lost_beyond is not None and len(response.body) > way.lost_beyond:
        await asyncio.Event().wait()
    if request.method == "HEAD" or not response.body:
        if way.cut_at is not None or way.reset_at is not None:
            _break(request, reset=way.reset_at is not None, is_announced=way.is_announced)
        await outgoing.write_eof()
        return outgoing
    if isinstance(response.body, Span) and _may_sendfile(request, outgoing, response.body, way):
        await _sendfile(request, response.body, entry)
    else:
        await _write(request, outgoing, response.body, way, entry)
    await outgoing.write_eof()
    return outgoing


def _may_sendfile(
    request: web.BaseRequest, response: web.StreamResponse, body: Span, way: BodyPace
) -> bool:
    return (
        isinstance(body.content, FileContent)
        and way == BodyPace(bytes_per_s=way.bytes_per_s)
        and not response.chunked
        and request.transport is not None
        and request.transport.get_extra_info("sslcontext") is None
        and _paced(request.transport, way.bytes_per_s)
    )


def _paced(transport: asyncio.Transport, bytes_per_s: float | None) -> bool:
    """Have the kernel pace the connection, or stop pacing it; return whether the kernel can."""
    if bytes_per_s is not None and bytes_per_s < _MIN_PACED:
        return False
    rate = _UNPACED if bytes_per_s is None else min(int(bytes_per_s), _UNPACED - 1)
    sock = transport.get_extra_info("socket")
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_MAX_PACING_RATE, struct.pack("I", rate))
    except OSError:
        return bytes_per_s is None
    return True


async def _sendfile(request: web.BaseRequest, body: Span, entry: LoggedRequest) -> None:
    if not isinstance(body.content, FileContent) or request.transport is None:
        raise ConnectionResetError("the connection is gone")
    loop = asyncio.get_running_loop()
    with body.content.path.open("rb") as file:
        start = body.start
        while start < body.stop:  # in steps, so that a broken transfer is counted as far as it went
            count = min(16 * 1024 * 1024, body.stop - start)
            entry.bytes_sent += count  # before they leave: who has them shall find them counted
            try:
                sent = await loop.sendfile(request.transport, file, start, count)
            except BaseException:
                entry.bytes_sent -= count - max(0, file.tell() - start)
                raise
            if sent < count:
                raise ConnectionResetError("the file is shorter than it was")
            start += sent


async def _write(
    request: web.BaseRequest,
    response: web.StreamResponse,
    body: bytes | Span,
    way: BodyPace,
    entry: LoggedRequest,
) -> None:
    async for piece, offset in _pieces(body, way):
        if way.stall_at is not None and offset == way.stall_at:
            await asyncio.sleep(way.stall_s)
        if offset in (way.cut_at, way.reset_at):
            await _flushed(request)
            _break(request, reset=offset == way.reset_at, is_announced=way.is_announced)
            raise ConnectionResetError("broken on purpose")
        entry.bytes_sent += len(piece)  # before they leave: who has them shall find them counted
        try:
            await response.write(piece)
        except BaseException:
            entry.bytes_sent -= len(piece)
            raise


async def _pieces(
    body: bytes | Span, way: BodyPace
) -> AsyncIterator[tuple[bytes | memoryview, int]]:
    """Give the body piece by piece, at its speed; pieces end where the delivery breaks."""
    n_bytes = len(body)
    breaks = {at for at in (way.cut_at, way.reset_at, way.stall_at) if at is not None}
    stops = sorted({at for at in breaks if at < n_bytes} | {n_bytes})
    step = PIECE_BYTES
    if way.bytes_per_s is not None:
        step = max(1, min(PIECE_BYTES, int(way.bytes_per_s / _PIECES_PER_S)))
    clock = asyncio.get_running_loop().time
    due_s, offset = clock(), 0
    for stop in stops:
        while offset < stop:
            until = min(offset + step, stop)
            if way.bytes_per_s is not None:
                due_s = max(due_s, clock() - 0.1) + (until - offset) / way.bytes_per_s
                await asyncio.sleep(due_s - clock())
            yield _slice(body, offset, until), offset
            offset = until


def _slice(body: bytes | Span, start: int, stop: int) -> bytes | memoryview:
    if isinstance(body, Span):
        return body.content.read(body.start + start, body.start + stop)
    return memoryview(body)[start:stop]


async def _flushed(request: web.BaseRequest) -> None:
    """Wait until the kernel has what was written: a break comes after the bytes before it."""
    transport = request.transport
    while transport is not None and not transport.is_closing():
        if not transport.get_write_buffer_size():
            return
        await asyncio.sleep(0.001)


def _break(request: web.BaseRequest, *, reset: bool, is_announced: bool) -> None:
    transport = request.transport
    if transport is None:
        return
    if is_announced:
        transport.close()
        return
    sock = transport.get_extra_info("socket")
    if reset and sock is not None:
        with contextlib.suppress(OSError):
            set_to_reset(sock)
    transport.abort()


def set_to_reset(sock: socket.socket) -> None:
    """Have close(2) of *sock* reset the connection."""
    # l_onoff=1, l_linger=0: close(2) sends RST (socket(7))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def set_to_lose(sock: socket.socket) -> None:
    """Have the kernel drop each packet that comes for *sock*, before anything acknowledges it."""
    # A filter of one instruction, "accept 0 bytes" (socket(7), <linux/filter.h>): TCP sees none,
    # and sends nothing in return.
    program = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))
    described = struct.pack("HL", 1, ctypes.addressof(program))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, described)
