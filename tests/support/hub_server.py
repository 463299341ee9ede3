"""A hub of datasets on loopback: what ``huggingface_hub`` asks of https://huggingface.co, over HTTP.

A dataset has commits, which are folders, and names of revisions that mean one of them.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

_API = re.compile(r"/api/datasets/(?P<repo>[^/]+/[^/]+)(?:/(?P<what>[^/]+)/(?P<rest>.+))?")
_FILE = re.compile(r"/datasets/(?P<repo>[^/]+/[^/]+)/resolve/(?P<rest>.+)")


@dataclass
class Dataset:
    """Its commits as folders, and its branches and tags."""

    commits: dict[str, Path]
    revisions: dict[str, str]
    gated: bool = False


@dataclass
class Hub:
    """A running server."""

    endpoint: str
    datasets: dict[str, Dataset]
    requests: list[str] = field(default_factory=list)
    """Method and path of each request."""
    silent: str = ""
    """Requests whose path has this in it get no answer."""
    ended: threading.Event = field(default_factory=threading.Event)


@contextmanager
def running_hub(datasets: dict[str, Dataset]) -> Iterator[Hub]:
    """Serve ``datasets``, by OWNER/NAME, until the end."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    hub = Hub(f"http://127.0.0.1:{server.server_address[1]}", datasets)
    server.hub = hub  # pyright: ignore[reportAttributeAccessIssue]
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Refused(Exception):
    def __init__(self, status: int, code: str) -> None:
        super().__init__(code)
        self.status, self.code = status, code


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def _hub(self) -> Hub:
        return self.server.hub  # pyright: ignore[reportAttributeAccessIssue]

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        url = urlsplit(self.path)
        self._hub.requests.append(f"{self.command} {url.path}")
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self._hub.silent and self._hub.silent in url.path:
            self._hub.ended.wait()
            self.close_connection = True
            return
        try:
            if match := _API.fullmatch(url.path):
                self._json(self._api(match, parse_qs(url.query), body))
            elif match := _FILE.fullmatch(url.path):
                self._file(match)
            else:
                raise _Refused(404, "EntryNotFound")
        except _Refused as refused:
            self._send(refused.status, b"", {"X-Error-Code": refused.code})

    def _dataset(self, repo: str) -> Dataset:
        if repo not in self._hub.datasets:
            raise _Refused(404, "RepoNotFound")
        return self._hub.datasets[repo]

    def _commit(self, dataset: Dataset, quoted: str) -> str:
        revision = unquote(quoted)
        commit = dataset.revisions.get(revision, revision)
        if commit not in dataset.commits:
            raise _Refused(404, "RevisionNotFound")
        return commit

    def _api(self, match: re.Match[str], query: dict[str, list[str]], body: bytes) -> Any:
        dataset = self._dataset(match["repo"])
        what = match["what"] or "revision"
        revision, _, path = (match["rest"] or "main").partition("/")
        commit = self._commit(dataset, revision)
        root = dataset.commits[commit]
        if what == "revision":
            return {"id": match["repo"], "sha": commit, "private": False, "gated": dataset.gated}
        if what == "paths-info":
            asked = json.loads(body) if body.startswith(b"{") else parse_qs(body.decode())
            return [_entry(root, p) for p in asked["paths"] if (root / p).exists()]
        folder = root / unquote(path)
        if not folder.exists():
            raise _Refused(404, "EntryNotFound")
        deep = query.get("recursive", ["false"])[0].lower() in ("true", "1")
        found = folder.rglob("*") if deep else folder.iterdir()
        return [_entry(root, str(p.relative_to(root))) for p in sorted(found)]

    def _file(self, match: re.Match[str]) -> None:
        dataset = self._dataset(match["repo"])
        revision, _, path = match["rest"].partition("/")
        if dataset.gated:
            raise _Refused(403, "GatedRepo")
        file = dataset.commits[self._commit(dataset, revision)] / unquote(path)
        if not file.is_file():
            raise _Refused(404, "EntryNotFound")
        data = file.read_bytes()
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if asked is None:
            self._send(200, data, {"Accept-Ranges": "bytes"})
            return
        last = min(int(asked[2] or len(data) - 1), len(data) - 1)
        first = int(asked[1])
        content_range = f"bytes {first}-{last}/{len(data)}"
        self._send(206, data[first : last + 1], {"Content-Range": content_range})

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _entry(root: Path, path: str) -> dict[str, object]:
    place = root / path
    if place.is_dir():
        return {"type": "directory", "path": path, "oid": "0" * 40, "size": 0}
    return {"type": "file", "path": path, "oid": "1" * 40, "size": place.stat().st_size}
