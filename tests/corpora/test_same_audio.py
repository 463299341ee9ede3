"""The same recording with two speakers or two emotions is a bad item; a copy is named."""

from __future__ import annotations

import hashlib
import os
import shutil
import tracemalloc
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from support.one_process import context_of, ingest

from gmp_atl_dist.config import CorpusConfig
from gmp_atl_dist.corpora.reading import read_corpus
from gmp_atl_dist.corpora.same_audio import same_samples
from gmp_atl_dist.errors import CorpusError
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.readers import read_utterances

pytest_plugins = ["support.one_process"]

CASE = (
    Path(
        os.environ.get("GMP_ATL_TEST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data")
    ).parent
    / "cases"
    / "same-audio-two-speakers"
    / "corpus"
)


@dataclass(frozen=True)
class Labels:
    utterance_id: str
    speaker: str = "anna"
    emotion: str = "sad"


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def corpus(folder: Path, rows: list[str], files: dict[str, int]) -> Path:
    """``files`` are names with the seed of their samples; ``rows`` are id, path, speaker, emotion."""
    folder.mkdir()
    for name, seed in files.items():
        rng = np.random.default_rng(seed)
        sf.write(folder / name, rng.integers(-9_000, 9_000, 4_800, dtype=np.int16), 16_000)
    lines = ["id,path,speaker,emotion,gender", *(f"{row},f" for row in rows)]
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.usefixtures("in_process")
def test_copied_files_with_other_labels_are_left_out_and_named(tmp_path: Path) -> None:
    rows = [
        *("a,a.wav,anna,sad", "b,b.wav,berta,sad"),  # another speaker, another name and container
        *("c,c.wav,anna,sad", "d,d.wav,anna,happy"),  # another emotion
        *("e,e.wav,anna,sad", "f,f.wav,berta,happy", "g,g.wav,anna,happy"),
    ]
    files = {"a.wav": 1, "b.wav": 1, "c.wav": 2, "d.wav": 2, "e.wav": 3, "f.wav": 4, "g.wav": 5}
    folder = corpus(tmp_path / "corpus", rows, files)
    sf.write(folder / "b.flac", sf.read(folder / "b.wav", dtype="int16")[0], 16_000)
    shutil.move(folder / "b.flac", folder / "b.wav")
    context = context_of(tmp_path / "root", folder)

    with pytest.raises(CorpusError, match="4 of 7 utterances are bad") as error:
        ingest(context, adapter="table")
    assert "utterance 'a': has the same audio as 'b' with another speaker" in error.value.message
    assert "another emotion ('happy', 'sad'); keep the one that" in error.value.message

    stored = ingest(context, adapter="table", max_bad_fraction=0.9)
    assert [u.utterance_id for u in read_utterances(stored)] == ["e", "f", "g"]
    assert [p.item for p in stored.manifest.problems] == [f"utterance {i!r}" for i in "abcd"]


@pytest.mark.usefixtures("in_process")
def test_copies_with_the_same_labels_are_kept_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = ["a,a.wav,anna,sad", "b,b.wav,anna,sad", "c,c.wav,berta,happy"]
    folder = corpus(tmp_path / "corpus", rows, {"a.wav": 1, "b.wav": 1, "c.wav": 2})
    stored = ingest(context_of(tmp_path / "root", folder), adapter="table")
    assert len(read_utterances(stored)) == 3
    out = " ".join(capsys.readouterr().out.split())
    assert "warning: ingest: 1 recording occurs more than once" in out
    assert "with the same speaker and emotion: a = b" in out


def test_one_file_with_two_labels_is_found_without_its_audio(tmp_path: Path) -> None:
    rows = ["a,a.wav,anna,sad", "b,a.wav,berta,sad", "c,c.wav,anna,happy"]
    folder = corpus(tmp_path / "corpus", rows, {"c.wav": 1})
    (folder / "a.wav").write_bytes(b"read by nobody")
    config = CorpusConfig(adapter="table", max_bad_fraction=0.7)
    listing = read_corpus(config, Store.open(str(folder)))
    assert [u.utterance_id for u in listing.utterances] == ["c"]
    assert listing.num_bad == 2
    assert [p.item for p in listing.problems] == ["utterance 'a'", "utterance 'b'"]


@pytest.mark.parametrize("table", ["manifest.csv", "two_labels.csv"])
def test_the_handed_case_is_refused(table: str) -> None:
    if not CASE.is_dir():
        pytest.skip(f"{CASE} is not there")
    config = CorpusConfig(adapter="table", table=table)
    with pytest.raises(CorpusError, match=r"6 of 6 utterances .*\n.*has the same audio as 'u1'"):
        read_corpus(config, Store.open(str(CASE)))


def test_groups_of_any_size_among_many() -> None:
    names = [digest(str(i)) for i in range(50)]
    names[7] = names[31] = names[49] = digest("common")
    names[0] = names[48]
    people = [Labels(f"u{i}", speaker="berta" if i == 31 else "anna") for i in range(50)]
    found = same_samples(people, names)
    assert set(found.contradictions) == {7, 31, 49}
    assert "as 'u7', 'u49' with another speaker ('anna', 'berta')" in found.contradictions[31]
    assert found.copies == (("u0", "u48"),)
    assert len(found.kept(people)) == 47
    assert same_samples([], []).copies_line() == ""


def test_many_digests_take_little_memory() -> None:
    people = [Labels("u")] * 100_000
    names = [digest(str(i)) for i in range(len(people))]
    tracemalloc.start()
    try:
        found = same_samples(people, names)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert not found.copies
    assert peak < 100 * len(people), "a million take less than 100 MB"
