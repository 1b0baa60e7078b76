"""The machine and the versions that a run was made with."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from pathlib import Path

from benchmarks.contenders import program

REPOSITORY = Path(__file__).parent.parent.parent


def describe_machine() -> dict[str, str]:
    """Return the kind of this machine, and nothing that identifies it."""
    model = "unknown"
    with contextlib.suppress(OSError):
        for text in Path("/proc/cpuinfo").read_text().splitlines():
            if text.startswith("model name"):
                model = text.partition(":")[2].strip()
                break
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": model,
        "cores": str(os.cpu_count()),
        "memory": f"{memory_bytes / (1 << 30):.0f} GiB",
        "kernel": re.sub(r"^(\d+\.\d+).*", r"\1", platform.release()),
        "python": platform.python_version(),
    }


def describe_versions() -> dict[str, str]:
    """Return the versions of satfs, its main libraries and its peers, where they are installed."""
    found: dict[str, str] = {}
    for package in ("satfs", "pyfuse3", "trio", "httpx"):
        with contextlib.suppress(PackageNotFoundError):
            found[package] = installed_version(package)
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        commit = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=REPOSITORY, capture_output=True, check=True
        )
        found["satfs"] = f"{found.get('satfs', '')} ({commit.stdout.decode().strip()})"
    for name, words in {
        "nginx": ["nginx", "-v"],
        "curl": ["curl", "--version"],
        "rclone": ["rclone", "version"],
        "s3fs": ["s3fs", "--version"],
        "httpdirfs": ["httpdirfs", "--version"],
        "ratarmount": ["ratarmount", "--version"],
        "GDAL": ["gdalinfo", "--version"],
    }.items():
        where = program(words[0]) or shutil.which(words[0], path="/usr/sbin:/sbin")
        if where is None:
            continue
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            said = subprocess.run([where, *words[1:]], capture_output=True, timeout=20, check=False)
            told = said.stderr + said.stdout
            # The first number after its own name, since libraries are named as well.
            number = re.search(
                rb"(?i)\b(?:%s|version)\D{0,12}(\d+\.\d+(?:\.\d+)?)" % name.encode(), told
            ) or re.search(rb"(\d+\.\d+(?:\.\d+)?)", told)
            if number is not None:
                found[name] = number[1].decode()
    return found
