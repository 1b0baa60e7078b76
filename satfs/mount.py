"""Build the parts of a mount, connect them, run them in one nursery, and close them.

The order of a mount's life, which the order of the `async with`s below is:

    requests → credential, listings, content → the first page answered → the kernel's mount
    → a `stat` answered → `on_ready` → …
    → every waiting call answered → the kernel's mount gone → content committed → connections closed

Nothing here calls the mount: a process that calls its own mount waits for itself, and a kill during
that wait never ends it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import structlog
import trio
from msgspec import Struct, convert

from satfs import mountpoints
from satfs.components import Components, open_components, tree_over
from satfs.content.attachments import Attachments
from satfs.content.cache.kernelcalls import return_freed_memory, save_addresses
from satfs.control.commands import commands_on
from satfs.control.mount_components import MountComponents
from satfs.control.name_invalidation import NameInvalidation
from satfs.control.protocol import socket_path
from satfs.control.server import serve_control
from satfs.errors import FuseMissing
from satfs.fuse.attributes import Limits, Owner
from satfs.fuse.callers import Callers
from satfs.fuse.crawlers import CrawlerGate, crawler_rules
from satfs.fuse.errnos import gravest_of
from satfs.fuse.inodes import Inodes, keyed_numbering
from satfs.fuse.operations import Operations
from satfs.fuse_session import invalidate_entry, invalidate_inode, mounted
from satfs.gc_tuning import Collector
from satfs.introspection.directory import Introspection
from satfs.introspection.metrics_server import serve_metrics
from satfs.kernel_tuning import take_short_turns, tune
from satfs.mountpoint_hold import MountpointHold
from satfs.net.addresses import origin_of
from satfs.net.preconnect import READY_AT_FIRST, ReadyConnections
from satfs.notify import Notifier, describe_mount
from satfs.process_limits import allow_all_descriptors, leave_no_core
from satfs.settings import ContentsView, Settings, Views
from satfs.tree.nodes import Directory, Node
from satfs.tree.root import Root, volume_files
from satfs.tree.scenes import SceneHolder
from satfs.tree.stac_files import ItemFile
from satfs.watchdog import Watchdog

log = structlog.get_logger(__name__)

#: Longest wait for the kernel's handshake and for the first `stat`, in seconds.
_GREETING_S: Final = 10.0
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_IGNORED_SIGNALS: Final = (signal.SIGUSR1, signal.SIGUSR2)


class MountOptions(Struct, frozen=True):
    """Where to mount, and for which users.

    *uid* and *gid* own everything; None is the user who mounts. *umask* takes permissions from the
    modes 0644 and 0755. *source* is what `findmnt` and `df` show; its colon makes `df -l` and
    `find` see that the mount is remote. *extra* are more words for libfuse or the kernel
    (`noatime`). With `exec` among them files keep their executable bits, and may be run. *program*
    is what to type in a shell to run satfs, for the README. *is_offline* mounts without a request
    to the API first, with what earlier mounts have kept. *hold* is on the mountpoint, taken when it
    was checked; without one it is taken by `serve`.
    """

    mountpoint: Path
    allow_other: bool = False
    uid: int | None = None
    gid: int | None = None
    umask: int = 0
    source: str = "satfs:default"
    extra: tuple[str, ...] = ()
    program: str = "satfs"
    is_offline: bool = False
    hold: MountpointHold | None = None

    @property
    def is_exec(self) -> bool:
        """Whether programs in the mount may be run: only with `exec` in *extra*."""
        return "exec" in self.extra

    @property
    def kernel_options(self) -> frozenset[str]:
        """Return the options of libfuse and the kernel that differ from mount to mount."""
        kernel_options = set(self.extra)
        if not self.is_exec:
            kernel_options.add("noexec")
        if self.allow_other:
            kernel_options.add("allow_other")
        return frozenset(kernel_options)


def run_mount(
    settings: Settings,
    options: MountOptions,
    on_ready: Callable[[], None],
    notifier: Notifier | None = None,
) -> None:
    """Mount, call *on_ready* once the mount works, and return when it is unmounted.

    Meanwhile *notifier* gets the state of the mount. Runs its own event loop: call it from the
    main thread, and fork, if at all, before.

    Raises:
        CannotMount: something has to be changed first; nothing is mounted.
        NeedsLogin, NeedsContract, Unreachable: the first request to the API failed.
        Exception: *on_ready* raised it; then the mount is taken down again.
    """
    leave_no_core()
    allow_all_descriptors()
    save_addresses()
    return_freed_memory()
    take_short_turns()
    try:
        trio.run(partial(serve, settings, options, on_ready=on_ready, notifier=notifier))
    except BaseExceptionGroup as group:
        # Nurseries wrap what their tasks raise (PEP 654); the caller gets the one that matters.
        raise gravest_of(group) from group


async def serve(
    settings: Settings,
    options: MountOptions,
    *,
    on_ready: Callable[[], None],
    notifier: Notifier | None = None,
) -> None:
    """Do what `run_mount` does, in a running event loop.

    SIGTERM, SIGINT and SIGHUP unmount and return, also while calls are in flight; so does an
    unmount from outside.
    """
    mountpoint = mountpoints.absolute(options.mountpoint)
    with ExitStack() as stack:
        hold = options.hold or stack.enter_context(MountpointHold(mountpoint))
        mountpoints.check(mountpoint, settings.cache_dir)
        hold.require_unchanged()
        await _serve(settings, options, hold, on_ready, notifier)
    log.info("unmounted", mountpoint=str(mountpoint))


async def _serve(
    settings: Settings,
    options: MountOptions,
    hold: MountpointHold,
    on_ready: Callable[[], None],
    notifier: Notifier | None,
) -> None:
    mountpoint = hold.mountpoint
    async with (
        _ended_by_signals(),
        open_components(settings) as parts,
        trio.open_nursery() as background,
    ):
        if not options.is_offline:
            tasks, is_whole = await parts.aleph.first_tasks()
            if is_whole:
                parts.listings.take_tasks(tasks)
        ready = ReadyConnections(parts.connections)
        api_origin = origin_of(settings.api_url)
        background.start_soon(ready.run, api_origin)
        await parts.listings.recall()
        root = tree_over(parts, settings, options.program)
        inodes: Inodes[Node] = Inodes(root, keyed_numbering(settings.api_url.encode()))
        gate = CrawlerGate(
            crawler_rules(settings.crawlers), Callers(trio.current_time), trio.current_time
        )
        parts.contents.start_early(lambda: parts.n_idle(api_origin) >= READY_AT_FIRST)
        operations = Operations(
            inodes,
            owner=_owner(options),
            limits=convert(settings, Limits, from_attributes=True),
            gate=gate,
            on_look=ready.look,
            on_name=partial(_note_walk, parts.contents),
            on_list=parts.contents.note_listing,
        )
        background.start_soon(operations.calls.watch, parts.contents.received_bytes)
        introspection = Introspection(settings, mountpoint, options.source, parts, operations)
        root.hide(introspection.nodes(root))
        root.hide(volume_files(root, options.source))
        kernel = NameInvalidation(
            inodes, invalidate_entry, partial(invalidate_inode, attr_only=True)
        )
        components = _command_components(settings, mountpoint, parts, root, kernel, introspection)
        async with (
            serve_metrics(settings.metrics_port, introspection.status),
            mounted(
                operations,
                hold,
                source=options.source,
                mount_options=options.kernel_options,
                before_end=kernel.end,
            ) as ended,
        ):
            await _wait_until_answering(operations, mountpoint)
            hold.unlock()
            log.info("mounted", mountpoint=str(mountpoint), source=options.source)
            await _tune(mountpoint, introspection)
            async with trio.open_nursery() as nursery:
                control: Path | None = await nursery.start(
                    serve_control, socket_path(mountpoint), commands_on(components)
                )
                introspection.control = None if control is None else str(control)
                on_ready()
                nursery.start_soon(Watchdog(parts.woke_up).run)
                nursery.start_soon(Collector().run)
                if settings.views is not Views.OFF:
                    introspection.index = parts.indexer.state
                    nursery.start_soon(parts.indexer.run)
                if notifier is not None:
                    nursery.start_soon(
                        notifier.run,
                        lambda: describe_mount(options.source, mountpoint, parts.unreachable()),
                    )
                await ended.wait()
                nursery.cancel_scope.cancel()
        background.cancel_scope.cancel()


def _note_walk(contents: Attachments, directory: Directory, name: bytes) -> None:
    """Note that a program looks *name* up in *directory*, where that is the name of a scene."""
    if isinstance(directory, SceneHolder) and (scene_id := directory.scene_id_of(name)) is not None:
        contents.note_walk(scene_id)


def _command_components(
    settings: Settings,
    mountpoint: Path,
    parts: Components,
    root: Root,
    kernel: NameInvalidation,
    introspection: Introspection,
) -> MountComponents:
    """Return what commands over the control socket work with."""
    return MountComponents(
        mountpoint=mountpoint,
        cache_dir=settings.cache_dir,
        root=root,
        listings=parts.listings,
        contents=parts.contents,
        archives=parts.archives,
        pins=parts.contents.pins(settings.cache_dir, settings.cache_free_fraction),
        kernel=kernel,
        introspection=introspection,
        items=ItemFile(parts.deliveries, has_contents=settings.contents is not ContentsView.OFF),
    )


async def _wait_until_answering(operations: Operations, mountpoint: Path) -> None:
    """Return when the kernel's handshake is over and a statvfs(2) of another process has returned.

    Raises:
        FuseMissing: neither happened in time.
    """
    with trio.move_on_after(_GREETING_S):
        await operations.greeted.wait()
        probe = await trio.run_process(
            mountpoints.probe_command(mountpoint), check=False, capture_stdout=True
        )
        if probe.stdout.strip() == b"0":
            return
    raise FuseMissing(f"{mountpoint} was mounted, but does not answer")


async def _tune(mountpoint: Path, introspection: Introspection) -> None:
    mounted = mountpoints.find_mount(mountpoint)
    if mounted is None:  # in another mount namespace, for example
        return
    tuned = await trio.to_thread.run_sync(tune, mounted.device)
    introspection.read_ahead_kb = tuned.read_ahead_kb
    introspection.max_background = tuned.max_background
    log.info("kernel tuned", read_ahead_kb=tuned.read_ahead_kb, max_background=tuned.max_background)


@asynccontextmanager
async def _ended_by_signals() -> AsyncIterator[None]:
    """Cancel the body at a signal to end, and return as if it had come to its end.

    SIGUSR1 and SIGUSR2, which changed the level of the log in version 0.1, have no effect: a script
    that still sends them must not end the mount, which is what they do by default (signal(7)).
    """
    # Also those that end a mount: trio restores the handlers that it found, and raises again what
    # came after the first signal. A second Ctrl-C would kill the process before its work is done.
    for number in (*_SIGNALS, *_IGNORED_SIGNALS):
        signal.signal(number, signal.SIG_IGN)
    with trio.open_signal_receiver(*_SIGNALS) as signals:
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                async for number in signals:
                    log.info("signal to end", signal=signal.Signals(number).name)
                    nursery.cancel_scope.cancel()

            nursery.start_soon(wait)
            yield
            nursery.cancel_scope.cancel()


def _owner(options: MountOptions) -> Owner:
    return Owner(
        os.getuid() if options.uid is None else options.uid,
        os.getgid() if options.gid is None else options.gid,
        options.umask,
        has_executables=options.is_exec,
    )
