"""Several corpora and unlabelled speech in one run: who is used for what, and what is refused."""

from __future__ import annotations

import json
import shutil
import weakref
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from support.mixed import NAMES, mixed_config, write_corpora
from support.one_process import context_of, finish, no_ray

from gmp_atl_dist import execution, pipeline, stage_survey
from gmp_atl_dist.config import CorpusConfig, PretrainConfig, RunConfig
from gmp_atl_dist.corpora.sources import list_sources
from gmp_atl_dist.errors import ArtifactError, ConfigError, CorpusError
from gmp_atl_dist.fold import Fold, TrainingSpeakers
from gmp_atl_dist.recipes.warmup import WarmupRecipe
from gmp_atl_dist.records import StoredUtterance, source_of
from gmp_atl_dist.report.content import ReportContent
from gmp_atl_dist.report.html import render_html
from gmp_atl_dist.scheduling.demands import Held
from gmp_atl_dist.stages.base import Context, Handle, Pending, Stage
from gmp_atl_dist.stages.evaluate import read_predictions
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.index import Utterances, index_rows, read_index
from gmp_atl_dist.store.manifest import ArtifactKey, Manifest
from gmp_atl_dist.store.readers import (
    AudioReader,
    audio_part_names,
    pcm16_sha256,
    read_audio_rows,
    read_part_utterances,
    read_utterances,
)
from gmp_atl_dist.store.sources import read_sources

pytest_plugins = ["support.one_process"]


PLANTED = "Ses01F_impro01_F002"
"""A labelled recording of ``read``."""


@dataclass(frozen=True)
class Mixed:
    folder: Path
    config: RunConfig
    context: Context
    report: Artifact
    corpus: Artifact
    stages: dict[str, Stage]

    def artifact(self, name: str) -> Artifact:
        return finish(self.stages[name], self.context)


def test_the_listing_of_a_source_is_gone_before_the_next_one_is_read(tmp_path: Path) -> None:
    # A listing of a million utterances takes half a gigabyte.
    config = mixed_config(tmp_path, tmp_path / "root")
    stages: list[weakref.ref[Stage]] = []
    alive: list[int] = []

    def ensure(stage: Stage) -> Handle:
        alive.append(sum(ref() is not None for ref in stages))
        stages.append(weakref.ref(stage))
        key = ArtifactKey(stage.kind, str(len(stages)))
        manifest = Manifest(
            kind=key.kind, version=1, fingerprint=key.fingerprint, identity=key.fingerprint,
            science={}, inputs={}, receipts=(),
        )  # fmt: skip
        return Artifact(Store.open(str(tmp_path)), key, manifest)

    pipeline.ingested(config, Store.open(str(tmp_path)), ensure)

    assert alive == [0, 0, 0, 0]


def corpus_of(config: RunConfig, context: Context) -> Artifact:
    return pipeline.ingested(config, context.source, lambda stage: finish(stage, context))


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpora")
    write_corpora(folder)
    return folder


@pytest.fixture(scope="module")
def mixed(corpora: Path, tmp_path_factory: pytest.TempPathFactory) -> Mixed:
    root = tmp_path_factory.mktemp("mixed") / "root"
    config = mixed_config(corpora, root, folds={"run": [1]})
    context = context_of(root, corpora, config)
    stages: dict[str, Stage] = {}

    class Noted:
        def stage_found(self, stage: Stage, artifact: Artifact) -> None: ...
        def stage_started(self, stage: Stage, held: Held) -> None: ...
        def stage_done(self, stage: Stage, artifact: Artifact) -> None:
            stages[stage.name] = stage

    with no_ray():
        report = execution.run_pipeline(config, context, [Noted()])
    return Mixed(corpora, config, context, report, corpus_of(config, context), stages)


