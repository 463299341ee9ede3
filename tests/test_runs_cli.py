"""Runs from the store alone: status, list, removal, export and models, with and without the corpus."""

from __future__ import annotations

import io
import json
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.command_line import Run
from support.one_process import context_of, no_ray, tiny_experiment
from support.toml_files import toml_of

from gmp_atl_dist import execution
from gmp_atl_dist.config import RunConfig
from gmp_atl_dist.corpora.synth import write_synthetic_corpus
from gmp_atl_dist.errors import ArtifactError, ConfigError
from gmp_atl_dist.predict import Predictor
from gmp_atl_dist.runs.models import resolve_model
from gmp_atl_dist.runs.names import named
from gmp_atl_dist.runs.recorder import RunRecorder
from gmp_atl_dist.store.artifact import find_artifact, list_artifacts
from gmp_atl_dist.store.faults import find_faults
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.store.progress import ProgressSnapshot
from gmp_atl_dist.store.runs import Attempt, Machine, RunRecord, StageRun, read_run, write_run

pytest_plugins = ["support.command_line", "support.one_process"]


@dataclass(frozen=True)
class Ran:
    """A finished run of two folds whose corpus was moved away afterwards."""

    config: RunConfig
    root: Path
    corpus: Path

    @property
    def wav(self) -> Path:
        return next(self.corpus.rglob("*.wav"))

    @property
    def name(self) -> str:
        return self.config.runtime.run_name

    @property
    def record(self) -> RunRecord:
        record = read_run(Store.open(str(self.root)), self.name)
        assert record is not None
        return record


def run_it(config: RunConfig, corpus: Path) -> None:
    context = context_of(config.runtime.root, corpus, config)
    with no_ray(), RunRecorder(config, context, "mine.toml") as recorder:
        execution.run_pipeline(config, context, [recorder])


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("ran")
    corpus = folder / "EmoTest"
    write_synthetic_corpus(corpus, utterances_per_speaker_and_emotion=1, seconds=(0.3, 0.6))
    two = {"by": "session", "run": [1, 2]}
    config = named(tiny_experiment(corpus, folder / "root", folds=two), "mine.toml")
    run_it(config, corpus)
    corpus.rename(folder / "moved")
    return Ran(config, folder / "root", folder / "moved")


@pytest.fixture
def copy(ran: Ran, tmp_path: Path) -> Ran:
    """Another root with the same, to be changed."""
    shutil.copytree(ran.root, tmp_path / "root")
    return Ran(ran.config, tmp_path / "root", ran.corpus)


def written(config: RunConfig, path: Path) -> Path:
    path.write_text(toml_of(config))
    return path


def test_status_without_the_corpus(gmp_atl: Run, ran: Ran, tmp_path: Path) -> None:
    code, out, err = gmp_atl("status", ran.name, "--root", ran.root)
    assert (code, err) == (0, "")
    assert out.startswith(f"run {ran.name}: done, started 20")
    assert out.count(" done ") == 2 + 2 * 7 + 1
    # The only run needs no name.
    assert gmp_atl("status", "--root", ran.root)[1] == out
    config = written(ran.config, tmp_path / "mine.toml")
    assert gmp_atl("status", "--config", config)[1] == out

    code, out, err = gmp_atl("status", f"{ran.name[:-1]}x", "--root", ran.root)
    assert (code, out) == (2, "")
    assert f"is no run below {ran.root.as_uri()}; did you mean {ran.name}? runs there: " in err
    code, _, err = gmp_atl("status", ran.name, "--config", config)
    assert (code, "give one of the two" in err) == (2, True)


def test_status_of_a_root_without_a_record(gmp_atl: Run, copy: Ran, tmp_path: Path) -> None:
    shutil.rmtree(copy.root / "runs")
    config = written(copy.config, tmp_path / "mine.toml")
    code, out, err = gmp_atl("status", "--config", config, "--root", copy.root)
    assert (code, err) == (0, "")
    assert "no run of this configuration is recorded" in out
    assert "is the only one of this configuration; the files that it was made of cannot be" in out
    assert out.count(" done ") == 2 + 2 * 7 + 1
    # Another [corpus] section was never ingested there, so nothing can be said.
    words = ("--config", config, "--root", copy.root, "--set", "corpus.part_audio_s=6")
    code, out, err = gmp_atl("status", *words)
    assert (code, out) == (3, "")
    assert f"{copy.root.as_uri()} has no ingest artefact of this configuration" in err
    # Two corpora of one configuration: which one is meant?
    (one,) = (copy.root / "artifacts" / "ingest").iterdir()
    other = one.parent / ("0" * 64)
    shutil.copytree(one, other)
    manifest = other / "_manifest.json"
    manifest.write_text(manifest.read_text().replace(one.name, other.name))
    code, _, err = gmp_atl("status", "--config", config, "--root", copy.root)
    assert (code, "has 2 ingest artefacts of this configuration" in err) == (3, True)
    code, out, _ = gmp_atl("runs", "--root", copy.root)
    assert (code, "no run is recorded there" in out) == (0, True)


