"""What tests share: their order, the test data, and stores on a folder and on a real S3 server."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Time limits of single examples only measure how busy the machine is.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

REPOSITORY = Path(__file__).resolve().parents[1]
_LAST = ("integration", "faults")
_S3_READY_S = 60.0


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Fast tests first, so that a broken one is known before a Ray is started."""

    def rank(item: pytest.Item) -> int:
        folder = item.path.relative_to(REPOSITORY / "tests").parts[0]
        return 1 + _LAST.index(folder) if folder in _LAST else 0

    items.sort(key=rank)
    for item in items:
        if rank(item):
            item.add_marker(_LAST[rank(item) - 1])


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder of test data that is not part of the repository; without it the test is skipped."""
    folder = Path(os.environ.get("GMP_ATL_TEST_DATA") or REPOSITORY.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip("no test data here; set GMP_ATL_TEST_DATA to its folder")
    return folder


@dataclass(frozen=True)
class S3Server:
    """A real S3 server on loopback. The environment of this session's processes points to it."""

    endpoint: str
    bucket: str
    pid: int

    def new_uri(self) -> str:
        """A root that nothing was ever written to."""
        return f"s3://{self.bucket}/{secrets.token_hex(6)}"


def free_ports(count: int) -> list[int]:
    """Different ports of loopback on which nobody listens."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """SeaweedFS in one process, with random keys and one bucket; killed at the end."""
    folder = tmp_path_factory.mktemp("s3")
    names = ("s3.port", "s3.port.grpc", "master.port", "master.port.grpc", "volume.port")
    names += ("volume.port.grpc", "filer.port", "filer.port.grpc", "admin.port", "admin.port.grpc")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    beside = Path(sys.executable).parent / "weed"
    command = [
        str(beside) if beside.exists() else shutil.which("weed") or "weed",
        *("-logtostderr=true", "mini", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"),
        *(f"-{name}={port}" for name, port in ports.items()),
        *("-s3.port.iceberg=0", "-admin.ui=false", "-webdav=false", "-master.telemetry=false"),
        *("-s3.autoCreateBucket=false", "-s3.allowDeleteBucketNotEmpty=false"),
    ]
    endpoint = f"http://127.0.0.1:{ports['s3.port']}"
    environment = {
        "AWS_ACCESS_KEY_ID": secrets.token_hex(8),
        "AWS_SECRET_ACCESS_KEY": secrets.token_hex(16),
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    log = folder.with_suffix(".log")
    with pytest.MonkeyPatch.context() as patch, log.open("wb") as out:
        for name in ("AWS_ENDPOINT_URL_S3", "AWS_PROFILE", "AWS_SESSION_TOKEN"):
            patch.delenv(name, raising=False)
        if not os.environ.get("AWS_CA_BUNDLE"):
            # boto3 takes an empty one for the name of a file.
            patch.delenv("AWS_CA_BUNDLE", raising=False)
        for name, value in environment.items():
            patch.setenv(name, value)
        process = subprocess.Popen(
            command,
            env=os.environ | {"GOMEMLIMIT": "200MiB", "GOGC": "40"},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            _make_bucket(process, endpoint, "gmp-atl", log)
            yield S3Server(endpoint, "gmp-atl", process.pid)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _make_bucket(process: subprocess.Popen[bytes], endpoint: str, bucket: str, log: Path) -> None:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    config = Config(retries={"max_attempts": 0}, connect_timeout=2, read_timeout=5)
    client = boto3.client("s3", endpoint_url=endpoint, config=config)
    deadline = time.monotonic() + _S3_READY_S
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(BotoCoreError, ClientError):
            client.create_bucket(Bucket=bucket)
            client.put_object(Bucket=bucket, Key="ready", Body=b"")
            return
        time.sleep(0.2)
    pytest.fail(f"the S3 server did not come up; it said:\n{log.read_text()[-3000:]}")


@pytest.fixture(params=["file", "s3"])
def store_uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty root of each kind of store."""
    if request.param == "file":
        return (tmp_path / "root").as_uri()
    server: S3Server = request.getfixturevalue("s3_server")
    return server.new_uri()