def test_the_corpus_holds_no_audio_and_reads_that_of_its_sources(mixed: Mixed) -> None:
    corpus = mixed.corpus
    assert corpus.kind == "combine"
    assert corpus.part_names == ("utterances",)
    utterances = read_utterances(corpus)
    assert [u.utterance_id for u in utterances] == sorted(u.utterance_id for u in utterances)
    assert {source_of(u.utterance_id) for u in utterances} == set(NAMES)
    reader = AudioReader(corpus)
    for u in utterances:
        assert pcm16_sha256(reader.samples(u)) == u.audio_sha256
        assert source_of(u.utterance_id) == source_of(u.speaker) == u.part.partition(".")[0]
    by_part: dict[str, list[StoredUtterance]] = {}
    for u in utterances:
        by_part.setdefault(u.part, []).append(u)
    assert set(by_part) == set(audio_part_names(corpus))
    for part, expected in by_part.items():
        assert sorted(read_part_utterances(corpus, part), key=lambda u: u.row) == sorted(
            expected, key=lambda u: u.row
        )
        first = read_audio_rows(corpus, part, 0, 1, columns=["speaker", "emotion", "session"])
        own = next(u for u in expected if u.row == 0)
        assert first.to_pylist() == [
            {"speaker": own.speaker, "emotion": own.emotion, "session": own.session}
        ]


def test_unlabelled_speech_has_no_emotion_and_one_speaker_that_nobody_else_is(mixed: Mixed) -> None:
    talks = [u for u in read_utterances(mixed.corpus) if source_of(u.utterance_id) == "talks"]
    assert {(u.speaker, u.emotion, u.gender, u.split) for u in talks} == {
        ("talks/unknown", "", "unknown", "")
    }
    assert len(talks) == len(list((mixed.folder / "talks").rglob("*.wav")))


def test_unlabelled_speech_joins_the_pseudo_labels_and_nothing_else(mixed: Mixed) -> None:
    talks = "talks/unknown"
    speakers = {
        name: set(stage.training.speakers)  # pyright: ignore[reportAttributeAccessIssue]
        for name, stage in mixed.stages.items()
        if name in ("extract", "cluster", "label", "retrain")
    }
    (fold,) = pipeline.configured_folds(mixed.config, mixed.corpus)
    assert fold.unlabelled_speakers == (talks,)
    for name, found in speakers.items():
        assert found == {*fold.train_speakers, talks}, name
    for name in ("warmup", "finetune"):
        used = mixed.stages[name].recipe().utterances.speakers  # pyright: ignore[reportAttributeAccessIssue]
        assert set(used) == set(fold.train_speakers), name
    predicted = read_predictions(mixed.artifact("evaluate"))
    assert {p.speaker for p in predicted} == set(fold.test_speakers)
    assert {source_of(p.speaker) for p in predicted} == {"acted"}


def test_speech_for_pretraining_alone_joins_no_other_stage(mixed: Mixed) -> None:
    """The same combined corpus serves: what a source is used for changes no artefact of it."""
    *labelled, talks = mixed.config.corpora
    config = mixed.config.model_copy(
        update={
            "corpora": (*labelled, talks.model_copy(update={"use": "pretrain"})),
            "pretrain": PretrainConfig(iterations=2, layer=2, k=(5, 5), steps=1),
        }
    )
    stages: dict[str, Stage] = {}

    def note(stage: Stage) -> Handle:
        stages[stage.name] = stage
        return Pending(stage)

    (fold,) = pipeline.configured_folds(config, mixed.corpus)
    pipeline.one_fold(config, mixed.corpus, mixed.artifact("backbone"), fold, note)

    assert (fold.unlabelled_speakers, fold.pretrain_speakers) == ((), ("talks/unknown",))
    heard = {
        name: set(stage.training.speakers)  # pyright: ignore[reportAttributeAccessIssue]
        for name, stage in stages.items()
        if hasattr(stage, "training")
    }
    pretraining = {"mfcc", "cluster1", "label1", "pretrain1"}
    pretraining |= {"extract2", "cluster2", "label2", "pretrain2"}
    assert heard.keys() == pretraining | {"extract", "cluster", "label", "retrain"}
    for name, speakers in heard.items():
        expected = {*fold.train_speakers} | ({"talks/unknown"} if name in pretraining else set())
        assert speakers == expected, name


