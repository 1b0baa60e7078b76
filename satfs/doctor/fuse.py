"""The requirements of FUSE: the device, the helper, the permission, the kernel, the library.

`satfs doctor` and `satfs mount` use the same checks: the doctor prints every finding, a mount
raises the first failure.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from satfs.doctor.findings import Area, Check, Finding, Severity, deciding_failure
from satfs.doctor.machine import Machine
from satfs.errors import FuseMissing
from satfs.mountpoints import FUSERMOUNT

DEVICE: Final = "/dev/fuse"
CONFIGURATION: Final = "/etc/fuse.conf"
#: The capability to mount (linux/capability.h).
_CAP_SYS_ADMIN: Final = 21

#: Linux versions, each with what it brought to FUSE (the kernel's Documentation and git log).
_OLDEST: Final = (3, 9)  # readdirplus, which pyfuse3 demands
_LARGE_READS: Final = (4, 20)  # max_pages: more than 128 KiB at a time

_IN_CONTAINER: Final = "docker run --device /dev/fuse --cap-add SYS_ADMIN …"

FUSE_DEVICE = Check(Area.FUSE, "fuse-device", FuseMissing)
PRIVILEGES = Check(Area.FUSE, "privileges", FuseMissing)
FUSE_HELPER = Check(Area.FUSE, "fuse-helper", FuseMissing)
USER_ALLOW_OTHER = Check(Area.FUSE, "user-allow-other", FuseMissing)
KERNEL = Check(Area.FUSE, "kernel", FuseMissing)
FUSE_LIBRARY = Check(Area.FUSE, "fuse-library", FuseMissing)


def device(machine: Machine) -> Iterator[Finding]:
    """Look whether the user can open /dev/fuse."""
    path, explanation = machine.at(DEVICE), "Every FUSE filesystem talks to the kernel through it."
    in_container = "A container is given the device, and the capability to mount, at its start:"
    if not path.exists():
        if machine.is_container:
            yield FUSE_DEVICE.failure(
                f"{DEVICE} is missing.", explanation, in_container, _IN_CONTAINER
            )
        else:
            yield FUSE_DEVICE.failure(
                f"{DEVICE} is missing.",
                explanation,
                "Load the kernel module, now and at each start:",
                "sudo modprobe fuse",
                "echo fuse | sudo tee /etc/modules-load.d/fuse.conf",
            )
        return
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except OSError as failure:
        statement = f"{DEVICE} cannot be opened: {os.strerror(failure.errno or 0)}."
        if failure.errno == errno.EACCES:
            yield FUSE_DEVICE.failure(
                statement,
                explanation,
                "Usually every user may read and write it:",
                f"sudo chmod 666 {DEVICE}",
            )
        elif failure.errno == errno.ENODEV:
            yield FUSE_DEVICE.failure(
                statement, explanation, "The module is not loaded:", "sudo modprobe fuse"
            )
        else:
            yield FUSE_DEVICE.failure(statement, explanation, in_container, _IN_CONTAINER)
        return
    yield FUSE_DEVICE.fine(f"{DEVICE} can be opened.")


def require(machine: Machine, *, for_others: bool, auto_unmount: bool) -> None:
    """Return if the user can mount here, with *for_others* so that other users have access.

    Only what takes no process to find out: the rest fails when it is mounted.

    Raises:
        FuseMissing: something is missing or not allowed; the message has the remedy.
    """
    findings = [*device(machine), *_missing_helper(machine, is_needed=auto_unmount)]
    if for_others:
        findings += allow_other(machine, is_needed=True)
    failure = deciding_failure(findings)
    if failure is not None:
        raise failure.error


def helper(machine: Machine) -> Iterator[Finding]:
    """Look for fusermount3, and whether it may do its work."""
    path = machine.program(FUSERMOUNT)
    if path is None:
        yield from _missing_helper(machine)
    elif not machine.is_root and (lame := _lame_helper(machine, path)) is not None:
        yield lame
    else:
        ran = machine.run([os.fspath(path), "--version"])
        version = re.search(r"\d+(\.\d+)+", ran.output) if ran is not None else None
        shown = version.group() if version else "of unknown version"
        yield FUSE_HELPER.fine(f"{path} is there ({shown}).")


def _missing_helper(machine: Machine, *, is_needed: bool = False) -> Iterator[Finding]:
    """Look for fusermount3; *is_needed* is for root as well, who mounts without it otherwise."""
    install = "sudo apt install fuse3"
    if machine.program(FUSERMOUNT) is not None:
        return
    if machine.is_root and not is_needed:
        yield FUSE_HELPER.note(
            f"{FUSERMOUNT} is not installed.",
            "Root mounts without it; -o auto_unmount needs it.",
            "Install it:",
            install,
        )
        return
    yield FUSE_HELPER.failure(
        f"{FUSERMOUNT} is not installed, or not in PATH.",
        "It mounts for users who are not root, and unmounts for -o auto_unmount.",
        "Install it (on Fedora and Arch, too, the package is fuse3):",
        install,
    )


def _lame_helper(machine: Machine, path: Path) -> Finding | None:
    """Return why *path* would not get root's rights, without which it cannot mount."""
    explanation = "It mounts for users who are not root, and must be root itself for that."
    try:
        status, flags = path.stat(), os.statvfs(path).f_flag
    except OSError:
        return None
    if not status.st_mode & stat.S_ISUID or status.st_uid != 0:
        return FUSE_HELPER.failure(
            f"{path} is not setuid root.",
            explanation,
            "Restore the permissions that its package gave it:",
            f"sudo chown root {path} && sudo chmod u+s {path}",
        )
    if flags & os.ST_NOSUID:
        under = machine.mount_of(path)
        return FUSE_HELPER.failure(
            f"{path} lies on a filesystem mounted with nosuid.",
            explanation,
            "Install it on another filesystem, or mount this one again:",
            f"sudo mount -o remount,suid {'/' if under is None else under.mountpoint}",
        )
    return None


