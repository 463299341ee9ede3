"""gmp-atl gc and gmp-atl du: what nothing reaches is named and deleted, and nothing that is in use."""

from __future__ import annotations

import json
import time
from itertools import count
from pathlib import Path

import pytest
from support.command_line import Run
from support.roots import chain, checkpoint, flip, make, note_run

from gmp_atl_dist.errors import ArtifactError, ConfigError
from gmp_atl_dist.runs.unreached import collect, plan_collection
from gmp_atl_dist.store.artifact import Artifact, list_artifacts
from gmp_atl_dist.store.faults import find_faults
from gmp_atl_dist.store.filesystem import Store

pytest_plugins = ["support.command_line", "support.roots"]
OWN = {"warmup", "extract", "label", "retrain", "report"}


def nothing(*_: object) -> None:
    """In the place of a bar."""


def two_runs(store: Store) -> tuple[dict[str, Artifact], dict[str, Artifact]]:
    """Two chains that share corpus and backbone, each with the record of its run."""
    wanted, other = chain(store, "wanted"), chain(store, "other")
    for name, made in (("wanted", wanted), ("other", other)):
        note_run(store, name, {kind: artifact.key for kind, artifact in made.items()})
    return wanted, other


def test_what_a_kept_run_does_not_reach_is_deleted(store: Store) -> None:
    wanted, other = two_runs(store)
    plan = plan_collection(store, {}, ["wanted"])

    assert {item.key for item in plan.unreached} == {other[kind].key for kind in OWN}
    assert {item.runs for item in plan.unreached} == {("other",)}
    assert plan.num_kept == len(wanted)
    assert all(item.is_sealed and item.num_objects == 5 for item in plan.unreached)
    assert len(list_artifacts(store)) == len(wanted) + len(OWN), "a plan deletes nothing"
    collect(store, plan, nothing)

    assert set(list_artifacts(store)) == {artifact.key for artifact in wanted.values()}
    assert find_faults(store).faults == ()
    assert plan_collection(store, {}, ["wanted"]).unreached == ()


@pytest.mark.parametrize("how", ["fingerprint", "its beginning", "path"])
def test_a_kept_report_keeps_all_behind_it(folder: Store, how: str) -> None:
    wanted, other = two_runs(folder)
    key = wanted["report"].key
    names = {"fingerprint": key.fingerprint, "its beginning": key.fingerprint[:10]}
    name = names.get(how, f"{folder.uri}/{key.prefix}/files/report.json")

    plan = plan_collection(folder, {}, [name])
    assert {item.key for item in plan.unreached} == {other[kind].key for kind in OWN}


def test_unfinished_artefacts_and_checkpoints_go_too(folder: Store, tmp_path: Path) -> None:
    wanted, _ = two_runs(folder)
    begun = make(folder, "finetune", seal=False)
    path = checkpoint(folder, begun.key.fingerprint, 10, tmp_path / "local")
    lost = checkpoint(folder, "d" * 64, 10, tmp_path / "local")
    later_s = time.time() + 1000
    plan = plan_collection(folder, {}, ["wanted", "other"], now_s=later_s)

    states = {(item.key.kind, item.is_sealed) for item in plan.unreached}
    assert states == {("finetune", False), ("checkpoints", False)}
    collect(folder, plan, nothing)
    assert not folder.exists(path)
    assert not folder.exists(lost)
    assert not folder.has_any(begun.key.prefix)
    assert {artifact.key for artifact in wanted.values()} <= set(list_artifacts(folder))


def test_an_artefact_that_is_being_written_is_kept(folder: Store) -> None:
    """As of a command that has no record."""
    two_runs(folder)
    make(folder, "predict", seal=False)
    plan = plan_collection(folder, {}, ["wanted", "other"])
    assert (plan.unreached, plan.num_young) == ((), 1)


def test_what_a_live_run_uses_is_kept(store: Store) -> None:
    wanted, other = two_runs(store)
    note_run(store, "other", {"label": other["label"].key}, lives=True)
    plan = plan_collection(store, {}, ["wanted"])

    assert {item.key.kind for item in plan.unreached} == {"retrain", "report"}
    assert {key.kind for key in plan.in_use} == {"warmup", "extract", "label"}
    assert set(plan.in_use.values()) == {"run other"}
    collect(store, plan, nothing)
    left = set(list_artifacts(store))
    assert left == {a.key for a in wanted.values()} | {
        other[kind].key for kind in ("warmup", "extract", "label")
    }


def test_a_run_that_starts_meanwhile_stops_the_deletion(folder: Store) -> None:
    _, other = two_runs(folder)
    plan = plan_collection(folder, {}, ["wanted"])
    note_run(folder, "new", {"report": other["report"].key}, lives=True)
    before = set(list_artifacts(folder))
    with pytest.raises(ConfigError, match=r"run new has started meanwhile, .* 0 of 5 folders"):
        collect(folder, plan, nothing)
    assert set(list_artifacts(folder)) == before


def test_young_ones_and_their_inputs_are_kept(folder: Store) -> None:
    two_runs(folder)
    day_s = 86_400.0
    assert plan_collection(folder, {}, ["wanted"], older_than_s=day_s).unreached == ()
    later_s = time.time() + 2 * day_s
    plan = plan_collection(folder, {}, ["wanted"], older_than_s=day_s, now_s=later_s)
    assert {item.key.kind for item in plan.unreached} == OWN


def test_imported_artefacts_and_what_was_made_from_them_are_kept(folder: Store) -> None:
    two_runs(folder)
    imported = make(folder, "codebook")
    make(folder, "label", {"codebooks": imported}, science="of imported")
    plan = plan_collection(folder, {}, ["wanted", "other"])
    assert (plan.unreached, plan.num_imported) == ((), 2)


