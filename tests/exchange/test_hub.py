"""``gmp-atl model push`` against an HTTP server that answers as the hub does."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from gmp_atl_dist.cli.main import main

TOKEN = "hf_a_token_of_the_tests"
CARD = """---
library_name: "transformers"
license: "unknown"
---

# A model of emotions

> **Warning.** It was tested on its training data.
"""


class Hub(BaseHTTPRequestHandler):
    """Create a repository, say how files are to be sent, take a commit."""

    seen: ClassVar[list[tuple[str, str]]] = []
    received: ClassVar[dict[str, bytes]] = {}
    created: ClassVar[dict[str, Any]] = {}
    refuses = False

    def do_POST(self) -> None:
        size = self.headers.get("Content-Length")
        body = self.rfile.read(int(size)) if size else self._chunks()
        type(self).seen.append((self.path, self.headers.get("Authorization", "")))
        if type(self).refuses:
            self._answer({"error": f"no, {TOKEN} may not"}, 403)
        elif self.path == "/api/repos/create":
            type(self).created.update(json.loads(body))
            self._answer({"url": f"http://{self.headers['Host']}/me/emotions"})
        elif self.path.endswith("/preupload/main"):
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False}
                for f in json.loads(body)["files"]
            ]
            self._answer({"files": files})
        elif self.path.endswith("/commit/main"):
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    value = line["value"]
                    type(self).received[value["path"]] = base64.b64decode(value["content"])
            url = f"http://{self.headers['Host']}/me/emotions/commit/{'a' * 40}"
            self._answer({"commitUrl": url, "commitOid": "a" * 40})
        else:
            self._answer({})

    def do_GET(self) -> None:
        type(self).seen.append((self.path, self.headers.get("Authorization", "")))
        self._answer({})

    def _chunks(self) -> bytes:
        whole = b""
        while size := int(self.rfile.readline(), 16):
            whole += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return whole

    def _answer(self, body: dict[str, Any], status: int = 200) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    class Own(Hub):
        seen: ClassVar[list[tuple[str, str]]] = []
        received: ClassVar[dict[str, bytes]] = {}
        created: ClassVar[dict[str, Any]] = {}

    server = ThreadingHTTPServer(("127.0.0.1", 0), Own)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    try:
        yield Own
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "exported"
    folder.mkdir()
    (folder / "README.md").write_text(CARD)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 100)
    return folder


def test_nothing_is_sent_without_yes(
    hub: type[Hub], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["model", "push", str(folder), "me/emotions"]) == 0
    out = capsys.readouterr().out
    for text in (
        "A model of emotions",
        "to me/emotions (public), licence: unknown",
        "model.safetensors",
        "0.026 MB",
        "warning: the licence is not stated",
        "warning: the card has a warning about the protocol",
        "nothing was sent; --yes uploads it",
    ):
        assert text in out
    assert hub.seen == []


def test_yes_uploads_all_files_in_one_commit(
    hub: type[Hub], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["model", "push", str(folder), "me/emotions", "--private", "--yes"]) == 0
    said = capsys.readouterr()
    assert "uploaded: http://127.0.0.1:" in said.out
    assert hub.received == {p.name: p.read_bytes() for p in folder.iterdir()}
    assert (hub.created["name"], hub.created["organization"]) == ("emotions", "me")
    assert hub.created.get("private") is True or hub.created.get("visibility") == "private"
    assert {authorization for _, authorization in hub.seen} == {f"Bearer {TOKEN}"}
    assert TOKEN not in said.out + said.err


def test_what_the_hub_refuses_is_said_without_the_token(
    hub: type[Hub], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.refuses = True
    assert main(["model", "push", str(folder), "me/emotions", "--yes"]) == 4
    err = capsys.readouterr().err
    assert "me/emotions: the upload failed" in err
    assert TOKEN not in err
    assert hub.received == {}


@pytest.mark.parametrize(
    ("name", "repository", "code", "message"),
    [
        ("notes.txt", "me/emotions", 4, "contains notes.txt"),
        (None, "emotions", 2, "has no owner"),
        (None, "me/a b", 2, "is no name of a repository"),
    ],
)
def test_what_should_not_be_sent_is_refused(
    hub: type[Hub],
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    name: str | None,
    repository: str,
    code: int,
    message: str,
) -> None:
    if name:
        (folder / name).write_text("mine")
    assert main(["model", "push", str(folder), repository, "--yes"]) == code
    assert message in capsys.readouterr().err
    assert hub.seen == []


def test_without_a_token_or_a_model_nothing_happens(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    assert main(["model", "push", str(folder), "me/emotions", "--yes"]) == 2
    assert "no token of the hub" in capsys.readouterr().err
    assert main(["model", "push", str(tmp_path / "none"), "me/emotions"]) == 2
    assert "is no run below" in capsys.readouterr().err
