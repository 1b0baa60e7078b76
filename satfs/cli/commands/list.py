"""`satfs list`: the satfs mounts there are, and whether each of them works."""

from __future__ import annotations

import json
import pwd

import click
from rich.table import Table
from rich.text import Text

from satfs.cli.exit_codes import Exit
from satfs.cli.flags import Manner, verbosity_flags
from satfs.cli.log_setup import show
from satfs.cli.mount_status import MountReport, State, mounts_of_user, query_mounts
from satfs.cli.output import console


@click.command(
    "list",
    epilog="""\b
Examples:
  satfs list
  satfs list --json | jq -r '.[].mountpoint'
""",
)
@click.option("-a", "--all", "with_others", is_flag=True, help="Those of other users, too.")
@click.option("--json", "as_json", is_flag=True, help="Answer in JSON, for scripts.")
@verbosity_flags
@click.pass_obj
def list(_manner: Manner, with_others: bool, as_json: bool) -> int:
    """List your satfs mounts, and whether each of them works.

    One that hangs is said to, and does not keep this waiting. `satfs status` tells more.
    """
    heard = query_mounts(mounts_of_user(with_others=with_others))
    if as_json:
        click.echo(json.dumps([_answer(each) for each in heard], indent=2))
        return Exit.DONE
    if not heard:
        console().print(Text("Nothing is mounted. To mount: satfs mount ~/aleph"))
        return Exit.DONE
    table = Table(box=None, pad_edge=False)
    table.add_column("mountpoint", overflow="fold")
    table.add_column("source", overflow="fold")
    table.add_column("user", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for each in heard:
        style = "green" if each.state is State.WORKS else "yellow"
        table.add_row(
            Text(show(each.place)),
            Text(show(each.mounted.source)),
            Text(_user(each)),
            Text(str(each.state), style),
        )
    console().print(table)
    return Exit.DONE


def _answer(heard: MountReport) -> dict[str, object]:
    return {
        "mountpoint": heard.place,
        "source": heard.mounted.source,
        "user": _user(heard),
        "state": str(heard.state),
        "pid": None if heard.status is None else heard.status.get("pid"),
    }


def _user(heard: MountReport) -> str:
    number = heard.mounted.user
    if number is None:
        return ""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:  # nobody that this machine knows
        return str(number)
