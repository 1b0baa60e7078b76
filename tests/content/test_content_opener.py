"""Connections being opened in a worker: for how long it is the host that is waited for."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Iterator

import pytest

from satfs.content.transfer.opener import Opener
from satfs.content.transfer.tls_connection import TlsConnection

#: Seconds until a step of another thread is taken to have failed.
PATIENCE_S = 10.0


@contextlib.contextmanager
def opening_to(listener: socket.socket) -> Iterator[tuple[Opener, tuple[str, str]]]:
    """Yield an opener that opens a connection to *listener* over TLS, and the origin."""
    opener = Opener()
    opener.connect_timeout_s = PATIENCE_S
    origin = ("https", f"127.0.0.1:{listener.getsockname()[1]}")
    opener.open(origin)
    try:
        yield opener, origin
    finally:
        listener.close()
        opener.close()


@pytest.fixture
def listener() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def test_a_host_that_says_nothing_has_its_turn(listener: socket.socket) -> None:
    """Nothing is left to do here: the hello is sent."""
    with opening_to(listener) as (opener, origin):
        peer, _ = listener.accept()
        with peer:
            assert peer.recv(1)
            waited_s = 0.0
            while waited_s < 0.05:
                waited_s = opener.waited_s(origin)
                select.select([opener.wake_reader], [], [], 0.01)


def test_each_connection_has_its_own_time(listener: socket.socket) -> None:
    """One that was begun later does not make the first one look younger."""
    with opening_to(listener) as (opener, origin):
        peer, _ = listener.accept()
        with peer:
            assert peer.recv(1)
            while opener.waited_s(origin) < 0.1:
                select.select([opener.wake_reader], [], [], 0.01)
            opener.open(origin)
            second, _ = listener.accept()
            with second:
                assert second.recv(1)
                while not (latest_s := opener.waited_s(origin, 1)):
                    select.select([opener.wake_reader], [], [], 0.001)
                assert latest_s < 0.1 <= opener.waited_s(origin, 0)
                assert opener.waited_s(origin, 7) < 0.1


def test_a_thread_that_does_not_run_is_no_silence_of_the_host(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host has sent its part of the handshake, and this process has not taken it."""
    is_at_wait, may_run = threading.Event(), threading.Event()

    def starved(self: TlsConnection, room: memoryview) -> None:
        is_at_wait.set()
        assert may_run.wait(PATIENCE_S)
        raise ConnectionResetError

    monkeypatch.setattr(TlsConnection, "_feed", starved)
    with opening_to(listener) as (opener, origin):
        peer, _ = listener.accept()
        with peer:
            assert is_at_wait.wait(PATIENCE_S)
            while not opener.waited_s(origin):
                pass  # a moment, until the clock has gone on
            peer.sendall(b"the host's part")
            while opener.waited_s(origin):
                select.select([opener.wake_reader], [], [], 0.01)
            may_run.set()
            assert select.select([opener.wake_reader], [], [], PATIENCE_S)[0]
        # It has failed, which is not taken yet: that is this process's turn as well.
        assert opener.waited_s(origin) == 0.0
