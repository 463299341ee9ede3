"""A process that has imported what workers import, and forks each worker that Ray starts on this machine.

A new worker imports Ray, PyTorch, transformers and DeepSpeed, which takes a core 6 s. A gang has four more
processes of Ray besides its workers. A fork has these modules at once, and shares their memory. It imports
Ray itself, in 0.6 s: Ray's C++ part reads its settings at its import, and draws its random ids from a state
that forks would share.

The server has one thread and computes nothing, so that a fork is safe: no lock is held, no pool of threads
and no GPU is in use. It ends when its standard input ends, that is with the process that started it.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import select
import shutil
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_READ_S = 5.0
_RAYLET = "RAY_RAYLET_PID"
"""Ray sets it for each worker."""


@dataclass(frozen=True)
class ForkRequest:
    """What a new process shall be: its words after ``python``, environment, folder, standard streams."""

    words: Sequence[str]
    env: dict[str, str]
    cwd: str
    files: Sequence[int]


def serve(listener: socket.socket, modules: Sequence[str]) -> ForkRequest | None:
    """Fork a process per request. Returns in each of these with its request; in the server, at the end.

    Raises:
        RuntimeError: ``modules`` import Ray. Forks would share its random state, and so draw the same ids.
    """
    _import_all(modules)
    if "ray" in sys.modules:
        raise RuntimeError(f"one of {', '.join(modules)} imports ray, so workers are not forked")
    # The collector would write to every object, and the memory would no longer be shared.
    gc.collect()
    gc.freeze()
    # The kernel takes ended processes away, so none is left as a zombie.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            shutil.rmtree(Path(listener.getsockname()).parent, ignore_errors=True)
            return None
        connection, _ = listener.accept()
        with connection:
            request = _forked(connection)
        if request is not None:
            return request


def _import_all(modules: Sequence[str]) -> None:
    for name in modules:
        try:
            importlib.import_module(name)
        except Exception:
            # The worker imports it again, and its error names the stage.
            traceback.print_exc()


def _forked(connection: socket.socket) -> ForkRequest | None:
    """Answer one request. Returns it in the new process, and None in the server."""
    connection.settimeout(_READ_S)
    files: Sequence[int] = ()
    try:
        head, files, _, _ = socket.recv_fds(connection, 8, 3)
        asked = json.loads(_read(connection, int.from_bytes(head, "big")))
        # A thread could hold a lock, which nobody would release in the new process.
        if threading.active_count() == 1 and _is_open(connection):
            if os.fork() == 0:
                return ForkRequest(asked["words"], asked["env"], asked["cwd"], files)
            connection.sendall(b"1")
    except (OSError, ValueError):
        # The other side is gone, or there is no room for a process. It starts one itself.
        pass
    for file in files:
        os.close(file)
    return None


def _is_open(connection: socket.socket) -> bool:
    """The other side still waits. It may have given up, and have become the worker itself."""
    # It sends nothing more, so only its end can be read.
    return not select.select([connection], [], [], 0)[0]


def _read(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = connection.recv(size - len(data))
        if not more:
            raise ConnectionError("the request ended early")
        data += more
    return data


def become(request: ForkRequest) -> None:
    """Run the Python file of ``request`` as the main program, in a process group of its own."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setpgid(0, 0)
    for number, file in enumerate(request.files):
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(request.env)
    os.chdir(request.cwd)
    script = request.words[0]
    sys.argv = list(request.words)
    added = request.env.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[0] = str(Path(script).parent)
    sys.path[1:1] = [folder for folder in added if folder and folder not in sys.path]
    _end_with(request.env.get(_RAYLET))
    if "numpy" in sys.modules:
        # Python reseeds its own generator after a fork, and torch's has a fixed seed in every process.
        sys.modules["numpy"].random.seed()
    runpy.run_path(script, run_name="__main__")


def _end_with(raylet: str | None) -> None:
    """End this process when its raylet ends, which cannot end what it did not start itself.

    Ray looks at the process id only, so a raylet that nobody has waited for yet would count as alive.
    """
    if raylet is None:
        return
    try:
        ended = os.pidfd_open(int(raylet))
    except ProcessLookupError:
        os._exit(1)

    def wait() -> None:
        select.select([ended], [], [])
        os._exit(1)

    threading.Thread(target=wait, name="raylet", daemon=True).start()


def main(file: int, modules: Sequence[str]) -> None:
    """Serve on the listening socket ``file`` until the standard input ends."""
    with socket.socket(fileno=file) as listener:
        request = serve(listener, modules)
    if request is not None:
        become(request)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
