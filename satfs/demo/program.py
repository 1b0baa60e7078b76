"""The demo origin as a program: serve until a signal, or until the parent is gone.

The parent may send commands: one JSON object a line, one response a line.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import ssl
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final, TextIO

from satfs.demo.catalogue import Catalogue
from satfs.demo.contents import RampContent
from satfs.demo.request_log import as_plain
from satfs.demo.sample import many_scenes, many_tasks, sample_catalogue
from satfs.demo.scratch import default_directory
from satfs.demo.server import DemoOrigin
from satfs.demo.showcase import showcase_catalogue
from satfs.demo.tokens import DemoAccount


def _add_fault(origin: DemoOrigin, **given: Any) -> None:
    origin.faults.add(**given)


def _replace_by_ramp(
    origin: DemoOrigin,
    scene_id: str,
    size_bytes: int,
    seed: int = 0,
    attachment: str = "delivery_zip",
) -> None:
    origin.catalogue.replace(scene_id, RampContent(size_bytes, seed), attachment)


def _set_line(
    origin: DemoOrigin, side: str, latency_s: float = 0.0, bytes_per_s: float | None = None
) -> None:
    line = origin.api_line if side == "api" else origin.store_line
    line.latency_s, line.bytes_per_s = latency_s, bytes_per_s


#: Commands by the name in `do`; the other fields are keyword arguments.
COMMANDS: Final[Mapping[str, Callable[..., Any]]] = {
    "add_fault": _add_fault,
    "advance_clock": DemoOrigin.advance_clock,
    "bytes_sent": DemoOrigin.bytes_sent,
    "clear_faults": lambda origin: origin.faults.clear(),
    "clear_journal": lambda origin: origin.journal.clear(),
    "connections": lambda origin: dict(origin.journal.n_connections),
    "counts": lambda origin: origin.journal.counts(),
    "delete_key": DemoOrigin.delete_key,
    "drop_connections": lambda origin, sides=(): origin.drop_connections(*sides),
    "environment": DemoOrigin.environment,
    "expire_links": DemoOrigin.expire_links,
    "faults": lambda origin: [{"name": each.name, "hits": each.hits} for each in origin.faults],
    "leaks": lambda origin: as_plain(origin.leaks),
    "link": DemoOrigin.link,
    "lose_connections": lambda origin, sides=(): origin.lose_connections(*sides),
    "remove_scene": lambda origin, scene_id: origin.catalogue.remove_scene(scene_id),
    "replace_by_ramp": _replace_by_ramp,
    "requests": lambda origin, endpoint=None: as_plain(origin.journal.of(endpoint)),
    "resume_listening": lambda origin, sides=(): origin.resume_listening(*sides),
    "revoke_tokens": DemoOrigin.revoke_tokens,
    "scenes": lambda origin: [scene.scene_id for scene in origin.catalogue.published_scenes()],
    "set_line": _set_line,
    "set_status": lambda origin, capture_id, status: origin.catalogue.set_status(
        capture_id, status
    ),
    "stop_listening": lambda origin, sides=(): origin.stop_listening(*sides),
}


def obey(origin: DemoOrigin, line: str) -> str:
    """Carry out the command in a line; return the response: `{"result": …}` or `{"error": …}`."""
    try:
        order = json.loads(line)
        result = COMMANDS[order.pop("do")](origin, **order)
        return json.dumps({"result": result})
    except (ValueError, KeyError, TypeError, AttributeError) as failure:
        return json.dumps({"error": f"{type(failure).__name__}: {failure}"})


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m satfs.demo", description=__doc__)
    parser.add_argument("--catalogue", choices=("showcase", "sample"), default="showcase")
    parser.add_argument("--seed", type=int, default=1, help="another seed, other imagery")
    parser.add_argument("--large-mb", type=int, default=64, help="size of the one large zip, in MB")
    parser.add_argument("--data-dir", type=Path, help="where generated products are kept")
    parser.add_argument("--extra-tasks", type=int, default=0, help="number of further bare tasks")
    parser.add_argument(
        "--extra-scenes", type=int, default=0, help="number of scenes of one further capture"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address of both ports")
    parser.add_argument("--api-port", type=int, default=0)
    parser.add_argument("--store-port", type=int, default=0)
    parser.add_argument("--one-port", action="store_true", help="the store is at the API's port")
    parser.add_argument("--latency-ms", type=float, default=0.0, help="before each response")
    parser.add_argument("--store-latency-ms", type=float, help="if the store's is another")
    parser.add_argument("--connection-mb-s", type=float, help="MB/s of one store connection")
    parser.add_argument("--link-lifetime-s", type=int, default=3600)
    parser.add_argument("--token-lifetime-s", type=float, default=86_400.0)
    parser.add_argument("--contracts", type=int, default=1, help="contracts of the account")
    parser.add_argument("--legacy-keys", action="store_true", help="accept the Key,Secret header")
    parser.add_argument("--tls-certificate", type=Path, help="PEM, with the chain")
    parser.add_argument("--tls-key", type=Path, help="PEM")
    parser.add_argument("--ca-file", type=Path, help="named to clients in the environment")
    parser.add_argument("--control", action="store_true", help="commands on stdin; end with it")
    return parser.parse_args(arguments)


def _catalogue(options: argparse.Namespace) -> Catalogue:
    if options.catalogue == "sample":
        catalogue = sample_catalogue()
    else:
        kept = options.data_dir or default_directory()
        catalogue = showcase_catalogue(kept, seed=options.seed, large_mb=options.large_mb)
    for task in many_tasks(options.extra_tasks).tasks:
        catalogue.add_task(task)
    if options.extra_scenes:
        for task in many_scenes(options.extra_scenes).tasks:
            catalogue.add_task(task)
    return catalogue


def _origin(options: argparse.Namespace) -> DemoOrigin:
    tls = None
    if options.tls_certificate:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(options.tls_certificate, options.tls_key)
    contracts = list(DemoAccount().contracts)
    contracts += [(f"cont.00000000-0000-4000-8000-{n:012}", f"Contract {n}") for n in range(2, 99)]
    account = DemoAccount(
        contracts=tuple(contracts[: options.contracts]), accepts_legacy_keys=options.legacy_keys
    )
    latency_ms = options.store_latency_ms
    return DemoOrigin(
        _catalogue(options),
        account=account,
        latency_s=options.latency_ms / 1000,
        store_latency_s=None if latency_ms is None else latency_ms / 1000,
        bytes_per_s=options.connection_mb_s * 1e6 if options.connection_mb_s else None,
        link_lifetime_s=options.link_lifetime_s,
        token_lifetime_s=options.token_lifetime_s,
        tls=tls,
        ca_file=options.ca_file,
        host=options.host,
        api_port=options.api_port,
        store_port=options.store_port,
        one_port=options.one_port,
    )


def _print(out: TextIO, line: str) -> None:
    out.write(f"{line}\n")
    out.flush()


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT, or (with `--control`) until standard input ends.

    The first line on standard output, written when both ports respond, is a JSON object of the
    environment variables that point satfs here.
    """
    options = _options(arguments)
    started: Future[DemoOrigin] = Future()
    # SIGINT as well: a shell starts what runs in the background with it ignored.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.default_int_handler)
    if options.control:  # before anything is drawn: that ends with the parent, too
        threading.Thread(target=_listen, args=(started,), daemon=True).start()
    with contextlib.suppress(KeyboardInterrupt), _origin(options) as origin:
        _print(sys.stdout, json.dumps(origin.environment()))
        started.set_result(origin)
        threading.Event().wait()
    return 0


def _listen(started: Future[DemoOrigin]) -> None:
    for line in sys.stdin:
        _print(sys.stdout, obey(started.result(), line))
    os.kill(os.getpid(), signal.SIGTERM)
