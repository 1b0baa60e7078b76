"""A store whose name leads to dead addresses before the good one, read through a mount."""

from __future__ import annotations

import json
from urllib.parse import urlsplit

import pytest
from fakes.silence import silent_addresses
from mounted.mounting import RealMount
from reliability.conftest import MakeStand
from reliability.stand import MIB, Stand

from satfs.demo.catalogue import Catalogue, make_task
from satfs.demo.server import DemoOrigin

STORE = "store.test"
#: Of documentation (RFC 3849): no route leads there, or one that swallows packets.
DEAD_IPV6 = [f"2001:db8::{number}" for number in (1, 2, 3, 4)]
#: One connection that is waited for, in seconds.
CONNECT_TIMEOUT_S = 60.0
#: Less than that. A delay (RFC 8305) for each of four dead addresses is two seconds: once for the
#: loop, and once for a worker that is started meanwhile. The rest is for a busy machine.
READ_LIMIT_S = 50.0

#: Runs in the mount's process, and when the interpreter of a worker starts: workers are given the
#: mount's `sys.path`.
RESOLVER = """
import itertools, json, pathlib, socket
real = socket.getaddrinfo
turns = itertools.count()

def getaddrinfo(host, port, *arguments, **more):
    if host not in ({name!r}, {name!r}.encode()):
        return real(host, port, *arguments, **more)
    answers = json.loads(pathlib.Path({answers!r}).read_text())
    if not (addresses := answers[next(turns) % len(answers)]):
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
    return [
        (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (each, port, 0, 0)) if ":" in each
        else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port))
        for each in addresses
    ]

socket.getaddrinfo = getaddrinfo

connect = socket.socket.connect

def noted(self, address):
    with pathlib.Path({attempts!r}).open("a") as file:
        file.write(str(address[0]) + chr(10))
    return connect(self, address)

socket.socket.connect = noted
"""


def answer(stand: Stand, *answers: list[str]) -> None:
    """Have `STORE` lead to the addresses of one of *answers* after the other; none is EAI_AGAIN."""
    new = stand.directory / "answers.new"
    new.write_text(json.dumps(answers))
    new.rename(stand.directory / "answers.json")


#: No connection counts as silent: on a busy machine the origin is, and would be waited for anew.
WITHOUT_SILENCE = """
from satfs.net import host_limit
host_limit.MIN_SILENCE_S = host_limit.UNKNOWN_SILENCE_S = 600.0
"""


def mount_again(stand: Stand, addresses: list[str], more: str = "") -> None:
    """Mount again, with a mount and workers that resolve `STORE` to *addresses*.

    *more* runs in the mount's process.
    """
    directory = stand.directory / "names"
    directory.mkdir()
    answer(stand, addresses)
    text = RESOLVER.format(
        answers=str(stand.directory / "answers.json"),
        attempts=str(stand.directory / "attempts"),
        name=STORE,
    )
    (directory / "sitecustomize.py").write_text(text)
    stand.current.stop()
    stand.current.clean()
    log_path = stand.directory / "log.jsonl"
    sabotage = f"sys.path.insert(0, {str(directory)!r})\n{text}{more}"
    mount = RealMount(stand.root, stand.environment(), log_path, sabotage=sabotage)
    stand.mounts.append(mount)
    mount.start()


@pytest.mark.parametrize("n_dead", [1, 2, 4])
@pytest.mark.parametrize("kind", ["silent", "IPv6"])
def test_dead_addresses_are_paid_for_once(make_stand: MakeStand, kind: str, n_dead: int) -> None:
    """Sizes, small reads and bulk through workers: no read waits for a connect timeout."""
    stand = make_stand(
        workers=2,
        connect_timeout_s=CONNECT_TIMEOUT_S,
        read_deadline_s=100,
        metadata_deadline_s=100,
    )
    port = urlsplit(stand.origin.store_url).port
    assert port is not None
    with silent_addresses(n_dead, port) as (_, silent):
        dead = list(silent) if kind == "silent" else DEAD_IPV6[:n_dead]
        stand.origin.faults.add("link-by-name", "sign", host=STORE)
        mount_again(stand, [*dead, "127.0.0.1"], WITHOUT_SILENCE)
        stand.origin.store_line.bytes_per_s = 20e6
        scene, other = stand.publish(24 * MIB), stand.publish(MIB)
        with stand.opened(scene) as file:
            stand.compare(file, stand.content(scene), limit_s=READ_LIMIT_S)
        # Workers resolved the name as well, and connected past the dead addresses.
        assert not stand.current.events("connection refused")
        # What was learnt holds for later connections and files.
        attempts = stand.directory / "attempts"
        assert set(dead) & set(attempts.read_text().split())
        attempts.unlink()
        assert stand.stat(stand.path(other), READ_LIMIT_S).st_size == MIB
        stand.origin.drop_connections("store")
        with stand.opened(other) as file:
            stand.compare(file, stand.content(other), limit_s=READ_LIMIT_S)
        tried = set(attempts.read_text().split())
        assert "127.0.0.1" in tried
        assert not set(dead) & tried
    assert not stand.current.events("host counts as offline")


GOOD, MOVED, NO_ROUTE = "127.0.0.1", "127.0.0.2", DEAD_IPV6[0]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("what", ["fails", "changes", "moves"])
def test_a_name_whose_addresses_change(make_stand: MakeStand, what: str, workers: int) -> None:
    """While a file is read: right bytes.

    No answer for a moment (EAI_AGAIN), another one each time of which half lead nowhere, and a
    store that is at another address from now on.
    """
    stand = make_stand(workers=workers, connect_timeout_s=5, read_deadline_s=10)
    stand.origin.faults.add("link-by-name", "sign", host=STORE)
    mount_again(stand, [GOOD])
    scene = stand.publish(12 * MIB)
    content = stand.content(scene)
    with stand.opened(scene) as file:
        stand.compare(file, content, stop=2 * MIB)
        match what:
            case "fails":
                answer(stand, [], [], [GOOD])
                stand.origin.drop_connections("store")
            case "changes":
                answer(stand, [NO_ROUTE], [GOOD])
                stand.origin.drop_connections("store")
            case "moves":
                answer(stand, [MOVED])
                stand.origin.move("store", MOVED)
        stand.compare(file, content, start=2 * MIB)
    assert not stand.current.events("host counts as offline")


@pytest.mark.parametrize("workers", [0, 2])
def test_addresses_of_ipv6(make_stand: MakeStand, workers: int) -> None:
    """In the API's address and in links, and behind a name that has no other one."""
    stand = make_stand(origin=DemoOrigin(Catalogue([make_task(1)]), host="::1"), workers=workers)
    scene, other = stand.publish(8 * MIB), stand.publish(8 * MIB)
    with stand.opened(scene) as file:
        stand.compare(file, stand.content(scene))
    stand.origin.faults.add("link-by-name", "sign", host=STORE)
    mount_again(stand, ["::1"])
    with stand.opened(other) as file:
        stand.compare(file, stand.content(other))
