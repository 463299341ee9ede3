"""Our side of Ray, as far as it needs no cluster."""

from __future__ import annotations

import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace

import pyarrow as pa
import pytest

from gmp_atl_dist import errors, runtime
from gmp_atl_dist.config import (
    Json,
    RuntimeConfig,
    StreamWorkersConfig,
    WorkersConfig,
)
from gmp_atl_dist.config.file import parse_config
from gmp_atl_dist.errors import (
    ConfigError,
    CorpusError,
    GmpAtlError,
    ModelError,
    WorkerError,
)
from gmp_atl_dist.runtime import connection as connection_module
from gmp_atl_dist.runtime.metrics import StageMetrics
from gmp_atl_dist.runtime.ray_errors import last_line, short_message, unwrap_error
from gmp_atl_dist.runtime.worker_processes import _one_value, _only_value
from gmp_atl_dist.tags import Tags


class Wrapper(Exception):
    """What Ray makes of an error: it holds the cause, not as ``__cause__``."""

    def __init__(self, cause: object) -> None:
        super().__init__("somewhere on a worker")
        self.cause = cause


class GangError(Exception):
    """Ray Train's: the workers' errors by rank."""

    def __init__(self, failures: dict[int, BaseException]) -> None:
        super().__init__("training failed")
        self.worker_failures = failures


def chained(error: BaseException) -> BaseException:
    outer = RuntimeError("outer")
    outer.__cause__ = error
    return outer


def beside(error: BaseException) -> BaseException:
    outer = RuntimeError("outer")
    outer.__context__ = error
    return outer


def of_a_gang(error: BaseException) -> BaseException:
    return GangError({0: ValueError("not it"), 1: error})


@pytest.mark.parametrize("wrap", [Wrapper, chained, beside, of_a_gang])
@pytest.mark.parametrize("again", [Wrapper, chained, of_a_gang])
def test_our_error_is_found_inside_rays(
    wrap: Callable[[BaseException], BaseException], again: Callable[[BaseException], BaseException]
) -> None:
    ours = ModelError("utterance 'u7' is loud")
    assert unwrap_error(ours) is ours
    assert unwrap_error(again(wrap(ours))) is ours


def test_a_class_made_on_the_spot_gives_way_to_the_real_one() -> None:
    """Ray derives a class from the error's own, so that ``except`` works; it cannot be pickled."""
    ours = CorpusError("utterance 'u7' is empty")

    class RayTaskErrorOfCorpusError(Wrapper, CorpusError):
        pass

    found = unwrap_error(RayTaskErrorOfCorpusError(ours))
    assert found is ours
    assert pickle.loads(pickle.dumps(found)).message == ours.message


def test_foreign_errors_and_rings_have_none_of_ours() -> None:
    a, b = RuntimeError("a"), RuntimeError("b")
    a.__cause__, b.__cause__ = b, a
    assert unwrap_error(a) is None
    assert unwrap_error(Wrapper("text")) is None
    assert unwrap_error(Wrapper(None)) is None


def test_the_last_line_is_what_is_values_set() -> None:
    assert last_line(ValueError("first\n\n  last  \n")) == "last"
    assert last_line(ValueError()) == "ValueError"
    assert len(last_line(ValueError("x" * 10_000))) == 300


def test_a_death_is_values_set_in_short() -> None:
    died = RuntimeError("The actor died.\n\tpid: 7\nThe worker was killed.")
    assert short_message(died) == "RuntimeError: The worker was killed."
    # What user code raised comes first; Ray's advice follows it.
    assert (
        short_message(Wrapper(ValueError("a is no b\nTo change this ...")))
        == "ValueError: a is no b"
    )


def test_no_task_needs_no_ray() -> None:
    def never(_: object) -> runtime.TaskWorker:
        raise AssertionError

    def no_reader() -> runtime.TaskReader:
        raise AssertionError

    def no_worker(_: object) -> runtime.StreamWorker:
        raise AssertionError

    workers = StreamWorkersConfig()
    assert list(runtime.map_tasks([], never, None, workers=workers, retries=0)) == []
    assert not list(
        runtime.stream_tasks([], no_reader, no_worker, None, workers=workers, retries=0)
    )


@pytest.mark.parametrize("size", [0, 1, 1000])
def test_a_table_crosses_processes_without_a_copy(size: int) -> None:
    data = pa.py_buffer(bytes(range(256)) * size)
    column = pa.chunked_array([_one_value(data)])
    assert column.to_pylist() == [data.to_pybytes()]
    found = _only_value(column)
    assert (found.address, found.size) == (data.address, data.size)


def test_a_table_may_lie_among_others() -> None:
    column = pa.chunked_array([pa.array([b"one", b"two", b"three"], pa.large_binary())])
    assert [_only_value(column.slice(i, 1)).to_pybytes() for i in range(3)] == column.to_pylist()


def test_workers_are_a_number_or_the_fewest_and_the_most() -> None:
    one, some = WorkersConfig(workers=3), WorkersConfig(workers=(2, 8))
    assert (one.min_workers, one.max_workers) == (3, 3)
    assert (some.min_workers, some.max_workers) == (2, 8)
    assert WorkersConfig.model_validate_json('{"workers": [2, 8]}') == some


