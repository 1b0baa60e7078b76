"""Build the packages of satfs on bare Debians, and try them on others that never saw a build.

Bare Debians are those of `scripts/places`. The version of the package is that of satfs, with the
release it is for behind it; its day is that of the commit, so that a build can be repeated.
"""

from __future__ import annotations

import argparse
import email.utils
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import images
from places import NOT_POSSIBLE, ROOT, USER, Place, commit_time_s, root_of

#: Each release with the suffix of its packages: a later release's must compare as newer.
RELEASES: Final[Mapping[str, str]] = {"bookworm": "~deb12u1", "trixie": "~deb13u1"}
#: The container image, and the wheel that pipx installs, among the packages.
IMAGE: Final = "image"
WHEEL: Final = "wheel"
#: Where the source lies on the bare machine.
SOURCE: Final = "/srv/satfs"

#: Run by root where the package is built. lintian's errors fail the build; warnings are shown.
BUILD: Final = r"""
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
apt-get -q update > /dev/null
apt-get -yq install --no-install-recommends build-essential debhelper lintian > /dev/null
cd /srv/satfs
apt-get -yq build-dep --no-install-recommends . > /dev/null
dpkg-buildpackage --build=binary --no-sign
lintian --fail-on error --allow-root /srv/satfs_*.deb
"""

#: Run by root on a bare machine, where /srv holds the package and a copy with a later version.
#: The demo is anna's; a mount must outlive the upgrade, and nothing the purge.
TEST: Final = r"""
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
as_user() { su -l anna -c "$1"; }
step() { echo "── $*"; }
apt-get -q update > /dev/null

step "install: no pip, no compiler"
apt-get -yq install --no-install-recommends /srv/former/satfs_*.deb > /dev/null
if command -v pip3 gcc; then exit 1; fi
satfs --version --verbose
test -s /usr/share/man/man1/satfs-mount.1.gz
test -s /usr/share/bash-completion/completions/satfs
test -s /usr/lib/systemd/user/satfs@.service
test -z "$(find /usr/lib/satfs ! -user root)"

step "mount(8) knows the type"
mkdir /mnt/aleph
code=0; mount -t satfs satfs:default /mnt/aleph 2> /tmp/said || code=$?
cat /tmp/said
test "$code" -ne 0
if grep -q "unknown filesystem type" /tmp/said; then exit 1; fi
grep -qi "login" /tmp/said  # its own words: nobody has logged in here

step "mount(8) mounts, also by fstab"
satfs demo --serve-only > /tmp/served 2>&1 &
server=$!
until grep -qv '^export ' /tmp/served; do kill -0 "$server"; sleep 0.1; done
eval "$(grep '^export ' /tmp/served)"
echo "satfs:default /mnt/aleph satfs noauto,_netdev 0 0" >> /etc/fstab
for command in "mount -t satfs satfs:default /mnt/aleph" "mount /mnt/aleph"; do
    $command
    ls /mnt/aleph/tasks | grep -q .
    umount /mnt/aleph
done
sed -i '/ satfs /d' /etc/fstab
unset "${!SATFS_@}"
kill "$server"
wait "$server" || true

step "the demo: mount, list, read"
as_user "satfs demo ~/demo > /dev/null"
task=$(as_user "ls -d ~/demo/tasks/* | head -1")
file=$(as_user "find $task/ -name '*.zip' | head -1")
before=$(as_user "sha256sum < '$file'")
as_user "python3 -m zipfile -t '$file'"

step "upgrade: the mount goes on, configuration stays"
mkdir -p /etc/satfs && echo 'listing_ttl_s = 61' > /etc/satfs/config.toml
apt-get -yq install --no-install-recommends /srv/later/satfs_*.deb > /dev/null
satfs --version | grep -q '+later$'
test "$(as_user "sha256sum < '$file'")" = "$before"
as_user "cat '$file' > /dev/null && satfs status ~/demo > /dev/null"
grep -q 61 /etc/satfs/config.toml
as_user "satfs config show" | grep "listing_ttl_s = 61"

step "remove: no mount is left"
apt-get -yq remove satfs > /dev/null
test -z "$(findmnt --noheadings --types fuse.satfs)"
for path in /usr/lib/satfs /usr/bin/satfs /usr/sbin/mount.satfs; do test ! -e "$path"; done
grep -q 61 /etc/satfs/config.toml  # an administrator's file, not ours

step "purge: nothing is left"
# A package leaves home directories alone: these are root's own files.
rm -r /etc/satfs /root/.cache/satfs /root/.cache/satfs-demo
dpkg --purge satfs > /dev/null
left=$(find /boot /etc /opt /run /usr /var /root -xdev \( -path /var/log -o -path /var/cache/apt \
    -o -path /var/lib/apt \) -prune -o -name '*satfs*' -print)
echo "${left:-nothing is left}"
test -z "$left"
for process in /proc/[0-9]*; do
    if tr '\0' ' ' < "$process/cmdline" 2> /dev/null | grep -q '^/usr/lib/satfs'; then
        echo "still runs: $process"
        exit 1
    fi
done
"""