def test_speech_for_pretraining_alone_is_refused_elsewhere() -> None:
    fold = Fold("f", ("a",), ("b",), pretrain_speakers=("u",))

    with pytest.raises(CorpusError, match="speaker 'u'"):
        TrainingSpeakers(("a", "u"), fold, unlabelled=True)
    with pytest.raises(CorpusError, match="speaker 'u'"):
        TrainingSpeakers(("a", "u"), fold, transductive=True)
    with pytest.raises(CorpusError, match="speaker 'u'"):
        fold.with_pretrain_speakers(fold.training_speakers()).with_emotions("warmup")
    with pytest.raises(CorpusError, match="'b' is in both test and unlabelled"):
        Fold("f", ("a",), ("b",), pretrain_speakers=("b",))


def test_a_stage_that_uses_emotions_refuses_unlabelled_speakers(mixed: Mixed) -> None:
    (fold,) = pipeline.configured_folds(mixed.config, mixed.corpus)
    backbone = mixed.artifact("backbone")
    with pytest.raises(CorpusError, match="talks/unknown"):
        WarmupRecipe(mixed.config.warmup, mixed.corpus, backbone, fold.pseudo_label_speakers())


def test_a_fold_never_tests_on_an_unlabelled_speaker() -> None:
    with pytest.raises(CorpusError, match="'u' is in both test and unlabelled"):
        Fold("f", ("a",), ("u",), unlabelled_speakers=("u",))


@pytest.mark.parametrize("by", ["corpus", "speaker", "session"])
def test_every_way_to_plan_folds_leaves_unlabelled_speech_out(mixed: Mixed, by: str) -> None:
    folds = mixed.config.folds.model_copy(update={"by": by, "run": ()})
    planned = pipeline.configured_folds(
        mixed.config.model_copy(update={"folds": folds}), mixed.corpus
    )
    assert len(planned) == {"corpus": 2, "speaker": 20, "session": 10}[by]
    for fold in planned:
        sides = {*fold.train_speakers, *fold.test_speakers, *fold.valid_speakers}
        assert len(sides) == 20
        assert fold.unlabelled_speakers == ("talks/unknown",)
        if by == "corpus":
            assert len({source_of(s) for s in fold.test_speakers}) == 1
            assert {source_of(s) for s in fold.train_speakers}.isdisjoint(
                source_of(s) for s in fold.test_speakers
            )


def test_the_report_has_scores_per_corpus_and_what_each_source_is(mixed: Mixed) -> None:
    content = ReportContent.model_validate_json(mixed.report.read_file("report.json"))
    (group,) = content.groups.corpora
    assert (group.name, group.count) == ("acted", 40)
    assert [(s.name, s.role, s.licence) for s in content.corpus.sources] == [
        ("acted", "labelled", "CC0-1.0"),
        ("read", "labelled", ""),
        ("talks", "unlabelled", ""),
    ]
    assert content.corpus.num_utterances == 80
    assert "speech without emotion labels" in content.protocol.statement
    page = render_html(content)
    assert '<section id="corpora">' in page
    assert "CC0-1.0" in page


def test_the_audio_audit_covers_every_source(mixed: Mixed) -> None:
    content = ReportContent.model_validate_json(mixed.report.read_file("report.json"))
    assert content.audio is not None
    utterances = read_utterances(mixed.corpus)
    assert content.audio.num_utterances == len(utterances)
    counts = {group.name: group.count for group in content.audio.emotions}
    assert counts["no label"] == sum(u.emotion == "" for u in utterances) > 0
    named = {name for m in content.audio.measures for name in (m.lowest_id, m.highest_id)}
    assert named <= {u.utterance_id for u in utterances}


