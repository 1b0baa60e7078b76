"""The tree and the parts below it, built from settings and closed in order.

Shared by a mount (`mount.py`) and by programs that have the tree without one (`embedded/`): both
show the same names and the same bytes. So nothing here imports pyfuse3.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import trio
from msgspec import Struct

from satfs.api.client import Aleph
from satfs.api.credential import account_key
from satfs.api.listing_store import ListingStore
from satfs.api.listings import Listings
from satfs.archive.archive import Archives, open_archives
from satfs.content.attachments import Attachments
from satfs.content.build import open_attachments
from satfs.content.versions import PROBES_AT_ONCE
from satfs.net.addresses import LinkRule
from satfs.net.http import Http
from satfs.net.permits import Permits
from satfs.net.proxies import proxies_of_environment
from satfs.net.retry_loop import Retries
from satfs.net.trust import tls_context
from satfs.node_board import NodeBoard
from satfs.node_locks import NodeLocks
from satfs.node_sharing import NodeLinks, NodePauses, NodeSlots
from satfs.request_slots import MAX_HELD_PER_SLOT
from satfs.settings import ContentsView, Settings, StacView, Views
from satfs.tree.archives import CONTENTS, contents_of_zips
from satfs.tree.delivery_facts import DeliveryFactsReader
from satfs.tree.root import Root
from satfs.tree.scenes import TreeSources
from satfs.tree.stac_files import ItemFile
from satfs.tree.thumbnails import Thumbnails
from satfs.views.directory import views_of
from satfs.views.indexer import INDEX_FILE, SceneIndexer
from satfs.views.task_scenes import ScenesTerms

#: Longest wait for the disk when everything else is gone, in seconds.
_CLOSING_S: Final = 2.0
#: Connections to the store beside those for bulk data: sizes are learnt while files are read.
_SPARE_CONNECTIONS: Final = PROBES_AT_ONCE * MAX_HELD_PER_SLOT
#: Share of a listing's deadline after which sizes not learnt yet are given up (`tree.scenes`).
_VERSION_SHARE: Final = 2 / 3


class Components(Struct, frozen=True):
    """The parts below the tree, each once."""

    aleph: Aleph
    listings: Listings
    contents: Attachments
    archives: Archives
    connections: tuple[Http, ...]
    deliveries: DeliveryFactsReader
    indexer: SceneIndexer

    def unreachable(self) -> tuple[str, ...]:
        """Return the hosts that cannot be reached now."""
        return tuple(o for http in self.connections for o in http.reachability.offline_origins())

    def n_idle(self, origin: str) -> int:
        """Return how many connections to *origin* have no request now, those being opened too."""
        holders = {http.holder for http in self.connections}
        return sum(sum(holder.n_idle(origin)) for holder in holders)

    def woke_up(self) -> None:
        """Start afresh after the machine has slept: its connections are dead, the line is new."""
        for http in self.connections:
            http.close_idle()


@asynccontextmanager
async def open_components(settings: Settings) -> AsyncIterator[Components]:
    """Build what the tree needs.

    The two `Http` share the connections and what is trusted, and nothing else: no credential can
    stray. A host that has the API and the objects, and serves one connection at a time, would let a
    request of one wait for as long as the other keeps an idle connection.
    """
    account = account_key(settings)
    store, permits = ListingStore(settings.cache_dir / account), Permits()
    reach: dict[str, Any] = {
        "connect_timeout_s": settings.connect_timeout_s,
        "progress_timeout_s": settings.progress_timeout_s,
        "body_timeout_s": settings.body_timeout_s,
        "tls": tls_context(settings.ca_file, is_strict=settings.tls_strict),
        "user_agent": settings.user_agent,
        "permits": permits,
    }
    rule = LinkRule(settings.api_url, settings.allow_private_store)
    proxies = proxies_of_environment()
    locks, board = NodeLocks(), NodeBoard(settings.cache_dir)
    permits.ends_turns = True
    pauses = NodePauses(locks, board)
    async with (
        Http(**reach, max_connections=settings.api_concurrency * MAX_HELD_PER_SLOT) as api_http,
        Http(
            **reach,
            max_connections=settings.max_connections + _SPARE_CONNECTIONS,
            check_peer=rule.check_peer,
            shares_pool_of=api_http,
        ) as store_http,
    ):
        aleph = Aleph(
            api_http,
            settings,
            retries=Retries(api_http.reachability, pauses=pauses),
            shared_slots=NodeSlots(locks, account, settings.api_concurrency),
        )
        links = NodeLinks(aleph.sign, locks, board, account)
        try:
            async with (
                open_attachments(
                    settings,
                    http=store_http,
                    retries=Retries(store_http.reachability, pauses=pauses),
                    sign=links.sign,
                    check_url=rule.check,
                    allows_private=rule.allows_private,
                    is_proxied=lambda url: proxies.for_url(url) is not None,
                    account=account,
                    locks=locks,
                    pauses=pauses,
                ) as contents,
                open_archives(contents.derived, settings.unpack_bytes) as archives,
            ):
                listings = Listings(aleph, settings, store, locks=locks, account=account)
                aleph.on_refusal(listings.note_refusal)
                deliveries = DeliveryFactsReader(archives, contents)
                indexer = SceneIndexer(listings, settings.cache_dir / account / INDEX_FILE)
                yield Components(
                    aleph, listings, contents, archives, (api_http, store_http), deliveries, indexer
                )
        finally:
            if not locks.is_shared(trio.current_time()):
                board.clear()
            locks.close()
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _CLOSING_S):
                await store.aclose()


def tree_over(parts: Components, settings: Settings, program: str = "satfs") -> Root:
    """Return the tree by *settings*, over *parts*; waits for nothing.

    *program* is what to type in a shell to run satfs, for the README.
    """
    contents = contents_of_zips(settings.contents, parts.archives, parts.contents)
    items: tuple[ItemFile, ...] = ()
    if settings.stac is not StacView.OFF:
        reads_zips = settings.stac is StacView.FULL
        items = (ItemFile(parts.deliveries if reads_zips else None, has_contents=bool(contents)),)
    sources = TreeSources(
        parts.listings,
        parts.contents,
        (*contents, Thumbnails()),
        items,
        has_catalogs=bool(items),
        version_deadline_s=settings.metadata_deadline_s * _VERSION_SHARE,
        archives=None if settings.contents is ContentsView.OFF else parts.archives,
    )
    root = Root(sources, program)
    if settings.views is not Views.OFF:
        facts = ItemFile(parts.deliveries, has_contents=bool(contents)).facts
        terms = ScenesTerms(
            facts,
            CONTENTS.decode() if contents else None,
            settings.listing_ttl_s,
            sources.version_deadline_s,
        )
        nodes = views_of(root, parts.listings, parts.indexer, terms)
        (root.show if settings.views is Views.ON else root.hide)(nodes)
    return root
