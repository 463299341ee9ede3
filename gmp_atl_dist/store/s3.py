"""S3, Amazon's and others', as a place: pyarrow reads and lists, and boto3 puts each object in one request.

pyarrow's output streams are not used: an exception inside of one still commits the bytes written so far.
"""

from __future__ import annotations

import os
import threading
from functools import cached_property
from typing import TYPE_CHECKING, cast
from urllib.parse import SplitResult, urlsplit

import pyarrow.fs as pafs

from gmp_atl_dist.errors import ArtifactError
from gmp_atl_dist.store.places import Putter

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

S3 = "s3://"
# Limits of one request in a long run. An endpoint that takes connections and never answers costs a read about
# a minute (5 x 10 s and the pauses between), and a put about eight.
_CONNECT_S = 10.0
_READ_SILENCE_S = 10.0
_PUT_SILENCE_S = 60.0
_ATTEMPTS_OF_READS = 5
_ATTEMPTS_OF_PUTS = 8
# Threads that store parts may need their first client at the same time, and boto3 fails at that now and then.
_making_client = threading.Lock()


class S3Place:
    """A prefix of a bucket by its ``s3://`` URI."""

    remedy = (
        "check that the root exists, that you may read and write it, and for s3:// the AWS_* "
        "environment"
    )
    listed_as_changed_ns = None

    def __init__(self, uri: str, timeout_s: float | None) -> None:
        self.root = uri.removeprefix(S3).rstrip("/")
        self._timeout_s = timeout_s
        self.putter: Putter = S3Putter(timeout_s)

    @cached_property
    def filesystem(self) -> pafs.FileSystem:
        limit_s = self._timeout_s
        attempts = _ATTEMPTS_OF_READS if limit_s is None else 2
        return pafs.S3FileSystem(
            **_s3_options(),
            connect_timeout=_CONNECT_S if limit_s is None else limit_s,
            # On Linux: seconds without a byte, not seconds of the whole request.
            request_timeout=_READ_SILENCE_S if limit_s is None else limit_s,
            retry_strategy=pafs.AwsStandardS3RetryStrategy(max_attempts=attempts),
        )


class S3Putter:
    """One PutObject per object; S3 shows it completely or not at all."""

    def __init__(self, timeout_s: float | None) -> None:
        self._timeout_s = timeout_s

    @cached_property
    def _client(self) -> S3Client:
        import boto3
        from botocore.config import Config

        # An empty AWS_CA_BUNDLE makes boto3 look for a certificate file with no name.
        if os.environ.get("AWS_CA_BUNDLE") == "":
            del os.environ["AWS_CA_BUNDLE"]
        # boto3 reads it itself, and would say what is wrong in an error of another type.
        _endpoint()
        config = Config(
            retries={"max_attempts": _ATTEMPTS_OF_PUTS, "mode": "standard"},
            connect_timeout=_CONNECT_S,
            read_timeout=_PUT_SILENCE_S,
        )
        if self._timeout_s is not None:
            limits = {"connect_timeout": self._timeout_s, "read_timeout": self._timeout_s}
            config = config.merge(Config(retries={"total_max_attempts": 2}, **limits))
        with _making_client:
            return cast("S3Client", boto3.client("s3", config=config))

    def put(self, path: str, data: bytes | memoryview) -> None:
        bucket, _, key = path.partition("/")
        # boto3 takes no other buffer.
        self._client.put_object(Bucket=bucket, Key=key, Body=bytes(data))

    def copy(self, path: str, target: str) -> bool:
        from botocore.exceptions import ClientError

        bucket, _, key = target.partition("/")
        from_bucket, _, from_key = path.partition("/")
        try:
            self._client.copy_object(
                Bucket=bucket, Key=key, CopySource={"Bucket": from_bucket, "Key": from_key}
            )
        except ClientError as e:
            # A server or a policy may not allow it. What cannot be read is an error of the reading.
            if e.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500) >= 500:
                raise
            return False
        return True

    def put_exclusive(self, path: str, data: bytes) -> bool:
        from botocore.exceptions import ClientError

        bucket, _, key = path.partition("/")
        try:
            self._client.put_object(Bucket=bucket, Key=key, Body=data, IfNoneMatch="*")
        except ClientError as e:
            if e.response.get("ResponseMetadata", {}).get("HTTPStatusCode") in (409, 412):
                return False
            raise
        return True


def _endpoint() -> SplitResult | None:
    """The endpoint of S3 that the environment names; None for Amazon's own.

    Raises:
        ArtifactError: it is no URL of a server. The message holds no password that may be in it.
    """
    names = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
    name = next((name for name in names if os.environ.get(name)), None)
    if name is None:
        return None
    parts = urlsplit(os.environ[name])
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ArtifactError(
            f"{name} is no URL of a server; write http://HOST:PORT or https://HOST:PORT"
        )
    if "@" in parts.netloc:
        raise ArtifactError(
            f"{name} has a user or password, which S3 does not take there; write "
            f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}, and set AWS_ACCESS_KEY_ID and "
            f"AWS_SECRET_ACCESS_KEY"
        )
    return parts


def _s3_options() -> dict[str, str]:
    """Options that pyarrow does not read from the environment: the endpoint and its scheme."""
    parts = _endpoint()
    if parts is None:
        return {}
    options = {"endpoint_override": parts.netloc, "scheme": parts.scheme}
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return options | ({"region": region} if region else {})
