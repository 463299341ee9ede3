"""Azurite, Microsoft's emulator of Azure Blob Storage, where it is installed.

``npm install --prefix .azurite azurite`` in the root of the repository installs it; it needs Node.js.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs
import pytest

from support.s3_server import free_ports

_READY_S = 60.0
_ACCOUNT = "gmpatl"
_CONTAINER = "gmp-atl"
REPOSITORY = Path(__file__).resolve().parents[2]


def azurite_command() -> str | None:
    """Azurite's server of blobs: below ``.azurite`` of the repository, or on the path."""
    beside = REPOSITORY / ".azurite" / "node_modules" / ".bin" / "azurite-blob"
    return str(beside) if beside.exists() else shutil.which("azurite-blob")


@dataclass(frozen=True)
class Azurite:
    """A running server."""

    container: str
    """Its URI."""
    env: dict[str, str]
    """What points to it: the account, and its key."""

    def new_uri(self) -> str:
        """A root that nothing was ever written to."""
        return f"{self.container}/{secrets.token_hex(6)}"


@contextmanager
def running_azurite(folder: Path) -> Iterator[Azurite]:
    """A server of its own with one container, by the account's key."""
    command = azurite_command()
    if command is None:
        pytest.skip("Azurite is not installed: npm install --prefix .azurite azurite")
    (port,) = free_ports(1)
    # Azurite takes any key that is base64.
    key = "bm90IGEgc2VjcmV0OiBvbmx5IHRoaXMgc2VydmVyIHRha2VzIGl0Lg=="
    words = [command, "--blobPort", str(port), "--blobHost", "127.0.0.1", "--location", str(folder)]
    words += ["--skipApiVersionCheck", "--disableTelemetry", "--silent"]
    server = subprocess.Popen(
        words,
        env=os.environ | {"AZURITE_ACCOUNTS": f"{_ACCOUNT}:{key}"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    env = {
        "AZURE_STORAGE_ACCOUNT_NAME": _ACCOUNT,
        "AZURE_STORAGE_ACCOUNT_KEY": key,
        "AZURE_STORAGE_ENDPOINT": f"http://127.0.0.1:{port}/{_ACCOUNT}",
    }
    try:
        _make_container(server, port, key)
        yield Azurite(f"az://{_CONTAINER}", env)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def _make_container(server: subprocess.Popen[bytes], port: int, key: str) -> None:
    files = pafs.AzureFileSystem(
        _ACCOUNT,
        account_key=key,
        blob_storage_authority=f"127.0.0.1:{port}",
        blob_storage_scheme="http",
    )
    deadline = time.monotonic() + _READY_S
    while time.monotonic() < deadline and server.poll() is None:
        with suppress(OSError, pa.ArrowException):
            files.create_dir(_CONTAINER)
            return
        time.sleep(0.2)
    raise RuntimeError("Azurite did not come up")
