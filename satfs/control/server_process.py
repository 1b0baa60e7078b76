"""Wait until the process that serves a mount has ended and released its cache.

When umount(2) has returned, the process still enters fetched blocks in its cache. A program that
mounts again at once, removes the cache or ends a container waits for that.
"""

from __future__ import annotations

import os
import select

from satfs.control.client import connect
from satfs.control.protocol import peer_credentials
from satfs.errors import BadMountpoint
from satfs.mountpoints import Mounted


class ServingProcess:
    """The process that serves *mounted*, if it is known: look it up while it serves.

    It is known by a descriptor (pidfd_open(2)), so that another process which is given its number
    is never taken for it.
    """

    def __init__(self, mounted: Mounted) -> None:
        self._descriptor: int | None = None
        #: Its process id; 0 where it is not known.
        self.pid = 0
        try:
            with connect(mounted) as connection:
                self.pid, _, _ = peer_credentials(connection)
            if self.pid > 0:  # else it is in another PID namespace
                self._descriptor = os.pidfd_open(self.pid)
        except (OSError, BadMountpoint):
            pass  # dead already, another user's, or older than the kernel's descriptors

    def wait(self, timeout_s: float) -> bool:
        """Wait at most *timeout_s*; return whether it has ended. An unknown one counts as ended."""
        if self._descriptor is None:
            return True
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        return bool(poll.poll(timeout_s * 1000))

    def close(self) -> None:
        """Close the descriptor."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
