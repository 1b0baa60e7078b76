"""Try the README's two commands at the places where newcomers run them: bare Debians.

A place is a release of Debian, a user, and a directory for the clone. Its root directory is made by
mmdebstrap once and kept as an archive; each run unpacks that, clones what is committed, and runs
`scripts/demo` and `scripts/test` in there as that user, in new namespaces for mounts and processes.

apt and pip are configured there as on this machine: where packages come from is not written here.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
#: Where this machine cannot do it: what automake's test drivers, too, take for "skipped".
NOT_POSSIBLE: Final = 77
USER: Final = "anna"
#: All that is there before scripts/demo is run, beside what Debian calls required, and apt.
PACKAGES: Final = "ca-certificates,git,python3"
#: Read as root and as others: what the machine's apt and pip say of where packages come from.
_APT_OPTIONS: Final = ("Acquire::http", "Acquire::https", "Acquire::Check-", "Acquire::Retries")
#: Files of a bare machine in which apt and pip are configured as on this one.
_APT_OF_MACHINE: Final = "etc/apt/apt.conf.d/90machine"
_APT_OF_MMDEBSTRAP: Final = "etc/apt/apt.conf.d/99mmdebstrap"
_PIP_OF_MACHINE: Final = "etc/pip.conf"


@dataclass(frozen=True)
class Place:
    """Where the clone is, on which Debian, and who uses it."""

    release: str
    directory: str
    user: str = "root"

    def __str__(self) -> str:
        who = "root" if self.user == "root" else "a user with sudo"
        return f"Debian {self.release}, {who}, in {self.directory}"


PLACES: Final[Mapping[str, Place]] = {
    "root-home": Place("bookworm", "/root/satfs"),  # a directory that only root may enter
    "root-srv": Place("bookworm", "/srv/satfs"),
    "user": Place("bookworm", f"/home/{USER}/satfs", USER),
    "debian13": Place("trixie", "/srv/satfs"),  # Python 3.13, libfuse 3.17
    "debian13-user": Place("trixie", f"/home/{USER}/satfs", USER),
    "debian14": Place("forky", "/srv/satfs"),  # not released yet; Python 3.14
}

#: Run by bash, which reaps what others leave behind, as the first process of the new namespaces.
#: /dev holds what a container's does; /dev/fuse is open to all, as udev makes it.
_ENTER: Final = r"""
set -euo pipefail
root=$1 user=$2 command=$3
# As on a real machine the root is a mount: without that its propagation cannot be set there.
mount --bind "$root" "$root"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=0755 dev "$root/dev"
for device in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0 fuse:10:229; do
    IFS=: read -r name major minor <<< "$device"
    mknod -m 0666 "$root/dev/$name" c "$major" "$minor"
done
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620,gid=5 devpts "$root/dev/pts"
mount -t tmpfs -o mode=1777 shm "$root/dev/shm"
ln -s pts/ptmx "$root/dev/ptmx"
for link in fd:fd stdin:fd/0 stdout:fd/1 stderr:fd/2; do
    ln -s "/proc/self/${link#*:}" "$root/dev/${link%%:*}"
done
mount --rbind /sys "$root/sys"
shift 3
for path in "$@"; do
    mkdir -p "$root$path"
    mount --bind -o ro "$path" "$root$path"
