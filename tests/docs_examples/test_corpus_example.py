"""The worked example of a corpus adapter: found through an entry point, ingested, folds, bad items named."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.one_process import context_of, ingest
from support.plugins import install_example

from gmp_atl_dist.config import CorpusConfig, FoldsConfig
from gmp_atl_dist.corpora.base import adapter_names
from gmp_atl_dist.corpora.folds import plan_folds
from gmp_atl_dist.corpora.reading import read_corpus
from gmp_atl_dist.errors import CorpusError
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.readers import AudioReader, read_emotions, read_utterances

pytest_plugins = ["support.one_process"]

SPEAKERS = ("F01", "F02", "M01")
EMOTIONS = ("angry", "calm")


@pytest.fixture
def adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name under which the example is installed."""
    packages = tmp_path / "site-packages"
    packages.mkdir()
    install_example(packages, "corpus_example", "gmp_atl_dist.corpora", "folders", "Folders")
    monkeypatch.syspath_prepend(packages)
    yield "folders"
    sys.modules.pop("corpus_example", None)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    rng = np.random.default_rng(0)
    for speaker in SPEAKERS:
        for emotion in EMOTIONS:
            for take in (1, 2):
                path = folder / speaker / emotion / f"take_{take}.wav"
                path.parent.mkdir(parents=True, exist_ok=True)
                wave = rng.uniform(-0.5, 0.5, 4000 * take).astype(np.float32)
                soundfile.write(path, wave, 16_000, subtype="PCM_16")
    (folder / "README.txt").write_text("not a recording")
    (folder / "F01" / "angry" / "._take_1.wav").write_bytes(b"of macOS")
    return folder


def test_it_is_ingested_and_makes_folds(
    adapter: str, corpus: Path, tmp_path: Path, in_process: None
) -> None:
    assert adapter in adapter_names()
    artifact = ingest(context_of(tmp_path / "root", corpus), adapter=adapter)
    utterances = read_utterances(artifact)
    assert read_emotions(artifact) == EMOTIONS
    assert len(utterances) == 12
    assert {(u.speaker, u.gender) for u in utterances} == {
        ("F01", "female"),
        ("F02", "female"),
        ("M01", "male"),
    }
    by_id = {u.utterance_id: u for u in utterances}
    assert by_id["M01_calm_take_2"].emotion == "calm"
    assert AudioReader(artifact).samples(by_id["M01_calm_take_2"]).shape == (8000,)

    folds = plan_folds(utterances, FoldsConfig(by="speaker", valid="next"))
    assert [f.test_speakers for f in folds] == [("F01",), ("F02",), ("M01",)]
    assert [f.valid_speakers for f in folds] == [("F02",), ("M01",), ("F01",)]
    assert [f.train_speakers for f in folds] == [("M01",), ("F01",), ("F02",)]


def test_bad_items_are_named(adapter: str, corpus: Path) -> None:
    (corpus / "X07" / "angry").mkdir(parents=True)
    (corpus / "X07" / "angry" / "take_1.wav").write_bytes(b"x")
    (corpus / "loose.wav").write_bytes(b"x")
    (corpus / "F01" / "calm" / "empty.wav").write_bytes(b"")
    source = Store.open(str(corpus))
    expected = {
        "X07/angry/take_1.wav: speaker 'X07' begins neither with F nor with M",
        "loose.wav: is not of the form SPEAKER/EMOTION/NAME.wav",
        "utterance 'F01_calm_empty': audio file 'F01/calm/empty.wav' is empty",
    }
    with pytest.raises(CorpusError, match="3 of 15 utterances are bad") as error:
        read_corpus(CorpusConfig(adapter=adapter), source)
    assert all(text in str(error.value) for text in expected)

    listing = read_corpus(CorpusConfig(adapter=adapter, max_bad_fraction=0.25), source)
    assert (len(listing.utterances), listing.num_bad) == (12, 3)
    assert len(listing.problems) == 3


def test_a_folder_without_recordings_is_refused(adapter: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorpusError, match=r"there is no SPEAKER/EMOTION/NAME\.wav"):
        read_corpus(CorpusConfig(adapter=adapter), Store.open(str(tmp_path / "empty")))