def test_a_copy_of_the_corpus_finds_everything(gmp_atl: Run, copy: Ran, tmp_path: Path) -> None:
    """Its files have other times, and a run would read them again; a look need not."""
    shutil.rmtree(copy.root / "runs")
    shutil.copytree(copy.corpus, tmp_path / "EmoTest", copy_function=shutil.copyfile)
    assert any((tmp_path / "EmoTest").rglob("*.wav"))
    config = written(copy.config, tmp_path / "mine.toml")
    words = ("--root", copy.root, "--set", f"runtime.corpus={tmp_path / 'EmoTest'}")
    code, out, _ = gmp_atl("status", "--config", config, *words)
    assert code == 0
    assert "have changed or were copied; gmp-atl run would read them again" in out
    assert out.count(" done ") == 2 + 2 * 7 + 1


def killed(copy: Ran, stage: str) -> None:
    """As if the driver had been killed on another machine in ``stage`` an hour ago."""
    record, hour_ago = copy.record, time.time() - 3600
    dead = Attempt(started_s=hour_ago - 60, seen_s=hour_ago, pid=1, machine=Machine(host="node7"))
    known = record.stage(stage)
    assert known is not None
    (copy.root / f"artifacts/{known.kind}/{known.fingerprint}/_manifest.json").unlink()
    update = {"state": "running", "attempt": 1, "started_s": hour_ago, "duration_s": None}
    stages = [s if s is not known else s.model_copy(update=update) for s in record.stages]
    write_run(
        Store.open(str(copy.root)),
        record.model_copy(update={"attempts": (*record.attempts, dead), "stages": tuple(stages)}),
    )


def test_a_killed_run_and_its_stage_are_told(gmp_atl: Run, copy: Ran) -> None:
    killed(copy, "evaluate fold2")
    known = copy.record.stage("evaluate fold2")
    assert known is not None
    store = Store.open(str(copy.root))
    snapshot = ProgressSnapshot(done=1, total=4, unit="parts", ends_in_s=77).model_dump_json()
    store.put(f"artifacts/evaluate/{known.fingerprint}/_progress.json", snapshot.encode())
    code, out, _ = gmp_atl("status", copy.name, "--root", copy.root)
    assert code == 0
    assert out.startswith(f"run {copy.name}: killed, started ")
    assert "on node7" in out
    assert "\nto continue, give the last command again: " in out
    (line,) = [line for line in out.splitlines() if "evaluate fold2" in line]
    assert "killed" in line
    assert "1/4 parts" in line
    assert "ends in" not in out
    assert "started" not in line
    code, out, _ = gmp_atl("status", copy.name, "--root", copy.root, "--json")
    told = json.loads(out)
    assert (told["run"], told["state"], told["notes"]) == (copy.name, "killed", [])
    (row,) = [row for row in told["stages"] if row["label"] == "evaluate fold2"]
    assert (row["state"], row["ends_s"]) == ("killed", None)
    # The same of a run that is alive.
    alive = copy.record.attempts[-1].model_copy(update={"seen_s": time.time()})
    attempts = (copy.record.attempts[0], alive)
    write_run(store, copy.record.model_copy(update={"attempts": attempts}))
    told = json.loads(gmp_atl("status", copy.name, "--root", copy.root, "--json")[1])
    (row,) = [row for row in told["stages"] if row["label"] == "evaluate fold2"]
    assert (told["state"], row["state"]) == ("running", "running")
    assert row["ends_s"] == pytest.approx(time.time() + 77, abs=20)


