"""The one spelling of a root URI, and what is wrong with the others."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit

from gmp_atl_dist.errors import ArtifactError
from gmp_atl_dist.uris import uri_problem

_BUCKETS = {"s3": "bucket", "gs": "bucket", "az": "container"}
_OTHERS = {
    "gcs": "write gs://bucket/prefix",
    "s3a": "write s3://bucket/prefix",
    "s3n": "write s3://bucket/prefix",
} | dict.fromkeys(
    ("abfs", "abfss", "wasb", "wasbs"),
    "write az://container/prefix and set AZURE_STORAGE_ACCOUNT_NAME to the account",
)
"""What other programs call the same stores."""


def normalize_uri(uri: str) -> str:
    """``file:///abs/path``, ``s3://``, ``gs://`` or ``az://bucket/prefix``, or ``hf://datasets/...``.

    Raises:
        ArtifactError: it is empty or misspelt, has another scheme, or names no bucket.
    """
    if problem := uri_problem(uri):
        raise ArtifactError(f"{uri!r} {problem}")
    scheme = urlsplit(uri).scheme if "://" in uri else ""
    if scheme in _BUCKETS:
        _check_bucket(uri, scheme)
        return uri.rstrip("/")
    if scheme == "hf":
        return uri.rstrip("/")
    if scheme == "file":
        return "file://" + os.path.abspath(uri.removeprefix("file://"))
    if scheme:
        known = "use a folder, file://, s3://, gs:// or az:// (for a corpus also hf://datasets/)"
        raise ArtifactError(
            f"{uri!r}: scheme {scheme!r} is not known; {_OTHERS.get(scheme, known)}"
        )
    return "file://" + os.path.abspath(Path(uri).expanduser())


def _check_bucket(uri: str, scheme: str) -> None:
    bucket, _, prefix = uri.removeprefix(f"{scheme}://").partition("/")
    name = _BUCKETS[scheme]
    if not bucket:
        raise ArtifactError(f"{uri!r} names no {name}; write {scheme}://{name}/prefix")
    if scheme == "s3":
        return
    if "@" in bucket:
        raise ArtifactError(
            f"{uri!r} has an @ in its {name}; write {scheme}://{name}/prefix, and for az:// name the "
            f"account in AZURE_STORAGE_ACCOUNT_NAME"
        )
    if any(step in ("", ".", "..") for step in prefix.rstrip("/").split("/")) and prefix.rstrip(
        "/"
    ):
        raise ArtifactError(
            f"{uri!r} has an empty step, . or .. in its prefix, which no key here has; remove it"
        )
