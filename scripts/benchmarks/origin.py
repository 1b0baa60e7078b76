"""The origin: nginx with the objects and the API behind it, counting its requests."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.api import CLIENT_ID, CLIENT_SECRET
from benchmarks.children import running
from benchmarks.counters import LOG_FORMAT, Request
from benchmarks.line import Line
from benchmarks.profiles import Profile

#: asm-generic/socket.h; not in Python's socket module.
SO_MAX_PACING_RATE = 47
#: pidfd_getfd(2), the same number on every architecture (asm-generic/unistd.h); Linux 5.6.
SYS_PIDFD_GETFD = 438

#: Bytes that may wait unsent in a connection's socket: enough to keep loopback busy, and the most
#: by which the count of a request that is given up may be too high.
MAX_UNSENT_BYTES = 512 * 1024

#: How long the origin may take to notice that a client has gone.
SETTLE_S = 5.0

CONFIGURATION = """\
user {user};
daemon off;
worker_processes {workers};
pid {workspace}/nginx.pid;
error_log {workspace}/nginx-error.log warn;
events {{ worker_connections 4096; }}
http {{
    log_format count '{log_format}';
    access_log {workspace}/access.log count;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000;
    keepalive_timeout 75s;
    # For TLS, where sendfile does not apply: read the file in pieces that keep a core busy.
    output_buffers 2 512k;
    open_file_cache max=64 inactive=1h;
    open_file_cache_valid 1h;
    client_body_temp_path {workspace}/nginx-body;
    proxy_temp_path {workspace}/nginx-proxy;
    fastcgi_temp_path {workspace}/nginx-fastcgi;
    uwsgi_temp_path {workspace}/nginx-uwsgi;
    scgi_temp_path {workspace}/nginx-scgi;
    default_type application/octet-stream;
    {tls}
    upstream api {{ server unix:{workspace}/api.sock; keepalive 64; }}
    server {{
        listen {address}:{store_port} {tls_word} reuseport backlog=1024;
        root {store};
        location / {{ autoindex on; }}
    }}
    server {{
        listen {address}:{api_port} {tls_word};
        location / {{
            proxy_pass http://api;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_buffers 16 256k;
            proxy_buffer_size 256k;
            proxy_busy_buffers_size 512k;
        }}
    }}
    server {{
        listen unix:{workspace}/status.sock;
        access_log off;
        location / {{ stub_status; }}
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class Origin:
    """A running origin, as its clients see it."""

    profile: Profile
    line: Line
    store_url: str
    api_url: str
    ca_file: Path | None
    workspace: Path
    #: The directory of the store that peers show as their root.
    directory: str = "objects"

    def environment(self, contract_id: str = "cont.deliveries") -> dict[str, str]:
        """Return the environment that points satfs at this origin, for one account."""
        given = {
            "SATFS_API_URL": self.api_url,
            "SATFS_AUTH_URL": f"{self.api_url}/oauth/token",
            "SATFS_CLIENT_ID": CLIENT_ID,
            "SATFS_CLIENT_SECRET": CLIENT_SECRET,
            "SATFS_CONTRACT_ID": contract_id,
        }
        if self.ca_file is not None:
            given["SATFS_CA_FILE"] = str(self.ca_file)
        return given

    def url(self, file_name: str) -> str:
        """Return the address of one object, as peers use it."""
        return f"{self.directory_url}{file_name}"

    @property
    def directory_url(self) -> str:
        """Return the address of the directory that peers show, with its slash."""
        return f"{self.store_url}/{self.directory}/"

    def mark(self) -> int:
        """Return a place in the log: what comes later is `since` it."""
        self._settle()
        return (self.workspace / "access.log").stat().st_size

    def since(self, mark: int) -> list[Request]:
        """Return the requests finished since *mark*; waits for those that are being given up."""
        self._settle()
        with (self.workspace / "access.log").open() as log:
            log.seek(mark)
            return [Request.parse(line) for line in log]

    def _settle(self) -> None:
        patience = time.monotonic() + SETTLE_S
        while self._n_under_way() > 0 and time.monotonic() < patience:
            time.sleep(0.02)

    def _n_under_way(self) -> int:
        with socket.socket(socket.AF_UNIX) as asked:
            asked.connect(str(self.workspace / "status.sock"))
            asked.sendall(b"GET / HTTP/1.0\r\n\r\n")
            answer = b""
            while piece := asked.recv(4096):
                answer += piece
        # "Reading: 0 Writing: 1 Waiting: 3"; one of the writing is this very request.
        words = answer.decode().split()
        return int(words[words.index("Reading:") + 1]) + int(words[words.index("Writing:") + 1]) - 1


@contextlib.contextmanager
def run_origin(
    profile: Profile, line: Line, store: Path, workspace: Path, scene_ids: list[str]
) -> Iterator[Origin]:
    """Serve the files below *store* until the block ends.

    Raises:
        FileNotFoundError: nginx is not installed.
        RuntimeError: nginx or the API does not come up.
    """
    nginx = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if nginx is None:
        raise FileNotFoundError("nginx")
    store_port, api_port, store_relay, api_relay = _free_ports(4)
    scheme = "https" if profile.tls else "http"
    # A relayed line is entered by the relay's doors.
    doors = (store_relay, api_relay) if line.is_relayed else (store_port, api_port)
    store_url, api_url = (f"{scheme}://{line.origin_address}:{port}" for port in doors)
    ca_file = make_certificates(workspace, line.origin_address) if profile.tls else None
    certificate = workspace / "server.pem"
    (workspace / "nginx.conf").write_text(
        CONFIGURATION.format(
            user="root" if os.geteuid() == 0 else "nobody",
            workers=os.cpu_count() or 1,
            workspace=workspace,
            store=store,
            address=line.origin_address,
            store_port=store_port,
            api_port=api_port,
            log_format=LOG_FORMAT,
            tls_word="ssl" if profile.tls else "",
            tls=f"ssl_certificate {certificate}; ssl_certificate_key {certificate};"
            if profile.tls
            else "",
        )
    )
    with contextlib.ExitStack() as stack:
        api = [
            sys.executable,
            "-m",
            "benchmarks.api",
            str(workspace / "api.sock"),
            api_url,
            store_url,
        ]
        root = Path(__file__).parent.parent
        stack.enter_context(running([*api, *scene_ids], directory=root))
        server = stack.enter_context(
            running([*line.origin_prefix, nginx, "-p", str(workspace), "-c", "nginx.conf"])
        )
        _wait_for_sockets(workspace, server)
        rate = None if line.is_relayed else profile.connection_rate
        _set_on_connections(server.pid, store_port, rate)
        if line.is_relayed:
            delay_ns = round(profile.round_trip_s * 1e9 / 2)
            relay = [sys.executable, "-m", "benchmarks.relay", str(delay_ns)]
            relay += [str(profile.connection_rate or 0), f"{api_relay}:{api_port}"]
            relay += [f"{store_relay}:{store_port}:paced"]
            stack.enter_context(running(relay, directory=root))
            _wait_for_port(store_relay)
        yield Origin(profile, line, store_url, api_url, ca_file, workspace)


def _wait_for_sockets(workspace: Path, server: subprocess.Popen[bytes]) -> None:
    patience = time.monotonic() + 15
    needed = [workspace / "status.sock", workspace / "api.sock"]
    while not all(_answers(path) for path in needed):
        if server.poll() is not None or time.monotonic() > patience:
            error_log = workspace / "nginx-error.log"
            said = error_log.read_text() if error_log.exists() else ""
            raise RuntimeError(f"the origin did not come up: {said.strip()}")
        time.sleep(0.05)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as asked:
        try:
            asked.connect(str(path))
        except OSError:
            return False
    return True


def _wait_for_port(port: int) -> None:
    patience = time.monotonic() + 15
    while True:
        with socket.socket() as asked:
            if asked.connect_ex(("127.0.0.1", port)) == 0:
                return
        if time.monotonic() > patience:
            raise RuntimeError("the relay did not come up")
        time.sleep(0.05)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in held]


def make_certificates(workspace: Path, address: str) -> Path:
    """Make `server.pem` (key and chain) for *address*, and return the authority's certificate."""
    import trustme

    authority = trustme.CA()
    server = authority.issue_cert(address, "localhost")
    server.private_key_and_cert_chain_pem.write_to_path(str(workspace / "server.pem"))
    ca_file = workspace / "ca.pem"
    authority.cert_pem.write_to_path(str(ca_file))
    return ca_file


def _set_on_connections(server_pid: int, port: int, rate: int | None) -> None:
    """Make connections accepted on *port* keep to *rate* bytes per second, and count truly.

    nginx's own `limit_rate` lets a second's worth through at once. The kernel's pacing does not:
    it holds from the first byte. And what nginx logs as sent is what it gave to the kernel, so that
    is kept close to what has left: little that is not sent may wait in a socket.

    Congestion control is the usual one, with any default of this machine: a sender that paces
    itself by what it has measured (bbr) takes half a round trip longer for a small answer.

    An accepted socket inherits all this from the listening one, so that is where it is set: on the
    server's listening sockets, borrowed with pidfd_getfd(2).
    """
    libc = ctypes.CDLL(None, use_errno=True)
    server = os.pidfd_open(server_pid)
    found = 0
    try:
        for name in os.listdir(f"/proc/{server_pid}/fd"):
            if not os.readlink(f"/proc/{server_pid}/fd/{name}").startswith("socket:"):
                continue
            borrowed = libc.syscall(SYS_PIDFD_GETFD, server, int(name), 0)
            if borrowed < 0:
                raise OSError(ctypes.get_errno(), "pidfd_getfd")
            with socket.socket(fileno=borrowed) as listening:
                if listening.family == socket.AF_INET and listening.getsockname()[1] == port:
                    listening.setsockopt(
                        socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, MAX_UNSENT_BYTES
                    )
                    if rate is not None:
                        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"cubic")
                        listening.setsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, rate)
                    found += 1
    finally:
        os.close(server)
    if found == 0:
        raise RuntimeError("no listening socket of the origin")
