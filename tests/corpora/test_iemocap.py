"""The release's tree, its traps, and the published lists of the 5,531."""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from support.listings import stored_utterances

from gmp_atl_dist.config import CorpusConfig, FoldsConfig
from gmp_atl_dist.corpora.folds import plan_folds
from gmp_atl_dist.corpora.reading import CorpusListing, read_corpus
from gmp_atl_dist.errors import CorpusError
from gmp_atl_dist.records import Utterance
from gmp_atl_dist.store.filesystem import Store

DATA = Path(
    os.environ.get("GMP_ATL_TEST_DATA", Path(__file__).resolve().parents[3] / "shared" / "data")
)

VOTES = """% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]

[6.2901 - 8.2357]\tSes01F_impro01_F000\tneu\t[2.5000, 2.5000, 2.5000]
C-E2:\tNeutral;\t()
C-E3:\tAnger;\t(oh)
A-E3:\tval 3; act 2; dom  2;\t()

[10.0100 - 11.3925]\tSes01F_impro01_M000\texc\t[2.5000, 2.5000, 2.5000]
C-F1:\tHappiness;\t()

[14.8872 - 18.0175]\tSes01F_impro01_M001\txxx\t[2.5000, 2.5000, 2.5000]
[19.2900 - 20.7875]\tSes01F_impro01_F001\tfru\t[2.5000, 3.0000, 2.5000]
[21.3257 - 24.7400]\tSes01F_impro01_M002\thap\t[2.5000, 2.5000, 2.5000]
[21.3257 - 24.7400]\tSes01F_impro01_F002\tang\t[2.5000, 2.5000, 2.5000]
[25.0000 - 26.0000]\tSes01F_impro01_F003\tsad\t[2.5000, 2.5000, 2.5000]
"""


def write_votes(root: Path, text: str, name: str = "Ses01F_impro01.txt") -> None:
    folder = root / "Session1" / "dialog" / "EmoEvaluation"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text, encoding="utf-8", newline="")
    wav = root / "Session1" / "sentences" / "wav" / "Ses01F_impro01"
    wav.mkdir(parents=True, exist_ok=True)
    for utterance in ("F000", "F001", "F002", "F003", "M000", "M001", "M002"):
        (wav / f"Ses01F_impro01_{utterance}.wav").write_bytes(b"RIFF")


def read(root: Path, **config: object) -> CorpusListing:
    """Of a tree that may have one session only."""
    checked = CorpusConfig.model_validate({"allow_incomplete": True, **config})
    return read_corpus(checked, Store.open(str(root)))


def labels(listing: CorpusListing) -> dict[str, str]:
    return {u.utterance_id.removeprefix("Ses01F_impro01_"): u.emotion for u in listing.utterances}


def test_only_votes_of_the_four_classes_count(tmp_path: Path) -> None:
    write_votes(tmp_path, VOTES)
    listing = read(tmp_path)
    assert labels(listing) == {
        "F000": "neutral",
        "F002": "angry",
        "F003": "sad",
        "M000": "happy",
        "M002": "happy",
    }
    assert listing.emotions == ("neutral", "happy", "angry", "sad")
    assert listing.problems == ()
    first_man = next(u for u in listing.utterances if u.utterance_id.endswith("M000"))
    assert first_man == Utterance(
        utterance_id="Ses01F_impro01_M000",
        path="Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_M000.wav",
        speaker="Ses01M",
        gender="male",
        emotion="happy",
        session="Session1",
    )


def test_windows_line_ends_change_nothing(tmp_path: Path) -> None:
    write_votes(tmp_path, VOTES.replace("\n", "\r\n"))
    assert len(read(tmp_path).utterances) == 5


def test_macos_files_and_single_opinions_are_not_votes(tmp_path: Path) -> None:
    write_votes(tmp_path, VOTES)
    folder = tmp_path / "Session1" / "dialog" / "EmoEvaluation"
    wrong = VOTES.replace("\tneu\t", "\tang\t")
    (folder / "._Ses01F_impro01.txt").write_bytes(b"\x00\x05\x16\x07" + wrong.encode())
    for name in ("Categorical", "Attribute", "Self-evaluation"):
        (folder / name).mkdir()
        (folder / name / "Ses01F_impro01_e2_cat.txt").write_text(wrong)
    (folder / "Ses01F_impro01.anvil").write_text(wrong)
    assert labels(read(tmp_path))["F000"] == "neutral"


