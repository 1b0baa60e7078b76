"""An automounter as systemd is one: mounts a satfs when a process looks (autofs(5), the kernel's).

    automounter.py DIRECTORY COMMAND...

To be run as the first process of a PID and mount namespace of its own. Has another process list
DIRECTORY, runs COMMAND once the kernel requests it, and prints the other process's list.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import struct
import subprocess
import sys

#: `struct autofs_v5_packet` up to its name, and what it is called (linux/auto_fs.h).
PACKET = struct.Struct("=iiIIQIIIII")
PACKET_BYTES = PACKET.size + 256
MISSING_DIRECT = 5
#: `AUTOFS_IOC_READY` and `AUTOFS_IOC_FAIL`.
READY, FAIL = 0x9360, 0x9361
LOOK = "import os, sys; os.setsid(); print(*os.listdir(sys.argv[1]))"
TIMEOUT_S = 20


def main(directory: str, *command: str) -> int:
    """Return 0 if the mount was made and seen."""
    os.setsid()
    libc = ctypes.CDLL(None, use_errno=True)
    reading, writing = os.pipe()
    options = f"fd={writing},pgrp={os.getpgrp()},minproto=5,maxproto=5,direct"
    if libc.mount(b"auto", os.fsencode(directory), b"autofs", 0, options.encode()) != 0:
        sys.stderr.write(f"autofs: {os.strerror(ctypes.get_errno())}\n")
        return 77
    root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    os.close(writing)
    looker = subprocess.Popen([sys.executable, "-c", LOOK, directory], stdout=subprocess.PIPE)
    if not select.select([reading], [], [], TIMEOUT_S)[0]:
        sys.stderr.write("nobody has looked\n")
        return 1
    _, kind, token, *_ = PACKET.unpack_from(os.read(reading, PACKET_BYTES))
    assert kind == MISSING_DIRECT
    try:
        is_mounted = subprocess.run(command, check=False, timeout=TIMEOUT_S).returncode == 0
    except subprocess.TimeoutExpired:
        sys.stderr.write("the mount waits for itself\n")
        is_mounted = False
    fcntl.ioctl(root, READY if is_mounted else FAIL, token)
    seen, _ = looker.communicate(timeout=TIMEOUT_S)
    sys.stdout.buffer.write(seen)
    subprocess.run(["umount", directory], check=is_mounted)
    return 0 if is_mounted else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
