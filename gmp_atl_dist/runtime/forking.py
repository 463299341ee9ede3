"""Starts workers of a Ray of this machine as forks of a process that has imported what they import."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from gmp_atl_dist.runtime import fork_start

_PATH_BYTES = 100
"""The path of a unix socket has at most 107."""
_BACKLOG = 64
_END_S = 5.0


class ForkServer:
    """The process that forks workers, see ``fork_server.py``. It ends with this one, however that ends.

    Args:
        modules: what it imports.
        env: variables that it has besides those of this process.
    """

    def __init__(self, modules: Sequence[str], env: Mapping[str, str]) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="gaf-", dir=_short_folder()))
        self._socket = self.folder / "socket"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(str(self._socket))
            # Who asks during the imports waits, and needs no imports of its own.
            listener.listen(_BACKLOG)
            file = listener.fileno()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "gmp_atl_dist.runtime.fork_server", str(file), *modules],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                pass_fds=[file],
                env={**os.environ, **env},
                # A Ctrl-C of the terminal is for the command, which ends its workers itself. The session
                # stays that of the command, so all that it has started can be found.
                process_group=0,
            )

    @property
    def pid(self) -> int:
        """The process of the server."""
        return self._process.pid

    @property
    def command(self) -> str:
        """What Ray runs in place of ``python``, as the key ``py_executable`` of a runtime environment."""
        # Without site and the environment, Python starts in 15 ms.
        words = [sys.executable, "-S", "-E", fork_start.__file__, str(self._socket)]
        return shlex.join(words)

    def close(self) -> None:
        """End the server. Processes that it has forked live on."""
        stdin = self._process.stdin
        if stdin is not None:
            with suppress(OSError):
                stdin.close()
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def _short_folder() -> str:
    folder = tempfile.gettempdir()
    return (
        folder if len(os.fsencode(folder)) < _PATH_BYTES - len("/gaf-12345678/socket") else "/tmp"
    )
