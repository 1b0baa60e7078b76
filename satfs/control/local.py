"""The vendor's records without a mount: the same listings, over the same store on disk."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Final

import trio

from satfs.api.auth import account_key
from satfs.api.client import Aleph, http_for
from satfs.api.listing_store import ListingStore
from satfs.api.listings import Listings
from satfs.content.cache import maintenance
from satfs.content.cache.index import CachedVersion
from satfs.errors import BadCache, NotThere
from satfs.settings import Settings

#: Longest wait for the disk in the end, in seconds.
_CLOSING_S: Final = 2.0


@asynccontextmanager
async def open_listings(settings: Settings, *, with_all: bool) -> AsyncIterator[Listings]:
    """Hand out the listings of the account that *settings* name.

    *with_all* reads back all listings that mounts have kept; an id is looked up in these first.
    """
    store = ListingStore(settings.cache_dir / account_key(settings))
    try:
        async with http_for(settings) as http:
            listings = Listings(Aleph(http, settings), settings, store)
            if with_all:
                await listings.recall()
            yield listings
    finally:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + _CLOSING_S):
            await store.aclose()


async def cached_versions_of(settings: Settings) -> Iterable[CachedVersion]:
    """Return the versions in the cache on disk; none where there is no cache."""
    try:
        return (await trio.to_thread.run_sync(maintenance.info, settings.cache_dir)).objects
    except (NotThere, BadCache):
        return ()