def test_a_source_and_the_same_corpus_alone_share_one_artefact(mixed: Mixed) -> None:
    document = mixed.config.model_dump(mode="json")
    alone = {k: v for k, v in document["corpora"][0].items() if k in CorpusConfig.model_fields}
    alone["emotions"] = document["corpus"]["emotions"]
    runtime = {"corpus": str(mixed.folder / "acted"), "root": mixed.context.store.uri}
    config = RunConfig.model_validate({"corpus": alone, "runtime": runtime})
    made: list[Stage] = []

    def note(stage: Stage) -> Handle:
        made.append(stage)
        return finish(stage, mixed.context)

    pipeline.ingested(config, Store.open(runtime["corpus"]), note)
    assert made[0].key == mixed.stages["ingest-acted"].key


def planted(corpora: Path, folder: Path, source: str, into: str) -> tuple[str, str]:
    """Copy one recording of ``source`` as another container into ``into``; the ids of both."""
    for name in NAMES:
        shutil.copytree(corpora / name, folder / name)
    original = next((folder / source).rglob(f"{PLANTED}.wav"))
    samples, rate = sf.read(original, dtype="int16")
    (folder / into / "more").mkdir()
    sf.write(folder / into / "more" / "talk.flac", samples, rate, subtype="PCM_16")
    return f"{source}/{original.stem}", f"{into}/more/talk.flac"


@pytest.mark.usefixtures("in_process")
def test_a_test_recording_in_unlabelled_speech_is_refused_by_name(
    corpora: Path, tmp_path: Path
) -> None:
    ids = planted(corpora, tmp_path, "read", "talks")
    config = mixed_config(tmp_path, tmp_path / "root")
    context = context_of(tmp_path / "root", tmp_path, config)
    with pytest.raises(CorpusError) as error:
        corpus_of(config, context)
    assert "1 recordings are in a labelled source and in another" in error.value.message
    for name in ids:
        assert repr(name) in error.value.message


@pytest.mark.usefixtures("in_process")
def test_the_index_is_sorted_whatever_sources_are_called(corpora: Path, tmp_path: Path) -> None:
    """'-' sorts before the '/' behind a name, and rows are found by bisection."""
    document = mixed_config(corpora, tmp_path / "root").model_dump(mode="json")
    for number, name in enumerate(("a", "a-b", "a_")):
        document["corpora"][number]["name"] = name
        document["runtime"]["corpora"][name] = document["runtime"]["corpora"].pop(NAMES[number])
    config = RunConfig.model_validate(document)
    corpus = corpus_of(config, context_of(tmp_path / "root", corpora, config))
    ids = [u.utterance_id for u in read_utterances(corpus)]
    assert ids == sorted(ids)
    assert [source_of(ids[0]), source_of(ids[-1])] == ["a-b", "a_"]
    assert len(index_rows(read_index(corpus), ids)) == len(ids) == 140


def test_a_table_of_unlabelled_speech_needs_no_emotion(corpora: Path, tmp_path: Path) -> None:
    (wav,) = list((corpora / "talks").rglob("*.wav"))[:1]
    shutil.copyfile(wav, tmp_path / "a.wav")
    (tmp_path / "manifest.csv").write_text("utt,path,speaker\ntalk1,a.wav,Anna\n")
    document = mixed_config(corpora, tmp_path / "root").model_dump(mode="json")
    document["corpora"][2] |= {"adapter": "table", "columns": {"id": "utt"}}
    document["runtime"]["corpora"]["talks"] = str(tmp_path)
    (*_, talks) = list_sources(RunConfig.model_validate(document))
    (found,) = talks.utterances
    assert (found.utterance_id, found.speaker) == ("talks/talk1", "talks/Anna")
    assert (found.emotion, found.gender) == ("", "unknown")


