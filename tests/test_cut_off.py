"""The other side is there and does not answer: each wait ends with an error that says what to do."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Iterator
from functools import partial

import boto3
import pytest
from support.silent import (
    dashboard_that_can_stop,
    dashboard_that_cuts,
    failing_server,
    silent_server,
)

from gmp_atl_dist.config import RuntimeConfig
from gmp_atl_dist.errors import ArtifactError, WorkerError
from gmp_atl_dist.ray_api import job_client, job_output, jobs
from gmp_atl_dist.ray_api.jobs import JobExistsError, Jobs
from gmp_atl_dist.runtime import RayConnection, connection
from gmp_atl_dist.runtime.answering import await_answer
from gmp_atl_dist.store import s3
from gmp_atl_dist.store.filesystem import Store

SOON_S = 20.0
pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def silent() -> Iterator[str]:
    with silent_server() as (host, port):
        yield f"{host}:{port}"


def test_a_head_that_takes_connections_and_says_nothing(
    silent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``ray.init`` itself has not given up after five minutes."""
    brief = partial(await_answer, wait_s=0.5, try_s=0.2)
    monkeypatch.setattr(connection, "await_answer", brief)
    with (
        RayConnection(RuntimeConfig(ray_address=silent)) as ray_connection,
        pytest.raises(WorkerError, match=rf"no Ray answers at {silent} within 0.5 s: nothing is"),
    ):
        ray_connection.open()


def test_a_port_that_nobody_listens_on() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(
            WorkerError, match=r"ConnectionRefusedError.*check runtime\.ray_address"
        ):
            await_answer(f"127.0.0.1:{taken.getsockname()[1]}", wait_s=0.2)


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "what answers is no Ray head"),
        (b"", "the connection is closed at once"),
        (bytes(3) + b"\x04" + bytes(5), None),
    ],
    ids=["a web server", "nothing", "settings of HTTP/2"],
)
def test_what_answers_is_looked_at(said: bytes, problem: str | None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            while True:
                try:
                    made, _ = server.accept()
                except OSError:
                    return
                with made:
                    made.recv(100)
                    made.sendall(said)

        threading.Thread(target=answer, daemon=True).start()
        ask = partial(await_answer, f"127.0.0.1:{server.getsockname()[1]}", wait_s=0.2, try_s=2.0)
        if problem is None:
            ask()
        else:
            with pytest.raises(WorkerError, match=problem):
                ask()
        server.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("address", ["auto", "local", "ray://head:10001", "head"])
def test_addresses_of_other_forms_are_left_to_ray(address: str) -> None:
    await_answer(address, wait_s=0.0, try_s=0.1)


def test_a_store_that_takes_connections_and_says_nothing(
    silent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{silent}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    assert 5 * s3._READ_SILENCE_S + 5 * s3._CONNECT_S < 120
    assert s3._ATTEMPTS_OF_PUTS * s3._PUT_SILENCE_S < 600
    monkeypatch.setattr(s3, "_READ_SILENCE_S", 1.0)
    monkeypatch.setattr(s3, "_ATTEMPTS_OF_READS", 2)
    monkeypatch.setattr(s3, "_PUT_SILENCE_S", 0.3)
    monkeypatch.setattr(s3, "_ATTEMPTS_OF_PUTS", 2)
    store = Store.open("s3://bucket/root")
    for verb, act in (
        ("read", lambda: store.read("a/b")),
        ("list", lambda: store.list("a")),
        ("look up", lambda: store.exists("a/b")),
        ("write", lambda: store.put("a/b", b"data")),
        ("write", lambda: store.put_exclusive("a/b", b"data")),
        ("copy", lambda: store.copy("a/b", "a/c")),
        ("delete", lambda: store.delete("a/b")),
    ):
        began_s = time.monotonic()
        with pytest.raises(ArtifactError, match=rf"cannot {verb} 'a.*AWS_\* environment"):
            act()
        assert time.monotonic() - began_s < SOON_S, verb


@pytest.mark.parametrize(("timeout_s", "attempts"), [(None, 5), (5.0, 2)])
def test_a_store_that_fails_is_asked_so_often(
    timeout_s: float | None, attempts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    with failing_server() as (url, count):
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        with pytest.raises(ArtifactError, match="cannot look up 'a/b'"):
            Store.open("s3://bucket/root", timeout_s=timeout_s).exists("a/b")
        assert count() == attempts


def test_a_dashboard_that_stops_answering_while_a_job_is_followed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(job_output, "_SILENT_S", 0.3)
    monkeypatch.setattr(jobs, "_REACHED_S", 0.5)
    monkeypatch.setattr(jobs, "_LOST_S", 1.0)
    monkeypatch.setattr(jobs, "_AGAIN_S", 0.1)
    monkeypatch.setattr(job_client, "_ANSWER_S", 0.5)
    lines: list[str] = []
    with dashboard_that_can_stop() as (address, process):
        following = Jobs(address)

        def stop_once_silent() -> None:
            # A job that says nothing for a while is followed on.
            while not lines:
                time.sleep(0.05)
            time.sleep(1.5)
            process.send_signal(signal.SIGSTOP)

        threading.Thread(target=stop_once_silent, daemon=True).start()
        began_s = time.monotonic()
        with pytest.raises(
            WorkerError, match=r"does not answer any more .*submit it again to follow"
        ):
            following.follow("j", lines.append)
        assert 1.5 < time.monotonic() - began_s < SOON_S
        assert lines == ["first line\n"]
        with pytest.raises(WorkerError, match=r"imed out.*check --address"):
            following.stop("j")


@pytest.mark.parametrize("after_accepting", [False, True])
def test_a_submission_whose_connection_is_cut_is_sent_again_once_at_most_accepted(
    monkeypatch: pytest.MonkeyPatch, after_accepting: bool
) -> None:
    monkeypatch.setattr(jobs, "_AGAIN_S", 0.01)
    with dashboard_that_cuts(1, after_accepting=after_accepting) as (address, accepted):
        Jobs(address).submit("j", "command")
        assert accepted == ["j"]
        with pytest.raises(JobExistsError, match="already exists"):
            Jobs(address).submit("j", "command")


def test_a_dashboard_that_cuts_every_submission_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(jobs, "_AGAIN_S", 0.01)
    with dashboard_that_cuts(99, after_accepting=False) as (address, accepted):
        with pytest.raises(WorkerError, match=r"Connection aborted.*check --address"):
            Jobs(address).submit("j", "command")
        assert accepted == []