def privileges(machine: Machine) -> Iterator[Finding]:
    """Look whether the user may mount at all: what a container or a sandbox takes away."""
    status = machine.text("/proc/self/status") or ""
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    if machine.is_root:
        held = int(fields.get("CapEff", "0").strip() or "0", 16)
        if fields.get("CapEff") and not held >> _CAP_SYS_ADMIN & 1:
            yield PRIVILEGES.failure(
                "Root lacks the capability SYS_ADMIN here.",
                "Without it no user can mount: “Operation not permitted”.",
                "A container is given it at its start:",
                _IN_CONTAINER,
            )
            return
    elif fields.get("NoNewPrivs", "0").strip() == "1":
        yield PRIVILEGES.failure(
            "Programs started here cannot gain privileges (no_new_privs).",
            f"{FUSERMOUNT} then stays an ordinary program, and cannot mount.",
            "Mount from a terminal outside of the sandbox; in a systemd unit, leave out "
            "NoNewPrivileges= and what implies it.",
        )
        return
    yield PRIVILEGES.fine("Nothing forbids to mount.")


def allow_other(machine: Machine, *, is_needed: bool = False) -> Iterator[Finding]:
    """Look whether users may let others into their mounts; a failure only where *is_needed*."""
    text = machine.text(CONFIGURATION)
    is_allowed = any(
        line.partition("#")[0].strip() == "user_allow_other" for line in (text or "").splitlines()
    )
    if is_allowed:
        yield USER_ALLOW_OTHER.fine("Users may let others into their mounts (-o allow_other).")
    elif machine.is_root:
        yield USER_ALLOW_OTHER.fine("Root may let others into its mounts (-o allow_other).")
    else:
        yield USER_ALLOW_OTHER.finding(
            Severity.FAILURE if is_needed else Severity.NOTE,
            f"{CONFIGURATION} has no line user_allow_other.",
            "Only you can look into your mounts: root, sudo, Docker and web servers get "
            "“Permission denied”, and -o allow_other is refused.",
            "Let others in (-o allow_other, allow_root):",
            f"echo user_allow_other | sudo tee -a {CONFIGURATION}",
        )


def kernel(machine: Machine) -> Iterator[Finding]:
    """Look at what the kernel's FUSE can do, by its version."""
    release = (machine.text("/proc/sys/kernel/osrelease") or "").strip()
    found = re.match(r"(\d+)\.(\d+)", release)
    version = (int(found[1]), int(found[2])) if found else None
    if version is None:
        yield KERNEL.fine("The kernel's version is not known.")
    elif version < _OLDEST:
        yield KERNEL.failure(
            f"Linux {release} is older than 3.9.",
            "Its FUSE cannot list a directory together with its attributes.",
            "Update the system.",
        )
    elif version < _LARGE_READS:
        yield KERNEL.note(
            f"Linux {release} is older than 4.20.",
            "It requests at most 128 KiB at a time from a FUSE filesystem: bulk reads are slower.",
            "Update the system, if speed matters.",
        )
    else:
        yield KERNEL.fine(f"Linux {release} has all that satfs needs.")


def library(machine: Machine) -> Iterator[Finding]:
    """Look whether libfuse can be loaded, by loading it in another process."""
    script = "import importlib.metadata as m, pyfuse3; print(m.version('pyfuse3'))"
    ran = machine.run([sys.executable, "-P", "-c", script])
    if ran is not None and ran.code == 0:
        yield FUSE_LIBRARY.fine(f"pyfuse3 {ran.output.strip()} loads libfuse 3.")
        return
    lines = ran.stderr.strip().splitlines() if ran is not None else []
    yield FUSE_LIBRARY.failure(
        "The FUSE library cannot be loaded" + (f": {lines[-1]}" if lines else "."),
        "satfs mounts through pyfuse3, which is built on libfuse 3.",
        "Install libfuse, and build pyfuse3 against it:",
        "sudo apt install fuse3 libfuse3-dev pkg-config gcc python3-dev",
        f"{sys.executable} -m pip install --force-reinstall --no-deps pyfuse3",
    )
