"""What tests share: their order, the test data, and stores of each kind on servers of this machine."""

from __future__ import annotations

import gc
import logging
import os
import re
import signal
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from support.azure_server import running_azure
from support.azurite import Azurite, running_azurite
from support.cloud_server import CloudServer
from support.google_server import running_google
from support.s3_server import S3Server, running_s3_server

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.scheduler import LoadScopeScheduling

# As in every worker, and before anything has multiplied matrices.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")

# A job in the background of a shell ignores Ctrl-C, and so would everything that the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Imports make a million objects and no garbage, and are a fifth faster when nobody looks for it.
gc.disable()

# Time limits of single examples only measure how busy the machine is.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

REPOSITORY = Path(__file__).resolve().parents[1]
_LAST = ("integration", "faults")
_LONGEST_FIRST = (
    "test_rayjob",
    "test_train_on_nodes",
    "test_stream_tasks",
    "test_serve",
    "test_observability",
    "test_fit_on_ray",
    "test_extract_on_nodes",
    "test_gpus_on_ray",
    "test_submit_job",
    "test_local_ray",
)
"""Modules of ``_LAST``, so that no process of several is left with a long one at the end."""
_SHARED = {"support.pipeline_runs": "runs", "support.gangs": "gangs"}
"""What is made once per process: the undisturbed run, and the server that ranks are forked from.

Modules that import one of them run in the same process.
"""


_INTO_RAY = ("map_tasks", "stream_tasks", "open_pool", "train")


@pytest.fixture(autouse=True)
def ways_into_ray_are_put_back() -> Iterator[None]:
    """A test that replaces them for good makes every later one of its process run without Ray."""
    yield
    runtime = sys.modules.get("gmp_atl_dist.runtime")
    if runtime is not None:
        modules = {name: getattr(runtime, name).__module__ for name in _INTO_RAY}
        left = {name for name, of in modules.items() if not of.startswith("gmp_atl_dist.")}
        assert not left, f"this test left its own {', '.join(sorted(left))} in gmp_atl_dist.runtime"


@pytest.fixture
def caplog(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> pytest.LogCaptureFixture:
    """All that this package logs, whatever earlier tests of the process left behind.

    pytest listens at the root logger, which gets nothing of this package while a log of a run is open, and
    libraries change levels or turn loggers off when they are configured.
    """
    package = "gmp_atl_dist"
    for name, logger in list(logging.root.manager.loggerDict.items()):
        if isinstance(logger, logging.Logger) and name.startswith(f"{package}."):
            monkeypatch.setattr(logger, "disabled", False)
            monkeypatch.setattr(logger, "propagate", True)
            monkeypatch.setattr(logger, "level", logging.NOTSET)
    logger = logging.getLogger(package)
    monkeypatch.setattr(logger, "disabled", False)
    # Not at the root: its level, and what is turned off there, are those of other libraries.
    monkeypatch.setattr(logger, "propagate", False)
    monkeypatch.setattr(logger, "handlers", [*logger.handlers, caplog.handler])
    monkeypatch.setattr(logging.root.manager, "disable", logging.NOTSET)
    caplog.set_level(logging.INFO, package)
    return caplog


_GPU_TESTS = re.compile(r"(?<!not )\bgpu\b")


def pytest_configure(config: pytest.Config) -> None:
    """Without ``-m gpu`` the session and all that it starts see no GPU, so that CPU tests are CPU tests.

    Before torch asks: the driver reads the variable once.
    """
    if not _GPU_TESTS.search(str(config.getoption("markexpr", ""))):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


@cache
def _shared() -> dict[Path, str]:
    """What each module shares with others, of those that share anything."""
    shared: dict[Path, str] = {}
    for path in (REPOSITORY / "tests").rglob("test_*.py"):
        text = path.read_text()
        for module, name in _SHARED.items():
            if f"from {module} import" in text or f'"{module}"' in text:
                shared[path] = name
    return shared


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Fast tests first, so that a broken one is known before a Ray is started; then the longest."""

    def folder(item: pytest.Item) -> str:
        return item.path.relative_to(REPOSITORY / "tests").parts[0]

    def rank(item: pytest.Item) -> int:
        if folder(item) not in _LAST:
            return 0
        if _shared().get(item.path) == "runs":
            return 1
        name = item.path.stem
        known = name in _LONGEST_FIRST
        return 2 + (_LONGEST_FIRST.index(name) if known else len(_LONGEST_FIRST))

    items.sort(key=rank)
    for item in items:
        if item.get_closest_marker("gpu") and os.environ.get("CUDA_VISIBLE_DEVICES") == "":
            item.add_marker(pytest.mark.skip(reason="no GPU is visible; run with -m gpu"))
        if rank(item):
            item.add_marker(folder(item))


def pytest_collection_finish() -> None:
    """What was imported stays, so no later search for garbage goes through it again."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> LoadScopeScheduling:
    """Of several processes of pytest (``-n 2``) one takes a whole module, or all that share."""
    from xdist.scheduler import LoadScopeScheduling

    shared = {p.relative_to(REPOSITORY).as_posix(): name for p, name in _shared().items()}

    class ByModule(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            module = nodeid.partition("::")[0]
            return shared.get(module, module)

    return ByModule(config, log)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder of test data that is not part of the repository; without it the test is skipped."""
    folder = Path(os.environ.get("GMP_ATL_TEST_DATA") or REPOSITORY.parent / "shared" / "data")
    if not folder.is_dir():
        pytest.skip("no test data here; set GMP_ATL_TEST_DATA to its folder")
    return folder


@pytest.fixture(scope="module")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A server for a module: it starts in a second or two, and takes a fifth of a core when idle."""
    with running_s3_server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(params=["file", "s3"])
def store_uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty root of each kind of store."""
    if request.param == "file":
        return (tmp_path / "root").as_uri()
    server: S3Server = request.getfixturevalue("s3_server")
    return server.new_uri()


@pytest.fixture
def google() -> Iterator[CloudServer]:
    """Google Cloud Storage's API on loopback, by the identity that a metadata server gives."""
    with running_google() as cloud:
        yield cloud


@pytest.fixture
def azure(tmp_path: Path) -> Iterator[CloudServer]:
    """Azure Blob Storage's API on loopback, by a pod's workload identity."""
    with running_azure(tmp_path) as cloud:
        yield cloud


@pytest.fixture(scope="module")
def azurite_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    with running_azurite(tmp_path_factory.mktemp("azurite")) as server:
        yield server


@pytest.fixture
def azurite(azurite_server: Azurite, monkeypatch: pytest.MonkeyPatch) -> Azurite:
    """Microsoft's emulator, to which the environment points; skipped where it is not installed."""
    for name in [name for name in os.environ if name.startswith("AZURE_")]:
        monkeypatch.delenv(name)
    for name, value in azurite_server.env.items():
        monkeypatch.setenv(name, value)
    return azurite_server


@pytest.fixture(params=["file", "s3", "gs", "az", "azurite"])
def any_store_uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty root of each kind of store, the clouds too: for what every store promises."""
    if request.param == "file":
        return (tmp_path / "root").as_uri()
    if request.param == "azurite":
        return request.getfixturevalue("azurite").new_uri()
    if request.param == "s3":
        return request.getfixturevalue("s3_server").new_uri()
    server: CloudServer = request.getfixturevalue({"gs": "google", "az": "azure"}[request.param])
    return server.new_uri(f"{request.param}://")