def same_people(corpora: Path, root: Path, **keys: object) -> tuple[RunConfig, Context]:
    """``talks`` is listed by an adapter that tells speakers of the names that ``acted`` and ``read`` have."""
    document = mixed_config(corpora, root, folds={"by": "speaker"}).model_dump(mode="json")
    document["corpora"][2] |= {"adapter": "iemocap", **keys}
    config = RunConfig.model_validate(document)
    return config, context_of(root, corpora, config)


@pytest.mark.usefixtures("in_process")
def test_speakers_who_may_be_tested_on_are_refused_by_name(corpora: Path, tmp_path: Path) -> None:
    config, context = same_people(corpora, tmp_path / "root")
    for look in (lambda: corpus_of(config, context), lambda: list_sources(config)):
        with pytest.raises(ConfigError) as error:
            look()
        assert "talks and acted both have Ses01F, Ses01M, Ses02F and 7 more" in error.value.message
        assert "set speakers_of = 'acted' in talks" in error.value.message


@pytest.mark.usefixtures("in_process")
def test_unlabelled_speech_of_a_test_speaker_is_left_out_of_the_fold(
    corpora: Path, tmp_path: Path
) -> None:
    config, context = same_people(corpora, tmp_path / "root", speakers_of="acted")
    corpus = corpus_of(config, context)
    everybody = {u.speaker for u in read_utterances(corpus) if source_of(u.speaker) == "talks"}
    assert len(everybody) == 10
    for fold in pipeline.configured_folds(config, corpus):
        (tested,) = fold.test_speakers
        own = {tested.replace("acted/", "talks/")} if source_of(tested) == "acted" else set()
        assert set(fold.unlabelled_speakers) == everybody - own

    other, _ = same_people(corpora, tmp_path / "root", speakers_of="nobody")
    corpus = corpus_of(other, context)
    assert {f.unlabelled_speakers for f in pipeline.configured_folds(other, corpus)} == {
        tuple(sorted(everybody))
    }


def with_cuts(folder: Path) -> RunConfig:
    document = mixed_config(folder, folder / "root").model_dump(mode="json")
    document["corpora"][2] |= {"vad": True, "vad_max_s": 8.0}
    return RunConfig.model_validate(document)


@pytest.mark.usefixtures("in_process")
def test_long_unlabelled_recordings_become_utterances_whose_ids_say_where_they_were(
    corpora: Path, tmp_path: Path
) -> None:
    for name in ("acted", "read"):
        (tmp_path / name).symlink_to(corpora / name)
    rng = np.random.default_rng(0)
    loud = (rng.normal(0, 3000, 16_000 * 12)).astype(np.int16)
    pause = (rng.normal(0, 3, 16_000 * 10)).astype(np.int16)
    show = np.concatenate([pause, loud, pause, loud[: 16_000 * 5], pause, loud, pause])
    (tmp_path / "talks").mkdir()
    sf.write(tmp_path / "talks" / "show.flac", show, 16_000, subtype="PCM_16")
    sf.write(tmp_path / "talks" / "show!.flac", loud, 16_000, subtype="PCM_16")
    config = with_cuts(tmp_path)
    context = context_of(tmp_path / "root", tmp_path, config)

    corpus = corpus_of(config, context)

    found = [u for u in read_utterances(corpus) if source_of(u.utterance_id) == "talks"]
    assert found[0].utterance_id == "talks/show!.flac", "not longer than max_s, so it stays whole"
    assert found[0].num_samples == 16_000 * 12
    reader = AudioReader(corpus)
    covered = np.zeros(len(show), dtype=bool)
    for u in found[1:]:
        limits = u.utterance_id.removeprefix("talks/show.flac#").split("-")
        start, end = (round(float(s) * 16_000) for s in limits)
        assert np.array_equal(reader.samples(u), show[start:end])
        assert end - start <= 8 * 16_000
        assert not covered[start:end].any()
        covered[start:end] = True
    assert len(found) == 1 + 2 + 1 + 2
    assert covered[np.abs(show) > 1000].all(), "no speech is lost"
    assert covered.sum() < 16_000 * 31, "pauses are left out"
    for part in {u.part for u in found}:
        rows = read_part_utterances(corpus, part)
        assert [u.row for u in rows] == list(range(len(rows)))
        assert [u.utterance_id for u in rows] == sorted(u.utterance_id for u in rows)