#: Run by root on a bare machine with a clone in anna's home: the packages that docs/installing.md
#: names, a wheel built from an sdist, and what that page has people type.
WHEEL_TEST: Final = r"""
set -euo pipefail
export DEBIAN_FRONTEND=noninteractive
as_user() { su -l anna -c "$1"; }
step() { echo "── $*"; }

step "the packages of the system, as docs/installing.md has them"
apt-get -q update > /dev/null
packages=$(sed -n 's/^\$ sudo apt install \(.*pipx.*\)/\1/p' ~anna/satfs/docs/installing.md)
test -n "$packages"
apt-get -yq install $packages > /dev/null

step "the README: from the clone"
as_user "cd satfs && pipx install '.[demo]' && ~/.local/bin/satfs --version && pipx uninstall satfs"

step "build: an sdist, and a wheel of it"
as_user "cd satfs && pipx run build > /dev/null && mv dist/*.whl ~ && cd && rm -rf satfs"
as_user "pipx install \$(ls ./satfs-*.whl)'[demo]' && pipx ensurepath > /dev/null"
as_user "satfs --version --verbose"
as_user "find .local -name satfs-mount.1 | grep ."

step "the demo: mount, list, read"
as_user "satfs demo ~/demo > /dev/null"
file=$(as_user "find demo/tasks/*/*/*/ -name '*.zip' | head -1")
before=$(as_user "sha256sum < '$file'")
as_user "python3 -m zipfile -t '$file'"

step "upgrade: the mount goes on"
as_user "pipx install --force \$(ls ./satfs-*.whl)'[demo]' > /dev/null"
test "$(as_user "sha256sum < '$file'")" = "$before"
as_user "satfs status ~/demo > /dev/null"

step "remove: nothing is left but caches"
as_user "satfs umount ~/demo && satfs cache clear && pipx uninstall satfs && rm satfs-*.whl"
if as_user "command -v satfs"; then exit 1; fi
test -z "$(findmnt --noheadings --types fuse.satfs)"
left=$(find ~anna -name '*satfs*' -not -path '*/.cache/*' -print)
echo "${left:-nothing is left}"
test -z "$left"
"""


def main(arguments: Sequence[str]) -> int:
    """Return 0 when each package is built and each requested trial succeeds."""
    parser = argparse.ArgumentParser("scripts/packages", description=__doc__.splitlines()[0])
    parser.add_argument(
        "packages", nargs="*", metavar="PACKAGE", help="bookworm, trixie, wheel, image [all]"
    )
    parser.add_argument("--test", action="store_true", help="try each package on a bare machine")
    parser.add_argument("--demo", default="satfs", help="the satfs that serves the image's trial")
    parser.add_argument(
        "--no-build", action="store_true", help="take the packages that are in dist/"
    )
    wanted = parser.parse_args(arguments)
    known = (*RELEASES, WHEEL, IMAGE)
    if unknown := [name for name in wanted.packages if name not in known]:
        parser.error(f"no package is called {unknown[0]}; there are: {', '.join(known)}")
    cache = Path(os.environ["SATFS_PLACES_CACHE"])
    cache.mkdir(parents=True, exist_ok=True)
    output = ROOT / "dist"
    output.mkdir(exist_ok=True)
    codes = {}
    for name in wanted.packages or known:
        print(f"\n══ {name}", flush=True)
        if name == IMAGE:
            demo = (wanted.demo, "demo", "--serve-only", "--large-mb", "8")
            code = images.build_and_try(cache, output, demo, test=wanted.test)
        elif name == WHEEL:
            code = try_wheel(cache) if wanted.test else 0  # scripts/release builds it
        else:
            code = 0 if wanted.no_build else build(name, cache, output)
            if code == 0 and wanted.test:
                code = try_out(name, cache, output)
        codes[name] = code
        print(f"══ {name}: {'green' if code == 0 else f'exit code {code}'}", flush=True)
    if any(code not in (0, NOT_POSSIBLE) for code in codes.values()):
        return 1
    return max(codes.values())


