"""Properties: whatever the split and the lineage, no fitted stage reads a row of the test set.

Checked where rows are read: audio for forward passes, frames for codebooks, utterances for trainings.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.one_process import Tiny
from support.plans import EVERYTHING
from support.stored_features import put_features_of, spoken

from gmp_atl_dist.config import FinetuneConfig, RunConfig, WarmupConfig
from gmp_atl_dist.errors import CorpusError
from gmp_atl_dist.fold import Fold, FoldUtterances
from gmp_atl_dist.inference.audio_slices import AudioSelection, AudioSlices
from gmp_atl_dist.inference.stored_frames import FrameSelection, SelectedFrameReader
from gmp_atl_dist.records import Split, StoredUtterance
from gmp_atl_dist.runtime import Task
from gmp_atl_dist.stages.before_fitting import check_start_model
from gmp_atl_dist.stages.cluster import pieces
from gmp_atl_dist.stages.codebook_origin import EXTRACTORS, Declaration, fit_notes
from gmp_atl_dist.stages.codebook_use import check_codebook
from gmp_atl_dist.stages.finetune import Finetune
from gmp_atl_dist.stages.frame_index import frame_index
from gmp_atl_dist.stages.lineage import read_recordings
from gmp_atl_dist.stages.warmup import Warmup
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.lineage import LINEAGE_NAME, Lineage, TrainedOn, rows_of
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.store.readers import read_utterances
from gmp_atl_dist.store.training_set import TrainingSet
from gmp_atl_dist.store.writer import ArtifactWriter

pytest_plugins = ["support.one_process"]

SIDES: tuple[Split, ...] = ("train", "valid", "test")
FEW = settings(
    max_examples=30, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much]
)


@dataclass(frozen=True)
class Corpus:
    """The tiny corpus, and features of all its utterances, as no stage would make them."""

    tiny: Tiny
    everything: Artifact

    @property
    def corpus(self) -> Artifact:
        return self.tiny.corpus

    @property
    def utterances(self) -> tuple[StoredUtterance, ...]:
        return read_utterances(self.corpus)


@pytest.fixture(scope="module")
def corpus(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    context = tiny.with_root(tmp_path_factory.mktemp("everything"))
    ids = [u.utterance_id for u in read_utterances(tiny.corpus)]
    return Corpus(tiny, put_features_of(context, "all", {2: spoken(tiny, ids, 2)}, 3))


@st.composite
def sides(draw: st.DrawFn, number: int) -> list[str]:
    """The side of each of ``number`` speakers or utterances, or that it is left out."""
    drawn = draw(st.lists(st.sampled_from([*SIDES, "out"]), min_size=number, max_size=number))
    first, second = draw(st.permutations(range(number)))[:2]
    drawn[first], drawn[second] = "train", "test"
    return drawn


@st.composite
def folds(draw: st.DrawFn, utterances: Sequence[StoredUtterance], name: str = "fold1") -> Fold:
    """Of speakers, of some utterances of speakers, or of utterances whose speakers are on several sides."""
    form = draw(st.sampled_from(["speakers", "lists", "speaker_dependent"]))
    names = sorted({u.speaker for u in utterances})
    if form == "speaker_dependent":
        side = dict(
            zip([u.utterance_id for u in utterances], draw(sides(len(utterances))), strict=True)
        )
    else:
        of_speaker = dict(zip(names, draw(sides(len(names))), strict=True))
        side = {u.utterance_id: of_speaker[u.speaker] for u in utterances}
        if form == "lists":
            dropped = draw(st.sets(st.sampled_from(sorted(side)), max_size=10))
            side |= dict.fromkeys(dropped, "out")
    ids = {s: frozenset(u for u, where in side.items() if where == s) for s in SIDES}
    speakers = {s: {u.speaker for u in utterances if u.utterance_id in ids[s]} for s in SIDES}
    pairs = (("train", "test"), ("train", "valid"), ("valid", "test"))
    if not ids["train"] or not ids["test"]:
        return draw(folds(utterances, name))
    return Fold(
        name,
        train_speakers=tuple(speakers["train"]),
        valid_speakers=tuple(speakers["valid"]),
        test_speakers=tuple(speakers["test"]),
        utterances=None if form == "speakers" else FoldUtterances(**ids),
        speaker_dependent=any(speakers[a] & speakers[b] for a, b in pairs),
    )


def ids_of(corpus: Corpus, fold: Fold, side: Split) -> set[str]:
    return {u.utterance_id for u in fold.select(corpus.utterances, side)}


@given(data=st.data())
@FEW
def test_readers_give_training_rows_alone(corpus: Corpus, data: st.DataObject) -> None:
    fold = data.draw(folds(corpus.utterances))
    train = ids_of(corpus, fold, "train")
    assert not train & ids_of(corpus, fold, "test")
    training = TrainingSet(corpus.corpus, fold.training_speakers())

    rows: dict[str, int] = {}
    for u in corpus.utterances:
        rows[u.part] = max(rows.get(u.part, 0), u.row + 1)
    every_row = Task("all", json.dumps([[part, 0, count] for part, count in rows.items()]))
    heard = AudioSlices(AudioSelection(training))(every_row)["utterance_id"].to_pylist()
    assert sorted(heard) == sorted(train), "audio of forward passes"
    assert set(frame_index(training)["utterance_id"].to_pylist()) == train, "what is extracted"

    selection = FrameSelection(training, corpus.everything, EVERYTHING, False, None)
    reader = SelectedFrameReader(selection, 1 << 34)
    names = [n for p in pieces(corpus.everything, 2, 9) for n in json.loads(p.payload)["parts"]]
    if train != {u.utterance_id for u in corpus.utterances}:
        with pytest.raises(CorpusError, match="no fitted stage may use it"):
            list(reader.parts(2, names, 0))

    stages = (
        Warmup(WarmupConfig(), corpus.corpus, corpus.tiny.backbone, fold),
        Finetune(FinetuneConfig(), corpus.corpus, corpus.tiny.backbone, fold, None),
    )
    emotions = {u.emotion for u in fold.select(corpus.utterances, "train")}
    for stage in stages:
        if len(emotions) > 1:  # else there is nothing to learn, and the recipe refuses
            recipe = stage.recipe()
            ids = {recipe.utterances.rows([i])[0].utterance_id for i in range(len(train))}
            assert ids == train, stage.kind
            assert len(recipe.utterances) == len(train)


@given(data=st.data())
@FEW
def test_a_codebook_is_used_where_it_knows_training_rows_alone(
    corpus: Corpus, data: st.DataObject
) -> None:
    fold, other = data.draw(folds(corpus.utterances)), data.draw(folds(corpus.utterances, "other"))
    if data.draw(st.booleans()):
        other = fold
    origin = TrainingSet(corpus.corpus, other.training_speakers())
    training = TrainingSet(corpus.corpus, fold.training_speakers())
    features = corpus.everything
    out = ArtifactWriter(features.store, ArtifactKey("codebook", "b" * 64))
    gone = {"corpus": corpus.corpus.identity, "features": "f" * 64}
    book = out.seal(version=1, science={}, inputs=gone, notes=fit_notes(origin, features))

    known, train = ids_of(corpus, other, "train"), ids_of(corpus, fold, "train")
    refused = None
    try:
        check_codebook(book, "cluster.scales[0].codebook", training, features)
    except CorpusError as e:
        refused = e.message
    if refused is None:
        assert known <= train
    elif known <= train:
        strangers = {*other.train_speakers} - {*fold.train_speakers}
        assert strangers or "cannot be told" in refused, "lists of another run cannot be told"
    if other is fold:
        assert refused is None


@given(data=st.data())
@FEW
def test_an_imported_codebook_is_used_where_its_owner_names_no_held_out_speaker(
    corpus: Corpus, data: st.DataObject
) -> None:
    fold = data.draw(folds(corpus.utterances))
    names = sorted({u.speaker for u in corpus.utterances})
    declared = data.draw(st.sets(st.sampled_from([*names, "somebody else"])))
    told = data.draw(st.sampled_from(["", "LibriSpeech"]))
    by = data.draw(st.sampled_from(EXTRACTORS))
    science = {"imported": "0" * 64, "layer": 2} | Declaration.science(told, tuple(declared), by)
    out = ArtifactWriter(corpus.everything.store, ArtifactKey("codebook", "c" * 64))
    book = out.seal(version=1, science=science, inputs={})
    transductive = not fold.speaker_dependent and data.draw(st.booleans())
    speakers = fold.transductive_speakers() if transductive else fold.training_speakers()
    training = TrainingSet(corpus.corpus, speakers)

    held_out = declared & {*fold.test_speakers, *fold.valid_speakers}
    if transductive or (told and not held_out):
        check_codebook(book, "cluster.scales[0].codebook", training, corpus.everything)
        return
    with pytest.raises(CorpusError, match=r"fold1: cluster.scales\[0\].codebook = codebook c") as e:
        check_codebook(book, "cluster.scales[0].codebook", training, corpus.everything)
    if told:
        assert all(repr(speaker) in e.value.message for speaker in held_out)
        assert not any(repr(speaker) in e.value.message for speaker in declared - held_out)


@given(data=st.data())
@FEW
def test_a_start_model_is_used_where_it_knows_no_test_row(
    corpus: Corpus, data: st.DataObject
) -> None:
    fold, other = data.draw(folds(corpus.utterances)), data.draw(folds(corpus.utterances, "other"))
    sides = other.hashed_utterances("train")
    rows = rows_of(
        read_recordings(corpus.corpus), other.train_speakers, other.utterance_ids("train")
    )
    trained = TrainedOn.of(
        rows,
        stages=["warmup"],
        fold="other",
        corpus=corpus.corpus.identity,
        adapter="",
        utterances={name.removesuffix("_utterances"): d for name, d in sides.items()},
    )
    out = ArtifactWriter(corpus.everything.store, ArtifactKey("backbone", "a" * 64))
    out.put_file(LINEAGE_NAME, Lineage(start="random", trained_on=(trained,)).to_json())
    backbone = out.seal(version=1, science={}, inputs={})

    known, tested = ids_of(corpus, other, "train"), ids_of(corpus, fold, "test")
    speakers = {*other.train_speakers} & {*fold.test_speakers}
    leaks = bool(known & tested) or (bool(speakers) and not fold.speaker_dependent)
    if leaks:
        with pytest.raises(CorpusError, match="was trained on test speakers") as e:
            check_start_model(RunConfig(), corpus.corpus, backbone, [fold])
        met = {u.speaker for u in corpus.utterances if u.utterance_id in known & tested}
        assert all(repr(speaker) in e.value.message for speaker in met)
    else:
        check_start_model(RunConfig(), corpus.corpus, backbone, [fold])
