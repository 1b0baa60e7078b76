"""`DemoOrigin`: both ports in a thread of this process, with everything at hand for a test."""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar

from satfs.demo.api import Api, PageLimits
from satfs.demo.both_services import BothServices
from satfs.demo.catalogue import Attachment, Catalogue, object_path
from satfs.demo.connections import Line, ServicePort
from satfs.demo.faults import Fault, FaultTable, named
from satfs.demo.request_log import Leak, LoggedRequest, RequestLog
from satfs.demo.sample import sample_catalogue
from satfs.demo.signing import SigningKey, presign
from satfs.demo.store import BUCKET, Store
from satfs.demo.tokens import DemoAccount, TokenOffice

T = TypeVar("T")

_KEY = SigningKey("AKIADEMOORIGIN", "a secret of the demo's vendor, never sent anywhere")


class DemoOrigin:
    """An API and an object store on two loopback ports, served by a thread of this process.

    A context manager. Its parts may be used from any thread while it runs:

        origin.catalogue        publish, withdraw, replace (`Catalogue`)
        origin.faults           break things by name (`FaultTable.add`)
        origin.requests, counts(), bytes_sent(), leaks      what happened (`RequestLog`)
        origin.environment()    the `SATFS_*` variables that lead here

    Args:
        catalogue: tasks, captures and scenes; by default the small one of `sample_catalogue`.
        account: the customer's credentials and contracts.
        page_limits: default and maximum page size.
        latency_s: delay before each response of the API, and of the store without
            *store_latency_s*.
        bytes_per_s: speed of one connection to the store, paced by the kernel where it can be.
        link_lifetime_s, token_lifetime_s: how long links and tokens live, in seconds; whole
            seconds for links.
        tls: the server side of TLS for both ports; *ca_file* then goes into the environment.
        api_port, store_port: 0 chooses free ones.
        one_port: the store is at the API's port, and has its line; a limit on connections is one
            for both (endpoint `*`).
    """

    def __init__(
        self,
        catalogue: Catalogue | None = None,
        *,
        account: DemoAccount | None = None,
        page_limits: PageLimits | None = None,
        latency_s: float = 0.0,
        store_latency_s: float | None = None,
        bytes_per_s: float | None = None,
        link_lifetime_s: int = 3600,
        token_lifetime_s: float = 86_400.0,
        tls: ssl.SSLContext | None = None,
        ca_file: Path | None = None,
        host: str = "127.0.0.1",
        api_port: int = 0,
        store_port: int = 0,
        keepalive_s: float = 75.0,
        one_port: bool = False,
    ) -> None:
        self.catalogue = sample_catalogue() if catalogue is None else catalogue
        self.account = account or DemoAccount()
        self.faults = FaultTable()
        self.journal = RequestLog()
        self.link_lifetime_s = link_lifetime_s
        self.ca_file = ca_file
        self._clock_offset_s = 0.0
        self._sessions: dict[str, float] = {}
        self._signed: dict[str, str] = {}  # by address, the link handed out last
        self._keys = [_KEY]
        self.office = TokenOffice(self.account, token_lifetime_s)
        self.api = Api(self.catalogue, self.office, self._sign, page_limits or PageLimits())
        self.store = Store(self.catalogue, self._keys, self._sessions, self._is_secret)
        common: dict[str, Any] = {
            "faults": self.faults,
            "journal": self.journal,
            "now_s": self.now_s,
            "host": host,
            "tls": tls,
            "keepalive_s": keepalive_s,
        }
        self.api_line = Line(latency_s)
        self.store_line = Line(
            latency_s if store_latency_s is None else store_latency_s, bytes_per_s
        )
        if one_port:
            self.api_line = self.store_line
            both = ServicePort(
                BothServices(self.api, self.store), line=self.store_line, port=api_port, **common
            )
            self._ports = {"api": both, "store": both}
        else:
            self._ports = {
                "api": ServicePort(self.api, line=self.api_line, port=api_port, **common),
                "store": ServicePort(self.store, line=self.store_line, port=store_port, **common),
            }
        self._scheme = "https" if tls else "http"
        self._host = f"[{host}]" if ":" in host else host
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    # -- running ---------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listen on both ports; blocks for some milliseconds."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="demo-origin", daemon=True)
        self._thread.start()
        for port in self._ports.values():
            self._wait(port.start())

    def stop(self) -> None:
        """Stop both ports; drops the requests in flight."""
        if self._loop is None or self._thread is None:
            return
        for port in self._ports.values():
            self._wait(port.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._loop = self._thread = None

    def _run(self) -> None:
        assert self._loop is not None  # noqa: S101 - set by start
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        pending = asyncio.all_tasks(self._loop)
        for task in pending:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*pending, return_exceptions=True))
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        assert self._loop is not None  # noqa: S101 - only called while running
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=30)

    # -- where it is -----------------------------------------------------------------------------

    @property
    def api_url(self) -> str:
        """Return the API's base, without a final slash."""
        return f"{self._scheme}://{self._host}:{self._ports['api'].port}"

    @property
    def auth_url(self) -> str:
        """Return the token endpoint."""
        return f"{self.api_url}/oauth/token"

    @property
    def store_url(self) -> str:
        """Return the store's base, without a final slash."""
        return f"{self._scheme}://{self._host}:{self._ports['store'].port}"

    def environment(self) -> dict[str, str]:
        """Return the variables that point satfs here. Holds the client secret."""
        variables = {
            "SATFS_API_URL": self.api_url,
            "SATFS_AUTH_URL": self.auth_url,
            "SATFS_CLIENT_ID": self.account.client_id,
            "SATFS_CLIENT_SECRET": self.account.client_secret,
            "SATFS_CONTRACT_ID": self.account.contract_id,
        }
        if self.ca_file is not None:
            variables["SATFS_CA_FILE"] = str(self.ca_file)
        return variables

    # -- what happened ---------------------------------------------------------------------------

    @property
    def requests(self) -> list[LoggedRequest]:
        """Return all requests since start or the last `journal.clear()`, as they came."""
        return self.journal.of()

    @property
    def leaks(self) -> list[Leak]:
        """Return every credential that arrived where it must not. Should be empty."""
        return list(self.journal.leaks)

    def counts(self, endpoint: str | None = None) -> int:
        """Return the number of requests of one endpoint, or of all."""
        return self.journal.n_requests(endpoint)

    def bytes_sent(self, endpoint: str | None = "object") -> int:
        """Return the number of body bytes sent by one endpoint, or (None) by all."""
        return self.journal.bytes_sent(endpoint)

    def n_open_connections(self, side: str = "store") -> int:
        """Return how many connections clients hold open to `api` or `store`."""
        return self._ports[side].n_open_connections

    # -- what a test may do to it ----------------------------------------------------------------

    def stop_listening(self, *sides: str) -> None:
        """Refuse connections on `api`, `store` or (none named) both, and drop those there are."""
        for side in sides or tuple(self._ports):
            self._wait(self._ports[side].stop_listening())

    def resume_listening(self, *sides: str) -> None:
        """Listen again, on the same ports."""
        for side in sides or tuple(self._ports):
            self._wait(self._ports[side].start())

    def move(self, side: str, host: str) -> None:
        """Listen at another address of this machine from now on, and drop all connections.

        Links lead where they led before: for links by name (the fault `link-by-name`).
        """
        self.stop_listening(side)
        self._ports[side].host = host
        self.resume_listening(side)

    def drop_connections(self, *sides: str) -> None:
        """Break every connection there is; new ones are welcome."""
        for side in sides or tuple(self._ports):
            self._wait(self._ports[side].drop_connections())

    def lose_connections(self, *sides: str) -> None:
        """Lose what is sent on the present connections, in silence; new ones are welcome.

        As where a box on the way has forgotten them, or the host lost its power and is back.
        """
        for side in sides or tuple(self._ports):
            self._wait(self._ports[side].lose_connections())

    def revoke_tokens(self) -> None:
        """Make every token given out so far worthless."""
        self.office.revoke_all()

    def now_s(self) -> float:
        """Return the origin's wall clock, in seconds since the epoch."""
        return time.time() + self._clock_offset_s

    def advance_clock(self, seconds: float) -> None:
        """Set the origin's clock forward: links and tokens age by *seconds* at once."""
        self._clock_offset_s += seconds

    def expire_links(self) -> None:
        """Have every link signed so far refused with "Request has expired"."""
        self.store.expired_key_ids.update(key.key_id for key in self._keys)
        self._change_key()

    def delete_key(self) -> None:
        """Delete the key that links are signed with: 403 InvalidAccessKeyId for all there are."""
        self._keys.clear()
        self._change_key()

    def _change_key(self) -> None:
        self._keys.insert(0, SigningKey(f"{_KEY.key_id}{time.time_ns()}", _KEY.secret))

    def link(self, scene_id: str, attachment: str = "delivery_zip") -> str:
        """Return a fresh presigned URL, as the API would hand it out."""
        scene = self.catalogue.scene(scene_id)
        held = scene.attachment(attachment) if scene else None
        if held is None:
            raise KeyError((scene_id, attachment))
        return self._sign(held, ())

    # -- links -----------------------------------------------------------------------------------

    def _is_secret(self, text: str) -> bool:
        return self.api.holds_secret(text) or any(secret in text for secret in self.api.watched)

    def _sign(self, attachment: Attachment, faults: Sequence[Fault]) -> str:
        foreign = named(faults, "foreign-link")
        if foreign:
            return str(foreign["url"])
        now_s, lifetime_s, key = self.now_s(), self.link_lifetime_s, self._keys[0]
        short = named(faults, "short-link")
        if short:
            lifetime_s = max(1, int(short["seconds"]))
        if named(faults, "stale-link"):
            now_s -= lifetime_s + 1
        session = named(faults, "temporary-credentials")
        if session:
            key_id = f"ASIADEMO{time.time_ns()}"
            key = SigningKey(key_id, f"{key_id} of a session", f"session/{key_id}+=")
            self._keys.append(key)
            self._sessions[key.session_token] = now_s + float(session["seconds"])
        early = named(faults, "link-not-yet-valid")
        if early:
            key = SigningKey(f"{_KEY.key_id}EARLY{time.time_ns()}", _KEY.secret)
            self._keys.append(key)
            begins_at_s = now_s + float(early["seconds"])
            self.store.begins_by_key_id[key.key_id] = (begins_at_s, str(early["code"]))
        url = f"{self.store_url}{object_path(BUCKET, attachment)}"
        by_name = named(faults, "link-by-name")
        if by_name:
            url = url.replace(f"://{self._host}:", f"://{by_name['host']}:")
        repeated = named(faults, "repeated-link")
        if repeated and url in self._signed and repeated.lasts(now_s):
            return self._signed[url]
        self._signed[url] = presign(url, key, now_s=now_s, lifetime_s=lifetime_s)
        return self._signed[url]