def test_further_classes_can_be_asked_for(tmp_path: Path) -> None:
    write_votes(tmp_path, VOTES)
    five = read(tmp_path, emotions=["neutral", "happy", "angry", "sad", "frustrated"])
    assert labels(five)["F001"] == "frustrated"
    assert "M001" not in labels(five)
    apart = read(tmp_path, emotions=["neutral", "happy", "angry", "sad", "excited"])
    assert labels(apart)["M000"] == "excited"
    merged = read(tmp_path, merge={"frustrated": "angry", "excited": "sad"})
    assert labels(merged)["F001"] == "angry"
    assert labels(merged)["M000"] == "sad"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("[1.0 - 2.0] Ses01F_impro01_F000", "cannot be read as"),
        ("[1.0 - 2.0]\tSes01F_impro01\tneu\t[2, 2, 2]", "is not an utterance id of IEMOCAP"),
        ("[1.0 - 2.0]\tSes02F_impro01_F000\tneu\t[2, 2, 2]", "is in Session1"),
        ("[1.0 - 2.0]\tSes01F_impro01_F000\tjoy\t[2, 2, 2]", "has emotion 'joy'"),
    ],
)
def test_damaged_votes_are_named_by_file_and_line(tmp_path: Path, line: str, reason: str) -> None:
    write_votes(tmp_path, VOTES)
    write_votes(tmp_path, f"% header\n{line}\n", "Ses01F_impro02.txt")
    with pytest.raises(CorpusError, match=rf"Ses01F_impro02.txt:2: .*{reason}"):
        read(tmp_path)
    assert len(read(tmp_path, max_bad_fraction=1.0).utterances) == 5


def test_another_folder_is_refused_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(
        CorpusError, match=r"set runtime\.corpus to the folder that contains Session1"
    ):
        read(tmp_path)


def test_a_missing_recording_is_named(tmp_path: Path) -> None:
    write_votes(tmp_path, VOTES)
    wav = tmp_path / "Session1/sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav"
    wav.unlink()
    with pytest.raises(CorpusError, match=r"'Ses01F_impro01_F000': audio file .* is missing"):
        read(tmp_path)


NAMES = {"neu": "neutral", "hap": "happy", "ang": "angry", "sad": "sad"}


def published(session: int, side: str) -> set[tuple[str, str]]:
    """(path, label) of one of s3prl's lists."""
    path = DATA / "iemocap_folds" / f"Session{session}" / f"{side}_meta_data.json"
    items = json.loads(path.read_text())["meta_data"]
    return {(item["path"], item["label"]) for item in items}


@pytest.fixture(scope="module")
def listing(tmp_path_factory: pytest.TempPathFactory) -> CorpusListing:
    """The whole of the published set, with placeholders for the recordings."""
    if not (DATA / "iemocap_folds").is_dir():
        pytest.skip(f"{DATA}/iemocap_folds is not there")
    root = tmp_path_factory.mktemp("iemocap")
    votes: dict[Path, list[str]] = defaultdict(list)
    for session in range(1, 6):
        for i, (path, label) in enumerate(sorted(published(session, "test"))):
            wav = root / path
            wav.parent.mkdir(parents=True, exist_ok=True)
            wav.write_bytes(b"RIFF")
            code = "exc" if label == "hap" and i % 2 else label
            txt = root / f"Session{session}/dialog/EmoEvaluation/{wav.parent.name}.txt"
            votes[txt].append(f"[{i}.0000 - {i}.9000]\t{wav.stem}\t{code}\t[2.5, 2.5, 2.5]\n")
    for txt, lines in votes.items():
        txt.parent.mkdir(parents=True, exist_ok=True)
        txt.write_text("% header\n\n" + "C-E2:\tAnger;\t()\n\n".join(lines))
    return read(root)


def test_the_published_set_is_read_whole(listing: CorpusListing) -> None:
    assert len(listing.utterances) == 5531
    assert Counter(u.emotion for u in listing.utterances) == {
        "neutral": 1708,
        "happy": 1636,
        "angry": 1103,
        "sad": 1084,
    }
    assert sorted({u.speaker for u in listing.utterances}) == [
        f"Ses0{n}{g}" for n in range(1, 6) for g in "FM"
    ]


def test_folds_by_session_are_the_published_lists(listing: CorpusListing) -> None:
    codes = {name: code for code, name in NAMES.items()}
    by_id = {u.utterance_id: (u.path, codes[u.emotion]) for u in listing.utterances}
    stored = stored_utterances(listing)
    folds = plan_folds(stored, FoldsConfig.model_validate({"by": "session"}))
    assert len(folds) == 5
    for session, fold in enumerate(folds, 1):
        test = {by_id[u.utterance_id] for u in fold.select(stored, "test")}
        train = {by_id[u.utterance_id] for u in fold.select(stored, "train")}
        assert test == published(session, "test")
        assert train == published(session, "train")


def test_gender_is_the_last_fields_and_not_the_dialogues(listing: CorpusListing) -> None:
    letter = {"female": "F", "male": "M"}
    for u in listing.utterances:
        assert u.utterance_id.rpartition("_")[2][0] == letter[u.gender]
        assert u.speaker[-1] == letter[u.gender]
    wrong = sum(u.utterance_id[5] != letter[u.gender] for u in listing.utterances)
    assert wrong == 2750
