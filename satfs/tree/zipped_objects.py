"""The zips of scenes: as archives of members, and as files whose reader knows the members."""

from __future__ import annotations

from satfs.archive.archive import Archive, Archives
from satfs.archive.whole_zip import WholeZipReader
from satfs.content.attachments import Attachments
from satfs.model import (
    DELIVERY_ZIP,
    AttachmentName,
    ByteRange,
    Reader,
    RemoteReader,
    SceneId,
    Version,
)


def archive_of(
    archives: Archives, contents: Attachments, scene_id: SceneId, version: Version
) -> Archive:
    """Return one version of the zip of a scene. Reads nothing."""

    async def open_zip(bounds: ByteRange | None) -> RemoteReader:
        return await contents.open(scene_id, DELIVERY_ZIP, version, bounds=bounds)

    identity = f"{scene_id}/{DELIVERY_ZIP}/{version.etag}/{version.size_bytes}"
    return archives.archive(identity, open_zip, f"{scene_id}/contents")


class ZippedObjects:
    """The bytes of attachments; zips are read with knowledge of their members' places."""

    def __init__(self, contents: Attachments, archives: Archives) -> None:
        self._contents = contents
        self._archives = archives

    async def version(self, scene: SceneId, attachment: AttachmentName, revision: str) -> Version:
        """See `Attachments.version`."""
        return await self._contents.version(scene, attachment, revision)

    def learn_ahead(self, scene: SceneId, attachment: AttachmentName, revision: str) -> None:
        """See `Attachments.learn_ahead`."""
        self._contents.learn_ahead(scene, attachment, revision)

    async def is_held(self, scene: SceneId, attachment: AttachmentName, version: Version) -> bool:
        """See `Attachments.is_held`."""
        return await self._contents.is_held(scene, attachment, version)

    async def open(self, scene: SceneId, attachment: AttachmentName, version: Version) -> Reader:
        """See `Attachments.open`."""
        if attachment != DELIVERY_ZIP:
            return await self._contents.open(scene, attachment, version)
        archive = archive_of(self._archives, self._contents, scene, version)
        return WholeZipReader(await self._contents.open(scene, attachment, version), archive)
