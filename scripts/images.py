"""Build the container image of satfs upon a bare Debian, and try its root directory.

No registry is needed: the base is a bare Debian of `scripts/places`, given as `BASE`. The trial has
the image's own user, environment, entry point and stop signal, but no container engine: its root
directory is entered as those of `scripts/places` are.
"""

from __future__ import annotations

import hashlib
import io
import json
import shlex
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import takewhile
from pathlib import Path
from typing import Any, Final

from places import NOT_POSSIBLE, Place, Root, commit_time_s, root_of

#: The Debian below the image, and where the clone lies in the bare root.
BASE: Final = Place("trixie", "/srv/satfs")
TAG: Final = "localhost/satfs"
#: Packages that a bare machine has for the clone, and an image does without.
SLIM: Final = "DEBIAN_FRONTEND=noninteractive apt-get -yq purge --autoremove git > /dev/null"
#: Of all that is installed beside Debian's packages. numpy, which shapely needs, is the largest.
MAX_SIZE_BYTES: Final = 150_000_000

#: Run by root in the image's root directory. The variables are set before it, from the image.
TEST: Final = r"""
set -euo pipefail
cd /
step() { echo "── $*"; }
as_image=(setpriv --reuid="$user" --regid="$user" --init-groups
    env -i "${environment[@]}" "HOME=/home/$user")

step "nothing of the machine that built it, and all licences"
for path in /etc/pip.conf /etc/apt/apt.conf.d/90machine /etc/apt/apt.conf.d/99mmdebstrap; do
    test ! -e "$path"
done
if [[ -s /etc/resolv.conf ]]; then exit 1; fi
grep -q '^pyfuse3 .*: LGPL' /opt/satfs/share/doc/LICENCES.txt
test -s /usr/share/doc/libc6/copyright

step "not root"
test "$("${as_image[@]}" id -u)" -ne 0

step "health: bad before there is a mount"
if "${as_image[@]}" "${health[@]}"; then exit 1; fi

step "entry point and command: a mount"
"${as_image[@]}" "${command[@]}" &
deadline=$((SECONDS + 30))
until findmnt --noheadings /mnt/aleph > /dev/null; do
    ((SECONDS < deadline))
    sleep 0.1
done
until "${as_image[@]}" "${health[@]}"; do ((SECONDS < deadline)); sleep 0.1; done
file=$("${as_image[@]}" find /mnt/aleph/tasks -name '*.zip' | head -1)
"${as_image[@]}" python3 -m zipfile -t "$file"

step "$signal: unmounted within five seconds"
kill "-$signal" "$!"
deadline=$((SECONDS + 5))
wait "$!"
((SECONDS <= deadline))
test -z "$(findmnt --noheadings --types fuse.satfs)"
"""


def build_and_try(cache: Path, output: Path, demo: Sequence[str], *, test: bool) -> int:
    """Put the image into *output* as an archive of podman's; return 0, 1 or NOT_POSSIBLE.

    Args:
        cache: where bare machines are kept, and what is built meanwhile.
        output: the directory of all packages.
        demo: the command that serves the demo, and prints the environment that leads to it.
        test: also run the image.
    """
    if shutil.which("buildah") is None:
        print("buildah is not installed")
        return NOT_POSSIBLE
    with root_of(BASE, cache) as root:
        if root is None:
            return NOT_POSSIBLE
        with storage(cache) as buildah, tempfile.TemporaryDirectory(dir=cache) as directory:
            context = Path(directory, "context")
            shutil.move(root.directory / BASE.directory.lstrip("/"), context)
            if root.run("root", SLIM) or not build(buildah, root, context):
                return 1
            finish(buildah, root, cache / f"{BASE.release}.tar", commit_time_s())
            pushed, archive = Path(directory, "pushed.tar"), output / "satfs-image.tar"
            _run(*buildah, "push", "--quiet", TAG, f"docker-archive:{pushed}")
            write_archive(pushed, archive)
            return try_out(buildah, archive, root.binds, demo) if test else 0


@contextmanager
def storage(cache: Path) -> Iterator[list[str]]:
    """Yield the start of each buildah command; what it stores is removed afterwards."""
    place = Path(tempfile.mkdtemp(prefix="images-", dir=cache))
    try:
        yield [
            *("buildah", "--storage-driver", "vfs"),
            *("--root", str(place / "root"), "--runroot", str(place / "run")),
        ]
    finally:
        shutil.rmtree(place, ignore_errors=True)


def build(buildah: Sequence[str], root: Root, context: Path) -> bool:
    """Build the image of the clone in *context*, upon *root*; return whether that succeeded."""
    base = _output(*buildah, "from", "scratch")
    _run(*buildah, "add", "--quiet", base, str(root.directory), "/")
    _run(*buildah, "commit", "--quiet", "--rm", base, "satfs-base")
    binds = [word for path in root.binds for word in ("--volume", f"{path}:{path}:ro")]
    command = [
        *(*buildah, "build", "--isolation", "chroot", "--format", "docker", *binds),
        *("--build-arg", "BASE=localhost/satfs-base", "--pull-never", "--tag", TAG, str(context)),
    ]
    return subprocess.run(command, check=False).returncode == 0