done
# The root of the namespace, and not of one process: what enters the namespace comes to it.
cd "$root"
pivot_root . mnt
umount -l /mnt
code=0
su -l "$user" -c "$command" < /dev/null || code=$?
exit "$code"
"""


def main(arguments: Sequence[str]) -> int:
    """Return 0 when all places are green, 1 when one is red."""
    given, for_test = _split(arguments)
    parser = argparse.ArgumentParser("scripts/places", description=__doc__.splitlines()[0])
    parser.add_argument("places", nargs="*", metavar="PLACE", help="all of them by default")
    parser.add_argument("--list", action="store_true", help="show which places there are")
    parser.epilog = "What follows `--` is given to scripts/test; all tests by default."
    wanted = parser.parse_args(given)
    if unknown := [name for name in wanted.places if name not in PLACES]:
        parser.error(f"there is no place {unknown[0]}; there are: {', '.join(PLACES)}")
    if wanted.list:
        for name, place in PLACES.items():
            print(f"{name:<15} {place}")
        return 0
    cache = Path(os.environ["SATFS_PLACES_CACHE"])
    cache.mkdir(parents=True, exist_ok=True)
    results = {}
    for name in wanted.places or PLACES:
        print(f"\n══ {name}: {PLACES[name]} " + "═" * 20, flush=True)
        began_s = time.monotonic()
        results[name] = run(PLACES[name], cache, for_test)
        told = {0: "green", NOT_POSSIBLE: "not possible here"}.get(results[name], "red")
        print(f"══ {name}: {told}, {time.monotonic() - began_s:.0f} s", flush=True)
    if red := [name for name, code in results.items() if code not in (0, NOT_POSSIBLE)]:
        print(f"\nRed: {', '.join(red)}.")
        return 1
    return max(results.values())


def _split(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    words = list(arguments)
    n = words.index("--") if "--" in words else len(words)
    return words[:n], words[n + 1 :]


def run(place: Place, cache: Path, for_test: Sequence[str]) -> int:
    """Return the exit code of the two commands at *place*, or NOT_POSSIBLE."""
    with root_of(place, cache) as root:
        return NOT_POSSIBLE if root is None else root.run(place.user, commands(place, for_test))


@dataclass(frozen=True)
class Root:
    """The root directory of a bare Debian that was made a place, and what is bound into it.

    *written* are the files, by their path in it, that it has of this machine.
    """

    directory: Path
    binds: Sequence[str]
    written: Sequence[str] = ()

    def run(self, user: str, command: str) -> int:
        """Return the exit code of *command*, run by *user*'s shell in namespaces of its own."""
        return subprocess.run(
            [
                *("unshare", "--mount", "--propagation=private", "--pid", "--fork", "--kill-child"),
                *("bash", "-c", _ENTER, "enter"),
                *(str(self.directory), user, command, *self.binds),
            ],
            check=False,
        ).returncode


@contextmanager
def root_of(place: Place, cache: Path) -> Iterator[Root | None]:
    """Yield the root directory of *place*, and remove it afterwards; None if none can be made."""
    archive = cache / f"{place.release}.tar"
    if not archive.exists() and not make(place.release, archive):
        yield None
        return
    work = Path(tempfile.mkdtemp(prefix="place-", dir=cache))
    work.chmod(0o755)
    try:
        # Devices are made in the new namespace, where unpacking them would need no leave either.
        subprocess.run(
            ["tar", "-C", work, "--numeric-owner", "--exclude=./dev/*", "-xf", archive], check=True
        )
        yield Root(work, *furnish(work, place))
    finally:
        shutil.rmtree(work, ignore_errors=True)


def commands(place: Place, for_test: Sequence[str]) -> str:
    """Return what is typed at *place*: the README's two commands, the demo ended in between."""
    end = ".venv/bin/satfs umount ~/satfs-demo"
    return f"cd {place.directory} && scripts/demo && {end} && " + shlex.join(
        ["scripts/test", *for_test]
    )


def make(release: str, archive: Path) -> bool:
    """Make the archive of a bare Debian, and return whether that was possible."""
    mirror = mirror_of(_output("apt-get", "indextargets", "--format", "$(ORIGIN)|$(SITE)"))
    partial = archive.with_suffix(".partial.tar")
    done = subprocess.run(
        [
            *("mmdebstrap", "--quiet", "--variant=minbase", f"--include={PACKAGES},sudo"),
            *(f"--aptopt={option}" for option in apt_options(_output("apt-config", "dump"))),
            *(release, partial, *([mirror] if mirror else [])),
        ],
        check=False,
    )
    if done.returncode:
        partial.unlink(missing_ok=True)
        print("no bare machine can be made here; what mmdebstrap said is above")
        return False
    partial.rename(archive)
    return True


