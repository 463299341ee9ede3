"""The proxy that misbehaves, and the comparison of what two runs made."""

from __future__ import annotations

import http.server
import math
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from benchmarks.harness.fault_proxy import FaultProxy
from benchmarks.subjects.fault_damage import altered, swapped, truncated
from benchmarks.subjects.fault_results import Result, compare
from gmp_atl_dist.store.faults import find_faults
from gmp_atl_dist.store.filesystem import Store
from tests.support.roots import chain

Damage = Callable[[str, random.Random], str]


class _Store(http.server.BaseHTTPRequestHandler):
    """Takes every object and answers 200."""

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        return None


@pytest.fixture
def proxy() -> Iterator[FaultProxy]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Store) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        made = FaultProxy(server.server_address[1])
        yield made
        made.close()
        server.shutdown()


def put(proxy: FaultProxy, size: int = 10) -> int:
    """The status of a request on a connection of its own."""
    url = f"{proxy.endpoint}/bucket/a?partNumber=1"
    return requests.put(url, data=b"x" * size, timeout=1.0).status_code


def test_requests_pass_and_are_counted(proxy: FaultProxy) -> None:
    assert [put(proxy), put(proxy)] == [200, 200]
    assert proxy.puts == {"/bucket/a": 2}


@pytest.mark.parametrize(
    ("answer", "status"),
    [("slow down", 503), ("unknown key", 403), ("read-only", 403), ("full", 507)],
)
def test_answers_in_the_place_of_the_server(proxy: FaultProxy, answer: str, status: int) -> None:
    proxy.answer = answer
    assert put(proxy) == status
    proxy.heal()
    assert put(proxy) == 200


def test_a_store_that_cannot_be_written_is_read(proxy: FaultProxy) -> None:
    proxy.answer, proxy.writes_only = "read-only", True
    assert put(proxy) == 403
    assert requests.get(f"{proxy.endpoint}/bucket/a", timeout=1.0).status_code == 200
    proxy.heal()
    assert put(proxy) == 200


def test_an_upload_is_reset_in_its_middle(proxy: FaultProxy) -> None:
    proxy.reset_after_bytes = 20_000
    assert put(proxy) == 200, "a small one passes"
    with pytest.raises(requests.exceptions.ConnectionError):
        put(proxy, 2_000_000)


def test_connections_are_refused(proxy: FaultProxy) -> None:
    proxy.refuse = True
    with pytest.raises(requests.exceptions.ConnectionError):
        put(proxy)


def test_a_black_hole_answers_nothing_until_it_is_healed(proxy: FaultProxy) -> None:
    proxy.blackhole = True
    with pytest.raises(requests.exceptions.ReadTimeout):
        put(proxy)
    proxy.heal()
    assert put(proxy) == 200


EXTRACT, WARMUP = ("extract", "a" * 64), ("warmup", "b" * 64)


def result(features: str = "1", losses: tuple[float, ...] = (2.0, 1.0)) -> Result:
    digests = {EXTRACT: {"00000": features, "00001": "2"}, WARMUP: {"training.json": features}}
    return Result(digests, {WARMUP: list(enumerate(losses, start=1))})


def test_results_are_the_same_by_bytes_or_by_losses() -> None:
    assert compare(result(), result()) == []
    assert compare(result(), result(losses=(2.0, 1.000001))) == []


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (result(features="3"), "extract aaaaaaaaaaaa: other bytes in 00000"),
        (result(losses=(2.0, 1.001)), "warmup bbbbbbbbbbbb: losses differ by 0.001"),
        (result(losses=(2.0,)), "warmup bbbbbbbbbbbb: losses differ by inf"),
        (result(losses=(2.0, math.nan)), "warmup bbbbbbbbbbbb: losses differ by nan"),
        (Result({EXTRACT: result().digests[EXTRACT]}, {}), "warmup bbbbbbbbbbbb is missing"),
    ],
)
def test_what_differs_is_named(found: Result, message: str) -> None:
    assert compare(result(), found) == [message]


def test_the_configuration_of_the_runs_is_usable() -> None:
    from benchmarks.subjects.fault_kinds import FAULTS
    from benchmarks.subjects.fault_stage import CONFIG
    from gmp_atl_dist.config.file import load_config

    runtime = load_config(Path(CONFIG)).runtime
    assert runtime.train.min_workers == 2
    assert len(FAULTS) == 23


@pytest.mark.parametrize("damage", [altered, truncated, swapped])
def test_damage_to_an_object_is_found_and_its_seed_repeats_it(
    damage: Damage, tmp_path: Path
) -> None:
    places: list[str] = []
    for copy in ("a", "b"):
        store = Store.open(str(tmp_path / copy))
        assert not damage(store.uri, random.Random(3)), "there is nothing yet"
        chain(store)
        places.append(damage(store.uri, random.Random(3)))
        found = {fault.place for fault in find_faults(store).of("damaged")}
        assert places[-1] in found
        assert len(found) == (2 if damage is swapped else 1)
    assert places[0] == places[1]
