"""A real S3 server on loopback behind a proxy that counts HTTP requests by method."""

from __future__ import annotations

import os
import re
import socket
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from tests.support.s3_server import running_s3_server

_REQUEST = re.compile(rb"(GET|PUT|HEAD|POST|DELETE) /[^ ]* HTTP/1\.1\r\n")
_LONGEST_LINE = 4096


@contextmanager
def counted_requests() -> Iterator[tuple[str, Counter[str]]]:
    """(URI of an empty root, requests so far by method); the environment points there meanwhile."""
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as folder, running_s3_server(Path(folder) / "s3") as server:
        proxy = _listen(urlsplit(server.endpoint).port or 0, counts)
        os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        try:
            yield server.new_uri(), counts
        finally:
            proxy.close()


def _listen(upstream: int, counts: Counter[str]) -> socket.socket:
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                try:
                    server = socket.create_connection(("127.0.0.1", upstream))
                except OSError:
                    client.close()
                    continue
                for source, sink, counter in ((client, server, counts), (server, client, None)):
                    threading.Thread(
                        target=_pump, args=(source, sink, counter), daemon=True
                    ).start()

    threading.Thread(target=accept, daemon=True).start()
    return listener


def _pump(source: socket.socket, sink: socket.socket, counts: Counter[str] | None) -> None:
    """Bytes one way; a request line that is cut by a read is looked at with what follows."""
    tail = b""
    with suppress(OSError):
        while data := source.recv(1 << 16):
            if counts is not None:
                seen = tail + data
                end = 0
                for match in _REQUEST.finditer(seen):
                    counts[match[1].decode()] += 1
                    end = match.end()
                tail = seen[max(end, len(seen) - _LONGEST_LINE) :]
            sink.sendall(data)
    for side in (source, sink):
        with suppress(OSError):
            side.shutdown(socket.SHUT_RDWR)
