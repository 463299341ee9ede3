"""The part of Azure Blob Storage's REST API that the store uses, and what gives tokens to pods and machines.

https://learn.microsoft.com/en-us/rest/api/storageservices/blob-service-rest-api
"""

from __future__ import annotations

import json
import os
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

import pytest

from support.cloud_server import CloudHandler, CloudServer, serving

ACCOUNT = "gmpatlaccount"
CLIENT = "00000000-0000-0000-0000-00000000c11e"
TENANT = "00000000-0000-0000-0000-000000007e4a"
ASSERTION = "the-projected-token-of-the-service-account"


class AzureHandler(CloudHandler):
    def identity(self, path: str) -> bool:
        if path == f"/{TENANT}/oauth2/v2.0/token":
            form = {name: values[0] for name, values in parse_qs(self.body.decode()).items()}
            if (form.get("client_id"), form.get("client_assertion")) != (CLIENT, ASSERTION):
                self.answer(401, b'{"error": "invalid_client"}')
            else:
                token = {"access_token": self.cloud.new_token(), "expires_in": 3600}
                self.answer(200, json.dumps(token).encode())
            return True
        if path == "/metadata/identity/oauth2/token":
            if self.headers.get("Metadata") != "true":
                self.answer(400, b'{"error": "invalid_request"}')
            else:
                until = str(int(time.time()) + 3600)
                token = {"access_token": self.cloud.new_token(), "expires_on": until}
                self.answer(200, json.dumps(token).encode())
            return True
        return False

    def error(self, status: int, code: str, message: str = "") -> None:
        text = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>"
        body = f'<?xml version="1.0" encoding="utf-8"?>{text}'.encode()
        self.answer(status, body, {"x-ms-error-code": code})

    def objects(self, path: str) -> None:
        account, container, key = [*path.removeprefix("/").split("/", 2), "", ""][:3]
        if account != ACCOUNT or container not in self.cloud.buckets:
            self.error(404, "ContainerNotFound", "The specified container does not exist.")
        elif self.query.get("comp") == "list":
            self._list(container)
        elif self.query.get("comp") == "batch":
            self._batch(container)
        elif self.command == "PUT":
            self._put(container, key)
        elif self.command == "DELETE":
            self.answer(self._delete(container, key))
        elif (stored := self.cloud.buckets[container].get(key)) is None:
            self.error(404, "BlobNotFound", "The specified blob does not exist.")
        else:
            wanted = self.headers.get("x-ms-range") or self.headers.get("Range")
            self.answer_object(stored, wanted)

    def _put(self, container: str, key: str) -> None:
        if self.headers.get("x-ms-blob-type") != "BlockBlob":
            self.error(400, "InvalidHeaderValue", "x-ms-blob-type")
            return
        only_new = self.headers.get("If-None-Match") == "*"
        stored = self.cloud.put(container, key, self.body, only_new=only_new)
        if stored is None:
            self.error(409, "BlobAlreadyExists", "The specified blob already exists.")
        else:
            self.answer(201, b"", stored.headers)

    def _delete(self, container: str, key: str) -> int:
        return 202 if self.cloud.buckets[container].pop(key, None) is not None else 404

    def _batch(self, container: str) -> None:
        """Deletes of many blobs in one request: one part of ``multipart/mixed`` for each."""
        boundary = f"batchresponse_{secrets.token_hex(8)}"
        parts: list[str] = []
        asked = re.findall(
            r"Content-ID: (\d+)\r\n\r\nDELETE (\S+) HTTP/1.1", self.body.decode(), re.IGNORECASE
        )
        for number, target in asked:
            key = unquote(urlsplit(target).path).removeprefix("/").split("/", 2)[2]
            status = self._delete(container, key)
            said = "Accepted" if status == 202 else "The specified blob does not exist."
            parts.append(
                f"--{boundary}\r\nContent-Type: application/http\r\nContent-ID: {number}\r\n\r\n"
                f"HTTP/1.1 {status} {said}\r\nx-ms-request-id: {number}\r\n\r\n\r\n"
            )
        body = "".join(parts) + f"--{boundary}--\r\n"
        self.answer(202, body.encode(), {"Content-Type": f"multipart/mixed; boundary={boundary}"})

    def _list(self, container: str) -> None:
        page = self.cloud.listed(
            container,
            self.query.get("prefix", ""),
            self.query.get("delimiter", ""),
            self.query.get("marker", ""),
        )
        rows = [
            f"<Blob><Name>{escape(key)}</Name><Properties>"
            f"<Last-Modified>{formatdate(stored.changed_s, usegmt=True)}</Last-Modified>"
            f"<Etag>{stored.generation}</Etag><Content-Length>{len(stored.data)}</Content-Length>"
            f"<Content-Type>application/octet-stream</Content-Type></Properties></Blob>"
            for key, stored in page.found
        ]
        rows += [
            f"<BlobPrefix><Name>{escape(folder)}</Name></BlobPrefix>" for folder in page.folders
        ]
        body = (
            f'<?xml version="1.0" encoding="utf-8"?><EnumerationResults><Blobs>{"".join(rows)}</Blobs>'
            f"<NextMarker>{escape(page.next)}</NextMarker></EnumerationResults>"
        )
        self.answer(200, body.encode())


@contextmanager
def running_azure(folder: Path) -> Iterator[CloudServer]:
    """Azure Blob by the workload identity of a pod, set as AKS sets it; the environment points to it."""
    projected = folder / "azure-identity-token"
    projected.write_text(ASSERTION)
    with serving(AzureHandler) as cloud, pytest.MonkeyPatch.context() as patched:
        for name in [name for name in os.environ if name.startswith("AZURE_")]:
            patched.delenv(name)
        patched.setenv("AZURE_STORAGE_ACCOUNT_NAME", ACCOUNT)
        patched.setenv("AZURE_STORAGE_ENDPOINT", f"{cloud.url}/{ACCOUNT}")
        patched.setenv("AZURE_CLIENT_ID", CLIENT)
        patched.setenv("AZURE_TENANT_ID", TENANT)
        patched.setenv("AZURE_FEDERATED_TOKEN_FILE", str(projected))
        patched.setenv("AZURE_AUTHORITY_HOST", f"{cloud.url}/")
        yield cloud