def test_by_products_follow_what_they_were_made_from(folder: Store) -> None:
    wanted, other = two_runs(folder)
    kept = make(folder, "codebook", {"features": wanted["extract"]})
    gone = make(folder, "frontend", {"model": other["warmup"]})
    found = {item.key for item in plan_collection(folder, {}, ["wanted"]).unreached}
    assert kept.key not in found
    assert gone.key in found


def test_a_deletion_that_is_killed_leaves_none_without_its_inputs(store: Store) -> None:
    wanted, _ = two_runs(store)

    class Killed(BaseException):
        pass

    calls, dies_at, kills = 0, 0, 0
    delete = Store.delete

    def dies(own: Store, prefix: str) -> None:
        nonlocal calls
        calls += 1
        if calls == dies_at:
            raise Killed
        delete(own, prefix)

    for number in count(2, 5):
        plan = plan_collection(store, {}, ["wanted"])
        calls, dies_at = 0, number
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Store, "delete", dies)
            try:
                collect(store, plan, nothing)
            except Killed:
                kills += 1
                assert [f for f in find_faults(store).faults if f.what == "missing"] == []
                continue
        break
    assert kills >= 2
    # A folder without its manifest is seen as written now; it goes when it is old.
    rest = plan_collection(store, {}, ["wanted"], now_s=time.time() + 1000)
    collect(store, rest, nothing)
    assert set(list_artifacts(store)) == {artifact.key for artifact in wanted.values()}
    assert find_faults(store).faults == ()


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ((), "nothing would be kept: name what is wanted, with --config or --keep"),
        (
            ("wnated",),
            r"--keep wnated: no run and no artefact of that name .*; did you mean wanted",
        ),
        (("abcdef0123",), r"--keep abcdef0123: no run and no artefact of that name"),
    ],
)
def test_what_would_protect_nothing_is_refused(
    folder: Store, keep: tuple[str, ...], message: str
) -> None:
    two_runs(folder)
    with pytest.raises(ConfigError, match=message):
        plan_collection(folder, {}, keep)


def test_a_damaged_manifest_is_repaired_first(folder: Store) -> None:
    wanted, _ = two_runs(folder)
    folder.put(wanted["label"].key.manifest_path, b"{")
    with pytest.raises(ArtifactError, match=r"manifests of label \w{12} cannot .* gmp-atl repair"):
        plan_collection(folder, {}, ["wanted"])


def test_gc_shows_before_it_deletes(folder: Store, gmp_atl: Run) -> None:
    wanted, other = two_runs(folder)
    code, out, err = gmp_atl("gc", "--keep", "wanted", "--root", folder.uri)
    assert (code, err) == (0, "")
    row = next(line for line in out.splitlines() if other["retrain"].key.fingerprint[:12] in line)
    assert [word in row for word in ("retrain", "sealed", "KiB", "other")] == [True] * 4
    assert f"not reached: {len(OWN)} folders" in out
    assert out.endswith("nothing was deleted; --yes deletes it\n")
    code, out, _ = gmp_atl("gc", "--keep", "wanted", "--root", folder.uri, "--older-than", "30d")
    assert "not reached: 0 folders" in out
    assert f"kept, though not reached: {len(OWN)} are too young" in out
    assert gmp_atl("gc", "--keep", "wanted", "--root", folder.uri, "--older-than", "30")[0] == 2
    assert len(list_artifacts(folder)) == len(wanted) + len(OWN)

    code, out, _ = gmp_atl("gc", "--keep", "wanted", "--root", folder.uri, "--yes", "--json")
    told = json.loads(out)
    assert (code, told["deleted"], told["reached"]) == (0, True, len(wanted))
    assert {item["kind"] for item in told["unreached"]} == OWN
    assert told["bytes"] == sum(item["bytes"] for item in told["unreached"])
    assert set(list_artifacts(folder)) == {artifact.key for artifact in wanted.values()}
    assert gmp_atl("gc", "--root", folder.uri)[0] == 2


def test_du_counts_every_object_of_a_root(store: Store, gmp_atl: Run, tmp_path: Path) -> None:
    two_runs(store)
    make(store, "finetune", seal=False)
    checkpoint(store, "d" * 64, 10, tmp_path / "local")
    code, out, _ = gmp_atl("du", "--root", store.uri, "--json")
    told = json.loads(out)
    rows = {(row["below"], row["stage"]): row for row in told["rows"]}

    assert code == 0
    entries = store.list()
    assert told["bytes"] == sum(entry.size for entry in entries)
    assert sum(row["objects"] for row in told["rows"]) == len(entries)
    assert rows["artifacts", "warmup"]["folders"] == 2
    assert rows["artifacts", "warmup"]["unsealed"] == 0
    assert rows["artifacts", "finetune"]["unsealed"] == 1
    assert rows["checkpoints", ""]["objects"] == 3
    assert rows["runs", ""]["folders"] == 2
    code, out, _ = gmp_atl("du", "--root", store.uri)
    assert code == 0
    assert out.splitlines()[-1].startswith(f"{store.uri}: ")


def test_damage_does_not_make_a_deletion_wider(folder: Store) -> None:
    """What a kept run needs is found by manifests, whatever the state of the objects."""
    wanted, _ = two_runs(folder)
    flip(folder, f"{wanted['label'].key.prefix}/files/model.safetensors")
    plan = plan_collection(folder, {}, ["wanted"])
    assert wanted["label"].key not in {item.key for item in plan.unreached}
