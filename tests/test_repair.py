"""gmp-atl verify and gmp-atl repair: what is found, what is set aside, and that a kill does no harm."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
from support.command_line import Run
from support.roots import chain, checkpoint, flip, make, note_run

from gmp_atl_dist.errors import ConfigError
from gmp_atl_dist.runs.repair import plan_repair, set_aside
from gmp_atl_dist.store.artifact import Artifact, list_artifacts
from gmp_atl_dist.store.faults import find_faults
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.store.writer import ArtifactWriter

pytest_plugins = ["support.command_line", "support.roots"]
AFTER_WARMUP = {"extract", "label", "retrain", "report"}


def kinds(store: Store) -> set[str]:
    return {key.kind for key in list_artifacts(store)}


def weights(artifact: Artifact) -> str:
    return f"{artifact.key.prefix}/files/model.safetensors"


def test_damaged_weights_and_all_that_was_made_from_them_are_set_aside(store: Store) -> None:
    made = chain(store)
    flip(store, weights(made["warmup"]))
    before = {entry.path: store.read(entry.path) for entry in store.list("artifacts")}

    plan = plan_repair(store, find_faults(store))

    assert {fault.what for fault in plan.faults} == {"damaged"}
    assert plan.faulty == (made["warmup"].key,)
    assert {key.kind for key in plan.dependants} == AFTER_WARMUP
    assert set(plan.dependants.values()) == {f"warmup {made['warmup'].key.fingerprint[:12]}"}
    assert kinds(store) == made.keys(), "a plan moves nothing"
    place = set_aside(store, plan)

    assert kinds(store) == made.keys() - AFTER_WARMUP - {"warmup"}
    left = {entry.path for entry in store.list("artifacts")}
    moved = {entry.path.removeprefix(f"{place}/") for entry in store.list(place)}
    assert left | moved == before.keys() | {"why.json"}
    assert not left & moved
    assert all(store.read(f"{place}/{path}") == before[path] for path in moved - {"why.json"})
    assert made["warmup"].key.prefix in json.loads(store.read(f"{place}/why.json"))["faulty"]
    assert find_faults(store).faults == ()


@pytest.mark.parametrize("what", ["object", "manifest", "other manifest", "inputs"])
def test_each_way_in_which_an_artefact_cannot_be_used(folder: Store, what: str) -> None:
    made = chain(folder)
    warmup, path = made["warmup"], made["warmup"].key.manifest_path
    match what:
        case "object":
            folder.delete(weights(warmup))
        case "manifest":
            folder.put(path, folder.read(path)[:-30])
        case "other manifest":
            folder.put(path, folder.read(made["extract"].key.manifest_path))
        case _:
            manifest = json.loads(folder.read(path))
            manifest["inputs"]["corpus"] = made["backbone"].identity
            folder.put(path, json.dumps(manifest).encode())
    plan = plan_repair(folder, find_faults(folder))

    assert plan.faulty == (warmup.key,)
    assert plan.faults[0].what == ("missing" if what == "object" else "damaged")
    assert {key.kind for key in plan.dependants} == AFTER_WARMUP
    set_aside(folder, plan)
    assert kinds(folder) == {"ingest", "backbone"}
    assert find_faults(folder).faults == ()


def test_what_was_made_from_a_lost_artefact_is_set_aside(folder: Store) -> None:
    """Made again, it may have other bytes, as on GPUs. What was made from the lost one is not kept."""
    made = chain(folder)
    folder.delete(made["warmup"].key.prefix)
    plan = plan_repair(folder, find_faults(folder))

    assert [(fault.what, fault.place) for fault in plan.faults] == [
        ("missing", f"model {made['warmup'].identity[:12]}")
    ]
    assert {key.kind for key in plan.dependants} == AFTER_WARMUP
    set_aside(folder, plan)
    assert kinds(folder) == {"ingest", "backbone"}


def test_a_move_that_is_killed_leaves_no_dependant_without_its_source(store: Store) -> None:
    """Whatever it was killed at: the next repair finds the rest."""
    made = chain(store)
    flip(store, weights(made["warmup"]))
    calls = 0

    class Killed(BaseException):
        pass

    def dies_at(number: int, method: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object) -> object:
            nonlocal calls
            calls += 1
            if calls == number:
                raise Killed
            return method(*arguments)

        return call

    kills = 0
    for number in count(2, 6):
        plan = plan_repair(store, find_faults(store))
        calls = 0
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Store, "copy", dies_at(number, Store.copy))
            patch.setattr(Store, "delete", dies_at(number, Store.delete))
            try:
                set_aside(store, plan)
            except Killed:
                kills += 1
                held = kinds(store)
                assert "warmup" in held, "the artefact at fault goes last"
                continue
        break
    assert kills >= 2
    assert kinds(store) == {"ingest", "backbone"}
    assert [fault.what for fault in find_faults(store).faults] == []
    moved = {entry.path.partition("/artifacts/")[2] for entry in store.list("quarantine")}
    assert {path.split("/")[0] for path in moved if path} == {"warmup", *AFTER_WARMUP}


def test_an_unfinished_artefact_loses_its_damaged_object_alone(folder: Store) -> None:
    begun = make(folder, "extract", {"corpus": make(folder, "ingest")}, seal=False)
    flip(folder, f"{begun.key.prefix}/parts/curves.parquet")
    plan = plan_repair(folder, find_faults(folder))

    assert {fault.what for fault in plan.faults} == {"damaged", "unsealed"}
    assert plan.in_order == ()
    set_aside(folder, plan)
    left = {e.path.removeprefix(f"{begun.key.prefix}/") for e in folder.list(begun.key.prefix)}
    assert left == {"files/model.safetensors", "receipts/files/model.safetensors.json"}
    assert [fault.what for fault in find_faults(folder).faults] == ["unsealed"]


def test_an_unfinished_artefact_of_a_damaged_one_goes_too(folder: Store) -> None:
    """It has no manifest; the record of its run tells that it comes after the damaged one."""
    made = chain(folder)
    of_other_fold = make(folder, "finetune", science="fold2", seal=False)
    begun = make(folder, "finetune", science="fold1", seal=False)
    name = begun.key.fingerprint
    checkpoint_path = checkpoint(folder, name, 10, folder_path(folder) / "local")
    keys = {kind: artifact.key for kind, artifact in made.items()}
    note_run(folder, "first", {**keys, "finetune": begun.key}, fold="fold1")
    note_run(folder, "second", {"finetune": of_other_fold.key}, fold="fold2")
    flip(folder, weights(made["retrain"]))

    plan = plan_repair(folder, find_faults(folder))
    assert {key.kind for key in plan.dependants} == {"report", "finetune"}
    assert begun.key in plan.dependants
    place = set_aside(folder, plan)
    assert not folder.has_any(begun.key.prefix)
    assert not folder.exists(checkpoint_path)
    assert folder.exists(f"{place}/{checkpoint_path}")
    assert folder.has_any(of_other_fold.key.prefix)


def folder_path(store: Store) -> Path:
    return Path(store.absolute("")).parent


def test_checkpoints_are_looked_at(store: Store, gmp_atl: Run, tmp_path: Path) -> None:
    make(store, "ingest")
    name = "e" * 64
    older, newer = (checkpoint(store, name, step, tmp_path / "local") for step in (10, 20))
    code, out, _ = gmp_atl("verify", "--root", store.uri)
    assert (code, out) == (
        0,
        f"1 artefacts and 2 checkpoints of trainings below {store.uri} are intact\n",
    )
    flip(store, newer)
    code, _, err = gmp_atl("verify", "--root", store.uri)
    assert code == 4
    assert f"{newer.partition('/files/')[0]} is damaged: shard.pt: its " in err
    code, out, _ = gmp_atl("repair", "--root", store.uri, "--yes")
    assert code == 0
    assert not store.exists(newer)
    assert store.exists(older)


def test_checkpoints_without_a_readable_record_are_named(
    store: Store, gmp_atl: Run, tmp_path: Path
) -> None:
    make(store, "ingest")
    name = "e" * 64
    sealed, damaged = (
        checkpoint(store, name, step, tmp_path / "local").partition("/files/")[0]
        for step in (10, 20)
    )
    store.put(f"{damaged}/_record.json", b'{"folder": ')
    begun = f"checkpoints/{name}/00000030-a"
    store.put(f"{begun}/files/shard.pt", b"state")

    found = find_faults(store)
    assert [(fault.place, fault.detail) for fault in found.of("damaged")] == [
        (damaged, "its record cannot be read")
    ]
    assert [(fault.place, fault.detail) for fault in found.of("unsealed")] == [
        (begun, "it has no record yet")
    ]
    code, _, err = gmp_atl("verify", "--root", store.uri)
    assert code == 4
    assert f"{damaged} is damaged: its record cannot be read" in err
    assert gmp_atl("repair", "--root", store.uri, "--yes")[0] == 0
    assert not store.list(damaged)
    assert store.list(sealed)
    assert store.list(begun), "a run may still write it"


def test_leftovers_are_named_and_set_aside(folder: Store, tmp_path: Path) -> None:
    made = chain(folder)
    retrain = made["retrain"].key
    left = [
        f"{retrain.prefix}/candidates/0001/model.safetensors",
        f"{retrain.prefix}/parts/planted.parquet",
        "probe-1234/probe",
    ]
    for path in left:
        folder.put(path, b"left")
    left.append(checkpoint(folder, retrain.fingerprint, 10, tmp_path / "local"))
    plan = plan_repair(folder, find_faults(folder))

    assert {fault.what for fault in plan.faults} == {"orphaned"}
    assert plan.in_order == ()
    place = set_aside(folder, plan)
    assert not [path for path in left if folder.exists(path)]
    assert [path for path in left if folder.exists(f"{place}/{path}")] == left
    assert kinds(folder) == made.keys()


def test_nothing_is_moved_that_a_live_run_uses(folder: Store, gmp_atl: Run) -> None:
    made = chain(folder)
    note_run(folder, "working", {"retrain": made["retrain"].key}, lives=True)
    flip(folder, weights(made["warmup"]))
    plan = plan_repair(folder, find_faults(folder))
    assert set(plan.held) == {"run working"}
    with pytest.raises(
        ConfigError, match=r"nothing was moved, .*: run working uses \w+ \w{12}; stop"
    ):
        set_aside(folder, plan)
    code, out, err = gmp_atl("repair", "--root", folder.uri, "--yes")
    assert code == 2
    assert "run working works now and uses" in out
    assert "nothing was moved" in err
    assert kinds(folder) == made.keys()


def test_repair_shows_before_it_moves(folder: Store, gmp_atl: Run) -> None:
    made = chain(folder)
    assert gmp_atl("repair", "--root", folder.uri) == (
        0,
        f"nothing is wrong below {folder.uri}\n",
        "",
    )
    flip(folder, weights(made["warmup"]))
    flip(folder, weights(made["report"]))
    short = made["warmup"].key.fingerprint[:12]

    code, out, _ = gmp_atl("repair", "--root", folder.uri)
    assert code == 4
    assert f"damaged: {weights(made['warmup'])}: its " in out
    assert f"set aside warmup {short}\n" in out
    assert (
        f"set aside retrain {made['retrain'].key.fingerprint[:12]}: made from warmup {short}" in out
    )
    assert out.endswith("nothing was moved; --yes moves it\n")
    code, out, _ = gmp_atl("repair", "--root", folder.uri, "--json")
    told = json.loads(out)
    assert (code, told["quarantine"]) == (4, "")
    assert {name.split("/")[0] for name in told["dependants"]} == AFTER_WARMUP - {"report"}
    assert kinds(folder) == made.keys()

    report = made["report"].key.fingerprint
    code, out, _ = gmp_atl("repair", report[:8], "--root", folder.uri, "--yes")
    assert (code, kinds(folder)) == (0, made.keys() - {"report"})
    assert "give the command of the run again" in out
    code, _, err = gmp_atl("repair", report[:8], "--root", folder.uri)
    assert (code, "nothing that is wrong below" in err) == (2, True)
    assert gmp_atl("verify", "--root", folder.uri)[0] == 4
    assert gmp_atl("repair", "--root", folder.uri, "--yes")[0] == 0
    assert gmp_atl("verify", "--root", folder.uri)[0] == 0


def test_codebooks_that_a_configuration_names_are_sources(folder: Store) -> None:
    corpus = make(folder, "ingest")
    codebook = make(folder, "codebook", {"corpus": corpus})
    name = codebook.key.fingerprint[:16]
    science = {"cluster": {"scales": [{"layer": 6, "codebook": name}, {"layer": 9}]}}
    key = ArtifactKey.of("cluster", 1, science, {})
    ArtifactWriter(folder, key).seal(version=1, science=science, inputs={})
    flip(folder, weights(codebook))

    assert set(plan_repair(folder, find_faults(folder)).dependants) == {key}


def test_what_was_made_from_an_earlier_model_is_named(folder: Store, gmp_atl: Run) -> None:
    """The warm-up was deleted by hand and made again, with other bytes, as on GPUs."""
    made = chain(folder)
    of = {"corpus": made["ingest"], "backbone": made["backbone"]}
    folder.delete(made["warmup"].key.prefix)
    again = make(folder, "warmup", of, weights="other weights")
    assert again.key == made["warmup"].key
    code, out, _ = gmp_atl("verify", "--root", folder.uri)
    assert code == 0, "no object is damaged"
    assert f"note: {made['extract'].key.prefix}: it was made from an earlier model, which" in out

    plan = plan_repair(folder, find_faults(folder))
    assert {fault.what for fault in plan.faults} == {"outdated"}
    assert {key.kind for key in plan.faulty} == {"extract", "report"}
    assert {key.kind for key in plan.dependants} == {"label", "retrain"}
    set_aside(folder, plan)
    assert kinds(folder) == {"ingest", "backbone", "warmup"}
    assert find_faults(folder).faults == ()


def test_a_model_made_again_with_the_same_bytes_is_the_same(folder: Store) -> None:
    made = chain(folder)
    folder.delete(made["warmup"].key.prefix)
    make(folder, "warmup", {"corpus": made["ingest"], "backbone": made["backbone"]})
    assert find_faults(folder).faults == ()