def build(release: str, cache: Path, output: Path) -> int:
    """Put the package for *release* into *output*; return 0, 1, or NOT_POSSIBLE."""
    with root_of(Place(release, SOURCE), cache) as root:
        if root is None:
            return NOT_POSSIBLE
        source = root.directory / SOURCE.lstrip("/")
        version = f"{version_of(source)}{RELEASES[release]}"
        (author,) = re.findall(r"(?m)^Maintainer: (.*)$", (source / "debian/control").read_text())
        changelog = debian_changelog(version, release, author, commit_time_s())
        (source / "debian/changelog").write_text(changelog)
        if code := root.run("root", BUILD):
            return code
        for package in source.parent.glob("satfs_*.deb"):
            shutil.copy(package, output)
    return 0


def try_out(release: str, cache: Path, output: Path) -> int:
    """Return 0 when the newest package for *release* in *output* installs, works and leaves."""
    found = sorted(output.glob(f"satfs_*{RELEASES[release]}_*.deb"), key=os.path.getmtime)
    if not found:
        print(f"there is no package for {release} in {output}")
        return 1
    with root_of(Place(release, SOURCE, USER), cache) as root:
        if root is None:
            return NOT_POSSIBLE
        srv = root.directory / "srv"
        shutil.rmtree(srv / "satfs")  # the clone: what is tried must not find it
        (srv / "former").mkdir()
        (srv / "later").mkdir()
        shutil.copy(found[-1], srv / "former")
        relabel(found[-1], srv / "later")
        return root.run("root", TEST)


def try_wheel(cache: Path) -> int:
    """Return 0 when a wheel of what is committed installs by pipx, works and leaves, everywhere."""
    for release in RELEASES:
        print(f"── pipx on {release}", flush=True)
        with root_of(Place(release, f"/home/{USER}/satfs", USER), cache) as root:
            if root is None:
                return NOT_POSSIBLE
            if code := root.run("root", WHEEL_TEST):
                return code
    return 0


def relabel(package: Path, directory: Path) -> None:
    """Put a copy of *package* into *directory* whose version, also of satfs, is a later one."""
    unpacked = directory / "unpacked"
    subprocess.run(["dpkg-deb", "-R", package, unpacked], check=True)
    control = unpacked / "DEBIAN" / "control"
    control.write_text(re.sub(r"(?m)^(Version: .*)$", r"\1+later", control.read_text()))
    (module,) = unpacked.glob("usr/lib/satfs/lib/python3*/site-packages/satfs/__init__.py")
    module.write_text(re.sub(r'(?m)^(__version__ = ".*)"$', r'\1+later"', module.read_text()))
    # Quick, not small: it is read once.
    subprocess.run(
        ["dpkg-deb", "-Znone", "-b", unpacked, directory / "satfs_later.deb"], check=True
    )
    shutil.rmtree(unpacked)


def version_of(source: Path) -> str:
    """Return the version of the satfs in *source*."""
    text = (source / "satfs" / "__init__.py").read_text(encoding="utf-8")
    (version,) = re.findall(r'(?m)^__version__ = "(.+)"$', text)
    return str(version)


def debian_changelog(version: str, release: str, author: str, day_s: int) -> str:
    """Return the text of debian/changelog: one entry, which leads to CHANGELOG.md."""
    day = email.utils.formatdate(day_s)
    return (
        f"satfs ({version}) {release}; urgency=medium\n\n"
        f"  * What has changed is in CHANGELOG.md.\n\n -- {author}  {day}\n"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