def furnish(root: Path, place: Place) -> tuple[list[str], list[str]]:
    """Make a bare Debian the *place*: its network, its user, the clone.

    Returns:
        directories of this machine that are to be seen there under the same names (packages), and
        the files of this machine that were written there, by their path below *root*.
    """
    written = [_APT_OF_MACHINE, _APT_OF_MMDEBSTRAP, _PIP_OF_MACHINE]
    for name in ("resolv.conf", "hosts", "hostname", "ssl/certs/ca-certificates.crt"):
        if Path("/etc", name).exists():
            (root / "etc" / name).unlink(missing_ok=True)
            shutil.copy(Path("/etc", name), root / "etc" / name)
            written.append(f"etc/{name}")
    (root / "etc/mtab").unlink(missing_ok=True)
    (root / "etc/mtab").symlink_to("../proc/self/mounts")
    options = "".join(f"{each};\n" for each in apt_options(_output("apt-config", "dump")))
    (root / _APT_OF_MACHINE).write_text(options)
    settings = pip_settings(_output(sys.executable, "-m", "pip", "config", "list"))
    lines = (f"{name} = {value}" for name, value in settings.items())
    (root / _PIP_OF_MACHINE).write_text("\n".join(["[global]", *lines, ""]))
    binds: list[str] = []
    for path in paths_in(settings.values()):
        if path.is_dir():
            binds.append(str(path))
        elif not (root / path.relative_to("/")).exists():
            (root / path.relative_to("/")).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, root / path.relative_to("/"))
            written.append(str(path.relative_to("/")))
    if place.user != "root":
        add = ["useradd", "-m", "-s", "/bin/bash", place.user]
        subprocess.run(["chroot", root, *add], check=True)
        sudoers = root / "etc/sudoers.d" / place.user
        sudoers.write_text(f"{place.user} ALL=(ALL) NOPASSWD: ALL\n")
        sudoers.chmod(0o440)
    clone = root / place.directory.lstrip("/")
    source = ["-c", f"safe.directory={ROOT}", "-c", f"safe.directory={ROOT}/.git"]
    git = ["git", *source, "clone", "--quiet", "--no-hardlinks", f"file://{ROOT}", str(clone)]
    subprocess.run(git, check=True)
    subprocess.run(["chroot", root, "chown", "-R", f"{place.user}:", place.directory], check=True)
    return binds, written


def commit_time_s() -> int:
    """Return when the commit was made that is tried or packaged, in seconds since the epoch."""
    safe = ("-c", f"safe.directory={ROOT}")
    return int(_output("git", *safe, "-C", str(ROOT), "log", "-1", "--format=%ct"))


def mirror_of(targets: str) -> str | None:
    """Return where apt fetches Debian's packages, by lines `ORIGIN|SITE`; None: not known."""
    for line in targets.splitlines():
        origin, _, site = line.partition("|")
        if origin == "Debian" and "security" not in site:
            return site
    return None


def apt_options(dump: str) -> list[str]:
    """Return the options by which apt reaches its mirrors (proxies, clocks), from its *dump*."""
    return [
        line.rstrip(";")
        for line in dump.splitlines()
        if line.startswith(_APT_OPTIONS) and not line.endswith('"";')
    ]


def pip_settings(listed: str) -> dict[str, str]:
    """Return the settings of `pip config list`, those of the environment over those of files."""
    settings = {}
    for prefix in ("global.", "install.", ":env:."):
        for line in listed.splitlines():
            name, _, value = line.partition("=")
            if name.startswith(prefix):
                words = value.strip("'\"").replace("\\n", " ").split()
                settings[name.removeprefix(prefix)] = " ".join(words)
    return settings


def paths_in(values: Iterable[str]) -> list[Path]:
    """Return the files and directories of this machine that *values* name, as path or URL.

    Of an index of packages (`…/simple`, PEP 503) the directory above it: its links may lead there.
    """
    paths = {}
    for word in (word for value in values for word in value.split()):
        path = Path(word.removeprefix("file://"))
        if path.is_absolute() and path.exists():
            paths[path.parent if path.name == "simple" else path] = None
    return list(paths)


def _output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
