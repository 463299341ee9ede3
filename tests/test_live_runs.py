"""Deletion does not trust clocks: a driver whose clock is late, early, or that is dead."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.roots import chain, flip, note_run

from gmp_atl_dist.errors import ConfigError
from gmp_atl_dist.runs.live import LiveRuns
from gmp_atl_dist.runs.removal import plan_removal
from gmp_atl_dist.runs.repair import plan_repair
from gmp_atl_dist.runs.unreached import collect, plan_collection
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.faults import find_faults
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.runs import RunRecord, write_run

LATE_S = -200.0
EARLY_S = 200.0
DEAD_S = -3600.0
WATCH_S = 3.0


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(str(tmp_path / "root"))


@pytest.fixture(autouse=True)
def short_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gmp_atl_dist.runs.live._LOOK_EVERY_S", 0.1)
    init = LiveRuns.__init__
    monkeypatch.setattr(
        LiveRuns, "__init__", lambda self, store: init(self, store, watch_s=WATCH_S)
    )


def seen(record: RunRecord, clock_s: float) -> RunRecord:
    """The record as a driver writes it now whose clock differs by ``clock_s``."""
    last = record.attempts[-1].model_copy(update={"seen_s": time.time() + clock_s})
    return record.model_copy(update={"attempts": (*record.attempts[:-1], last)})


def run_of(store: Store, made: dict[str, Artifact], clock_s: float) -> RunRecord:
    keys = {name: made[name].key for name in ("ingest", "backbone", "warmup")}
    record = seen(note_run(store, "working", keys, lives=True), clock_s)
    write_run(store, record)
    return record


@contextmanager
def driver(store: Store, record: RunRecord, clock_s: float) -> Iterator[None]:
    """Renews its record until the end of the block."""
    over = threading.Event()

    def renew() -> None:
        while not over.wait(0.3):
            write_run(store, seen(record, clock_s))

    thread = threading.Thread(target=renew)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize("clock_s", [LATE_S, EARLY_S, 0.0])
def test_a_driver_that_writes_is_alive_whatever_its_clock_says(
    store: Store, clock_s: float
) -> None:
    record = run_of(store, chain(store), clock_s)
    with driver(store, record, clock_s):
        assert [r.name for r in LiveRuns(store).find()] == ["working"]


def test_a_dead_driver_is_watched_once(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    run_of(store, chain(store), LATE_S)
    live = LiveRuns(store)
    began_s = time.monotonic()
    assert live.find() == []
    assert time.monotonic() - began_s >= WATCH_S
    said = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(said) == 1
    assert said[0].startswith("run working on ")
    assert "was last seen 200 s ago by the clock of this machine" in said[0]
    began_s = time.monotonic()
    assert live.find() == []
    assert time.monotonic() - began_s < WATCH_S
    assert len([r for r in caplog.records if r.levelno == logging.WARNING]) == 1


def test_one_that_was_not_seen_for_an_hour_is_dead_at_once(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    run_of(store, chain(store), DEAD_S)
    assert LiveRuns(store).find() == []
    assert not caplog.records


def test_repair_holds_what_a_driver_with_a_late_clock_uses(store: Store) -> None:
    made = chain(store)
    record = run_of(store, made, LATE_S)
    flip(store, f"{made['warmup'].key.prefix}/files/model.safetensors")
    with driver(store, record, LATE_S):
        assert set(plan_repair(store, find_faults(store)).held) == {"run working"}
    assert not plan_repair(store, find_faults(store)).held


def test_gc_keeps_what_a_driver_with_a_late_clock_uses(store: Store) -> None:
    made = chain(store)
    note_run(store, "kept", {"ingest": made["ingest"].key})
    record = run_of(store, made, LATE_S)
    with driver(store, record, LATE_S):
        plan = plan_collection(store, {}, ["kept"])
        assert made["warmup"].key in plan.in_use
        assert made["warmup"].key not in {item.key for item in plan.unreached}


def test_gc_stops_for_a_driver_with_a_late_clock_that_starts_meanwhile(store: Store) -> None:
    made = chain(store)
    note_run(store, "kept", {"ingest": made["ingest"].key})
    plan = plan_collection(store, {}, ["kept"])
    assert made["warmup"].key in {item.key for item in plan.unreached}
    record = run_of(store, made, LATE_S)
    with driver(store, record, LATE_S), pytest.raises(ConfigError, match="run working has started"):
        collect(store, plan, lambda *_: None)
    assert store.exists(made["warmup"].key.manifest_path)


def test_a_run_whose_clock_is_late_is_not_removed(store: Store) -> None:
    record = run_of(store, chain(store), LATE_S)
    with driver(store, record, LATE_S), pytest.raises(ConfigError, match="working is running"):
        plan_removal(store, "working")
