"""The API and the object store behind one port, as behind one balancer. *Pure*."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from satfs.demo.api import Api
from satfs.demo.faults import Fault
from satfs.demo.responses import Request, Response
from satfs.demo.store import BUCKET, Store


@dataclass
class BothServices:
    """Chooses by the path: the objects are below the name of the bucket."""

    side: ClassVar[str] = "both"
    api: Api
    store: Store

    def endpoint(self, request: Request) -> str:
        """Return the name of the endpoint."""
        return self._of(request).endpoint(request)

    def leak(self, request: Request) -> str | None:
        """Return which credential the request carries where it must not be, or None."""
        return self._of(request).leak(request)

    def respond(self, request: Request, now_s: float, faults: Sequence[Fault] = ()) -> Response:
        """Return the response to one request."""
        return self._of(request).respond(request, now_s, faults)

    def _of(self, request: Request) -> Api | Store:
        return self.store if request.raw_path.startswith(f"/{BUCKET}/") else self.api