def finish(buildah: Sequence[str], root: Root, archive: Path, time_s: int) -> None:
    """Make the image one layer, with *time_s* as the only time in it, and nothing of this machine.

    Args:
        buildah: the start of each command.
        root: the root directory upon which the image was built.
        archive: the bare Debian from which *root* was made; its public authorities are Debian's.
        time_s: seconds since the epoch.
    """
    container = _output(*buildah, "from", "--pull-never", TAG)
    directory = Path(_output(*buildah, "mount", container))
    for name in root.written:
        (directory / name).unlink(missing_ok=True)
    for name in root.binds:  # they are mountpoints here
        if (mountpoint := directory / name.lstrip("/")).is_dir():
            mountpoint.rmdir()
    # A container engine writes these, for each container.
    for name in ("etc/resolv.conf", "etc/hosts", "etc/hostname"):
        (directory / name).write_text("")
    authorities = "./etc/ssl/certs/ca-certificates.crt"
    _run("tar", "-C", str(directory), "-xf", str(archive), authorities)
    commit = ("commit", "--quiet", "--squash", "--format", "docker", "--timestamp", str(time_s))
    _run(*buildah, *commit, "--rm", container, TAG)


def write_archive(pushed: Path, archive: Path) -> None:
    """Write the image in *pushed*, of buildah, to *archive*, the same bytes at each build.

    That leaves out the container in which it was built, and its host name. There is what
    `docker load` and `podman load` read.
    """
    with tarfile.open(pushed) as source, tarfile.open(archive, "w") as target:

        def read(name: str) -> Any:
            stream = source.extractfile(name)
            return None if stream is None else json.load(stream)

        def add(name: str, content: Any) -> str:
            text = json.dumps(content, sort_keys=True).encode()
            name = name or f"{hashlib.sha256(text).hexdigest()}.json"
            member = tarfile.TarInfo(name)
            member.size = len(text)
            target.addfile(member, io.BytesIO(text))
            return name

        (image,) = read("manifest.json")
        config = read(image["Config"])
        config = {key: value for key, value in config.items() if not key.startswith("container")}
        config["config"]["Hostname"] = ""
        named = add("", config)
        for layer in image["Layers"]:
            member = tarfile.TarInfo(layer)
            member.size = source.getmember(layer).size
            target.addfile(member, source.extractfile(layer))
        manifest = {"Config": named, "RepoTags": ["satfs:latest"], "Layers": image["Layers"]}
        add("manifest.json", [manifest])


def try_out(
    buildah: Sequence[str], archive: Path, binds: Sequence[str], demo: Sequence[str]
) -> int:
    """Return 0 when the image in *archive*, run as it says that it is run, mounts and ends."""
    image_id = _output(*buildah, "pull", "--quiet", f"docker-archive:{archive}")
    image = json.loads(_output(*buildah, "inspect", "--type", "image", image_id))
    config = image["Docker"]["config"]
    container = _output(*buildah, "from", "--pull-never", image_id)
    root = Root(Path(_output(*buildah, "mount", container)), binds)
    installed = str(root.directory / "opt/satfs")
    size_bytes = int(_output("du", "--bytes", "--summarize", installed).split()[0])
    print(f"satfs and its libraries have {size_bytes / 1e6:.0f} MB")
    if size_bytes > MAX_SIZE_BYTES:
        print(f"that is more than {MAX_SIZE_BYTES / 1e6:.0f} MB")
        return 1
    with serving(demo) as exports:
        return root.run("root", f"{exports}\n{settings_of(config)}\n{TEST}")


def settings_of(config: dict[str, Any]) -> str:
    """Return lines of bash that set what *config*, of an image, says of its process."""
    health = config["Healthcheck"]["Test"]
    lists = {
        "environment": config["Env"],
        "command": [*config["Entrypoint"], *config["Cmd"]],
        "health": health[1:],  # the first word is CMD
    }
    lines = [f"{name}=({shlex.join(words)})" for name, words in lists.items()]
    # The demo's settings come by variables, as a container engine's --env-file brings them.
    lines.append('for name in ${!SATFS_*}; do environment+=("$name=${!name}"); done')
    lines.append(f"user={shlex.quote(config['User'])}")
    lines.append(f"signal={shlex.quote(config['StopSignal'].removeprefix('SIG'))}")
    return "\n".join(lines)


@contextmanager
def serving(demo: Sequence[str]) -> Iterator[str]:
    """Run the demo, and yield the lines of its output that export an environment."""
    merged = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(demo, text=True, **merged) as process:
        try:
            # A sentence for people follows the lines, and ends them.
            printed = process.stdout or ()
            yield "".join(takewhile(lambda line: line.startswith("export "), printed))
        finally:
            process.terminate()


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _output(*command: str) -> str:
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return done.stdout.strip()
