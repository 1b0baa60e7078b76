"""Commands of the parent of a demo process: one JSON object a line, one response a line."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from satfs.demo.contents import RampContent
from satfs.demo.request_log import as_plain
from satfs.demo.server import DemoOrigin


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
