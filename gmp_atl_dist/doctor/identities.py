"""Which server a store is asked at, and by whose identity."""

from __future__ import annotations

import os
from urllib.error import URLError
from urllib.request import Request, urlopen

from gmp_atl_dist.store import azure_blob, google_cloud
from gmp_atl_dist.store.azure_blob import AZ
from gmp_atl_dist.store.google_cloud import GS
from gmp_atl_dist.store.s3 import S3

_EMAIL = "computeMetadata/v1/instance/service-accounts/default/email"
_UNBOUND = ".svc.id.goog"
"""How the answer ends where a ServiceAccount of Kubernetes is bound to no service account of Google."""


def s3_endpoint() -> str:
    """The S3 endpoint in use. It may contain a user name, which must be removed before it is shown."""
    configured = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return configured or f"Amazon S3 ({region or 'no AWS_REGION set'})"


def endpoint_name(uri: str) -> str:
    """The server of an object store; "" for folders and the hub."""
    if uri.startswith(S3):
        return s3_endpoint()
    if uri.startswith(GS):
        return google_cloud.endpoint()
    return azure_blob.endpoint() if uri.startswith(AZ) else ""


def identity_name(uri: str, timeout_s: float) -> str:
    """Whose identity requests to ``gs://`` and ``az://`` carry; "" for other stores.

    The metadata server of Google is asked for its name, which may take ``timeout_s``.
    """
    if uri.startswith(AZ):
        return azure_blob.identity()
    if not uri.startswith(GS):
        return ""
    if not google_cloud.asks_metadata_server():
        return google_cloud.identity()
    email = _metadata_email(timeout_s)
    if not email:
        return f"{google_cloud.identity()}, which does not tell its name"
    if email.endswith(_UNBOUND):
        return f"{email} of Workload Identity, which is bound to no service account of Google"
    return f"{email}, by {google_cloud.identity()}"


def _metadata_email(timeout_s: float) -> str:
    url = f"http://{google_cloud.metadata_host()}/{_EMAIL}"
    try:
        with urlopen(
            Request(url, headers={"Metadata-Flavor": "Google"}), timeout=timeout_s
        ) as answer:
            return answer.read(1000).decode(errors="replace").strip()
    except (URLError, OSError, ValueError):
        return ""
