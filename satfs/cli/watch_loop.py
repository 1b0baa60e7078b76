"""Poll for publications, report them, and remember what was reported."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import click
import platformdirs
import trio

from satfs.api.credential import account_key
from satfs.atomic_file import locked, make_directory, write_atomically
from satfs.cli.exit_codes import Exit
from satfs.cli.output import print_json, print_remark, print_sentence, show
from satfs.cli.targets import OnMount, Target
from satfs.cli.watch_sources import Listing, Source
from satfs.cli.webhook import Poster
from satfs.control.conditions import parse_condition, verdict
from satfs.control.publications import Event, SeenPublications
from satfs.control.records import LISTINGS_AT_ONCE
from satfs.errors import BadSettings, NotThere, SatfsError, Unreachable
from satfs.humanize import format_count
from satfs.model import Json
from satfs.request_slots import concurrent_map
from satfs.settings import worker_environment
from satfs.tree import names
from satfs.tree.captures import RESERVED_IN_CAPTURE
from satfs.tree.tasks import RESERVED_BESIDE_TASKS, RESERVED_IN_TASK


@dataclass(frozen=True, slots=True)
class Memory:
    """The events that were reported, in a file of the user's own."""

    file: Path

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other watches away from the file.

        Raises:
            BadSettings: there is another one, or the file cannot be used.
        """
        try:
            make_directory(self.file.parent)
            lock = locked(Path(f"{self.file}.lock"))
        except OSError as failure:
            raise self._unusable(failure) from failure
        if lock is None:
            raise BadSettings(
                f"another `satfs watch` reports the same ({self.file}); give one of them a file of"
                " its own: --state FILE"
            )
        try:
            yield
        finally:
            os.close(lock)

    def load(self) -> SeenPublications:
        """Return what was reported; nothing when there is no file.

        Raises:
            BadSettings: the file cannot be read, or is something else.
        """
        try:
            return SeenPublications.of_text(self.file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return SeenPublications()
        except OSError as failure:
            raise self._unusable(failure) from failure
        except (BadSettings, UnicodeDecodeError):
            raise BadSettings(
                f"{self.file} is no record of what `satfs watch` has reported; name another file"
                " with --state, or remove it to begin again"
            ) from None

    def save(self, seen: SeenPublications) -> None:
        """Replace the file, as a whole or not at all.

        Raises:
            BadSettings: it cannot be written.
        """
        try:
            write_atomically(self.file, seen.as_text())
        except OSError as failure:
            raise self._unusable(failure) from failure

    def _unusable(self, failure: OSError) -> BadSettings:
        return BadSettings(f"{self.file} cannot be used: {failure.strerror}")


def state_file(target: Target) -> Path:
    """Return the default file for what was reported of *target*."""
    if isinstance(target, OnMount):
        key = ("mount", target.mounted.source, str(target.mounted.mountpoint), *target.words)
    else:
        key = ("api", account_key(target.settings), *target.words)
    name = sha256(json.dumps(key).encode()).hexdigest()[:32]
    return platformdirs.user_state_path("satfs") / "watch" / f"{name}.json"


@dataclass(slots=True)
class Watch:
    """One watch: looks, reports, remembers."""

    source: Source
    path_names: Sequence[str]
    memory: Memory
    command: Sequence[str]
    as_json: bool
    is_quiet: bool
    #: Called when the first look has ended, well or not.
    on_first_response: Callable[[], None] = lambda: None
    #: Scenes are reported as STAC items, and nothing else is reported.
    as_items: bool = False
    webhook: Poster | None = None
    #: Conditions that a scene must fulfil to be reported, as text: by its record, or its delivery.
    where: Sequence[str] = ()
    _seen: SeenPublications = field(default_factory=SeenPublications)
    _n_failed: int = 0
    _is_away: bool = False
    #: The webhook's receiver has not responded in this look; nothing else is handed over in it.
    _has_no_receiver: bool = False

    async def run(self, interval_s: float | None) -> Exit:
        """Look every *interval_s*, for ever; None: look once, and return what came of it.

        Raises:
            SatfsError: it cannot go on; a vendor who is out of reach is waited for, unless this is
                the only look.
        """
        self._seen = self.memory.load()
        was_begun = self._seen.is_begun
        while True:
            self._n_failed = 0
            self._has_no_receiver = False
            try:
                try:
                    await self._look()
                finally:
                    self.on_first_response()
                self._is_away = False
            except Unreachable as failure:
                if interval_s is None:
                    raise
                if not self._is_away:
                    print_remark(f"{failure}. The watch continues.")
                self._is_away = True
            finally:
                self.memory.save(self._seen)
            if not was_begun and self._seen.is_begun:
                was_begun = True
                n_captures = format_count(len(self._seen.captures), "capture")
                if not self.is_quiet:
                    print_sentence(f"{n_captures} published so far; later ones are reported.")
            if interval_s is None:
                return Exit.FAILED if self._n_failed else Exit.DONE
            await trio.sleep(interval_s)

    async def _look(self) -> None:
        """List captures and scenes, and report the new ones.

        Raises:
            Unreachable: the API cannot be reached; what was found until then has been reported.
        """
        self.source.forget()
        seen, now_s = self._seen, time.time()
        tasks = await self._tasks()

        async def captures(task: str) -> tuple[str, Listing]:
            return task, await self._fresh(("tasks", _name(task, RESERVED_BESIDE_TASKS)))

        due_tasks = seen.due_tasks(tasks, now_s)
        for task, listing in await concurrent_map(captures, due_tasks, LISTINGS_AT_ONCE):
            for event in seen.note_captures(task, listing["entries"], now_s):
                await self._emit(event)

        async def scenes(capture: str) -> tuple[str, Listing]:
            return capture, await self._fresh(("captures", names.name_of(capture).decode()))

        due_captures = seen.due_captures(now_s)
        for capture, listing in await concurrent_map(scenes, due_captures, LISTINGS_AT_ONCE):
            for event in seen.note_scenes(capture, listing["entries"], now_s):
                await self._emit(event)
        seen.is_begun = True

    async def _tasks(self) -> Sequence[Mapping[str, Json]]:
        """Return the tasks to look at; of a single capture, report its publication, and none."""
        if tuple(self.path_names) in ((), ("tasks",)):
            entries: Sequence[Mapping[str, Json]] = (await self._fresh(("tasks",)))["entries"]
            return entries
        described = await self.source.query("describe", self.path_names)
        if described["kind"] == "capture":
            now_s = time.time()
            for event in self._seen.note_captures("", [described], now_s):  # the task is not known
                await self._emit(event)
            return ()
        if described["kind"] != "task":
            raise BadSettings("only tasks, a task or a capture can be watched")
        return [described]

    async def _fresh(self, path_names: Sequence[str]) -> Listing:
        try:
            listing = await self.source.query("list", path_names)
        except NotThere:  # withdrawn since it was listed
            return {"entries": ()}
        if listing.get("is_stale"):
            raise Unreachable(
                "the vendor is out of reach, and only what was known before is listed"
            )
        return listing

    async def _emit(self, event: Event) -> None:
        """Report *event*, and remember that; not if its command fails."""
        path_names = ["captures", _name(event.capture_id)]
        if event.task_id:
            capture = _name(event.capture_id, RESERVED_IN_TASK)
            path_names = ["tasks", _name(event.task_id, RESERVED_BESIDE_TASKS), capture]
        if event.scene_id is not None:
            path_names.append(_name(event.scene_id, RESERVED_IN_CAPTURE))
        fields: Json = event.as_json()
        if (path := self.source.path(path_names)) is not None:
            fields["path"] = path
        try:
            is_wanted = await self._is_wanted(path_names, event)
            content = fields
            if is_wanted and self.as_items:
                content = await self.source.item(path_names, event)
        except SatfsError as failure:
            if isinstance(failure, Unreachable):
                raise
            print_remark(f"{event.scene_id}: {failure}; the next check tries it again.")
            self._n_failed += 1
            return
        if is_wanted is None or content is None:  # announced; its delivery is not there yet
            return
        if is_wanted:
            if not await self._hand_over(event, fields, content):
                self._n_failed += 1
                return
            self._show(event, content)
        self._seen.note(event, time.time())
        await trio.to_thread.run_sync(self.memory.save, self._seen)

    async def _is_wanted(self, path_names: Sequence[str], event: Event) -> bool | None:
        """Return whether *event* is reported; None while only a delivery to come can tell."""
        if event.scene_id is None:
            return not self.as_items and not self.where
        conditions = [parse_condition(text) for text in self.where]
        decision = verdict(conditions, {"scene": event.record})
        if decision is None:
            decision = await self.source.fulfils(path_names, event, self.where)
        return decision

    async def _hand_over(self, event: Event, fields: Mapping[str, Json], content: Json) -> bool:
        """Return whether command and webhook, as far as there are, have taken *content*."""
        if self._has_no_receiver:
            return False
        if self.command and not await self._execute(fields, content):
            return False
        if self.webhook is None:
            return True
        refusal = await self.webhook.post(content)
        if refusal is not None:
            self._has_no_receiver = refusal.is_absent
            what = f"{fields['event']} {event.scene_id or event.capture_id}"
            and_others = " and what follows it" if refusal.is_absent else " again"
            print_remark(
                f"--webhook: {refusal.reason} for {what}; the next check sends it{and_others}."
            )
        return refusal is None

    def _show(self, event: Event, content: Json) -> None:
        if self.as_json or self.as_items:
            print_json(content, is_line=True)
        else:
            moment = time.strftime("%Y-%m-%d %H:%M:%S")
            id = event.scene_id or event.capture_id
            of = f"  (task {show(event.task_id)})" if event.task_id else ""
            click.echo(f"{moment}  {event.kind:<7}  {show(id)}{of}")
        sys.stdout.flush()

    async def _execute(self, fields: Mapping[str, Json], content: Json) -> bool:
        facts = {
            "WATCH_EVENT": fields["event"],
            "WATCH_TASK_ID": fields["task_id"],
            "WATCH_CAPTURE_ID": fields["capture_id"],
            "WATCH_SCENE_ID": fields["scene_id"],
            "WATCH_PATH": fields.get("path"),
        }
        # An environment cannot hold NUL; a command that needs an id with NUL finds it in the JSON.
        shown = {k: v for k, v in facts.items() if isinstance(v, str) and "\0" not in v}
        # No setting and no secret of ours: the command gets what it needs.
        inherited = {
            name: value for name, value in worker_environment().items() if name not in facts
        }
        try:
            done = await trio.run_process(
                list(self.command),
                stdin=json.dumps(content).encode() + b"\n",
                # Ours is for the events.
                stdout=sys.stderr.fileno() if self.as_json or self.as_items else None,
                check=False,
                env={**inherited, **shown},
            )
        except OSError as failure:
            raise BadSettings(
                f"--exec: {self.command[0]} cannot be run: {failure.strerror}"
            ) from failure
        if done.returncode != 0:
            print_remark(
                f"{self.command[0]} failed with {done.returncode} for {fields['event']}"
                f" {fields['scene_id'] or fields['capture_id']}; the next check reports it again."
            )
        return done.returncode == 0


def _name(id: str, reserved: Collection[str] = ()) -> str:
    return names.name_of(id, reserved).decode()
