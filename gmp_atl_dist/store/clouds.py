"""Google Cloud Storage and Azure Blob as places, by the clouds' own identities: ``gs://`` and ``az://``."""

from __future__ import annotations

from functools import cached_property

import pyarrow.fs as pafs

from gmp_atl_dist.store import azure_blob, google_cloud
from gmp_atl_dist.store.azure_blob import AZ
from gmp_atl_dist.store.cloud_client import CloudClient
from gmp_atl_dist.store.cloud_files import CloudFiles
from gmp_atl_dist.store.google_cloud import GS
from gmp_atl_dist.store.places import Putter

CLOUDS = (GS, AZ)


class CloudPlace:
    """A prefix of a bucket or of a container by its URI."""

    listed_as_changed_ns = None

    def __init__(self, uri: str, timeout_s: float | None) -> None:
        scheme = next(scheme for scheme in CLOUDS if uri.startswith(scheme))
        self.root = uri.removeprefix(scheme).rstrip("/")
        self.remedy = google_cloud.REMEDY if scheme == GS else azure_blob.REMEDY
        self._client = CloudClient(scheme, self.root.partition("/")[0], timeout_s)
        self.putter: Putter = CloudPutter(self._client)

    @cached_property
    def filesystem(self) -> pafs.FileSystem:
        return pafs.PyFileSystem(CloudFiles(self._client))


class CloudPutter:
    """One request per object; both clouds show it completely or not at all."""

    def __init__(self, client: CloudClient) -> None:
        self._client = client

    def put(self, path: str, data: bytes | memoryview) -> None:
        # obstore takes flat bytes only.
        flat = memoryview(data).cast("B")
        with self._client.errors():
            client = self._client.putting(flat.nbytes)
            # Several requests would be faster, and leave parts behind when a writer is killed.
            client.put(self._client.key(path), flat, use_multipart=False)

    def copy(self, path: str, target: str) -> bool:
        if self._client.scheme == AZ:
            # "Copy Blob" may go on after its answer, and obstore does not wait for its end.
            return False
        with self._client.errors():
            self._client.requests.copy(self._client.key(path), self._client.key(target))
        return True

    def put_exclusive(self, path: str, data: bytes) -> bool:
        try:
            with self._client.errors():
                client = self._client.putting(len(data))
                client.put(self._client.key(path), data, mode="create")
        except FileExistsError:
            return False
        return True
