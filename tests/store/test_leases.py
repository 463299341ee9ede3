"""Leases: what a command that is no run uses is neither deleted nor moved while it works."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import time

import pytest
from support.roots import OTHER_HOST, chain, flip, note_run

from gmp_atl_dist.errors import ArtifactError, ConfigError
from gmp_atl_dist.runs.removal import plan_removal
from gmp_atl_dist.runs.repair import plan_repair
from gmp_atl_dist.runs.unreached import collect, plan_collection
from gmp_atl_dist.store.faults import find_faults
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.leases import LEASES, Lease, LeaseKeeper, lease, live_leases, read_leases

pytest_plugins = ["support.roots"]
HOUR_S = 3600.0


def put(store: Store, *fingerprints: str, host: str = OTHER_HOST, seen_s: float = 0.0) -> Lease:
    """A lease of a process elsewhere, which was renewed ``seen_s`` before now."""
    at_s = time.time() - seen_s
    made = Lease(
        what="predict --ray",
        host=host,
        pid=7,
        started_s=at_s - 5,
        seen_s=at_s,
        fingerprints=fingerprints,
    )
    store.put(f"{LEASES}/7-a.json", made.model_dump_json().encode())
    return made


def test_it_is_there_before_the_work_and_gone_after_it(store: Store) -> None:
    with lease(store, "predict --ray") as held:
        assert not read_leases(store)
        held.add("a")
        held.add("b", "a")
        (found,) = live_leases(store)
        assert (found.fingerprints, found.pid) == (("a", "b"), os.getpid())
        assert found.holder.startswith("predict --ray on ")
    assert not store.list(LEASES)


def test_an_error_takes_it_back(folder: Store) -> None:
    def fail() -> None:
        with lease(folder, "predict --ray") as held:
            held.add("a")
            assert read_leases(folder)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not folder.list(LEASES)


def test_it_is_renewed(folder: Store) -> None:
    held = LeaseKeeper(folder, "predict --ray", every_s=0.05)
    held.add("a")
    (first,) = live_leases(folder)
    until_s = time.monotonic() + 30
    while live_leases(folder)[0].seen_s == first.seen_s:
        assert time.monotonic() < until_s
        time.sleep(0.05)
    held.end()
    assert not folder.list(LEASES)


@pytest.mark.parametrize(
    ("seen_s", "lives"), [(0, True), (600, True), (-600, True), (HOUR_S, False)]
)
def test_a_lease_of_another_machine_runs_out(folder: Store, seen_s: float, lives: bool) -> None:
    put(folder, "a", seen_s=seen_s)
    assert bool(live_leases(folder)) is lives


def test_a_killed_process_of_this_machine_holds_nothing(folder: Store) -> None:
    code = (
        "import os, signal, sys\n"
        "from gmp_atl_dist.store.filesystem import Store\n"
        "from gmp_atl_dist.store.leases import LeaseKeeper\n"
        "LeaseKeeper(Store.open(sys.argv[1]), 'predict --ray').add('a')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, folder.uri], check=False)
    assert len(read_leases(folder)) == 1
    assert not live_leases(folder)


def test_a_root_that_cannot_be_written_is_said_once(
    folder: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise ArtifactError("read-only")

    monkeypatch.setattr(Store, "put", refuse)
    with caplog.at_level(logging.WARNING), lease(folder, "predict --ray") as held:
        held.add("a")
        held.add("b")
    (line,) = [record.getMessage() for record in caplog.records]
    assert "no note can be written that predict --ray uses it" in line


def test_gc_keeps_what_is_leased_and_all_that_it_was_made_from(store: Store) -> None:
    made = chain(store)
    other = chain(store, "other")
    put(store, other["label"].key.fingerprint)
    note_run(store, "wanted", {kind: artifact.key for kind, artifact in made.items()})
    plan = plan_collection(store, {}, ["wanted"])

    assert {item.key.kind for item in plan.unreached} == {"retrain", "report"}
    assert set(plan.in_use.values()) == {f"predict --ray on {OTHER_HOST} (process 7)"}
    collect(store, plan, lambda *_: None)
    assert store.exists(other["warmup"].key.manifest_path)


def test_a_command_that_starts_meanwhile_stops_the_deletion(folder: Store) -> None:
    made = chain(folder)
    other = chain(folder, "other")
    note_run(folder, "wanted", {kind: artifact.key for kind, artifact in made.items()})
    plan = plan_collection(folder, {}, ["wanted"])
    put(folder, other["report"].key.fingerprint)
    with pytest.raises(ConfigError, match=r"predict --ray on .* has started meanwhile, .* 0 of 5"):
        collect(folder, plan, lambda *_: None)


def test_gc_clears_away_leases_that_ran_out(folder: Store) -> None:
    made = chain(folder)
    note_run(folder, "wanted", {kind: artifact.key for kind, artifact in made.items()})
    put(folder, made["label"].key.fingerprint, seen_s=HOUR_S)
    plan = plan_collection(folder, {}, ["wanted"])
    assert folder.list(LEASES), "a plan deletes nothing"
    collect(folder, plan, lambda *_: None)
    assert not folder.list(LEASES)


def test_repair_moves_nothing_that_is_leased(folder: Store) -> None:
    made = chain(folder)
    held = put(folder, made["warmup"].key.fingerprint)
    flip(folder, f"{made['warmup'].key.prefix}/files/model.safetensors")
    plan = plan_repair(folder, find_faults(folder))
    assert set(plan.held) == {held.holder}


def test_a_run_whose_model_is_leased_is_not_removed(folder: Store) -> None:
    made = chain(folder)
    note_run(folder, "mine", {kind: artifact.key for kind, artifact in made.items()})
    put(folder, made["retrain"].key.fingerprint)
    with pytest.raises(ConfigError, match=r"predict --ray on .* uses retrain \w{12} of run mine"):
        plan_removal(folder, "mine")
    put(folder, made["retrain"].key.fingerprint, seen_s=HOUR_S)
    assert plan_removal(folder, "mine").artifacts


def test_a_damaged_lease_is_named(folder: Store) -> None:
    folder.put(f"{LEASES}/x.json", b"{")
    with pytest.raises(ArtifactError, match=r"leases/x\.json is damaged .* delete it if no"):
        live_leases(folder)
