"""Tables: text is text, columns are mapped, and each bad row is named."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.listings import stored_utterances

from gmp_atl_dist.config import CorpusConfig, FoldsConfig
from gmp_atl_dist.corpora.folds import plan_folds
from gmp_atl_dist.corpora.reading import CorpusListing, read_corpus
from gmp_atl_dist.errors import ConfigError, CorpusError
from gmp_atl_dist.store.filesystem import Store

DATA = Path(
    os.environ.get("GMP_ATL_TEST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data")
)

HEADER = "id,path,speaker,gender,emotion,session,split,start_s,end_s\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    return tmp_path


def read(root: Path, manifest: str | bytes | None = None, /, **config: object) -> CorpusListing:
    if manifest is not None:
        data = manifest.encode() if isinstance(manifest, str) else manifest
        (root / "manifest.csv").write_bytes(data)
    checked = CorpusConfig.model_validate({"adapter": "table", **config})
    return read_corpus(checked, Store.open(str(root)))


def test_every_column_is_read(root: Path) -> None:
    listing = read(root, HEADER + "007,a.wav,01,F,Happy,S1,dev,0.5,1.25\n")
    (u,) = listing.utterances
    assert (u.utterance_id, u.speaker, u.session) == ("007", "01", "S1")
    assert (u.gender, u.emotion, u.split) == ("female", "happy", "valid")
    assert (u.start_s, u.end_s) == (0.5, 1.25)


def test_values_stay_text(root: Path) -> None:
    table = "id,path,speaker,gender,emotion\n1e3,a.wav,NA,m,none\nnull,b.wav,1.0,f,nan\n"
    (root / "b.wav").write_bytes((root / "a.wav").read_bytes())
    listing = read(root, table)
    assert [(u.utterance_id, u.speaker, u.emotion) for u in listing.utterances] == [
        ("1e3", "NA", "none"),
        ("null", "1.0", "nan"),
    ]
    assert listing.emotions == ("nan", "none")
    assert listing.utterances[0].start_s is None


def test_quotes_blanks_byte_order_mark_and_line_breaks(root: Path) -> None:
    table = '\ufeffid, path ,speaker,gender,emotion,text\r\nu1,a.wav, s1 ,f,sad,"a, b\nc"\r\n'
    (u,) = read(root, table, columns={"path": " path "}).utterances
    assert u.speaker == "s1"


@pytest.mark.parametrize(
    ("given", "meant"),
    [("train", "train"), ("DEV", "valid"), ("val", "valid"), ("eval", "test"), ("", "")],
)
def test_splits_have_several_names(root: Path, given: str, meant: str) -> None:
    (u,) = read(root, HEADER + f"u1,a.wav,s1,f,sad,,{given},,\n").utterances
    assert u.split == meant


def test_all_bad_rows_are_named_at_once(root: Path) -> None:
    rows = [
        "u1,a.wav,s1,f,sad,,,,",
        "u2,a.wav,s1,robot,sad,,,,",
        "u3,a.wav,s1,f,,,,,",
        "u4,a.wav,s1,f,sad,,holdout,,",
        "u5,a.wav,s1,f,sad,,,0:30,inf",
        "u6,none.wav,s1,f,sad,,,,",
    ]
    with pytest.raises(CorpusError) as caught:
        read(root, HEADER + "\n".join(rows) + "\n")
    for expected in (
        "utterance 'u2': gender 'robot' is not known",
        "row 3 (id 'u3'): has no emotion",
        "row 4 (id 'u4'): split 'holdout' is not known; known are train, valid",
        "row 5 (id 'u5'): start_s '0:30' is not a number",
        "row 5 (id 'u5'): end_s 'inf' is not a number",
        "utterance 'u6': audio file 'none.wav' is missing",
    ):
        assert expected in caught.value.message
    assert "5 of 6 utterances" in caught.value.message
    dropped = read(root, max_bad_fraction=1.0)
    assert [u.utterance_id for u in dropped.utterances] == ["u1"]
    assert len(dropped.problems) == 6
    assert (dropped.num_bad, dropped.num_listed) == (5, 6)


def test_columns_are_renamed_and_may_serve_twice(root: Path) -> None:
    table = "utt,wav,spk,sex,label\nu1,a.wav,s1,f,sad\n"
    columns = {
        "id": "utt",
        "path": "wav",
        "speaker": "spk",
        "session": "spk",
        "gender": "sex",
        "emotion": "label",
    }
    (u,) = read(root, table, columns=columns).utterances
    assert (u.utterance_id, u.speaker, u.session) == ("u1", "s1", "s1")


def test_missing_columns_are_listed_with_the_remedy(root: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(root, "utt,path,speaker,sex,emotion\n", columns={"split": "set", "ident": "utt"})
    for expected in (
        "has the columns utt, path, speaker, sex, emotion",
        "column 'id' for 'id' is missing; map it with corpus.columns.id =",
        "column 'gender' is missing as well. If it has that column under another name, set ",
        "column 'set' for 'split' is missing",
        "corpus.columns.ident: is not a known column",
    ):
        assert expected in caught.value.message


def test_a_column_that_is_there_twice_is_refused(root: Path) -> None:
    with pytest.raises(ConfigError, match="column 'id' occurs 2 times"):
        read(root, "id,id,path,speaker,gender,emotion\n1,2,a.wav,s,f,sad\n")


@pytest.mark.parametrize(
    "table",
    [
        b"",
        HEADER.encode() + b"u1,a.wav,s1\n",
        HEADER.encode() + b"u1,a.wav,s\xff1,f,sad,,,,\n",
    ],
)
def test_damaged_tables_are_refused(root: Path, table: bytes) -> None:
    with pytest.raises(CorpusError, match=r"manifest.csv: cannot be read .*; write it again"):
        read(root, table)


def test_a_table_that_is_not_there_or_of_another_kind(root: Path) -> None:
    with pytest.raises(ConfigError, match=r"corpus\.table: .*labels\.csv"):
        read(root, table="labels.csv")
    with pytest.raises(ConfigError, match=r"'labels\.xlsx' is neither .csv, .tsv, .txt nor"):
        read(root, table="labels.xlsx")


def test_parquet_of_any_type_reads_as_the_same_text(root: Path) -> None:
    table = pa.table(
        {
            "id": pa.array([1, 2]),
            "path": ["a.wav", "a.wav"],
            "speaker": pa.array(["x", "y"]).dictionary_encode(),
            "gender": ["f", "M"],
            "emotion": ["sad", "happy"],
            "start_s": pa.array([None, 0.5]),
            "unread": pa.array([[1], [2]]),
        }
    )
    pq.write_table(table, root / "labels.parquet")
    listing = read(root, table="labels.parquet")
    assert [(u.utterance_id, u.speaker, u.start_s) for u in listing.utterances] == [
        ("1", "x", None),
        ("2", "y", 0.5),
    ]
    (root / "broken.parquet").write_bytes(b"PAR1 and then nothing")
    with pytest.raises(CorpusError, match=r"broken\.parquet: cannot be read"):
        read(root, table="broken.parquet")


REAL = {
    "emodb2s": (535, {"female": 302, "male": 233}, 10),
    "nemo": (1809, {"male": 981, "female": 828}, 9),
}


@pytest.mark.parametrize("corpus", REAL)
def test_real_tables(corpus: str) -> None:
    if not (DATA / corpus).is_dir():
        pytest.skip(f"{DATA / corpus} is not there")
    rows, genders, num_speakers = REAL[corpus]
    listing = read(DATA / corpus, columns={"id": "utt_id"})
    assert len(listing.utterances) == rows
    assert len(listing.sizes) == rows
    assert min(listing.sizes.values()) > 1000
    assert Counter(u.gender for u in listing.utterances) == genders
    stored = stored_utterances(listing)
    folds = plan_folds(stored, FoldsConfig.model_validate({"by": "speaker"}))
    assert len(folds) == num_speakers
    tested = [u.utterance_id for fold in folds for u in fold.select(stored, "test")]
    assert sorted(tested) == [u.utterance_id for u in listing.utterances]


def test_the_four_class_column_of_a_real_table() -> None:
    if not (DATA / "emodb2s").is_dir():
        pytest.skip(f"{DATA}/emodb2s is not there")
    listing = read(
        DATA / "emodb2s",
        columns={"id": "utt_id"},
        emotions=["neutral", "happy", "angry", "sad"],
        ignore_other_emotions=True,
    )
    assert len(listing.utterances) == 127 + 79 + 71 + 62
    assert listing.num_ignored == 196


@pytest.mark.parametrize("outside", [False, True])
def test_a_folder_in_place_of_a_table_is_told(root: Path, outside: bool) -> None:
    (root / "labels.csv").mkdir()
    (root / "labels.csv" / "a.csv").write_text(HEADER)
    table = str(root / "labels.csv") if outside else "labels.csv"
    with pytest.raises(ConfigError, match=r"corpus\.table: .*labels\.csv is a folder; name") as e:
        read(root, table=table)
    assert "OSError" not in e.value.message