@pytest.mark.parametrize(
    ("workers", "message"),
    [
        ([8, 2], " = [8, 2]: the fewest are more than the most; give [fewest, most]"),
        (0, " = 0: expected a whole number of at least 1, or [fewest, most], e.g. [1, 4]"),
        (
            [0, 2],
            " = [0, 2]: expected a whole number of at least 1, or [fewest, most], e.g. [1, 4]",
        ),
        (
            [1, 2, 3],
            " = [1, 2, 3]: expected a whole number of at least 1, or [fewest, most], e.g. [1, 4]",
        ),
        (
            "many",
            " = 'many': expected a whole number of at least 1, or [fewest, most], e.g. [1, 4]",
        ),
    ],
)
def test_workers_that_cannot_be_are_named(workers: Json, message: str) -> None:
    with pytest.raises(ConfigError) as e:
        parse_config({"runtime": {"extract": {"workers": workers}}}, "x.toml")
    assert e.value.message.endswith(f"\n  - x.toml: runtime.extract.workers{message}")


@pytest.mark.parametrize("kind", [WorkerError, *GmpAtlError.__subclasses__()])
def test_errors_come_back_from_another_process(kind: type[GmpAtlError]) -> None:
    error = pickle.loads(pickle.dumps(kind("what, where, and what to do")))
    assert type(error) is kind
    assert str(error) == error.message == "what, where, and what to do"
    assert error.exit_code == kind.exit_code
    assert getattr(errors, kind.__name__) is kind


def test_a_connection_that_is_not_needed_imports_and_starts_nothing() -> None:
    script = (
        "import sys\n"
        "from gmp_atl_dist.config import RuntimeConfig\n"
        "from gmp_atl_dist.runtime import RayConnection\n"
        "with RayConnection(RuntimeConfig()) as connection:\n"
        "    assert connection is not None\n"
        "import gmp_atl_dist.execution\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    loaded = set(subprocess.check_output([sys.executable, "-c", script], text=True).split())
    # Each takes seconds to load, and a run that finds everything done needs none of them.
    assert "pyarrow" in loaded
    assert not loaded & {"ray", "deepspeed", "faiss", "torch", "transformers", "matplotlib"}


def test_a_ray_that_is_connected_already_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def never(*_: object, **__: object) -> None:
        raise AssertionError("must not be called")

    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "init", never)
    monkeypatch.setattr(ray, "shutdown", never)
    with runtime.RayConnection(RuntimeConfig()) as connection:
        connection.open()


@pytest.mark.parametrize(
    ("configured", "environment", "expected"),
    [(None, None, "local"), (None, "head:1", "head:1"), ("mine:2", "head:1", "mine:2")],
)
def test_which_address_is_used(
    monkeypatch: pytest.MonkeyPatch, configured: str | None, environment: str | None, expected: str
) -> None:
    import ray

    calls: list[object] = []

    def init(*, address: str, **_: object) -> SimpleNamespace:
        calls.append(address)
        return SimpleNamespace(address_info={})

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(connection_module, "await_answer", lambda _: None)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: calls.append("shutdown"))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if environment is not None:
        monkeypatch.setenv("RAY_ADDRESS", environment)
    with runtime.RayConnection(RuntimeConfig(ray_address=configured)) as connection:
        connection.open()
        assert calls == [expected]
    assert calls == [expected, "shutdown"]


def test_an_address_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def refuse(**_: object) -> None:
        raise ConnectionError("nobody listens")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(connection_module, "await_answer", lambda _: None)
    monkeypatch.setattr(ray, "init", refuse)
    connection = runtime.RayConnection(RuntimeConfig(ray_address="head:6379"))
    with pytest.raises(WorkerError, match=r"cannot reach Ray at head:6379: nobody .*RAY_ADDRESS"):
        connection.open()


def test_a_gauge_is_set_again_until_its_stage_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray drops a gauge 20 s after it was set, and a process that hangs sets nothing."""
    import ray.util.metrics

    values_set: list[tuple[str, float]] = []

    class Gauge:
        def __init__(self, name: str, *_: object, **__: object) -> None:
            self._name = name

        def set_default_tags(self, _: object) -> Gauge:
            return self

        def set(self, value: float, _: object) -> None:
            values_set.append((self._name, value))

    monkeypatch.setattr(ray.util.metrics, "Gauge", Gauge)
    monkeypatch.setattr("gmp_atl_dist.runtime.metrics._REPEAT_S", 0.01)
    metrics = StageMetrics(Tags("run", "extract", "fold1"))
    metrics.plan(2)
    metrics.finish()
    deadline = time.monotonic() + 120
    while values_set.count(("gmp_atl_parts_planned", 2)) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    metrics.close()
    assert values_set.count(("gmp_atl_parts_planned", 2)) >= 5
    assert values_set.count(("gmp_atl_parts_done", 1)) >= 4
    time.sleep(0.1)
    count = len(values_set)
    time.sleep(0.1)
    assert len(values_set) == count
