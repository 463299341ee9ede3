"""Runs on folds that name utterances: nothing that is fitted sees others, and the report warns."""

from __future__ import annotations

import json
import wave
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from support.one_process import context_of, no_ray, tiny_experiment

from gmp_atl_dist import execution, pipeline, stage_survey
from gmp_atl_dist.cli.main import main
from gmp_atl_dist.config import RunConfig
from gmp_atl_dist.errors import CorpusError
from gmp_atl_dist.exchange.card_facts import CardFacts
from gmp_atl_dist.runs.estimate import plan_of
from gmp_atl_dist.runs.work import work_of
from gmp_atl_dist.scheduling.demands import Held
from gmp_atl_dist.stages.base import Stage
from gmp_atl_dist.stages.evaluate import read_predictions
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.features import feature_source_parts, read_features
from gmp_atl_dist.store.labels import read_labels
from gmp_atl_dist.store.readers import read_utterances

pytest_plugins = ["support.one_process"]

EMOTIONS = ("angry", "happy", "neutral", "sad")


@dataclass
class Ran:
    """A run, its folds' stages and artefacts by fold and name, and its report."""

    config: RunConfig
    lines: list[str]
    report: dict
    page: str
    stages: dict[tuple[str, str], Stage] = field(default_factory=dict)
    made: dict[tuple[str, str], Artifact] = field(default_factory=dict)


class Recorded:
    """Notes every stage of a run."""

    def __init__(self, ran: Ran) -> None:
        self._ran = ran

    def stage_found(self, stage: Stage, artifact: Artifact) -> None:
        self._ran.stages[stage.fold_name or "", stage.name] = stage
        self._ran.made[stage.fold_name or "", stage.name] = artifact

    def stage_started(self, stage: Stage, held: Held) -> None:
        pass

    def stage_done(self, stage: Stage, artifact: Artifact) -> None:
        self.stage_found(stage, artifact)


def write_table(folder: Path, speakers: int, *, takes: int = 1) -> Path:
    """A table of short tones, each speaker with all four emotions."""
    rng = np.random.default_rng(0)
    rows = ["id,path,speaker,gender,emotion"]
    (folder / "wav").mkdir(parents=True)
    for s in range(speakers):
        for e, emotion in enumerate(EMOTIONS):
            for take in range(takes):
                name = f"p{s:02d}-{emotion}-{take}"
                t = np.arange(5600) / 16000
                tone = np.sin(2 * np.pi * (120 + 9 * s + 40 * e + take) * t)
                samples = (tone * 8000 + rng.normal(0, 200, t.size)).astype("<i2")
                with wave.open(str(folder / "wav" / f"{name}.wav"), "wb") as f:
                    f.setparams((1, 2, 16000, 0, "NONE", ""))
                    f.writeframes(samples.tobytes())
                gender = "female" if s % 2 else "male"
                rows.append(f"{name},wav/{name}.wav,p{s:02d},{gender},{emotion}")
    (folder / "manifest.csv").write_text("\n".join(rows) + "\n")
    return folder


def write_lists(folder: Path, names: list[str], *, leaking: bool) -> Path:
    """EmoBox's form. Leaking: each speaker's takes are shared out; else each speaker is on one side."""
    for fold in range(2):
        for side in ("train", "test"):
            mine = [
                n for n in names if (int(n[-1 if leaking else 2]) % 2 == fold) == (side == "test")
            ]
            path = folder / f"fold_{fold + 1}" / f"tones_{side}_fold_{fold + 1}.jsonl"
            path.parent.mkdir(parents=True, exist_ok=True)
            rows = [{"key": f"tones-{n}", "dataset": "tones", "wav": f"x/{n}.wav"} for n in mine]
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_table(tmp_path_factory.mktemp("listed") / "corpus", 4, takes=2)
    names = sorted(path.stem for path in (folder / "wav").iterdir())
    write_lists(folder / "leaking", names, leaking=True)
    write_lists(folder / "apart", [f"p{n[1:]}" for n in names], leaking=False)
    return folder


