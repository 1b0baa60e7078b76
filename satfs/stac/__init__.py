"""STAC 1.1: what a mount shows of tasks, captures and scenes as catalogues, collections and items.

Everything here renders, and never waits: the API's records and the facts of scenes go in, JSON
values come out. Links and addresses of assets are relative, so that a copy of a directory is a
catalogue by itself at any place.

The catalogue departs from STAC's best practices in one thing. Inside a task every `root` link leads
to the task's `collection.json`, which has no `parent`: with links up to the top of the mount, a
copied task could not be read at all, since its root would be missing.
"""