def test_runs_are_listed_and_shown(gmp_atl: Run, ran: Ran) -> None:
    code, out, _ = gmp_atl("runs", "--root", ran.root)
    assert code == 0
    uar = ran.record.scores["uar"]
    (line,) = [line for line in out.splitlines() if ran.name in line]
    assert f"{100 * uar.value:.1f} % ({100 * uar.low:.1f} to {100 * uar.high:.1f})" in line
    assert ran.record.chance is not None
    assert f"│ {100 * ran.record.chance:.1f} % " in line
    assert "done" in line
    (listed,) = json.loads(gmp_atl("runs", "--root", ran.root, "--json")[1])
    assert (listed["name"], listed["run_state"]) == (ran.name, "done")
    code, out, _ = gmp_atl("runs", "show", ran.name, "--root", ran.root)
    assert code == 0
    for words in (
        "corpus: IEMOCAP",
        "attempt 1: done",
        "chance is 25.0 %",
        "versions: python 3",
        f"runs/{ran.name}/report.html",
        "finetune fold2",
    ):
        assert words in out, words
    # The sources of a release have no history.
    assert ("commit: " in out) == (Path(__file__).parents[1] / ".git").exists()
    shown = json.loads(gmp_atl("runs", "show", ran.name, "--root", ran.root, "--json")[1])
    assert shown["duration_s"] > 0
    assert gmp_atl("runs", "show", "nothing", "--root", ran.root)[0] == 2


def test_a_model_is_exported_without_corpus_and_configuration(
    gmp_atl: Run, ran: Ran, tmp_path: Path
) -> None:
    common = ("model", "export", ran.name, "--root", ran.root, "--to", tmp_path / "model")
    code, _, err = gmp_atl(*common)
    assert (code, "this experiment has several folds; give --fold, one of 1, 2" in err) == (2, True)
    code, _, err = gmp_atl(*common, "--fold", "2")
    assert (code, err) == (0, "")
    card = (tmp_path / "model" / "README.md").read_text()
    assert "# gmp-atl-IEMOCAP-finetune-fold2" in card
    assert "Corpus IEMOCAP (adapter `iemocap`)" in card
    assert f"Run `{ran.name}`." in card
    assert str(ran.root) not in card
    assert Predictor(tmp_path / "model").predict([ran.wav])[0]


def test_runs_rm_deletes_nothing_without_an_answer(
    gmp_atl: Run, copy: Ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO())
    code, out, _ = gmp_atl("runs", "rm", copy.name, "--root", copy.root)
    assert code == 0
    assert out.endswith("nothing was deleted; --yes deletes without asking\n")
    assert copy.name in gmp_atl("runs", "--root", copy.root)[1]


def test_a_push_takes_the_name_of_a_run(gmp_atl: Run, ran: Ran, tmp_path: Path) -> None:
    code, out, _ = gmp_atl("model", "push", ran.name, "me/x", "--root", ran.root, "--fold", "2")
    assert code == 0
    assert out.startswith("gmp-atl-IEMOCAP-finetune-fold2\nto me/x (public)")
    assert "model.safetensors" in out
    assert out.endswith("nothing was sent; --yes uploads it\n")
    code, _, err = gmp_atl("model", "push", tmp_path, "me/x", "--fold", "2")
    assert code == 2
    assert "--root and --fold go with the name of a run" in err


def test_a_model_is_found_by_what_people_call_it(ran: Ran, tmp_path: Path) -> None:
    root = str(ran.root)
    with pytest.raises(ConfigError, match="has several folds; give --fold, one of 1, 2"):
        resolve_model(ran.name, root=root)
    with pytest.raises(ConfigError, match="--fold 7: is not one of this run"):
        resolve_model(ran.name, root=root, fold=7)
    found = resolve_model(ran.name, root=root, fold=2)
    assert (found.label, found.fold) == (f"{ran.name} fold2", "fold2")
    assert found.record == ran.record
    stage = ran.record.stage("finetune fold2")
    assert stage is not None
    assert found.uri == f"{ran.root.as_uri()}/artifacts/finetune/{stage.fingerprint}/files"
    answer = Predictor(found.uri).predict([ran.wav])
    for reference, given in (
        (stage.fingerprint, root),
        (stage.fingerprint[:9], root),
        (found.uri, None),
        (found.uri.removeprefix("file://"), None),
        (found.uri.removeprefix("file://").removesuffix("/files"), None),
    ):
        same = resolve_model(reference, root=given)
        assert Predictor(same.uri).predict([ran.wav]) == answer
    assert resolve_model(stage.fingerprint[:9], root=root).label == f"{ran.name} fold2"
    other = ran.record.stage("retrain fold2")
    assert other is not None
    with pytest.raises(ArtifactError, match="is the fingerprint of retrain"):
        resolve_model(other.fingerprint, root=root)
    with pytest.raises(ConfigError, match=rf"did you mean {ran.name}\? runs there: "):
        resolve_model(ran.name[:-2], root=root)
    with pytest.raises(ConfigError, match="no run is recorded there"):
        resolve_model("demo", root=str(tmp_path))