def experiment(corpus: Path, root: Path, **folds: object) -> RunConfig:
    sections = {"corpus": {"adapter": "table"}, "folds": {"run": [], "valid": "none", **folds}}
    return tiny_experiment(corpus, root, **sections)


def run(config: RunConfig) -> Ran:
    context = context_of(config.runtime.root, Path(config.runtime.corpus), config)
    ran = Ran(config, [], {}, "")
    with no_ray(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(context.reporter, "line", ran.lines.append)
        report = execution.run_pipeline(config, context, [Recorded(ran)])
    ran.report = json.loads(report.read_file("report.json"))
    ran.page = report.read_file("report.html").decode()
    return ran


@pytest.fixture(scope="module")
def leaking(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    root = tmp_path_factory.mktemp("leaking-root")
    folds = {"lists": "leaking", "protocol": "speaker_dependent", "valid": "none"}
    return run(experiment(corpus, root, **folds))


def test_no_test_utterance_is_in_anything_that_is_fitted(leaking: Ran) -> None:
    utterances = read_utterances(leaking.made["", "ingest"])
    for number in (0, 1):
        name = f"fold{number + 1}"
        test = {u.utterance_id for u in utterances if int(u.utterance_id[-1]) % 2 == number}
        train = {u.utterance_id for u in utterances} - test
        features = leaking.made[name, "extract"]
        extracted = {
            u.utterance_id
            for part in feature_source_parts(features, 2)
            for u in read_features(features, part, 2)
        }
        assert extracted == train
        assert set(read_labels(leaking.made[name, "label"])) == train
        training = leaking.stages[name, "extract"].training  # pyright: ignore[reportAttributeAccessIssue]
        with pytest.raises(
            CorpusError, match="names utterances, and a stage asked for its speakers"
        ):
            _ = training.speakers
        for kind in ("warmup", "retrain", "finetune"):
            recipe = leaking.stages[name, kind].recipe()  # pyright: ignore[reportAttributeAccessIssue]
            assert {row.utterance_id for row in recipe.utterances[:]} == train, kind
        predicted = {p.utterance_id for p in read_predictions(leaking.made[name, "evaluate"])}
        assert predicted == test


def test_folds_with_the_same_speakers_are_other_artefacts(leaking: Ran) -> None:
    for name in ("warmup", "extract", "cluster", "label", "retrain", "finetune", "evaluate"):
        prints = {leaking.made[f"fold{i}", name].key.fingerprint for i in (1, 2)}
        assert len(prints) == 2, name


def test_the_report_marks_the_arm_in_red(leaking: Ran) -> None:
    protocol = leaking.report["protocol"]
    assert protocol["name"] == "speaker_dependent"
    assert "Not a valid estimate for unknown speakers" in protocol["warning"]
    assert 'class="badge unclean">protocol: speaker_dependent' in leaking.page
    assert protocol["warning"] in leaking.page
    assert '<strong class="bad">4 of 4 in training or validation too</strong>' in leaking.page
    for fold in leaking.report["folds"]:
        assert fold["shared_speakers"] == ["p00", "p01", "p02", "p03"]
        assert (fold["num_train"], fold["num_test"]) == (16, 16)
    assert "fold1: from fold_1/tones_*_fold_1.jsonl" in leaking.lines


def test_estimates_and_cards_count_the_training_utterances_alone(leaking: Ran) -> None:
    config, corpus = leaking.config, leaking.made["", "ingest"]
    folds = pipeline.configured_folds(config, corpus)
    planned = plan_of(config, [("extract", True)], corpus, folds)
    audio_s = [p.work.audio_s for p in planned if p.name == "extract"]
    assert audio_s == [pytest.approx(16 * 0.35)] * 2
    finetune = leaking.stages["fold1", "finetune"]
    work = work_of(finetune, leaking.made["fold1", "finetune"])
    assert work.audio_s == pytest.approx(2 * 16 * 0.35)
    context = context_of(config.runtime.root, Path(config.runtime.corpus), config)
    found = stage_survey.find_fold(config, context.store, context.source, 1)
    facts = CardFacts.of(
        config,
        found.corpus,
        found.backbone,
        found.artifacts,
        leaking.made["fold1", "finetune"],
        {"feat_extract_norm": "layer"},
    )
    assert "16 utterances" in facts.training_set.describe()
    assert facts.protocol.warning is not None


def test_lists_that_keep_speakers_apart_make_the_artefacts_of_other_plans(
    corpus: Path, tmp_path: Path
) -> None:
    def keys(**folds: object) -> dict[str, str]:
        config = experiment(corpus, tmp_path / "root", **folds)
        context = context_of(tmp_path / "root", corpus, config)
        with no_ray():
            execution.run_stage(config, context, "ingest")
            execution.run_stage(config, context, "backbone")
        return {s.label: s.fingerprint for s in stage_survey.survey(config, context)}

    listed = keys(lists="apart")
    grouped = keys(by="speaker", held_out=[["p00", "p02"], ["p01", "p03"]])
    assert listed.keys() >= {"ingest", "warmup fold1"}
    shared = listed.keys() - {"report"}
    assert {k: listed[k] for k in shared} == {k: grouped[k] for k in shared}


def test_the_check_shows_what_a_run_would_do(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "x.toml"
    text = f'[runtime]\ncorpus = "{corpus}"\nroot = "{tmp_path}/r"\n[corpus]\nadapter = "table"\n[folds]\n'
    config.write_text(f'{text}lists = "leaking"\n')
    assert main(["corpora", "check", "-c", str(config)]) == 3
    assert "has 4 speakers on two sides: 'p00', 'p01', 'p02', 'p03'" in capsys.readouterr().err
    config.write_text(f'{text}lists = "leaking"\nprotocol = "speaker_dependent"\n')
    assert main(["corpora", "check", "-c", str(config)]) == 0
    out = capsys.readouterr().out
    assert "16 utterances, 4 speakers" in out
    assert "warning: fold1: 4 of 4 test speakers are in training or validation too" in out


def test_many_folds_tell_their_cost(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus = write_table(tmp_path / "corpus", 20)
    config = tmp_path / "x.toml"
    text = f'[runtime]\ncorpus = "{corpus}"\nroot = "{tmp_path}/r"\n[corpus]\nadapter = "table"\n[folds]\n'
    config.write_text(f'{text}by = "speaker"\n')
    assert main(["corpora", "check", "-c", str(config)]) == 0
    assert (
        "warning: 20 folds of 3 trainings each (warmup, retrain, finetune) are 60 trainings"
        in capsys.readouterr().out
    )
    config.write_text(f"{text}k = 5\n")
    assert main(["corpora", "check", "-c", str(config)]) == 0
    assert "trainings" not in capsys.readouterr().out


def test_an_utterance_outside_the_lists_is_refused_after_ingest_too(
    corpus: Path, leaking: Ran
) -> None:
    (corpus / "short").mkdir()
    for side, take in (("train", "0"), ("test", "1")):
        (corpus / "short" / f"{side}.csv").write_text(f"id\np00-sad-{take}\n")
    folds = leaking.config.folds.model_copy(update={"lists": "short"})
    config = leaking.config.model_copy(update={"folds": folds})
    with pytest.raises(CorpusError, match="does not name 30 of the corpus's 32 utterances"):
        pipeline.configured_folds(config, leaking.made["", "ingest"])


@pytest.mark.nightly
def test_a_table_of_91_speakers_runs_five_folds(tmp_path: Path) -> None:
    corpus = write_table(tmp_path / "corpus", 91)
    ran = run(experiment(corpus, tmp_path / "root", by="speaker", k=5))
    folds = ran.report["folds"]
    assert [fold["name"] for fold in folds] == [f"fold{i}" for i in range(1, 6)]
    assert {len(fold["test_speakers"]) for fold in folds} == {18, 19}
    assert sum(fold["num_test"] for fold in folds) == 364
    assert ran.report["protocol"]["name"] == "clean"
