"""No wait without an end: each call that can wait has a limit, or stands here with the reason why not.

The table of the limits is ``docs/waits.md``. The tests of this module read the code alone; the tests that cut
the other side stand beside the parts.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("gmp_atl_dist", "ray_jobs")

IN_PROCESS = (
    "work of a thread of this process, which calls the store at most; each call of it has a limit"
)
WOKEN = "woken by the thread that it waits for, also where that one fails"
KILLED = "the process has got SIGKILL"
THREAD = "the thread looks at its event at least once in 15 s, and calls the store at most"
RAYS = "Ray's own end of a connection, after which it gives up by itself"

ALLOWED = {
    ("gmp_atl_dist/clustering/assignment_step.py", "future.result()"): IN_PROCESS,
    ("gmp_atl_dist/clustering/assignment_step.py", "self._pool.shutdown()"): IN_PROCESS,
    ("gmp_atl_dist/corpora/audio_check.py", "future.result()"): IN_PROCESS,
    ("gmp_atl_dist/corpora/audio_check.py", "pool.shutdown(cancel_futures=True)"): IN_PROCESS,
    ("gmp_atl_dist/corpora/files_ahead.py", "loading.result()"): IN_PROCESS,
    ("gmp_atl_dist/corpora/files_ahead.py", "self._pool.shutdown(cancel_futures=True)"): IN_PROCESS,
    (
        "gmp_atl_dist/corpora/files_ahead.py",
        "self._changed.wait_for(lambda: self._may_read(number, size))",
    ): WOKEN,
    ("gmp_atl_dist/inference/started.py", "self.wait()"): "a GPU's work; the stage's limit ends it",
    (
        "gmp_atl_dist/prediction/decoding_room.py",
        "self._changed.wait_for(lambda: self._may_begin(order, num_bytes))",
    ): WOKEN,
    ("gmp_atl_dist/prediction/reading.py", "pending.popleft().result()"): IN_PROCESS,
    ("gmp_atl_dist/prediction/reading.py", "future.result()"): IN_PROCESS,
    ("gmp_atl_dist/prediction/reading.py", "pool.shutdown(cancel_futures=True)"): IN_PROCESS,
    ("gmp_atl_dist/prediction/stream.py", "future.result()"): IN_PROCESS,
    ("gmp_atl_dist/prediction/stream.py", "pool.shutdown(cancel_futures=True)"): IN_PROCESS,
    ("gmp_atl_dist/ray_api/job_output.py", "coming.result()"): "it is done",
    ("gmp_atl_dist/runs/recorder.py", "self._thread.join()"): THREAD,
    ("gmp_atl_dist/store/leases.py", "self._thread.join()"): THREAD,
    ("gmp_atl_dist/runtime/answering.py", "connection.recv(9)"): "the socket has a time limit",
    ("gmp_atl_dist/runtime/connection.py", "ray.shutdown()"): RAYS,
    (
        "gmp_atl_dist/runtime/fork_server.py",
        "connection.recv(size - len(data))",
    ): "the socket has a time limit",
    ("gmp_atl_dist/runtime/fork_start.py", "server.recv(1)"): "the socket has a time limit",
    ("gmp_atl_dist/runtime/forking.py", "self._process.wait()"): KILLED,
    ("gmp_atl_dist/runtime/ray_start.py", "ray.shutdown()"): RAYS,
    (
        "gmp_atl_dist/runtime/worker_processes.py",
        "self._device.submit(_attempt, _START, worker, argument).result()",
    ): "of a worker; the stage's limit in the driver ends it",
    (
        "gmp_atl_dist/runtime/worker_processes.py",
        "self._device.submit(self._compute, task, table).result()",
    ): "of a worker; the stage's limit in the driver ends it",
    (
        "gmp_atl_dist/runtime/worker_processes.py",
        "put.wait()",
    ): "of a worker; the stage's limit in the driver ends it",
    ("gmp_atl_dist/scheduling/lanes.py", "self._changed.wait()"): WOKEN,
    (
        "gmp_atl_dist/serving/server.py",
        "starter.submit(connection.open).result()",
    ): "connecting has limits of its own",
    ("gmp_atl_dist/serving/decoding.py", "self._free.acquire()"): "within the limit of the answer",
    ("gmp_atl_dist/stages/trained.py", "self._thread.join()"): THREAD,
    (
        "gmp_atl_dist/stopping.py",
        "thread.join()",
    ): "the thread reads a pipe that has just been written",
    ("gmp_atl_dist/sweeps/keeping.py", "self._thread.join()"): THREAD,
    ("gmp_atl_dist/training/batches.py", "ahead.popleft().result()"): IN_PROCESS,
    ("gmp_atl_dist/training/checkpoint.py", "self._upload.result()"): IN_PROCESS,
    ("gmp_atl_dist/training/checkpoint.py", "self._pool.submit(int).result()"): IN_PROCESS,
    ("gmp_atl_dist/training/checkpoint.py", "self._pool.shutdown(wait=True)"): IN_PROCESS,
    ("gmp_atl_dist/training/events.py", "self._uploads.shutdown(wait=True)"): IN_PROCESS,
    ("ray_jobs/local.py", "thread.join()"): "one request to the job API, which has a limit",
    ("ray_jobs/local.py", "head.process.wait()"): KILLED,
}

METHODS = ("wait", "wait_for", "join", "result", "acquire", "communicate", "shutdown", "recv")
LIMITED = {
    # Calls by name that must be given these limits as keywords.
    "subprocess.run": ("timeout",),
    "subprocess.check_output": ("timeout",),
    "subprocess.check_call": ("timeout",),
    "subprocess.call": ("timeout",),
    "ray.get": ("timeout",),
    "ray.wait": ("timeout",),
    "asyncio.wait": ("timeout",),
    "socket.create_connection": ("timeout",),
    "urllib.request.urlopen": ("timeout",),
    "dist.init_process_group": ("timeout",),
    "dist.new_group": ("timeout",),
    "deepspeed.init_distributed": ("timeout",),
    "ray.train.torch.TorchConfig": ("timeout_s",),
    "pafs.S3FileSystem": ("connect_timeout", "request_timeout", "retry_strategy"),
    "boto3.client": ("config",),
}


def waits_of(text: str) -> list[str]:
    """The calls in ``text`` that may wait without an end."""
    return [
        ast.unparse(call)
        for call in ast.walk(ast.parse(text))
        if isinstance(call, ast.Call) and is_unbounded(call)
    ]


def is_unbounded(call: ast.Call) -> bool:
    name = ast.unparse(call.func)
    given = {keyword.arg for keyword in call.keywords}
    if name in LIMITED:
        return not given.issuperset(LIMITED[name])
    if name == "fcntl.flock":
        return "LOCK_NB" not in ast.unparse(call)
    if not isinstance(call.func, ast.Attribute):
        return False
    method = call.func.attr
    if method == "get":  # of a queue: a dictionary's has arguments
        return not call.args and not call.keywords
    if method == "shutdown":
        return not any(k.arg == "wait" and ast.unparse(k.value) == "False" for k in call.keywords)
    if method == "recv":
        return True
    # The limit is the last parameter of wait_for, and the only one of the others.
    limits = len(call.args) - (method == "wait_for")
    return method in METHODS and limits < 1 and not given & {"timeout", "timeout_s", "seconds"}


def found_in_the_code() -> set[tuple[str, str]]:
    return {
        (path.relative_to(ROOT).as_posix(), wait)
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        for wait in waits_of(path.read_text(encoding="utf-8"))
    }


def test_every_wait_has_a_limit_or_a_reason() -> None:
    found = found_in_the_code()
    assert sorted(found - ALLOWED.keys()) == [], "give them a limit, or a reason in ALLOWED"
    assert sorted(ALLOWED.keys() - found) == [], "no longer in the code"


@pytest.mark.parametrize(
    "planted",
    [
        "ray.get(reference)",
        "ray.wait(references, num_returns=1)",
        "future.result()",
        "event.wait()",
        "condition.wait_for(lambda: done)",
        "thread.join()",
        "lock.acquire()",
        "waiting.get()",
        "pool.shutdown(wait=True)",
        "subprocess.run(['true'])",
        "dist.new_group(backend='gloo')",
        "deepspeed.init_distributed(dist_backend='gloo')",
        "fcntl.flock(file, fcntl.LOCK_EX)",
        "pafs.S3FileSystem(region='here')",
        "urllib.request.urlopen(url)",
    ],
)
def test_a_wait_without_a_limit_is_seen(planted: str) -> None:
    assert waits_of(planted) == [planted]


@pytest.mark.parametrize(
    "bounded",
    [
        "ray.get(reference, timeout=5)",
        "future.result(3.0)",
        "event.wait(3.0)",
        "condition.wait_for(is_done, 3.0)",
        "', '.join(names)",
        "settings.get('key')",
        "pool.shutdown(wait=False, cancel_futures=True)",
        "dist.new_group(backend='gloo', timeout=limit)",
    ],
)
def test_a_limit_is_seen(bounded: str) -> None:
    assert waits_of(bounded) == []