def test_a_model_that_is_not_trained_yet_is_told(copy: Ran) -> None:
    for fold in ("1", "2"):
        stage = copy.record.stage(f"finetune fold{fold}")
        assert stage is not None
        (copy.root / f"artifacts/finetune/{stage.fingerprint}/_manifest.json").unlink()
        if fold == "1":
            with pytest.raises(ConfigError, match=r"--fold 1: is not trained yet; run .*: 2"):
                resolve_model(copy.name, root=str(copy.root), fold=1)
    with pytest.raises(ArtifactError, match="has no classifier yet"):
        resolve_model(copy.name, root=str(copy.root))


@pytest.fixture(scope="module")
def both(ran: Ran, tmp_path_factory: pytest.TempPathFactory) -> tuple[Ran, str]:
    """A root with a second run, which differs from finetune on; and its name."""
    root = tmp_path_factory.mktemp("both") / "root"
    shutil.copytree(ran.root, root)
    finetune = ran.config.finetune.model_copy(update={"epochs": 1})
    runtime = ran.config.runtime.model_copy(update={"root": str(root), "run_name": "unnamed"})
    config = ran.config.model_copy(update={"finetune": finetune, "runtime": runtime})
    other = named(config, "b.toml")
    corpus = Path(ran.config.runtime.corpus)
    ran.corpus.rename(corpus)
    try:
        run_it(other, corpus)
    finally:
        corpus.rename(ran.corpus)
    return Ran(ran.config, root, ran.corpus), other.runtime.run_name


@pytest.fixture
def two(both: tuple[Ran, str], tmp_path: Path) -> tuple[Ran, str]:
    """A copy of it, to be changed."""
    ran, other = both
    shutil.copytree(ran.root, tmp_path / "two")
    return Ran(ran.config, tmp_path / "two", ran.corpus), other


def kinds(root: Path) -> dict[str, int]:
    keys = list_artifacts(Store.open(str(root)))
    return {kind: sum(k.kind == kind for k in keys) for kind in sorted({k.kind for k in keys})}


def test_a_removed_run_takes_only_what_nobody_else_uses(gmp_atl: Run, two: tuple[Ran, str]) -> None:
    ran, other = two
    before = kinds(ran.root)
    assert (before["finetune"], before["warmup"], before["report"]) == (4, 2, 2)
    keep = {p: p.read_bytes() for p in (ran.root / "artifacts" / "codebook").rglob("*.parquet")}
    command = ("runs", "rm", ran.name, "--root", ran.root)

    code, out, _ = gmp_atl(*command, "--dry-run")
    assert code == 0
    assert kinds(ran.root) == before
    assert out.count("\ndelete finetune ") == 2
    assert "keep warmup " in out
    planned = json.loads(gmp_atl(*command, "--dry-run", "--json")[1])
    size_before = sum(p.stat().st_size for p in ran.root.rglob("*") if p.is_file())
    assert gmp_atl(*command, "--yes")[0] == 0
    size_after = sum(p.stat().st_size for p in ran.root.rglob("*") if p.is_file())
    assert size_before - size_after == planned["bytes"] > 0

    assert kinds(ran.root) == before | {"finetune": 2, "evaluate": 2, "report": 1}
    assert all(path.read_bytes() == data for path, data in keep.items())
    assert not (ran.root / "runs" / ran.name).exists()
    deleted = [k.split("/")[1] for k in planned["deleted"] if k.startswith("finetune/")]
    left = [str(p) for p in (ran.root / "logs").rglob("*")]
    assert not [path for path in left for fingerprint in deleted if fingerprint[:12] in path]
    assert gmp_atl("verify", "--root", ran.root)[0] == 0
    told = json.loads(gmp_atl("status", other, "--root", ran.root, "--json")[1])
    assert {row["state"] for row in told["stages"]} == {"done"}

    assert gmp_atl("runs", "rm", other, "--root", ran.root, "--yes")[0] == 0
    assert kinds(ran.root) == {}
    assert {p.name for p in ran.root.rglob("*") if p.is_file()} == {"_layout.json"}


