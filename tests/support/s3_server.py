"""A real S3 server on loopback (SeaweedFS), for tests and for benchmarks that count requests."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

_S3_READY_S = 240.0
_FOREIGN = ("AWS_ENDPOINT_URL_S3", "AWS_PROFILE", "AWS_SESSION_TOKEN")


@dataclass
class S3Server:
    """A real S3 server on loopback. The environment of this process and its children points to it."""

    endpoint: str
    bucket: str
    _command: Sequence[str]
    _log: Path
    _process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the server's process; it leads a session of its own."""
        if self._process is None:
            raise RuntimeError("the S3 server is not running")
        return self._process.pid

    def new_uri(self) -> str:
        """A root that nothing was ever written to."""
        return f"s3://{self.bucket}/{secrets.token_hex(6)}"

    def start(self) -> None:
        """Start it, or start it again on the same files. Returns before it answers."""
        with self._log.open("ab") as out:
            self._process = subprocess.Popen(
                self._command,
                env=os.environ | {"GOMEMLIMIT": "200MiB", "GOGC": "40"},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def kill(self) -> None:
        """End it at once, as a lost machine does."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def free_ports(count: int) -> list[int]:
    """Different ports of loopback on which nobody listens."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]


@contextmanager
def running_s3_server(folder: Path) -> Iterator[S3Server]:
    """SeaweedFS in one process, with random keys and one bucket; killed at the end."""
    names = ("s3.port", "s3.port.grpc", "master.port", "master.port.grpc", "volume.port")
    names += ("volume.port.grpc", "filer.port", "filer.port.grpc", "admin.port", "admin.port.grpc")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    beside = Path(sys.executable).parent / "weed"
    command = [
        str(beside) if beside.exists() else shutil.which("weed") or "weed",
        *("-logtostderr=true", "mini", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
        *(f"-{name}={port}" for name, port in ports.items()),
        *(
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-admin.ui=false",
            "-webdav=false",
            "-master.telemetry=false",
        ),
        *("-s3.autoCreateBucket=false", "-s3.allowDeleteBucketNotEmpty=false"),
    ]
    endpoint = f"http://127.0.0.1:{ports['s3.port']}"
    keys = {
        "AWS_ACCESS_KEY_ID": secrets.token_hex(8),
        "AWS_SECRET_ACCESS_KEY": secrets.token_hex(16),
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    log = folder.with_suffix(".log")
    with _environment(keys):
        server = S3Server(endpoint, "gmp-atl", command, log)
        server.start()
        try:
            _make_bucket(server, log)
            yield server
        finally:
            server.kill()


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in (*values, *_FOREIGN, "AWS_CA_BUNDLE")}
    for name in _FOREIGN:
        os.environ.pop(name, None)
    if not os.environ.get("AWS_CA_BUNDLE"):
        # boto3 takes an empty one for the name of a file.
        os.environ.pop("AWS_CA_BUNDLE", None)
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def _make_bucket(server: S3Server, log: Path) -> None:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    # The session before would go on with the keys of the server before.
    boto3.setup_default_session()
    config = Config(retries={"max_attempts": 0}, connect_timeout=2, read_timeout=5)
    client = boto3.client("s3", endpoint_url=server.endpoint, config=config)
    deadline = time.monotonic() + _S3_READY_S
    while time.monotonic() < deadline and psutil.pid_exists(server.pid):
        with suppress(BotoCoreError, ClientError):
            client.create_bucket(Bucket=server.bucket)
            client.put_object(Bucket=server.bucket, Key="ready", Body=b"")
            return
        time.sleep(0.2)
    raise RuntimeError(f"the S3 server did not come up; it said:\n{log.read_text()[-3000:]}")
