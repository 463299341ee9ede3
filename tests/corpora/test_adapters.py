"""Each adapter of one known corpus, on a miniature tree in the official layout."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.releases import MSP, MSP_AUDIO, TREES
from support.trees import write_tree

from gmp_atl_dist.config import CorpusConfig
from gmp_atl_dist.corpora.cards import all_cards
from gmp_atl_dist.corpora.reading import CorpusListing, read_corpus
from gmp_atl_dist.errors import ConfigError, CorpusError
from gmp_atl_dist.store.filesystem import Store

NOT_AUDIO = "notes.zip"


def read(root: Path, adapter: str, **config: object) -> CorpusListing:
    corpus = CorpusConfig.model_validate({"adapter": adapter, "max_bad_fraction": 1.0, **config})
    return read_corpus(corpus, Store.open(str(root)), gender_needed=False)


@pytest.mark.parametrize("adapter", TREES)
def test_every_file_of_the_release_is_read_or_named(adapter: str, tmp_path: Path) -> None:
    tree = TREES[adapter]
    write_tree(tmp_path, [*tree.good, *tree.bad, *tree.left_out, "x/._a.wav"], tree.texts)
    (tmp_path / NOT_AUDIO).write_bytes(b"x")
    listing = read(tmp_path, adapter)
    found = {u.path: (u.speaker, u.gender, u.emotion) for u in listing.utterances}
    named = {p.item: p.reason for p in listing.problems}
    copies = {path for path, reason in tree.bad.items() if "more than once" in reason}
    if copies:
        # Of two copies of an id, the one that comes first by its path is used.
        found = {path.removeprefix("copy/"): labels for path, labels in found.items()}
        assert any("occurs more than once" in reason for reason in named.values())
    assert found == tree.good
    for path in tree.bad.keys() - copies:
        assert tree.bad[path] in named.pop(path)
    assert named.pop(NOT_AUDIO) == "is neither a recording nor a text; move it away"
    assert len(named) == len(copies), "nothing else is wrong"
    assert listing.num_bad == len(tree.bad) + 1
    with pytest.raises(CorpusError) as error:
        read(tmp_path, adapter, max_bad_fraction=0.0)
    assert all(path in error.value.message for path in tree.bad.keys() - copies)


@pytest.mark.parametrize("adapter", TREES)
def test_ids_and_speakers_are_those_of_no_other_corpus(adapter: str, tmp_path: Path) -> None:
    write_tree(tmp_path, TREES[adapter].good, TREES[adapter].texts)
    listing = read(tmp_path, adapter, max_bad_fraction=0.0)
    assert not listing.problems
    assert all(u.utterance_id.startswith(f"{adapter}_") for u in listing.utterances)
    assert all(u.speaker.startswith(f"{adapter}_") for u in listing.utterances)


@pytest.mark.parametrize("adapter", TREES)
def test_another_folder_is_an_error_that_shows_a_name(adapter: str, tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"holds no recording; set runtime.corpus to the folder"):
        read(tmp_path, adapter)


def test_options_choose_parts_of_a_corpus(tmp_path: Path) -> None:
    song = "song/Actor_01/03-02-03-01-01-01-01.wav"
    write_tree(tmp_path / "r", [*TREES["ravdess"].good, song])
    for channel, number in (("speech", 3), ("song", 1), ("all", 4)):
        listing = read(tmp_path / "r", "ravdess", options={"channel": channel})
        assert len(listing.utterances) == number
    write_tree(tmp_path / "e", TREES["esd"].good)
    for language, number in (("all", 4), ("mandarin", 2), ("english", 2)):
        listing = read(tmp_path / "e", "esd", options={"language": language})
        assert len(listing.utterances) == number
    assert {u.path: u.split for u in listing.utterances} == {
        "0020/Surprise/0020_001750.wav": "",
        "0015/Happy/test/0015_000721.wav": "test",
    }


def test_esd_has_the_genders_of_its_documentation(tmp_path: Path) -> None:
    names = [f"{n:04}/Neutral/{n:04}_000001.wav" for n in range(1, 21)]
    write_tree(tmp_path, names)
    genders = {u.speaker: u.gender for u in read(tmp_path, "esd").utterances}
    women = {int(s.removeprefix("esd_")) for s, gender in genders.items() if gender == "female"}
    assert len(genders) == 20
    # Five women and five men of each language: speakers 1 to 10 read Mandarin.
    assert women == {1, 2, 3, 7, 9} | {15, 16, 17, 18, 19}


def test_an_option_that_changes_nothing_is_refused(tmp_path: Path) -> None:
    write_tree(tmp_path, TREES["ravdess"].good)
    with pytest.raises(
        ConfigError, match=r"options\.channel: 'opera' is not known; known are speech"
    ):
        read(tmp_path, "ravdess", options={"channel": "opera"})
    with pytest.raises(ConfigError, match=r"'ravdess' has no 'chanel'; it has channel: speech"):
        read(tmp_path, "ravdess", options={"chanel": "song"})
    with pytest.raises(ConfigError, match=r"'emodb' has no 'channel'; it has no option"):
        read(tmp_path, "emodb", options={"channel": "song"})


def test_cremad_without_its_table_does_not_know_genders(tmp_path: Path) -> None:
    write_tree(tmp_path, TREES["cremad"].good)
    assert {u.gender for u in read(tmp_path, "cremad").utterances} == {"unknown"}


def test_msp_podcast_has_official_splits_and_unknown_people(tmp_path: Path) -> None:
    write_tree(tmp_path, [f"Audios/MSP-PODCAST_{name}.wav" for name in MSP_AUDIO], MSP)
    listing = read(tmp_path, "msp_podcast")
    rows = {
        u.utterance_id[12:]: (u.speaker, u.gender, u.emotion, u.split) for u in listing.utterances
    }
    assert rows == {
        "0001_0008": ("msp_127", "male", "neutral", "test"),
        "0001_0019": ("msp_Unknown_0001", "unknown", "happy", "train"),
        "0002_0033": ("msp_Unknown_0002", "female", "angry", "train"),
        "0003_0005": ("msp_7", "female", "contemptuous", "valid"),
    }
    assert {p.item: p.reason.partition(";")[0] for p in listing.problems} == {
        "Audios/MSP-PODCAST_0099_0001.wav": "has no row in Labels/labels_consensus.csv",
        "Labels/labels_consensus.csv: MSP-PODCAST_0006_0001.wav": "has no recording",
    }
    both = read(tmp_path, "msp_podcast", options={"test": "all"})
    assert len(both.utterances) == 5
    second = read(tmp_path, "msp_podcast", options={"test": "test2"})
    assert [u.speaker for u in second.utterances if u.split == "test"] == ["msp_9"]
    asked = read(
        tmp_path, "msp_podcast", emotions=["neutral", "undecided"], ignore_other_emotions=True
    )
    assert sorted(u.emotion for u in asked.utterances) == ["neutral", "undecided"]


def test_msp_podcast_without_labels_is_an_error(tmp_path: Path) -> None:
    write_tree(tmp_path, ["Audios/MSP-PODCAST_0001_0008.wav"])
    with pytest.raises(CorpusError, match=r"there is no labels_consensus\.csv"):
        read(tmp_path, "msp_podcast")
    write_tree(tmp_path, [], {"labels_consensus.csv": "FileName,EmoClass\nx,N\n"})
    with pytest.raises(CorpusError, match=r"lacks the columns SpkrID, Gender, Split_Set"):
        read(tmp_path, "msp_podcast")


_MELD_HEAD = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID,Season\n"
MELD = {
    "MELD.Raw/train/train_sent_emo.csv": f'{_MELD_HEAD}1,"Oh, no.",Joey,joy,positive,0,0,8\n'
    "2,Hi,Mark,sadness,negative,0,1,8\n3,Hi,Ross,neutral,neutral,125,3,8\n",
    "MELD.Raw/dev_sent_emo.csv": f"{_MELD_HEAD}1,Hi,Monica,anger,negative,0,0,8\n"
    "2,Hi,Phoebe,fear,negative,110,7,8\n",
    "MELD.Raw/test_sent_emo.csv": f"{_MELD_HEAD}1,Hi,Rachel,surprise,positive,0,0,8\n",
}
MELD_CLIPS = (
    "MELD.Raw/train/train_splits/dia0_utt0.mp4",
    "MELD.Raw/train/train_splits/dia0_utt1.mp4",
    "MELD.Raw/train/train_splits/dia125_utt3.mp4",
    "MELD.Raw/dev/dev_splits_complete/dia0_utt0.mp4",
    "MELD.Raw/test/output_repeated_splits_test/dia0_utt0.mp4",
    "MELD.Raw/test/output_repeated_splits_test/final_videos_testdia0_utt0.mp4",
    "MELD.Raw/test/output_repeated_splits_test/._dia0_utt0.mp4",
    "MELD.Raw/test/output_repeated_splits_test/dia9_utt9.mp4",
)


def test_meld_has_official_splits_and_the_names_of_its_table(tmp_path: Path) -> None:
    write_tree(tmp_path, MELD_CLIPS, MELD)
    listing = read(tmp_path, "meld")
    rows = {u.utterance_id: (u.speaker, u.gender, u.emotion, u.split) for u in listing.utterances}
    assert rows == {
        "meld_train_dia0_utt0": ("meld_Joey", "male", "happy", "train"),
        "meld_train_dia0_utt1": ("meld_Mark", "unknown", "sad", "train"),
        "meld_dev_dia0_utt0": ("meld_Monica", "female", "angry", "valid"),
        "meld_test_dia0_utt0": ("meld_Rachel", "female", "surprised", "test"),
    }
    assert {p.item.rpartition("/")[2]: p.reason.partition(";")[0] for p in listing.problems} == {
        "dia125_utt3.mp4": "known fault of the release: it is damaged",
        "dia9_utt9.mp4": "has no row in test_sent_emo.csv",
        "dev: dia110_utt7": "has no clip",
    }


FOLDER = ("anna/happy/1.wav", "anna/Sad/2.wav", "ben/happy/3.flac", "stray.wav", "ben/x/y/4.wav")


def test_a_folder_with_a_pattern(tmp_path: Path) -> None:
    write_tree(tmp_path, FOLDER, {"README": "x"})
    listing = read(tmp_path, "folder", options={"pattern": "{speaker}/{emotion}/*.wav"})
    rows = {u.utterance_id: (u.speaker, u.emotion) for u in listing.utterances}
    assert rows == {"anna/happy/1": ("anna", "happy"), "anna/Sad/2": ("anna", "sad")}
    assert sorted(p.item for p in listing.problems) == [
        "ben/happy/3.flac",
        "ben/x/y/4.wav",
        "stray.wav",
    ]
    pattern = "**/{gender}-{speaker}_{emotion}_*.*"
    write_tree(tmp_path / "b", ["a/b/F-s1_Happy_1.wav", "m-s_2_sad_x_2.wav"])
    listing = read(tmp_path / "b", "folder", options={"pattern": pattern})
    assert {(u.speaker, u.gender, u.emotion) for u in listing.utterances} == {
        ("s1", "female", "happy"),
        ("s", "male", "2"),
    }, "the shortest speaker that fits"
    with pytest.raises(CorpusError, match="nowhere: is not there or holds no recording"):
        read(tmp_path / "nowhere", "folder", options={"pattern": pattern})


@pytest.mark.parametrize(
    ("pattern", "message"),
    {
        "": "is missing; the adapter folder needs one",
        "{speaker}/*.wav": "lacks {emotion}",
        "{speaker}/{emotion}/{speaker}.wav": "{speaker} occurs twice",
        "{speaker}/{emotion}/{age}.wav": "{age} is not known; known are speaker, emotion",
    }.items(),
)
def test_a_pattern_that_cannot_be_meant_is_refused(
    tmp_path: Path, pattern: str, message: str
) -> None:
    write_tree(tmp_path, FOLDER)
    with pytest.raises(ConfigError) as error:
        read(tmp_path, "folder", options={"pattern": pattern} if pattern else {})
    assert message in error.value.message


IEMOCAP = {
    f"Session1/dialog/EmoEvaluation/{dialogue}.txt": "".join(
        f"[{i}.0 - {i}.9]\t{dialogue}_F{i:03d}\t{code}\t[2.5, 2.5, 2.5]\n"
        for i, code in enumerate(("neu", "hap", "exc", "ang", "sad", "fru", "xxx"))
    )
    for dialogue in ("Ses01F_impro01", "Ses01M_script02_1")
}
SIX = ["neutral", "happy", "angry", "sad", "excited", "frustrated"]


@pytest.mark.parametrize(
    ("dialogues", "emotions", "number"),
    [
        ("all", [], 10),
        ("improvised", [], 5),
        ("scripted", [], 5),
        ("improvised", [*SIX[:4], "frustrated"], 6),
        ("all", SIX, 12),
    ],
)
def test_variants_of_iemocap(
    tmp_path: Path, dialogues: str, emotions: list[str], number: int
) -> None:
    audio = [
        f"Session1/sentences/wav/{dialogue}/{dialogue}_F{i:03d}.wav"
        for dialogue in ("Ses01F_impro01", "Ses01M_script02_1")
        for i in range(7)
    ]
    write_tree(tmp_path, audio, IEMOCAP)
    options = {"dialogues": dialogues}
    listing = read(tmp_path, "iemocap", emotions=emotions, options=options, allow_incomplete=True)
    assert len(listing.utterances) == number
    kind = {"all": "", "improvised": "_impro", "scripted": "_script"}[dialogues]
    assert all(kind in u.utterance_id for u in listing.utterances)
    assert set(listing.emotions) == set(emotions or SIX[:4])


@pytest.mark.parametrize("adapter", ["emodb", "nemo"])
def test_real_copies_are_read_as_their_tables_say(data_root: Path, adapter: str) -> None:
    root = data_root / {"emodb": "emodb2s", "nemo": "nemo"}[adapter]
    if not root.is_dir():
        pytest.skip(f"{root} is not there")
    columns = {"id": "utt_id"}
    table = read(root, "table", columns=columns, merge={"disgust": "disgusted"})
    found = read(root, adapter, max_bad_fraction=0.0)
    assert found.utterances == table.utterances
    assert not found.problems


def test_every_adapter_has_a_card() -> None:
    listings = {listing.name: listing for listing in all_cards()}
    assert all(listing.card is not None for listing in listings.values())
    emodb, esd = listings["emodb"].card, listings["esd"]
    assert emodb is not None
    assert (emodb.title, emodb.languages) == ("EmoDB", "German")
    assert esd.options == {"language": "all, mandarin or english"}


@pytest.mark.parametrize("adapter", TREES)
def test_the_example_of_a_card_is_a_name_that_is_read(adapter: str, tmp_path: Path) -> None:
    card = next(listing.card for listing in all_cards() if listing.name == adapter)
    assert card is not None
    write_tree(tmp_path, [card.example])
    assert [u.path for u in read(tmp_path, adapter, max_bad_fraction=0.0).utterances] == [
        card.example
    ]