def test_what_an_unfinished_run_will_find_is_kept(gmp_atl: Run, two: tuple[Ran, str]) -> None:
    """Its record does not name the stages that it has not reached."""
    ran, other = two
    store = Store.open(str(ran.root))
    record = read_run(store, other)
    assert record is not None
    stopped = record.attempts[-1].model_copy(update={"state": "stopped"})
    write_run(
        store,
        record.model_copy(
            update={"stages": record.stages[:2], "report": "", "attempts": (stopped,)}
        ),
    )
    planned = json.loads(gmp_atl("runs", "rm", ran.name, "--root", ran.root, "--yes", "--json")[1])
    assert kinds(ran.root)["warmup"] == 2
    assert kinds(ran.root)["report"] == 1
    assert len(planned["kept"]) == 2 + 2 * 5


def test_artefacts_of_an_older_release_keep_their_inputs(
    gmp_atl: Run, two: tuple[Ran, str]
) -> None:
    ran, other = two
    shutil.rmtree(ran.root / "runs" / other)
    assert gmp_atl("runs", "rm", ran.name, "--root", ran.root, "--yes")[0] == 0
    found = kinds(ran.root)
    assert (found["ingest"], found["retrain"], found["finetune"]) == (1, 2, 2)


def test_a_running_run_is_not_removed(gmp_atl: Run, copy: Ran) -> None:
    record = copy.record
    alive = Attempt(started_s=time.time(), seen_s=time.time(), machine=Machine(host="node7"))
    write_run(
        Store.open(str(copy.root)),
        record.model_copy(update={"attempts": (*record.attempts, alive)}),
    )
    before = kinds(copy.root)
    code, _, err = gmp_atl("runs", "rm", copy.name, "--root", copy.root, "--yes")
    assert (code, "is running (last seen on node7); stop it first" in err) == (2, True)
    assert kinds(copy.root) == before


def test_half_done_stages_and_checkpoints_go_too(gmp_atl: Run, copy: Ran) -> None:
    killed(copy, "retrain fold2")
    stage = copy.record.stage("retrain fold2")
    assert isinstance(stage, StageRun)
    store = Store.open(str(copy.root))
    store.put(f"checkpoints/{stage.fingerprint}/10-a/files/x", b"x" * 100)
    store.put("checkpoints/" + "9" * 64 + "/10-a/files/x", b"another's")
    assert find_artifact(store, ArtifactKey("retrain", stage.fingerprint)) is None
    assert gmp_atl("runs", "rm", copy.name, "--root", copy.root, "--yes")[0] == 0
    assert [e.path for e in store.list("checkpoints")] == [
        "checkpoints/" + "9" * 64 + "/10-a/files/x"
    ]
    assert not store.list("artifacts")


def test_logs_of_a_run_are_shown_and_go_with_it(gmp_atl: Run, copy: Ran) -> None:
    """Those of its workers too, and those of no other run."""
    store, record = Store.open(str(copy.root)), copy.record
    mine, others = "run_logs/20260101T000000Z-7", "run_logs/20260101T000000Z-77"
    for stem in (mine, others):
        store.put(f"{stem}.log", b"driver")
        store.put(f"{stem}/pod-a-warmup-fold1-rank-0-33.log", b"rank")
    told = {
        "log": f"/tmp/{mine}.log",
        "job": "gmp-atl-x7k2p",
        "cluster": "gmp-atl-raycluster-abcde",
    }
    attempt = record.attempts[0].model_copy(update=told)
    write_run(store, record.model_copy(update={"attempts": (attempt,)}))

    out = gmp_atl("runs", "show", copy.name, "--root", copy.root)[1]
    assert "  job: gmp-atl-x7k2p\n  cluster: gmp-atl-raycluster-abcde\n" in out
    assert gmp_atl("runs", "rm", copy.name, "--root", copy.root, "--yes")[0] == 0
    assert [e.path for e in store.list("run_logs")] == [
        f"{others}.log",
        f"{others}/pod-a-warmup-fold1-rank-0-33.log",
    ]


