"""Build the `content` package from settings, and close it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Final

import trio

from satfs.content.attachments import Attachments
from satfs.content.cache.blocks import BlockCache
from satfs.content.cache.directory import default_bytes
from satfs.content.fetch.connection_choice import ConnectionChoice
from satfs.content.fetch.connection_controller import ConnectionController
from satfs.content.fetch.dispatch import Dispatcher
from satfs.content.fetch.egress_limit import FILE_NAME, EgressLimit, keep_settled, settle
from satfs.content.fetch.host_limit_store import HostLimitStore
from satfs.content.fetch.links import Sign
from satfs.content.fetch.probe import Probe
from satfs.content.fetch.range_retry import RangeRetry
from satfs.content.transfer.inloop import InLoopMover
from satfs.content.transfer.interface import BulkMover
from satfs.content.transfer.worker_moves import WorkerPool
from satfs.net.http import Http
from satfs.net.retry_loop import Pauses, Retries
from satfs.node_locks import NodeLocks
from satfs.settings import Settings

#: A transfer gives up this much before the read that waits for it, so that the read returns what
#: was wrong and not merely that time is up.
GIVE_UP_SHARE: Final = 0.9
#: For how many times as long as the kernel believes that a name is not there an object is taken to
#: be absent that the store did not have. Each look at it would cost a link and a request, and
#: listings of directories are not cached by the kernel; an object that was uploaded since is to be
#: seen soon.
ABSENT_FACTOR: Final = 3
#: Longest wait for the disk in the end.
CLOSING_S: Final = 5.0


@asynccontextmanager
async def open_attachments(
    settings: Settings,
    *,
    http: Http,
    retries: Retries,
    sign: Sign,
    check_url: Callable[[str], None],
    is_proxied: Callable[[str], bool],
    account: str,
    allows_private: bool = True,
    locks: NodeLocks | None = None,
    pauses: Pauses | None = None,
) -> AsyncIterator[Attachments]:
    """Yield `Attachments`; its tasks and its files end with the `async with`.

    *http* is for the object store alone: nothing that knows a credential. *check_url* raises for
    addresses that must not be followed, *allows_private*: names may lead to private
    addresses (`net/addresses.py`). *account* separates the cached objects of different accounts.
    With *locks* all processes that use the cache directory fetch a block once; *pauses* are shared
    by all of them.

    Raises:
        BadCache: the cache directory is not ours to use.
    """
    limit_bytes = settings.cache_bytes
    if limit_bytes is None:
        limit_bytes = await trio.to_thread.run_sync(default_bytes, settings.cache_dir)
    cache = await BlockCache.open(
        settings.cache_dir,
        limit_bytes=limit_bytes,
        free_fraction=settings.cache_free_fraction,
        memory_bytes=settings.memory_bytes,
        locks=locks,
    )
    egress = EgressLimit(settings.egress_limit)
    spent_file = settings.cache_dir / account / FILE_NAME
    try:
        async with trio.open_nursery() as nursery:
            in_loop = InLoopMover(http, check_url)
            bulk: BulkMover | None = None
            if settings.workers:
                pool = WorkerPool(
                    nursery,
                    in_loop,
                    n_workers=settings.workers,
                    idle_s=settings.worker_idle_s,
                    connect_timeout_s=settings.connect_timeout_s,
                    progress_timeout_s=settings.progress_timeout_s,
                    ca_file=settings.ca_file,
                    tls_strict=settings.tls_strict,
                    user_agent=http.user_agent,
                    allows_private=allows_private,
                    is_proxied=is_proxied,
                    slow_addresses=http.slow_addresses,
                    responds_once=http.responds_once,
                    permits=http.permits,
                )
                cache.objects.file_closed = pool.file_closed
                bulk = pool
            controller = ConnectionController(settings.max_connections)
            connections = ConnectionChoice(http.permits, http.holder, bulk, controller)
            attempts = RangeRetry(
                cache,
                controller,
                in_loop,
                connections,
                reachability=http.reachability,
                give_up_s=settings.read_deadline_s * GIVE_UP_SHARE,
                pauses=pauses,
            )
            dispatcher = Dispatcher(
                nursery, cache, controller, attempts, connections, range_bytes=settings.range_bytes
            )
            probe = Probe(
                http,
                retries,
                check_url,
                deadline_s=settings.metadata_deadline_s,
                on_response=lambda took_s: controller.note_response(trio.current_time(), took_s),
            )
            contents = Attachments(
                cache=cache,
                dispatcher=dispatcher,
                probe=probe,
                sign=sign,
                account=account,
                confirm_after_s=settings.listing_ttl_s,
                egress=egress,
                locks=locks,
                n_idle=lambda origin: sum(http.holder.n_idle(origin)),
                may_open=http.permits.may_open,
                absent_s=ABSENT_FACTOR * settings.negative_ttl_s,
            )
            nursery.start_soon(cache.run)
            nursery.start_soon(http.permits.watch)
            hosts = HostLimitStore(http.permits, cache)
            await hosts.load()
            nursery.start_soon(hosts.keep)
            if cache.is_persistent:
                await settle(egress, spent_file, is_forced=True)
                nursery.start_soon(keep_settled, egress, spent_file)
            try:
                yield contents
            finally:
                nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSING_S):
            if cache.is_persistent:
                await settle(egress, spent_file)
            await cache.close()
