"""The way to the vendor and the account: against a demo origin with faults, in this process."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator, Mapping

import pytest
from conftest import LogBook
from doctor.conftest import MadeUp

from satfs.cli.commands.doctor import code_of
from satfs.cli.exit_codes import Exit
from satfs.demo.catalogue import Catalogue
from satfs.demo.server import DemoOrigin
from satfs.demo.tokens import AUDIENCE
from satfs.doctor import examination
from satfs.doctor.findings import Finding, Severity
from satfs.settings import load_settings

Changes = Mapping[str, str | None]


@pytest.fixture(scope="module")
def running_origin() -> Iterator[DemoOrigin]:
    with DemoOrigin() as origin:
        yield origin


@pytest.fixture
def origin(running_origin: DemoOrigin) -> Iterator[DemoOrigin]:
    """Return a vendor with a small catalogue, mended after each test."""
    yield running_origin
    running_origin.faults.clear()
    running_origin.resume_listening()
    running_origin.advance_clock(time.time() - running_origin.now_s())


@pytest.fixture(autouse=True)
def only_the_network(monkeypatch: pytest.MonkeyPatch, log_book: LogBook) -> Iterator[None]:
    """Have no check made of the machine."""
    monkeypatch.setattr(examination, "local_checks", lambda *_: [])
    yield
    log_book.lines.clear()  # the program shows the findings, and not its log


class Findings(list[Finding]):
    """All findings of an examination, in order."""

    def worst(self, check: str) -> Finding:
        """Return the most severe finding under a name."""
        return max((each for each in self if each.check == check), key=lambda each: each.severity)

    def severity(self, check: str) -> Severity | None:
        """Return the highest severity of the findings under a name; None without any."""
        return max((each.severity for each in self if each.check == check), default=None)


async def examined(made: MadeUp, origin: DemoOrigin, changes: Changes | None = None) -> Findings:
    """Return what is found with the settings of an account of *origin*, changed by *changes*."""
    environment = {**origin.environment(), **(changes or {})}
    found = Findings()
    await examination.examine(
        made.machine,
        load_settings({name: value for name, value in environment.items() if value is not None}),
        None,
        found.append,
    )
    return found


# -- the account -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "check", "code"),
    [
        ({"SATFS_CLIENT_SECRET": "nonsense"}, "credential", Exit.CREDENTIALS),
        ({"SATFS_CLIENT_SECRET": None}, "credential", Exit.CREDENTIALS),
        ({"SATFS_TOKEN": "nonsense", "SATFS_AUTH_MODE": "token"}, "credential", Exit.CREDENTIALS),
        ({"SATFS_CONTRACT_ID": "cont.nobody"}, "contract", Exit.CREDENTIALS),
        ({"SATFS_API_URL": "https://api.invalid"}, "api-dns", Exit.NETWORK),
    ],
)
async def test_what_is_set_wrongly_has_a_code_of_its_own(
    made: MadeUp, origin: DemoOrigin, changes: Changes, check: str, code: Exit
) -> None:
    """The code that a mount would end with."""
    found = await examined(made, origin, changes)

    assert (found.severity(check), code_of(found)) == (Severity.FAILURE, code), found
    assert found.worst(check).commands


async def test_a_contract_of_another_account_is_followed_by_those_of_this_one(
    made: MadeUp, origin: DemoOrigin
) -> None:
    found = await examined(made, origin, {"SATFS_CONTRACT_ID": "cont.nobody"})

    assert found.worst("contract").commands == (
        f"export SATFS_CONTRACT_ID={origin.account.contract_id}",
    )


async def test_a_token_that_ends_soon_is_noted(made: MadeUp) -> None:
    """Of a token that is given as it is: the mount of tomorrow is refused."""
    with DemoOrigin(token_lifetime_s=1800) as origin:
        token = _token_of(origin)
        found = await examined(made, origin, {"SATFS_TOKEN": token, "SATFS_AUTH_MODE": "token"})

    assert found.severity("tasks") is Severity.OK
    assert found.severity("auth-connection") is None
    assert json.loads(token)["access_token"] not in repr(found)
    assert found.severity("credential") is Severity.NOTE


def _token_of(origin: DemoOrigin) -> str:
    """Return the response of the token service, with `expires_in`."""
    credentials = {
        "client_id": origin.account.client_id,
        "client_secret": origin.account.client_secret,
        "audience": AUDIENCE,
        "grant_type": "client_credentials",
    }
    request = urllib.request.Request(
        origin.auth_url, json.dumps(credentials).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request) as response:
        return str(response.read().decode())


async def test_an_account_without_deliveries_has_no_store_to_try(made: MadeUp) -> None:
    with DemoOrigin(Catalogue()) as empty:
        found = await examined(made, empty)

    assert (found.severity("tasks"), found.severity("store-link")) == (Severity.OK, Severity.NOTE)


# -- the clock -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("skew_s", "severity", "code"),
    [
        (0, Severity.OK, Exit.DONE),
        (20, Severity.NOTE, Exit.DONE),
        (-20, Severity.NOTE, Exit.DONE),
        (90, Severity.WARNING, Exit.WARNINGS),
        (-7200, Severity.WARNING, Exit.WARNINGS),
    ],
)
async def test_a_wrong_clock_is_reported_by_how_much(
    made: MadeUp, origin: DemoOrigin, skew_s: float, severity: Severity, code: Exit
) -> None:
    origin.advance_clock(skew_s)

    found = await examined(made, origin)

    assert (found.severity("clock"), code_of(found)) == (severity, code), found


# -- the network -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "endpoint", "check", "severity"),
    [
        *(
            pytest.param("hang", *where, marks=pytest.mark.slow)  # four seconds each
            for where in (
                ("api", "api-connection", Severity.FAILURE),
                ("token", "auth-connection", Severity.FAILURE),
                ("object", "store-connection", Severity.FAILURE),
                ("scenes", "store-link", Severity.WARNING),
            )
        ),
        ("server-error", "token", "credential", Severity.FAILURE),
        ("html", "tasks", "tasks", Severity.FAILURE),
        ("forbidden", "object", "store-connection", Severity.FAILURE),
        ("not-found", "object", "store-connection", Severity.WARNING),
        ("stale-link", "sign", "store-connection", Severity.FAILURE),
        ("foreign-link", "sign", "store-link", Severity.FAILURE),
        ("forbidden", "sign", "store-link", Severity.FAILURE),
        ("reset", "object", "store-connection", Severity.OK),
    ],
)
async def test_each_fault_is_found_where_it_is(
    made: MadeUp, origin: DemoOrigin, fault: str, endpoint: str, check: str, severity: Severity
) -> None:
    """Earlier steps are in order, and later ones are not blamed."""
    origin.faults.add(fault, endpoint)

    found = await examined(made, origin)

    assert found.severity(check) is severity, found
    failed = {each.check for each in found if each.severity is Severity.FAILURE}
    assert failed <= {check} | ({"auth-connection"} if endpoint == "api" else set())


async def test_a_link_that_is_over_already_is_the_clocks_fault(
    made: MadeUp, origin: DemoOrigin
) -> None:
    origin.faults.add("stale-link", "sign")

    found = await examined(made, origin)

    assert "timedatectl" in found.worst("store-connection").commands[0]


async def test_a_store_that_is_away_is_distinguished_from_an_api_that_is(
    made: MadeUp, origin: DemoOrigin
) -> None:
    origin.stop_listening("store")
    store = await examined(made, origin)
    origin.stop_listening("api")
    both = await examined(made, origin)

    assert (code_of(store), store.severity("api-connection")) == (Exit.NETWORK, Severity.OK)
    assert "refuses connections" in store.worst("store-connection").statement
    assert code_of(both) == Exit.NETWORK
    assert both.severity("api-connection") is Severity.FAILURE
    assert both.severity("store-connection") is None


@pytest.mark.parametrize("how", ["queue", "reset", "503"])
async def test_a_host_of_one_connection_for_api_and_objects_is_no_failure(
    made: MadeUp, how: str
) -> None:
    """The request to the store does not wait for the idle connection of the API."""
    with DemoOrigin(one_port=True) as origin:
        origin.faults.add("connection-limit", connections=1, how=how)
        found = await examined(made, origin)
    assert found.severity("store-connection") is Severity.OK
    assert code_of(found) == Exit.DONE
