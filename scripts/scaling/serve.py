"""An origin with deliveries of known bytes, for the measurements: prints its settings as JSON."""

from __future__ import annotations

import argparse
import json
import ssl
import sys
from pathlib import Path

from satfs.demo.catalogue import Catalogue, make_capture, make_delivery, make_scene, make_task
from satfs.demo.contents import RampContent
from satfs.demo.server import DemoOrigin


def catalogue_of(n_scenes: int, size_bytes: int) -> Catalogue:
    """Return one task with scenes `s0`, `s1` …, each with a delivery of *size_bytes*."""
    scenes = [
        make_scene(f"s{n}", [make_delivery(f"s{n}", RampContent(size_bytes, n + 1))])
        for n in range(n_scenes)
    ]
    return Catalogue([make_task(1, [make_capture("capture", scenes)])])


def main() -> None:
    """Serve until standard input ends; each line requests the counts so far."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--scenes", type=int, default=1)
    parser.add_argument("--scene-mb", type=float, default=64)
    parser.add_argument("--latency-ms", type=float, default=0)
    parser.add_argument("--connection-mb-s", type=float)
    parser.add_argument("--certificate", type=Path)
    parser.add_argument("--key", type=Path)
    parser.add_argument("--ca-file", type=Path)
    options = parser.parse_args()
    tls = None
    if options.certificate:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(options.certificate, options.key)
    with DemoOrigin(
        catalogue_of(options.scenes, int(options.scene_mb * 1e6)),
        latency_s=options.latency_ms / 1000,
        bytes_per_s=options.connection_mb_s * 1e6 if options.connection_mb_s else None,
        tls=tls,
        ca_file=options.ca_file,
        host=options.host,
    ) as origin:
        links = {f"s{n}": origin.link(f"s{n}") for n in range(options.scenes)}
        print(json.dumps({"environment": origin.environment(), "links": links}), flush=True)
        for _ in sys.stdin:
            origin.journal.wait_until_idle()
            counts = {"sent_bytes": origin.bytes_sent(), "counts": origin.journal.counts()}
            origin.journal.clear()
            print(json.dumps(counts), flush=True)


if __name__ == "__main__":
    main()
