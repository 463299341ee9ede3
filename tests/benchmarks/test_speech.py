"""The recordings of a benchmark: a few of each of three speakers, of any corpus or of a synthetic one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.harness.rounds import MeasurementError
from benchmarks.inputs.speech import choose_recordings, corpus_listing
from gmp_atl_dist.corpora.reading import CorpusListing
from gmp_atl_dist.records import Utterance


def _listing(per_speaker: dict[str, int]) -> CorpusListing:
    emotions = ("angry", "sad")
    utterances = [
        # Sorted by emotion within a speaker, as corpora are.
        Utterance(f"{name}-{i:03d}", f"{i}.wav", name, "female", emotions[i >= count // 2])
        for name, count in per_speaker.items()
        for i in range(count)
    ]
    return CorpusListing(tuple(utterances), {}, "stamp", (*emotions, "happy"), ())


def test_the_first_three_speakers_by_name_are_taken() -> None:
    chosen = choose_recordings(_listing({"d": 4, "b": 4, "c": 4, "a": 4}), recordings=10)

    assert {u.speaker for u in chosen.utterances} == {"a", "b", "c"}
    assert len(chosen.utterances) == 12
    assert [u.utterance_id for u in chosen.utterances] == sorted(
        u.utterance_id for u in chosen.utterances
    )


def test_few_recordings_are_spread_over_the_emotions() -> None:
    chosen = choose_recordings(_listing({"a": 30, "b": 7}), recordings=4)

    assert sum(u.speaker == "a" for u in chosen.utterances) == 4
    assert sum(u.speaker == "b" for u in chosen.utterances) == 4
    assert {u.emotion for u in chosen.utterances} == {"angry", "sad"}
    # A class that no recording is left of would be refused by ingest.
    assert chosen.emotions == ("angry", "sad")


def test_a_corpus_of_one_speaker_is_refused() -> None:
    with pytest.raises(MeasurementError, match="1 speaker"):
        choose_recordings(_listing({"a": 9}), recordings=4)


def test_without_a_corpus_one_is_written(tmp_path: Path) -> None:
    _, listing = corpus_listing(None, 4, str(tmp_path))

    assert [sum(u.speaker == s for u in listing.utterances) for s in ("Ses01F", "Ses01M")] == [4, 4]


def test_a_corpus_with_a_manifest_is_a_table(tmp_path: Path) -> None:
    rows = [f"{name}{i},{name}{i}.wav,{name},female,sad" for name in "ab" for i in range(3)]
    (tmp_path / "manifest.csv").write_text("utt_id,path,speaker,gender,emotion\n" + "\n".join(rows))
    for name in "ab":
        for i in range(3):
            (tmp_path / f"{name}{i}.wav").write_bytes(b"RIFF")

    config, listing = corpus_listing(str(tmp_path), 2, str(tmp_path / "root"))

    assert json.loads(config.model_dump_json())["adapter"] == "table"
    assert [u.utterance_id for u in listing.utterances] == ["a0", "a1", "b0", "b1"]
