"""Account, tasks and captures as STAC catalogues and collections. *Pure*.

They are made of the records that list their directories, and need no request of their own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from satfs.facts import values
from satfs.facts.geometry import bbox_of, checked_geometry
from satfs.model import Task
from satfs.stac.assets import href
from satfs.stac.items import STAC_VERSION, collection_id, json_link, time_text

#: Of what is not known to be anywhere else.
_WORLD: Final = (-180.0, -90.0, 180.0, 90.0)


def account_catalog() -> dict[str, Any]:
    """Return `catalog.json` at the top: the same in every mount."""
    links = [
        json_link("root", "./catalog.json"),
        json_link("child", "./tasks/catalog.json", "Tasks"),
    ]
    return _catalog("satfs", "Deliveries", "Satellite imagery deliveries, mounted by satfs.", links)


def tasks_catalog(tasks: Iterable[tuple[Task, str]]) -> dict[str, Any]:
    """Return `tasks/catalog.json` of the *(task, name of its directory)* of an account."""
    links = [
        json_link("root", "./catalog.json"),
        *(
            json_link("child", href(directory, "collection.json"), task_title(task))
            for task, directory in tasks
        ),
    ]
    return _catalog("tasks", "Tasks", "All tasks of the account.", links)


def task_collection(task: Task, captures: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Return a task's `collection.json`; of each capture *(id, name of its directory)*."""
    geometry = checked_geometry(task.record.get("target"))
    links = [
        json_link("root", "./collection.json"),
        *(
            json_link("child", href(directory, "catalog.json"), capture_id)
            for capture_id, directory in captures
        ),
    ]
    return {
        "type": "Collection",
        "stac_version": STAC_VERSION,
        "id": collection_id(task.task_id),
        "title": task_title(task),
        "description": f"Scenes of the task {task_title(task)}.",
        "license": "other",
        "extent": {
            "spatial": {"bbox": [list(_WORLD if geometry is None else bbox_of(geometry))]},
            "temporal": {"interval": [_interval(task)]},
        },
        "links": links,
    }


def capture_catalog(
    capture_id: str, scenes: Iterable[tuple[str, str]], *, is_in_task: bool
) -> dict[str, Any]:
    """Return a capture's `catalog.json`; of each scene *(id, name of its directory)*.

    In a task it belongs to the task's collection; reached by its id alone it is a root itself.
    """
    above = "../collection.json"
    links = [
        *(
            [json_link("root", above), json_link("parent", above)]
            if is_in_task
            else [json_link("root", "./catalog.json")]
        ),
        *(
            json_link("item", href(directory, "item.json"), scene_id)
            for scene_id, directory in scenes
        ),
    ]
    return _catalog(
        f"capture-{capture_id}", capture_id, f"Scenes of the capture {capture_id}.", links
    )


def task_title(task: Task) -> str:
    """Return what a task is called among others: its name, and its id behind it."""
    name = (task.name or "").strip()
    return f"{name} ({task.task_id})" if name and name != task.task_id else task.task_id


def _catalog(
    identity: str, title: str, description: str, links: list[dict[str, str]]
) -> dict[str, Any]:
    return {
        "type": "Catalog",
        "stac_version": STAC_VERSION,
        "id": identity,
        "title": title,
        "description": description,
        "links": links,
    }


def _interval(task: Task) -> list[str | None]:
    """Return when the task's imagery was taken at most: its start and end, None for unknown."""
    start, end = values.time(task.record.get("start")), values.time(task.record.get("end"))
    if start is not None and end is not None and start > end:
        start = end = None
    return [None if each is None else time_text(each) for each in (start, end)]
