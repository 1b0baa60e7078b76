"""The zips of scenes: as archives of members, and as files whose reader knows the members."""

from __future__ import annotations

from typing import Protocol

from satfs.archive.archive import Archive, Archives
from satfs.archive.whole_zip import WholeZipReader
from satfs.model import (
    DELIVERY_ZIP,
    AttachmentName,
    ByteRange,
    Reader,
    RemoteReader,
    SceneId,
    Version,
)
from satfs.tree.sources import Objects


class Zips(Protocol):
    """The bytes of the zips (`content.attachments.Attachments`)."""

    async def open(
        self,
        scene: SceneId,
        attachment: AttachmentName,
        version: Version,
        *,
        bounds: ByteRange | None = None,
    ) -> RemoteReader:
        """Return a reader of that version, which reads ahead within *bounds*.

        Raises:
            Changed: the vendor serves another version by now.
        """
        ...


def archive_of(archives: Archives, zips: Zips, scene_id: SceneId, version: Version) -> Archive:
    """Return one version of the zip of a scene. Reads nothing."""

    async def open_zip(bounds: ByteRange | None) -> RemoteReader:
        return await zips.open(scene_id, DELIVERY_ZIP, version, bounds=bounds)

    identity = f"{scene_id}/{DELIVERY_ZIP}/{version.etag}/{version.size_bytes}"
    return archives.archive(identity, open_zip, f"{scene_id}/contents")


class ZippedObjects:
    """The bytes of attachments; zips are read with knowledge of their members' places."""

    def __init__(self, objects: Objects, archives: Archives, zips: Zips) -> None:
        self._objects = objects
        self._archives = archives
        self._zips = zips

    async def version(self, scene: SceneId, attachment: AttachmentName, revision: str) -> Version:
        """See `sources.Objects.version`."""
        return await self._objects.version(scene, attachment, revision)

    def learn_ahead(self, scene: SceneId, attachment: AttachmentName, revision: str) -> None:
        """See `sources.Objects.learn_ahead`."""
        self._objects.learn_ahead(scene, attachment, revision)

    async def is_held(self, scene: SceneId, attachment: AttachmentName, version: Version) -> bool:
        """See `sources.Objects.is_held`."""
        return await self._objects.is_held(scene, attachment, version)

    async def open(self, scene: SceneId, attachment: AttachmentName, version: Version) -> Reader:
        """See `sources.Objects.open`."""
        if attachment != DELIVERY_ZIP:
            return await self._objects.open(scene, attachment, version)
        archive = archive_of(self._archives, self._zips, scene, version)
        return WholeZipReader(await self._zips.open(scene, attachment, version), archive)
