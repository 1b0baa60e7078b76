"""updatedb and desktop indexers, set up in ways that would have them read a mount."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from doctor.conftest import MadeUp, only
from hypothesis import given
from hypothesis import strategies as st

from satfs.doctor import crawlers
from satfs.doctor.findings import Severity
from satfs.doctor.machine import ProgramResult
from satfs.fuse.crawlers import CrawlerRules, crawler_rules

DEBIAN = """\
PRUNE_BIND_MOUNTS="yes"
# PRUNENAMES=".git .bzr .hg .svn"
PRUNEPATHS="/tmp /var/spool /media /var/lib/os-prober /var/lib/ceph /home/.ecryptfs"
PRUNEFS="NFS afs autofs binfmt_misc ceph cgroup fuse.glusterfs fuse.sshfs sysfs tmpfs"
"""
ALEPH = Path("/mnt/aleph")
KEEPS_OUT, LETS_IN = crawler_rules("default"), crawler_rules("none")
MINE = "30 1 0:50 / /mnt/aleph ro - fuse.satfs satfs:x ro,user_id=1000"


def test_debians_own_leaves_us_in(made: MadeUp) -> None:
    """A note while root cannot get in, or is kept out there; else a warning."""

    def severity(line: str, guard: CrawlerRules) -> Severity:
        made.mount(line)
        return only(crawlers.updatedb(made.machine, [ALEPH], guard)).severity

    made.write("/etc/updatedb.conf", DEBIAN)
    assert severity(MINE, LETS_IN) is Severity.NOTE
    for lets_root_in in (f"{MINE},allow_other", f"{MINE},allow_root", MINE.replace("1000", "0")):
        assert severity(lets_root_in, LETS_IN) is Severity.WARNING
        assert severity(lets_root_in, KEEPS_OUT) is Severity.NOTE


def test_every_indexer_that_is_looked_for_is_kept_out_by_a_mount(made: MadeUp) -> None:
    """Unless the settings let them all in: then an indexer is worth a warning."""
    for comm in crawlers.INDEXERS:
        run_indexer(made, comm)
        places = [made.machine.home / "aleph"]
        kept_out = only(crawlers.indexers(made.machine, places, KEEPS_OUT))
        let_in = only(crawlers.indexers(made.machine, places, LETS_IN))
        assert (kept_out.severity, let_in.severity) == (Severity.NOTE, Severity.WARNING)


@pytest.mark.parametrize("text", [DEBIAN, 'PRUNEFS = ""\n', "# empty\n", 'PRUNEPATHS="/tmp"\n'])
def test_the_remedy_mends_it_and_leaves_the_rest_alone(made: MadeUp, text: str) -> None:
    file = made.write("/etc/updatedb.conf", text)
    (command,) = only(crawlers.updatedb(made.machine, [], KEEPS_OUT)).commands

    here = command.replace("sudo ", "").replace(crawlers.UPDATEDB_CONF, os.fspath(file))
    subprocess.run(here, shell=True, check=True, stdout=subprocess.DEVNULL)

    assert only(crawlers.updatedb(made.machine, [], KEEPS_OUT)).severity is Severity.OK
    before, after = crawlers.parse_updatedb(text), crawlers.parse_updatedb(file.read_text())
    assert after.types == before.types | {"fuse.satfs"}
    assert after.paths == before.paths


def test_a_mountpoint_in_a_pruned_path_is_left_out_too(made: MadeUp) -> None:
    made.write("/etc/updatedb.conf", DEBIAN)

    fine = only(crawlers.updatedb(made.machine, [Path("/media/me/aleph")], KEEPS_OUT))
    both = only(
        crawlers.updatedb(made.machine, [Path("/media/me/aleph"), Path("/mediathek")], KEEPS_OUT)
    )

    assert (fine.severity, both.severity) == (Severity.OK, Severity.NOTE)


def test_without_updatedb_nobody_walks(made: MadeUp) -> None:
    assert only(crawlers.updatedb(made.machine, [ALEPH], KEEPS_OUT)).severity is Severity.OK

    made.program("updatedb")  # without a configuration it walks everything
    assert only(crawlers.updatedb(made.machine, [ALEPH], KEEPS_OUT)).severity is Severity.NOTE


@given(st.text() | st.lists(st.sampled_from(["PRUNEFS", "=", '"', " ", "fuse.satfs", "\n"])))
def test_any_text_is_a_configuration(text: str | list[str]) -> None:
    crawlers.parse_updatedb("".join(text))


def run_indexer(made: MadeUp, comm: str, pid: int = 4711) -> None:
    """Let a program run; it is the machine's user's, as are the files of this test."""
    made.uid = os.getuid()
    made.write(f"/proc/{pid}/comm", f"{comm}\n")


@pytest.mark.parametrize(
    ("comm", "name"),
    [
        ("tracker-miner-f", "Tracker"),
        ("localsearch-3", "LocalSearch"),
        ("baloo_file", "Baloo"),
        ("baloo_file_extr", "Baloo"),
    ],
)
def test_an_indexer_that_runs_is_told_of_mounts_in_the_home(
    made: MadeUp, comm: str, name: str
) -> None:
    run_indexer(made, comm)
    place = made.machine.home / "aleph"

    inside = only(crawlers.indexers(made.machine, [place], KEEPS_OUT))
    outside = only(crawlers.indexers(made.machine, [ALEPH], KEEPS_OUT))

    assert (inside.severity, outside.severity) == (Severity.NOTE, Severity.OK)
    assert inside.statement.startswith(f"{name} indexes your home")
    assert inside.commands


def test_other_users_indexers_do_not_count(made: MadeUp) -> None:
    run_indexer(made, "baloo_file")
    made.uid = os.getuid() + 1

    assert only(crawlers.indexers(made.machine, [], KEEPS_OUT)).statement == (
        "No desktop indexer runs or is set up."
    )


@pytest.mark.parametrize(
    ("text", "is_on"),
    [
        ("[Basic Settings]\nIndexing-Enabled=true\n", True),
        ("[General]\nfolders[$e]=$HOME/\n", True),
        ("[Basic Settings]\nIndexing-Enabled=false\n", False),
        ("no ini at all", False),
    ],
)
def test_an_indexer_that_is_set_up_counts_before_it_runs(
    made: MadeUp, text: str, is_on: bool
) -> None:
    made.environment["XDG_CONFIG_HOME"] = os.fspath(made.root / "config")
    made.write("/config/baloofilerc", text)

    finding = only(crawlers.indexers(made.machine, [made.machine.home / "aleph"], KEEPS_OUT))

    assert ("Baloo" in finding.statement) is is_on


def test_trackers_own_list_is_kept_and_added_to(made: MadeUp) -> None:
    run_indexer(made, "tracker-miner-f")
    made.program("gsettings")
    made.responses["gsettings"] = ProgramResult(0, "['po', 'CVS', 'core-dumps']\n")

    (command,) = only(
        crawlers.indexers(made.machine, [made.machine.home / "my aleph"], KEEPS_OUT)
    ).commands

    assert command.endswith("""ignored-directories '['"'"'po'"'"', '"'"'CVS'"'"', """
                            """'"'"'core-dumps'"'"', '"'"'my aleph'"'"']'""")  # fmt: skip