def test_nothing_is_wrong_below_the_root_of_a_run(ran: Ran) -> None:
    findings = find_faults(Store.open(str(ran.root)))
    assert findings.faults == ()
    assert findings.num_artifacts == len(list_artifacts(Store.open(str(ran.root))))


@pytest.mark.slow
def test_a_repaired_run_makes_exactly_that_again(gmp_atl: Run, copy: Ran) -> None:
    """Three flipped bytes in the warm-up of one fold: the next run makes it and its dependants again."""
    store = Store.open(str(copy.root))
    warmup = next(stage for stage in copy.record.stages if stage.label == "warmup fold1")
    path = f"{ArtifactKey('warmup', warmup.fingerprint).prefix}/files/model.safetensors"
    before = {e.path: store.read(e.path) for e in store.list("artifacts")}
    data = bytearray(store.read(path))
    for offset in (-100, -200, -300):
        data[offset] ^= 1
    store.put(path, bytes(data))
    assert gmp_atl("verify", "--root", copy.root)[0] == 4
    assert gmp_atl("repair", "--root", copy.root, "--yes")[0] == 0
    gone = {ArtifactKey(*p.split("/")[1:3]) for p in before} - set(list_artifacts(store))
    labels = {s.label for s in copy.record.stages if ArtifactKey(s.kind, s.fingerprint) in gone}
    stages = ("warmup", "extract", "cluster", "label", "retrain", "finetune", "evaluate")
    assert labels == {f"{stage} fold1" for stage in stages} | {"report"}

    runtime = copy.config.runtime.model_copy(
        update={"root": str(copy.root), "corpus": str(copy.corpus)}
    )
    run_it(copy.config.model_copy(update={"runtime": runtime}), copy.corpus)
    after = {e.path: store.read(e.path) for e in store.list("artifacts")}
    different = [p for p in before if "/report/" not in p and after.get(p) != before[p]]
    assert not different
    assert before.keys() == after.keys()
    assert gmp_atl("verify", "--root", copy.root)[0] == 0


def test_gc_keeps_what_a_configuration_reaches(gmp_atl: Run, copy: Ran, tmp_path: Path) -> None:
    """Of a run of two folds, the configuration of one; its corpus is not where it was."""
    store = Store.open(str(copy.root))
    runtime = copy.config.runtime.model_copy(update={"root": str(copy.root)})
    folds = copy.config.folds.model_copy(update={"run": (1,)})
    of_one = copy.config.model_copy(update={"runtime": runtime, "folds": folds})
    file = written(of_one, tmp_path / "one.toml")
    code, out, _ = gmp_atl("gc", "-c", file)
    assert code == 0
    labels = {s.label for s in copy.record.stages if s.fingerprint[:12] in out}
    stages = ("warmup", "extract", "cluster", "label", "retrain", "finetune", "evaluate")
    assert labels == {f"{stage} fold2" for stage in stages} | {"report"}
    assert gmp_atl("gc", "-c", file, "--keep", copy.name)[1].startswith("not reached: 0 folders")

    assert gmp_atl("gc", "-c", file, "--yes")[0] == 0
    assert find_faults(store).faults == ()
    left = [key.kind for key in list_artifacts(store)]
    assert {*left} == {"ingest", "backbone", "codebook", *stages}
    assert left.count("codebook") == 2, "the by-products of the fold that is kept"
    code, out, _ = gmp_atl("status", "-c", file)
    assert out.count(" done ") == 2 + len(stages)


def test_a_damaged_classifier_does_not_predict(gmp_atl: Run, copy: Ran) -> None:
    stage = next(s for s in copy.record.stages if s.label == "finetune fold1")
    folder = copy.root / ArtifactKey("finetune", stage.fingerprint).prefix / "files"
    weights = folder / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-100] ^= 1
    weights.write_bytes(data)
    names = ([copy.name, "--root", copy.root, "--fold", "1"], [folder.parent], [folder.as_uri()])
    for model, *options in names:
        code, out, err = gmp_atl("predict", model, copy.wav, *options)
        assert (code, out) == (4, "")
        assert "files/model.safetensors is damaged: its " in err
    for place in (folder, folder.as_uri()):
        with pytest.raises(ArtifactError, match=r"files/model.safetensors is damaged: its "):
            Predictor(place)
    code, _, err = gmp_atl("serve", folder)
    assert code == 4
    assert "files/model.safetensors is damaged: its " in err
