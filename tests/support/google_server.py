"""The part of Google Cloud Storage's XML API that the store uses, and the metadata server that gives tokens.

https://docs.cloud.google.com/storage/docs/xml-api/overview
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from urllib.parse import unquote
from xml.sax.saxutils import escape

import pytest

from support.cloud_server import CloudHandler, CloudServer, serving

ACCOUNT = "gmp-atl@project.iam.gserviceaccount.com"
_METADATA = "/computeMetadata/v1/instance/service-accounts/default/"


class GoogleHandler(CloudHandler):
    def identity(self, path: str) -> bool:
        if not path.startswith(_METADATA):
            return False
        if self.headers.get("Metadata-Flavor") != "Google":
            self.answer(403, b"Metadata-Flavor: Google is missing")
        elif path == f"{_METADATA}email":
            self.answer(200, ACCOUNT.encode())
        else:
            token = {"access_token": self.cloud.new_token(), "expires_in": 3600}
            self.answer(200, json.dumps(token | {"token_type": "Bearer"}).encode())
        return True

    def error(self, status: int, code: str, message: str = "") -> None:
        text = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
        self.answer(status, f"<?xml version='1.0' encoding='UTF-8'?>{text}".encode())

    def objects(self, path: str) -> None:
        bucket, _, key = path.removeprefix("/").partition("/")
        if bucket not in self.cloud.buckets:
            self.error(404, "NoSuchBucket", "The specified bucket does not exist.")
        elif not key:
            self._list(bucket)
        elif self.command == "PUT":
            self._put(bucket, key)
        elif (stored := self.cloud.buckets[bucket].get(key)) is None:
            self.error(404, "NoSuchKey", "The specified key does not exist.")
        elif self.command == "DELETE":
            self.cloud.buckets[bucket].pop(key, None)
            self.answer(204)
        else:
            self.answer_object(stored, self.headers.get("Range"))

    def _put(self, bucket: str, key: str) -> None:
        data = self.body
        if source := self.headers.get("x-goog-copy-source"):
            of_bucket, _, of_key = unquote(source).removeprefix("/").partition("/")
            found = self.cloud.buckets[of_bucket].get(of_key)
            if found is None:
                self.error(404, "NoSuchKey", "The specified key does not exist.")
                return
            data = found.data
        only_new = self.headers.get("x-goog-if-generation-match") == "0"
        stored = self.cloud.put(bucket, key, data, only_new=only_new)
        if stored is None:
            self.error(412, "PreconditionFailed", "At least one of the pre-conditions did not hold")
        else:
            self.answer(200, b"", stored.headers | {"x-goog-generation": str(stored.generation)})

    def _list(self, bucket: str) -> None:
        page = self.cloud.listed(
            bucket,
            self.query.get("prefix", ""),
            self.query.get("delimiter", ""),
            self.query.get("continuation-token", ""),
        )
        rows = [
            f"<Contents><Key>{escape(key)}</Key><Size>{len(stored.data)}</Size>"
            f"<LastModified>{datetime.fromtimestamp(stored.changed_s, UTC).isoformat()}</LastModified>"
            f'<ETag>"{stored.generation}"</ETag></Contents>'
            for key, stored in page.found
        ]
        rows += [
            f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>"
            for folder in page.folders
        ]
        if page.next:
            rows.append(f"<NextContinuationToken>{escape(page.next)}</NextContinuationToken>")
        self.answer(200, f"<ListBucketResult>{''.join(rows)}</ListBucketResult>".encode())


@contextmanager
def running_google() -> Iterator[CloudServer]:
    """Google Cloud Storage by the identity of a pod; the environment points to it."""
    with serving(GoogleHandler) as cloud, pytest.MonkeyPatch.context() as patched:
        for name in [name for name in os.environ if name.startswith(("GOOGLE_", "GCE_METADATA_"))]:
            patched.delenv(name)
        host = cloud.url.removeprefix("http://")
        patched.setenv("GOOGLE_BASE_URL", cloud.url)
        patched.setenv("GCE_METADATA_HOST", host)
        patched.setenv("GCE_METADATA_IP", host)
        yield cloud
