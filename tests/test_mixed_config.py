"""``[[corpora]]``: conflicts between sources are named before anything is read."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
from support.mixed import mixed_document

from gmp_atl_dist.config import CorpusConfig, RunConfig, hashed
from gmp_atl_dist.config.file import parse_config
from gmp_atl_dist.errors import ConfigError

Change = Callable[[dict], None]


def changed(change: Change) -> RunConfig:
    document = copy.deepcopy(mixed_document(Path("corpora"), "root"))
    change(document)
    return parse_config(document, "x.toml")


def of_source(number: int, **keys: object) -> Change:
    return lambda document: document["corpora"][number].update(keys)


def of_section(name: str, **keys: object) -> Change:
    return lambda document: document.setdefault(name, {}).update(keys)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            of_source(0, merge={"calm": "serene"}),
            "corpora[0].merge: 'calm' becomes 'serene', which is",
        ),
        (
            of_source(0, merge={"Calm": "sad", "calm": "neutral"}),
            "corpora[0].merge: 'calm' becomes 'neutral' and 'sad'; give it one class",
        ),
        (
            of_source(0, merge={"happy": "sad"}),
            "corpora[0].merge: 'happy' becomes 'sad', and it is itself in corpus.emotions",
        ),
        (of_source(0, emotions=["sad"]), "corpora[0].emotions: the class list of all sources is"),
        (of_source(1, name="ACTED"), "corpora[1].name: 'ACTED' is the name of an earlier source"),
        (of_source(1, name="a/b"), "'a/b' is no name of a source"),
        (of_source(1, name="other"), "runtime.corpora.other: is needed"),
        (of_source(1, name="other"), "runtime.corpora.read: there is no [[corpora]] of that name"),
        (of_source(0, adapter="unlabelled"), "corpora[0].adapter: 'unlabelled' reads no emotion"),
        (of_section("corpus", emotions=[]), "corpus.emotions: is needed with [[corpora]]"),
        (of_section("corpus", table="x.csv"), "corpus.table: is not used with [[corpora]]"),
        (of_section("cluster", balance="emotion"), "cluster.balance: 'emotion' needs the emotion"),
        (of_section("folds", lists="lists"), "folds.lists: lists are of one corpus"),
        (
            of_section("folds", by="split", protocol="speaker_dependent"),
            "folds.protocol: 'speaker_dependent' tells utterances of labelled speech apart",
        ),
        (of_source(0, speakers_of="read"), "corpora[0].speakers_of: is for unlabelled sources"),
        (
            of_source(2, speakers_of="talks"),
            "corpora[2].speakers_of: 'talks' is no labelled source",
        ),
        (of_source(0, vad=True), "corpora[0].vad: true cuts recordings, and a label is of a whole"),
        (
            of_source(2, vad=True, max_s=30.0),
            "a labelled recording of up to 60 s could be cut here, and then not be recognised",
        ),
        (of_source(2, vad=True, vad_max_s=90.0), "corpora[2].vad_max_s: 90 is not between 1 and"),
        (lambda d: d.pop("corpora"), "runtime.corpora.acted: there is no [[corpora]] of that name"),
        (lambda d: d.pop("corpora"), "folds.by: 'corpus' holds out one of [[corpora]]"),
        (of_source(0, use="pretrain"), "corpora[0].use: 'pretrain' is for unlabelled sources"),
        (
            of_source(2, use="pretrain"),
            "retrain.unlabelled_share: 0.5 without a source of [[corpora]] with role = 'unlabelled' and "
            "use = 'pseudo_labels'",
        ),
        (
            of_source(2, use="pretrain"),
            "corpora[2].use: 'pretrain' with pretrain.iterations = 0 leaves talks unused",
        ),
        (
            lambda d: d["corpora"].pop(),
            "retrain.unlabelled_share: 0.5 without a source",
        ),
    ],
)
def test_a_conflict_is_named(change: Change, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        changed(change)
    assert said in error.value.message


def test_two_sources_that_disagree_about_a_label_are_both_named() -> None:
    def disagree(document: dict) -> None:
        of_source(0, merge={"excited": "happy"})(document)
        of_source(1, merge={"Excited": "angry"})(document)

    with pytest.raises(ConfigError) as error:
        changed(disagree)
    assert "'Excited' becomes 'angry' in read and 'happy' in acted" in error.value.message


def test_an_unlabelled_source_lists_audio_files_unless_it_names_an_adapter() -> None:
    assert changed(lambda _: None).corpora[2].adapter == "unlabelled"
    assert changed(of_source(2, adapter="table")).corpora[2].adapter == "table"


def test_what_ingest_hashes_of_a_source_is_what_it_hashes_of_a_corpus() -> None:
    """So a source and the same corpus alone share one artefact; a licence changes nothing there."""
    config = changed(of_source(0, weight=3.0, licence="CC-BY-4.0"))
    alone = CorpusConfig.model_validate(
        {"adapter": "iemocap", "part_audio_s": 5, "emotions": config.corpus.emotions}
    )
    assert hashed(config.corpora[0].corpus(config.corpus.emotions)) == hashed(alone)


def test_a_configuration_survives_the_way_through_a_record() -> None:
    config = changed(lambda _: None)
    assert parse_config(config.model_dump(mode="json"), "the record") == config
