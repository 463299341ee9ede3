"""What is checked of the folds of a run after ``ingest`` and ``backbone``, before anything is fitted.

The stages of a fold read its training set alone. Test speech may still come in by other ways: by the start
model, by a codebook of another run, or by a copy of a recording under another id. All of them are looked at
here, for every fold of the run, and each is refused by name.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gmp_atl_dist.config import RunConfig
from gmp_atl_dist.corpora.cards import card_title
from gmp_atl_dist.errors import CorpusError, ModelError
from gmp_atl_dist.fold import Fold
from gmp_atl_dist.records import GENDERS, UNKNOWN_GENDER, Split
from gmp_atl_dist.stages.codebook_origin import CODEBOOK, EXTRACTORS, declaration_of
from gmp_atl_dist.stages.lineage import (
    adapter_of,
    ids_behind,
    lineage_of_backbone,
    read_recordings,
)
from gmp_atl_dist.store.artifact import Artifact, artifact_of
from gmp_atl_dist.store.index import read_index
from gmp_atl_dist.store.lineage import Lineage, TrainedOn, recording_keys, rows_of

_SIDES: tuple[Split, ...] = ("train", "valid", "test")
_SHOWN = 5


def check_before_fitting(
    config: RunConfig,
    corpus: Artifact,
    backbone: Artifact,
    folds: Sequence[Fold],
    say: Callable[[str], object],
) -> None:
    """Refuse what would let test speech into a training, or what a training cannot use.

    Args:
        say: gets what is odd and no reason to stop.

    Raises:
        CorpusError: the start model was trained on test speakers, a recording is on two sides of a fold, or
            a gender is missing that is needed. Names the speakers.
        ModelError: an imported codebook does not fit the last layer of this model.
    """
    check_genders(config, corpus, folds)
    copies = _copies(read_recordings(corpus))
    refused = [line for fold in folds for line in _divided(fold, copies, test=True)]
    if refused:
        raise CorpusError.of_all(
            "the same recording is on two sides of a fold, so it would be trained on and tested on; "
            "remove all but one of each from the corpus:",
            refused,
        )
    for fold in folds:
        for line in _divided(fold, copies, test=False):
            say(line)
    check_start_model(config, corpus, backbone, folds)
    check_last_layer(config, backbone)


def check_start_model(
    config: RunConfig, corpus: Artifact, backbone: Artifact, folds: Sequence[Fold]
) -> None:
    """Refuse a start model whose training sets meet the test set of a fold.

    In the transductive protocols a model may know the audio of test speakers, and not their emotions.

    Raises:
        CorpusError: names the fold, the speakers and the training set.
    """
    check_trained_on(config, corpus, lineage_of_backbone(backbone), folds)


def relevant(config: RunConfig, lineage: Lineage) -> tuple[TrainedOn, ...]:
    """The training sets that may not meet a test set. Transductive protocols allow those without emotions."""
    if config.folds.trains_on_test_audio:
        return tuple(t for t in lineage.trained_on if t.uses_emotions)
    return lineage.trained_on


def check_trained_on(
    config: RunConfig, corpus: Artifact, lineage: Lineage, folds: Sequence[Fold]
) -> None:
    """:func:`check_start_model` by the lineage alone: the model need not be in the store.

    Raises:
        CorpusError: names the fold, the speakers and the training set.
    """
    trained_on = relevant(config, lineage)
    if not trained_on:
        return
    index = read_recordings(corpus)
    index = index.append_column(
        "key", pa.array(recording_keys(index["audio_sha256"].to_pylist()), pa.uint64())
    )
    problems = [
        f"{fold.name}: {line}"
        for fold in folds
        for trained in trained_on
        for line in _met(trained, fold, folds, corpus, index)
    ]
    _refuse(problems)


def check_listed_speakers(config: RunConfig, lineage: Lineage, folds: Sequence[Fold]) -> list[str]:
    """:func:`check_start_model` for a corpus that is listed and not ingested: by the names of speakers.

    Returns:
        What cannot be told before ingest: a line per fold and training set that share names, where it is
        not known whether a name means the same person in both corpora.

    Raises:
        CorpusError: both corpora are read by the same reader of one known corpus, so the names mean the
            same people. Names the fold, the speakers and the training set.
    """
    problems: list[str] = []
    unclear: list[str] = []
    adapter = "" if config.corpora else config.corpus.adapter
    for fold, trained in ((f, t) for f in folds for t in relevant(config, lineage)):
        speakers = () if fold.speaker_dependent else trained.knows(fold.test_speakers)
        if adapter == trained.adapter and card_title(adapter):
            problems += [f"{fold.name}: {_line(speaker, '', trained)}" for speaker in speakers]
        elif speakers:
            shown = ", ".join(map(repr, speakers[:_SHOWN])) + ", ..." * (len(speakers) > _SHOWN)
            unclear.append(
                f"{fold.name}: model.source was trained in {trained.describe()}, with speakers of the same "
                f"names as test speakers: {shown}"
            )
    _refuse(problems)
    return unclear


def _refuse(problems: Sequence[str]) -> None:
    """Raises CorpusError if there are problems."""
    if problems:
        raise CorpusError.of_all(
            "model.source was trained on test speakers, so the scores would not be those of unknown "
            "speakers; run only the folds whose training set it knows (folds.run), or name another "
            "model.source:",
            problems,
        )


def _met(
    trained: TrainedOn, fold: Fold, folds: Sequence[Fold], corpus: Artifact, index: pa.Table
) -> Iterator[str]:
    """What a fold tests on and a training set holds: a line per speaker."""
    tested = rows_of(index, fold.test_speakers, fold.utterance_ids("test"))
    known = trained.keys
    ids = None
    if not trained.exact and trained.corpus == corpus.identity:
        ids = ids_behind(trained.utterances, folds)
    if ids is None:
        shared = tested.filter(pa.array(np.isin(tested["key"].to_numpy(), known)))
    else:
        shared = tested.filter(pc.field("utterance_id").isin(pa.array(sorted(ids), pa.string())))
    counts = Counter(shared["speaker"].to_pylist())
    speakers = set(counts)
    if not fold.speaker_dependent and _same_speakers(trained, corpus, index, known):
        speakers |= {*trained.knows(fold.test_speakers)}
    unclear = "" if trained.exact or ids is not None else ", and which utterances is not known"
    for speaker in sorted(speakers):
        count = counts[speaker]
        recordings = f", {count} recordings of the test set" if count else ""
        yield f"{_line(speaker, recordings, trained)}{unclear}"


def _line(speaker: str, recordings: str, trained: TrainedOn) -> str:
    return f"speaker {speaker!r}{recordings}: trained in {trained.describe()}"


def _same_speakers(
    trained: TrainedOn, corpus: Artifact, index: pa.Table, known: np.ndarray
) -> bool:
    """Whether a name means the same person in both corpora.

    It does in the same corpus, in two that share recordings, and in a corpus that has a reader of its own.
    """
    adapter = adapter_of(corpus)
    return (
        trained.corpus == corpus.identity
        or bool(adapter == trained.adapter and card_title(adapter))
        or bool(np.isin(index["key"].to_numpy(), known).any())
    )


def check_last_layer(config: RunConfig, backbone: Artifact) -> None:
    """Refuse codebooks of features that differ from ours.

    Models with stable layer norm (``large``) have a norm behind the last layer. The features of that layer
    are taken behind it here, and before it in fairseq (``HubertModel.extract_features``).

    Raises:
        ModelError: names the key.
    """
    named = [(i, s) for i, s in enumerate(config.cluster.scales) if s.codebook is not None]
    if not named:
        return
    values = json.loads(backbone.read_file("config.json"))
    if not values.get("do_stable_layer_norm"):
        return
    depth = int(backbone.manifest.notes["num_layers"])
    for number, scale in named:
        if scale.layer != depth:
            continue
        codebook = artifact_of(backbone.store, CODEBOOK, cast("str", scale.codebook))
        declared = declaration_of(codebook)
        if declared is not None and declared.extracted_by == EXTRACTORS[0]:
            raise ModelError(
                f"cluster.scales[{number}].codebook: codebook {codebook.key.fingerprint[:12]} was imported "
                f"as one of fairseq's features of layer {depth}, the last layer of this model. fairseq takes "
                f"them before the final layer norm, and gmp-atl behind it, so its labels would mean nothing; "
                f"name another layer, fit it here, or import it with --extracted-by gmp-atl if it is of "
                f"features with that norm"
            )


def check_genders(config: RunConfig, corpus: Artifact, folds: Sequence[Fold]) -> None:
    """Refuse a training set whose genders are not those that the run needs.

    Raises:
        CorpusError: names the speakers of unknown gender, or the gender that no speaker has.
    """
    if not config.needs_gender:
        return
    pairs = read_index(corpus).group_by(["speaker", "gender"]).aggregate([]).to_pylist()
    genders: dict[str, set[str]] = {}
    for pair in pairs:
        genders.setdefault(pair["speaker"], set()).add(pair["gender"])
    problems: list[str] = []
    for fold in folds:
        unknown = [s for s in fold.train_speakers if UNKNOWN_GENDER in genders.get(s, ())]
        if unknown:
            shown = ", ".join(map(repr, unknown[:_SHOWN])) + ", ..." * (len(unknown) > _SHOWN)
            problems.append(
                f"{fold.name}: {len(unknown)} training speakers have no known gender: {shown}"
            )
        both = fold.pseudo_label_speakers().speakers
        told = set().union(*(genders.get(speaker, set()) for speaker in both))
        if config.cluster.gender == "by_gender" and UNKNOWN_GENDER not in told:
            problems += [
                f"{fold.name}: no training speaker is {gender}, so cluster.gender = 'by_gender' has no "
                f"frame for that codebook"
                for gender in GENDERS
                if gender not in told
            ]
    if problems:
        raise CorpusError.of_all(
            "the training set lacks genders that this run needs; correct the labels, or set "
            "cluster.gender = 'none' and warmup.gender_weight = 0:",
            problems,
        )


def _copies(index: pa.Table) -> list[list[dict[str, str]]]:
    """Utterances with the same samples, in groups."""
    counts = index.group_by("audio_sha256").aggregate([("utterance_id", "count")])
    copied = counts.filter(pc.field("utterance_id_count") > 1)["audio_sha256"]
    groups: dict[str, list[dict[str, str]]] = {}
    if len(copied):
        for row in index.filter(pc.field("audio_sha256").isin(copied.combine_chunks())).to_pylist():
            groups.setdefault(row["audio_sha256"], []).append(row)
    return list(groups.values())


def _divided(
    fold: Fold, copies: Iterable[Sequence[dict[str, str]]], *, test: bool
) -> Iterator[str]:
    """A line per recording that is on two sides; with ``test`` those of the test set, else the others."""
    for group in copies:
        sides = [(side, row) for row in group if (side := _side(fold, row))]
        names = {side for side, _ in sides}
        if len(names) > 1 and ("test" in names) == test:
            listed = " and ".join(
                f"{row['utterance_id']!r} of speaker {row['speaker']!r} ({side})"
                for side, row in sides
            )
            yield f"{fold.name}: {listed} are the same recording"


def _side(fold: Fold, row: dict[str, str]) -> str:
    """Where a fold has an utterance; empty if nowhere."""
    for side in _SIDES:
        ids = fold.utterance_ids(side)
        if row["speaker"] in fold.speakers(side) and (ids is None or row["utterance_id"] in ids):
            return side
    return "unlabelled" if row["speaker"] in fold.unlabelled_speakers else ""
