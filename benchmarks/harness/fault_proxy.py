"""A TCP proxy on loopback between clients and an S3 server, which injects faults.

Faults act on TCP connections. Those that answer in the place of the server act on requests.
"""

from __future__ import annotations

import re
import socket
import struct
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field

_PUT = re.compile(rb"PUT (/[^ ?]*)(?:\?[^ ]*)? HTTP/1\.1\r\n")
_LONGEST_LINE = 4096
_CHUNK = 1 << 14
_POLL_S = 0.05
_WRITES = (b"PUT ", b"POST ", b"DELETE ")
_ANSWERS = {
    "slow down": (b"503 Slow Down", b"SlowDown"),
    "unknown key": (b"403 Forbidden", b"InvalidAccessKeyId"),
    "read-only": (b"403 Forbidden", b"AccessDenied"),
    "full": (b"507 Insufficient Storage", b"XMinioStorageFull"),
}


@dataclass
class FaultProxy:
    """Listens from the start; ``upstream`` is the port of the server.

    Attributes:
        latency_s: added to each piece of data, in both directions.
        reset_after_bytes: a connection is reset when the client has sent so many; None: never.
        answer: what a client gets instead of the server's answer, a key of ``_ANSWERS``; None: the server's.
        writes_only: ``answer`` is for requests that write; others get the server's.
        blackhole: nothing is passed on, and nothing is closed.
        refuse: new connections are reset.
        puts: requests PUT so far by path, without the query.
    """

    upstream: int
    latency_s: float = 0.0
    reset_after_bytes: int | None = None
    answer: str | None = None
    writes_only: bool = False
    blackhole: bool = False
    refuse: bool = False
    puts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def heal(self) -> None:
        """No fault from now on."""
        self.latency_s, self.reset_after_bytes, self.answer = 0.0, None, None
        self.blackhole = self.refuse = self.writes_only = False

    def cut(self) -> None:
        """Reset every open connection."""
        for connection in list(self._open):
            _reset(connection)

    def close(self) -> None:
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        if self.refuse:
            _reset(client)
            return
        try:
            server = socket.create_connection(("127.0.0.1", self.upstream))
        except OSError:
            _reset(client)
            return
        pair = {client, server}
        self._open |= pair
        back = threading.Thread(target=self._pump, args=(server, client, False), daemon=True)
        back.start()
        self._pump(client, server, True)
        back.join()
        self._open -= pair
        for side in pair:
            side.close()

    def _pump(self, source: socket.socket, sink: socket.socket, from_client: bool) -> None:
        tail, passed = b"", 0
        with suppress(OSError):
            while data := source.recv(_CHUNK):
                while self.blackhole:
                    time.sleep(_POLL_S)
                time.sleep(self.latency_s)
                if from_client:
                    tail = self._count(tail + data)
                    passed += len(data)
                    limit = self.reset_after_bytes
                    if limit is not None and passed > limit:
                        _reset(source)
                        _reset(sink)
                        return
                    if self.answer is not None and (
                        not self.writes_only or data.startswith(_WRITES)
                    ):
                        source.sendall(_refusal(self.answer))
                        break
                sink.sendall(data)
        for side in (source, sink):
            with suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)

    def _count(self, seen: bytes) -> bytes:
        """Count the request lines; what may be the beginning of another one."""
        end = 0
        for match in _PUT.finditer(seen):
            self.puts[match[1].decode(errors="replace")] += 1
            end = match.end()
        return seen[max(end, len(seen) - _LONGEST_LINE) :]


def _refusal(answer: str) -> bytes:
    line, code = _ANSWERS[answer]
    body = b'<?xml version="1.0"?><Error><Code>%s</Code><Message>planted</Message></Error>' % code
    head = b"HTTP/1.1 %s\r\nContent-Type: application/xml\r\nContent-Length: %d\r\n" % (
        line,
        len(body),
    )
    return head + b"Connection: close\r\n\r\n" + body


def _reset(connection: socket.socket) -> None:
    """RST instead of FIN."""
    with suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
