"""One HTTP exchange in a worker: from the request to the last byte in the cache file; no socket.

Bytes are received into a buffer that stays in the processor's cache, hashed there, and written to
the file from there. To receive directly into a mapping of the file takes more processor time: each
page faults, and faults of several threads wait for each other.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final
from urllib.parse import SplitResult, urlsplit

import h11

from satfs.content.cache.blockmap import BLOCK_BYTES, hash_blocks, start_of_blocks
from satfs.content.transfer import messages
from satfs.content.transfer.messages import MoveOrder, OutcomeReport, ProgressReport
from satfs.content.transfer.store_responses import (
    ResponseClass,
    ResponseKind,
    classify_error,
    classify_success,
    is_of_connection,
    part_bytes,
    request_headers,
)
from satfs.model import ByteRange, Version
from satfs.net.headers import plain_headers
from satfs.net.retry import retry_after_s

#: Bytes written at once: few system calls, and the buffers of many connections stay small. Writes
#: end at its multiples, so that the kernel can keep them in large pieces of memory.
WRITE_BYTES: Final = 256 * 1024
#: Bytes that are reported at once: with more the mount wakes up less often, with less a reader is
#: woken sooner. When the bytes come slowly, which is nearly always, the time decides.
REPORT_BYTES: Final = 4 * 1024 * 1024
REPORT_AFTER_S: Final = 0.02
#: Bytes of a head that are parsed at once: each informational response of a flood takes the parser
#: 50 us, and other connections wait meanwhile.
HEAD_BYTES: Final = 16 * 1024
#: Informational responses (103 and the like) before a final one; real servers send one or two.
MAX_INFORMATIONAL: Final = 64
#: Most bytes of an error's body that are parsed, and the longest head.
ERROR_BYTES: Final = 64 * 1024
#: Bytes of a chunked body that are parsed at once, for the same reason: chunks of one byte.
CHUNKS_BYTES: Final = 64 * 1024
#: How long to wait for the end of a chunked body when all bytes have come, in seconds: with the
#: end, the connection can be used again. Some servers send no end.
END_S: Final = 1.0


#: A complete response with fewer bytes than were requested: another request gets the rest.
_PART: Final = ResponseClass(ResponseKind.RETRY, "body cut short")


class FileFailure(Exception):
    """The cache file cannot be written."""


class Exchange:
    """Requests the bytes of one move, and receives the response.

    Invariants:
        Bytes [move.start, `front`) are in the file; up to `_n_held` more are in the buffer. Of a
        chunked body the buffer holds the content alone.
        Reported bytes are in the file, are whole blocks, and end at or before `front`. `stop` only
        ever shrinks.
    """

    def __init__(
        self, move: MoveOrder, fd: int, send_report: Callable[[bytes], None], now_s: float
    ) -> None:
        self.move = move
        self.stop = move.stop
        #: When bytes came last, or the request was sent.
        self.received_s = self.requested_s = now_s
        self.outcome: OutcomeReport | None = None
        self.has_begun = False
        self._fd = fd
        self._send_report = send_report
        self._parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=ERROR_BYTES)
        self._requested = ByteRange(move.start, move.stop)
        self._refused: tuple[int, float | None] | None = None  # status, seconds to wait
        self._error_body = b""
        self._is_kept_alive = False
        self._n_informational = 0
        self._body_left: int | None = None  # None: the head has not been read
        self._is_chunked = False
        self._is_end_due = False  # a chunked body of which the end has not come
        self._buffer = memoryview(bytearray(WRITE_BYTES + BLOCK_BYTES))
        self._n_held = 0
        self.front = move.start
        self._hashes: list[int] = []
        self._began_s = self._reported_s = self._response_s = 0.0

    @property
    def is_over(self) -> bool:
        """Return whether there is nothing more to receive."""
        return self.outcome is not None

    @property
    def refuses_connection(self) -> bool:
        """Return whether the response may be about the connection, if it is the first one on it."""
        response_class = self.outcome.response_class if self.outcome is not None else None
        status = self._refused[0] if self._refused is not None else 0
        return response_class is not None and is_of_connection(status, response_class)

    @property
    def may_follow(self) -> bool:
        """Return whether another request may be sent on the same connection."""
        is_read = not self._is_end_due if self._is_chunked else self._body_left == 0
        return self.outcome is not None and self._is_kept_alive and is_read

    def request(self, user_agent: str) -> bytes:
        """Return the request to send.

        Raises:
            ValueError: the link cannot be a request's target as it is.
        """
        move, parts = self.move, urlsplit(self.move.url)
        version = Version(move.etag, move.size_bytes)
        target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
        headers = {
            "Host": _host(parts),
            "User-Agent": user_agent,
            "Accept": "*/*",
            **request_headers(self._requested, version, is_conditional=move.is_conditional),
        }
        try:
            h11_request = h11.Request(method="GET", target=target, headers=list(headers.items()))
            sent = self._parser.send(h11_request)
        except (h11.LocalProtocolError, UnicodeError) as problem:
            raise ValueError("not a target that can be requested") from problem
        end = self._parser.send(h11.EndOfMessage())
        return (sent or b"") + (end or b"")

    # -- receiving -------------------------------------------------------------------------------

    def receive(self, recv_into: Callable[[memoryview], int], clock: Callable[[], float]) -> bool:
        """Receive from *recv_into*, up to one write to the file; return whether it was as much.

        *recv_into* fills the beginning of what it is given, and has no more at present when it
        fills less; 0 is the end of the connection. False: wait until something has come.

        Raises:
            OSError: *recv_into* raised it; `BlockingIOError`, when there is nothing, is not raised.
            FileFailure: the file won't take the bytes.
        """
        if self._body_left is None:
            room = self._buffer[:HEAD_BYTES]
        else:
            position = self.front + self._n_held
            n_wanted = WRITE_BYTES - position % WRITE_BYTES
            n_wanted = min(CHUNKS_BYTES if self._is_chunked else self._body_left, n_wanted)
            room = self._buffer[self._n_held : self._n_held + n_wanted]
        try:
            n_bytes = recv_into(room)
        except BlockingIOError:
            return False
        self.received_s = clock()
        if self._body_left is None:
            self._take_head(bytes(room[:n_bytes]), self.received_s)
            return n_bytes == len(room)
        if self._is_chunked and n_bytes:
            self._take_chunks(bytes(room[:n_bytes]), self.received_s)
            return n_bytes == len(room)
        self._n_held += n_bytes
        self._body_left -= n_bytes
        if n_bytes:
            self._settle(self.received_s)
        else:
            self._finish_broken("the body was cut short", self.received_s)
        return n_bytes == len(room)

    def look_at_clock(self, now_s: float) -> None:
        """Report blocks that have waited to be reported together with later ones.

        Raises:
            FileFailure: the file won't take it.
        """
        if self._body_left is not None and not self.is_over:
            self._settle(now_s, is_due=now_s - self._reported_s >= REPORT_AFTER_S)
            if self._body_left == 0 and now_s - self.received_s >= END_S:
                self._conclude()

    def broke(self, reason: str, *, is_timeout: bool = False, now_s: float) -> None:
        """Note that the connection is lost; received bytes are kept.

        Raises:
            FileFailure: the file won't take it.
        """
        if self._body_left is None:
            self.outcome = OutcomeReport(self.move.move, broken=reason, is_timeout=is_timeout)
        else:
            self._finish_broken(reason, now_s, is_timeout=is_timeout)

    def _take_head(self, data: bytes, now_s: float) -> None:
        if not data:
            if self._refused is None:
                self.broke("closed without a response", now_s=now_s)
            else:
                self._refuse_by_body()
            return
        self.has_begun = True
        try:
            self._parser.receive_data(data)
            while self._body_left is None and not self.is_over:
                event = self._parser.next_event()
                if event is h11.NEED_DATA:
                    return
                self._take_event(event, now_s)
        except h11.RemoteProtocolError:
            self._refuse(ResponseClass(ResponseKind.GARBLED, "not HTTP"))

    def _take_event(self, event: object, now_s: float) -> None:
        match event:
            case h11.InformationalResponse():
                self._n_informational += 1
                if self._n_informational > MAX_INFORMATIONAL:
                    self._refuse(
                        ResponseClass(ResponseKind.GARBLED, "informational responses without end")
                    )
            case h11.Response():
                headers = plain_headers(
                    (name.decode("latin-1"), value.decode("latin-1"))
                    for name, value in event.headers
                )
                self._take_response(event.status_code, headers, event.http_version, now_s)
            case h11.Data() if len(self._error_body) < ERROR_BYTES:
                self._error_body += bytes(event.data)
            case _:  # the body's end, or as much of it as we look at
                self._refuse_by_body()

    def _take_response(
        self, status: int, headers: dict[str, str], http_version: bytes, now_s: float
    ) -> None:
        self._refused = (status, retry_after_s(headers, now_s=time.time()))
        if status not in (200, 206):
            return  # its body has more
        version = Version(self.move.etag, self.move.size_bytes)
        is_conditional = self.move.is_conditional
        response_class = classify_success(
            status, headers, self._requested, version, is_conditional=is_conditional
        )
        length = headers.get("content-length", "").strip()
        self._is_chunked = self._is_end_due = "transfer-encoding" in headers
        is_length_stated = length.isdecimal() and not self._is_chunked
        # Without a length the range shows how many bytes belong to the response.
        n_bytes = int(length) if is_length_stated else part_bytes(status, headers)
        if response_class.kind is not ResponseKind.BYTES:
            self._refuse(response_class)
            return
        if response_class.skip_bytes or n_bytes is None:
            # The loop slices whole bodies; here they are refused.
            self._refuse(ResponseClass(ResponseKind.GARBLED, "200 for a range"))
            return
        is_framed = is_length_stated or self._is_chunked  # else the connection's end is the body's
        is_closed = "close" in headers.get("connection", "").lower()
        self._is_kept_alive = http_version == b"1.1" and is_framed and not is_closed
        self._began_s, self._response_s = now_s, max(0.0, now_s - self.requested_s)
        self._body_left = n_bytes
        if self._is_chunked:
            self._take_chunks(b"", now_s)
            return
        early, _ = self._parser.trailing_data
        if len(early) > self._body_left:
            # Bytes that belong to no response: a following response would be read from a wrong
            # place.
            self._is_kept_alive = False
        early = early[: self._body_left]
        self._buffer[: len(early)] = early
        self._n_held = len(early)
        self._body_left -= len(early)
        self._settle(now_s)

    def _take_chunks(self, data: bytes, now_s: float) -> None:
        """Process what came of a chunked body (RFC 9112 §7.1)."""
        left = self._body_left or 0
        if data:
            self._parser.receive_data(data)
        try:
            while self._is_end_due and (event := self._parser.next_event()) is not h11.NEED_DATA:
                if isinstance(event, h11.EndOfMessage):
                    self._is_end_due = False
                    self._is_kept_alive &= not self._parser.trailing_data[0]
                elif isinstance(event, h11.Data):
                    content = bytes(event.data)[:left]
                    # More than the range: the bytes behind it are not wanted, nor is the rest of
                    # the body.
                    self._is_kept_alive &= len(content) == len(event.data)
                    self._buffer[self._n_held : self._n_held + len(content)] = content
                    self._n_held += len(content)
                    left -= len(content)
        except h11.RemoteProtocolError:
            self._is_kept_alive = False
            self._body_left = left
            self._settle(now_s)
            if not self.is_over:
                self._finish_broken("not chunks", now_s)
            return
        self._body_left = left
        self._settle(now_s)

    def _refuse_by_body(self) -> None:
        status = self._refused[0] if self._refused else 0
        self._refuse(classify_error(status, self._error_body))

    def _refuse(self, response_class: ResponseClass) -> None:
        wait_s = self._refused[1] if self._refused else None
        self.outcome = OutcomeReport(self.move.move, response_class, retry_after_s=wait_s)

    # -- writing and reporting -------------------------------------------------------------------

    def _settle(self, now_s: float, *, is_due: bool = False) -> None:
        """Write and report when enough has come or it is time, and end when all bytes are there."""
        received = min(self.front + self._n_held, self.stop)
        is_body_over = not self._body_left or (self._is_chunked and not self._is_end_due)
        is_last = received == self.stop or is_body_over
        is_due = is_due or not self._reported_s  # a read may wait for the first block
        if is_last or is_due or received % WRITE_BYTES == 0:
            whole = received if received == self.stop else received // BLOCK_BYTES * BLOCK_BYTES
            if whole > self.front:
                self._write(whole - self.front)
        is_worth_reporting = len(self._hashes) * BLOCK_BYTES >= REPORT_BYTES
        if self._hashes and (is_last or is_due or is_worth_reporting):
            self._report(now_s)
        if is_body_over and self._is_end_due and self._is_kept_alive:
            return  # for a moment, since it gives the connection back
        if is_body_over or self.front >= self.stop:
            self._conclude()

    def _conclude(self) -> None:
        """End with the received bytes: all that were requested, or all that were announced."""
        is_whole = self.front >= self.stop
        self.outcome = OutcomeReport(self.move.move, None if is_whole else _PART)

    def _finish_broken(self, reason: str, now_s: float, *, is_timeout: bool = False) -> None:
        if self._body_left == 0:  # only the end of its chunks is missing
            self._conclude()
            return
        whole = (self.front + self._n_held) // BLOCK_BYTES * BLOCK_BYTES
        if self.front < whole <= self.stop:
            self._write(whole - self.front)
        if self._hashes:
            self._report(now_s)
        self.outcome = OutcomeReport(self.move.move, broken=reason, is_timeout=is_timeout)

    def _write(self, n_bytes: int) -> None:
        data = self._buffer[:n_bytes]
        self._hashes += hash_blocks(data)
        try:
            written = 0
            while written < n_bytes:
                written += os.pwrite(self._fd, data[written:], self.front + written)
        except OSError as failure:
            raise FileFailure from failure
        self.front += n_bytes
        rest = max(0, self._n_held - n_bytes)
        if rest:
            self._buffer[:rest] = bytes(self._buffer[n_bytes : self._n_held])
        self._n_held = rest

    def _report(self, now_s: float) -> None:
        receiving_s = max(0.0, now_s - self._began_s)
        start = start_of_blocks(self.front, len(self._hashes))
        for first in range(0, len(self._hashes), messages.MAX_BLOCKS):
            hashes = self._hashes[first : first + messages.MAX_BLOCKS]
            upto = min(self.front, start + (first + len(hashes)) * BLOCK_BYTES)
            report = ProgressReport(self.move.move, upto, hashes, receiving_s, self._response_s)
            self._send_report(messages.pack_progress(report))
        self._hashes = []
        self._reported_s = now_s


def _host(parts: SplitResult) -> str:
    """Return the `Host` of a link: the port only where it is not the scheme's (RFC 9110 §4.2.3)."""
    host = parts.hostname or ""
    if ":" in host:
        host = f"[{host}]"
    usual = 443 if parts.scheme == "https" else 80
    return host if parts.port in (None, usual) else f"{host}:{parts.port}"
