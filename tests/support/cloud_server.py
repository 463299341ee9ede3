"""A server of objects on loopback that speaks what clouds speak; the dialects are in modules of their own.

It is a real HTTP server, and no cloud: it shows what the store asks and how it takes the answers, and not how
Google or Azure answer.
"""

from __future__ import annotations

import re
import secrets
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import parse_qsl, unquote, urlsplit

_POLL_S = 0.02
LISTED_AT_ONCE = 100
"""Keys of one page of a listing, few, so that tests see several pages."""


@dataclass(frozen=True)
class Stored:
    data: bytes
    generation: int
    changed_s: float = field(default_factory=time.time)

    @property
    def headers(self) -> dict[str, str]:
        return {
            "ETag": f'"{self.generation}"',
            "Last-Modified": formatdate(self.changed_s, usegmt=True),
            "Content-Type": "application/octet-stream",
        }


@dataclass
class CloudServer:
    """What is stored, who may ask, and what was asked."""

    url: str = ""
    buckets: dict[str, dict[str, Stored]] = field(default_factory=lambda: {"gmp-atl": {}})
    tokens: set[str] = field(default_factory=set)
    """Bearer tokens that were given out; a request without one of them is refused."""
    requests: list[str] = field(default_factory=list)
    fail_next: list[int] = field(default_factory=list)
    """Statuses that the next requests for objects get instead of an answer."""
    denied: bool = False
    """Whether every request for objects is refused with 403."""
    lock: threading.Lock = field(default_factory=threading.Lock)
    generations: int = 0
    scheme: str = ""
    """How URIs of this cloud begin."""

    def new_uri(self, scheme: str) -> str:
        """A root that nothing was ever written to."""
        return f"{scheme}gmp-atl/{secrets.token_hex(6)}"

    def new_token(self) -> str:
        token = secrets.token_hex(16)
        self.tokens.add(token)
        return token

    def put(self, bucket: str, key: str, data: bytes, *, only_new: bool) -> Stored | None:
        """None if the object is there already, and may not be."""
        with self.lock:
            objects = self.buckets[bucket]
            if only_new and key in objects:
                return None
            self.generations += 1
            objects[key] = Stored(data, self.generations)
            return objects[key]

    def listed(self, bucket: str, prefix: str, delimiter: str, after: str) -> Listing:
        """One page of keys below ``prefix`` behind ``after``."""
        with self.lock:
            objects = dict(self.buckets[bucket])
        keys: list[str] = []
        folders: list[str] = []
        for key in sorted(k for k in objects if k.startswith(prefix) and k > after):
            rest = key[len(prefix) :]
            if delimiter and delimiter in rest:
                folder = prefix + rest.partition(delimiter)[0] + delimiter
                if folder not in folders and folder > after:
                    folders.append(folder)
            else:
                keys.append(key)
            if len(keys) + len(folders) == LISTED_AT_ONCE:
                return Listing([(k, objects[k]) for k in keys], folders, key)
        return Listing([(k, objects[k]) for k in keys], folders, "")


@dataclass(frozen=True)
class Listing:
    found: list[tuple[str, Stored]]
    folders: list[str]
    next: str
    """The last key of the page; empty on the last page."""


class CloudHandler(ABC, BaseHTTPRequestHandler):
    """What both dialects share; a dialect answers ``identity`` and ``objects``."""

    protocol_version = "HTTP/1.1"
    cloud: ClassVar[CloudServer]
    body: bytes
    query: dict[str, str]

    @abstractmethod
    def identity(self, path: str) -> bool:
        """Answer a request for a token; False if it is none."""

    @abstractmethod
    def objects(self, path: str) -> None:
        """Answer a request for objects."""

    @abstractmethod
    def error(self, status: int, code: str, message: str = "") -> None:
        """Answer with an error."""

    def _serve(self) -> None:
        url = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length)
        if len(self.body) < length:
            # The client is gone, and what it sent is no object.
            self.close_connection = True
            return
        self.query = dict(parse_qsl(url.query, keep_blank_values=True))
        path = unquote(url.path)
        self.cloud.requests.append(f"{self.command} {path}")
        if self.identity(path):
            return
        if self.cloud.fail_next:
            self.error(self.cloud.fail_next.pop(0), "ServerBusy", "try again")
        elif self.headers.get("Authorization", "").removeprefix("Bearer ") not in self.cloud.tokens:
            self.error(401, "AuthenticationFailed", "no token that was given out")
        elif self.cloud.denied:
            self.error(403, "AccessDenied", "this identity may do nothing")
        else:
            self.objects(path)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve

    def answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response_only(status)
        headers = {"Content-Length": str(len(body))} | (headers or {})
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def answer_object(self, stored: Stored, wanted: str | None) -> None:
        """The object, or the range ``bytes=A-B`` or ``bytes=A-`` of it."""
        size = len(stored.data)
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted or "")
        if self.command == "HEAD" or match is None:
            self.answer(200, stored.data, stored.headers)
            return
        start = int(match[1])
        end = min(int(match[2]) + 1 if match[2] else size, size)
        if start >= size:
            self.error(416, "InvalidRange")
            return
        where = {"Content-Range": f"bytes {start}-{end - 1}/{size}"}
        self.answer(206, stored.data[start:end], stored.headers | where)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: tests read ``requests``."""


@contextmanager
def serving(handler: type[CloudHandler]) -> Iterator[CloudServer]:
    """A server of this dialect for the block."""
    cloud = CloudServer()
    own = type(handler.__name__, (handler,), {"cloud": cloud})
    server = ThreadingHTTPServer(("127.0.0.1", 0), own)
    server.daemon_threads = True
    cloud.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(_POLL_S,), daemon=True)
    thread.start()
    try:
        yield cloud
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