@pytest.mark.usefixtures("in_process")
def test_a_test_recording_is_found_although_its_source_is_cut(
    corpora: Path, tmp_path: Path
) -> None:
    ids = planted(corpora, tmp_path, "read", "talks")
    config = with_cuts(tmp_path)
    with pytest.raises(CorpusError) as error:
        corpus_of(config, context_of(tmp_path / "root", tmp_path, config))
    for name in ids:
        assert repr(name) in error.value.message


@pytest.mark.usefixtures("in_process")
def test_a_recording_in_two_labelled_corpora_is_refused_by_name(
    corpora: Path, tmp_path: Path
) -> None:
    for name in ("acted", "talks"):
        shutil.copytree(corpora / name, tmp_path / name)
    shutil.copytree(corpora / "acted", tmp_path / "read")
    config = mixed_config(tmp_path, tmp_path / "root")
    with pytest.raises(CorpusError) as error:
        corpus_of(config, context_of(tmp_path / "root", tmp_path, config))
    assert "40 recordings" in error.value.message


@pytest.mark.usefixtures("in_process")
def test_a_class_that_no_source_has_is_named(corpora: Path, tmp_path: Path) -> None:
    emotions = ["angry", "happy", "neutral", "sad", "bored"]
    config = mixed_config(corpora, tmp_path / "root", corpus={"emotions": emotions})
    with pytest.raises(ConfigError, match="no utterance of any source has 'bored'"):
        corpus_of(config, context_of(tmp_path / "root", corpora, config))


def test_balanced_classes_count_what_training_draws(mixed: Mixed) -> None:
    """A source of weight 3 is drawn three times as often, so its classes are as well."""
    document = mixed.config.model_dump(mode="json")
    document["corpora"][0]["weight"] = 3.0
    corpus = corpus_of(RunConfig.model_validate(document), mixed.context)
    assert corpus.key != mixed.corpus.key
    women = ("acted/Ses01F", "read/Ses01F", "read/Ses02F")
    emotions = ("angry", "happy", "neutral", "sad")
    plain, drawn = (Utterances(c, women).drawn("emotion", emotions) for c in (mixed.corpus, corpus))
    own = Utterances(mixed.corpus, women[:1]).counts("emotion", emotions)
    assert [d - p for d, p in zip(drawn, plain, strict=True)] == [2 * count for count in own]


def test_audio_that_is_gone_is_named(mixed: Mixed, tmp_path: Path) -> None:
    shutil.copytree(mixed.context.store.uri.removeprefix("file://"), tmp_path / "root")
    store = Store.open(str(tmp_path / "root"))
    corpus = Artifact(store, mixed.corpus.key, mixed.corpus.manifest)
    gone = read_sources(corpus)[0]
    store.delete(f"artifacts/{gone.kind}/{gone.fingerprint}/_manifest.json")
    with pytest.raises(ArtifactError, match="the audio of source acted, is gone"):
        AudioReader(corpus).samples(read_utterances(corpus)[0])


def test_status_knows_every_source(mixed: Mixed) -> None:
    states = stage_survey.survey(mixed.config, mixed.context)
    assert [s.label for s in states[:5]] == [
        *(f"ingest-{name}" for name in NAMES),
        "combine",
        "backbone",
    ]
    assert {s.state for s in states} == {"done"}
    assert json.loads(mixed.report.read_file("report.json"))["stages"][0] == "combine"
    assert np.isfinite([s.duration_s or 0.0 for s in states]).all()
