"""Google Cloud Storage: how its client is opened, and whose identity it uses.

``gs://BUCKET/PREFIX``. All settings are those of ``obstore``, by environment variables:
https://developmentseed.org/obstore/latest/api/store/gcs/
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from obstore.store import GCSStore

GS = "gs://"
REMEDY = (
    "check that the bucket exists, and that the identity (doctor names it) may list it and read, write and "
    "delete objects in it, such as by roles/storage.objectUser"
)
_KEY_FILES = ("GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_PATH")
_USER_FILE = ".config/gcloud/application_default_credentials.json"


def endpoint() -> str:
    """The server that is asked."""
    return os.environ.get("GOOGLE_BASE_URL") or "https://storage.googleapis.com"


def open_bucket(bucket: str, client: dict[str, Any], retry: dict[str, Any]) -> GCSStore:
    """The client of a bucket, without a request. A server at ``http://`` is for tests."""
    from obstore.store import GCSStore

    client = client | {"allow_http": urlsplit(endpoint()).scheme == "http"}
    return GCSStore(bucket, client_options=client, retry_config=retry)  # pyright: ignore[reportArgumentType]


def identity() -> str:
    """Whose identity requests carry, in the order in which obstore looks for one."""
    if os.environ.get("GOOGLE_BEARER_TOKEN"):
        return "the token in GOOGLE_BEARER_TOKEN, which nothing renews"
    if named := next((name for name in _KEY_FILES if os.environ.get(name)), None):
        return f"the service account's key file that {named} names"
    if os.environ.get("GOOGLE_SERVICE_ACCOUNT_KEY"):
        return "the service account's key in GOOGLE_SERVICE_ACCOUNT_KEY"
    if os.environ.get("GOOGLE_APPLICATION_CREDENTIALS"):
        return "the file that GOOGLE_APPLICATION_CREDENTIALS names"
    if (Path.home() / _USER_FILE).exists():
        return f"gcloud's file ~/{_USER_FILE}"
    return "the metadata server's service account (Workload Identity, or that of the machine)"


def asks_metadata_server() -> bool:
    """Whether tokens come from the metadata server, which can tell whose they are."""
    return identity().startswith("the metadata server")


def metadata_host() -> str:
    """Host and port of the metadata server."""
    named = os.environ.get("GCE_METADATA_HOST") or os.environ.get("GCE_METADATA_ROOT")
    return named or "metadata.google.internal"
