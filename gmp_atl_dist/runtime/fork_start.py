"""Stands in for ``python`` where Ray starts a worker: has the fork server make the process.

Ray runs ``python -S -E fork_start.py SOCKET default_worker.py ARGS``. The process is given up after that, so
this file imports little, and nothing outside Python's own library. Where no server answers, it becomes the
worker itself, as if it were not there.
"""

from __future__ import annotations

import json
import os
import socket
import sys

ANSWER_S = 60.0
"""How long the server may take. It may still be importing; a process of its own would import as well."""


def forked(path: str, words: list[str]) -> bool:
    """Whether the server at the socket ``path`` has made a process that runs ``words``."""
    request = json.dumps({"words": words, "env": dict(os.environ), "cwd": os.getcwd()}).encode()
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
            server.settimeout(ANSWER_S)
            server.connect(path)
            # The length first: the message may come in pieces, and the files come with its first byte.
            socket.send_fds(server, [len(request).to_bytes(8, "big")], [0, 1, 2])
            server.sendall(request)
            return server.recv(1) == b"1"
    except OSError:
        return False


if __name__ == "__main__":
    _, server_path, *worker = sys.argv
    if not (worker[0].endswith(".py") and forked(server_path, worker)):
        os.execv(sys.executable, [sys.executable, *worker])
