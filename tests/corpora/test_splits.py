"""Folds of k groups, validation on a share or on partners, and lists of others as folds of a run."""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from gmp_atl_dist.config import FoldsConfig
from gmp_atl_dist.corpora.folds import plan_folds, read_fold_lists
from gmp_atl_dist.errors import ConfigError, CorpusError
from gmp_atl_dist.fold import Fold
from gmp_atl_dist.records import StoredUtterance, Utterance, UtteranceGroup

DATA = Path(
    os.environ.get("GMP_ATL_TEST_DATA", Path(__file__).resolve().parents[2] / "../shared/data")
)
EMOTIONS = ("angry", "happy", "neutral", "sad")


def said(
    name: str, speaker: str, gender: str = "female", emotion: str = "sad", **more: str
) -> StoredUtterance:
    return StoredUtterance(
        utterance_id=name,
        speaker=speaker,
        gender="female" if gender == "female" else "male",
        emotion=emotion,
        session=more.get("session", ""),
        split=more.get("split", ""),
        num_samples=16000,
        audio_sha256="0" * 64,
        part="p",
        row=0,
    )


def people(count: int, *, women: int, uneven: bool = False) -> list[StoredUtterance]:
    """Speakers ``s000``, ..., with two utterances of each emotion, or with more from speaker to speaker."""
    return [
        said(f"s{i:03d}-{e}-{j}", f"s{i:03d}", "female" if i < women else "male", e)
        for i in range(count)
        for k, e in enumerate(EMOTIONS)
        for j in range(2 + (i * (k + 1)) % 7 if uneven else 2)
    ]


def dialogues(sessions: int) -> list[StoredUtterance]:
    """A woman and a man a session."""
    return [
        said(f"Ses{n}{g}{i}", f"Ses{n}{g}", "female" if g == "F" else "male", session=f"Ses{n}")
        for n in range(1, sessions + 1)
        for g in "FM"
        for i in range(2)
    ]


def plan(utterances: Sequence[StoredUtterance], **config: object) -> tuple[Fold, ...]:
    folds = FoldsConfig.model_validate(config)
    return plan_folds(utterances, folds, read_fold_lists(folds, ""))


# Groups that are dealt


def test_91_speakers_are_five_folds_alike_in_gender_and_emotion() -> None:
    utterances = people(91, women=43)
    folds = plan(utterances, k=5)

    assert [f.name for f in folds] == [f"fold{i}" for i in range(1, 6)]
    tested = [s for f in folds for s in f.test_speakers]
    assert sorted(tested) == sorted({u.speaker for u in utterances}), "each is tested once"
    for fold in folds:
        women = sum(s < "s043" for s in fold.test_speakers)
        assert women in (8, 9)
        assert len(fold.test_speakers) in (18, 19)
        counts = Counter(u.emotion for u in fold.select(utterances, "test"))
        assert max(counts.values()) == min(counts.values()), "each emotion as often as the others"


def test_dealing_evens_out_what_speakers_said() -> None:
    utterances = people(60, women=30, uneven=True)
    folds = plan(utterances, k=5)
    for emotion in EMOTIONS:
        counts = [sum(u.emotion == emotion for u in f.select(utterances, "test")) for f in folds]
        mean = sum(counts) / 5
        assert max(abs(c - mean) for c in counts) < 0.2 * mean, (emotion, counts)


def test_the_seed_chooses_the_groups_and_the_order_of_utterances_does_not() -> None:
    utterances = people(30, women=15, uneven=True)
    assert plan(utterances[::-1], k=5) == plan(utterances, k=5)
    plans = {plan(utterances, k=5, seed=seed)[0].test_speakers for seed in range(5)}
    assert len(plans) == 5


def test_counted_groups_give_the_folds_of_single_utterances() -> None:
    utterances = people(30, women=15, uneven=True)
    counts = Counter((u.speaker, u.gender, u.emotion) for u in utterances)
    groups = [
        UtteranceGroup(f"{speaker}-{emotion}", speaker, gender, emotion, "", "", count)
        for (speaker, gender, emotion), count in counts.items()
    ]
    config = FoldsConfig(k=5)
    assert plan_folds(groups, config) == plan(utterances, k=5)


def test_sessions_are_dealt_whole() -> None:
    folds = plan(dialogues(6), k=3, by="session")
    for fold in folds:
        assert len(fold.test_speakers) == 4
        assert {s[:-1] for s in fold.test_speakers}.isdisjoint(s[:-1] for s in fold.train_speakers)


def test_k_needs_as_many_speakers() -> None:
    with pytest.raises(ConfigError, match=r"folds\.k: 5 folds need 5 speakers .* has 4; lower it"):
        plan(people(4, women=2), k=5)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"k": 5, "held_out": [["a"]]}, "held_out and k exclude each other"),
        ({"k": 5, "by": "split"}, "k and by = 'split' exclude each other"),
        ({"k": 5, "lists": "x"}, "k and lists exclude each other"),
        ({"valid": "other_speaker", "by": "session"}, "'other_speaker' needs by = 'speaker'"),
        ({"protocol": "speaker_dependent"}, "'speaker_dependent' runs lists or a split"),
        (
            {"protocol": "speaker_dependent", "by": "split", "valid": "share"},
            "'share' sets speakers aside",
        ),
    ],
)
def test_keys_that_contradict_each_other_are_refused(
    config: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        FoldsConfig.model_validate(config)


def test_the_new_keys_change_no_digest_at_their_defaults() -> None:
    from gmp_atl_dist.config import hashed

    before = {"by", "held_out", "valid", "run", "protocol"}
    assert set(hashed(FoldsConfig())) == before
    assert set(hashed(FoldsConfig(k=5, seed=1))) == before | {"k", "seed"}


# Validation


def test_a_share_of_the_training_speakers_validates() -> None:
    utterances = people(40, women=20)
    folds = plan(utterances, k=4, valid="share", valid_share=0.2)
    assert plan(utterances[::-1], k=4, valid="share", valid_share=0.2) == folds
    for fold, without in zip(folds, plan(utterances, k=4), strict=True):
        assert len(fold.valid_speakers) == 6
        assert sum(s < "s020" for s in fold.valid_speakers) == 3, "as many women as men"
        assert {*fold.train_speakers} | {*fold.valid_speakers} == {*without.train_speakers}
    other = plan(utterances, k=4, valid="share", valid_share=0.2, seed=1)
    assert folds[0].valid_speakers != other[0].valid_speakers


def test_a_share_leaves_somebody_to_train() -> None:
    (fold, _, _) = plan(people(3, women=2), by="speaker", valid="share", valid_share=0.9)
    assert (len(fold.train_speakers), len(fold.valid_speakers)) == (1, 1)
    with pytest.raises(ConfigError, match=r"takes one training speaker at least, and fold1 has"):
        plan(people(2, women=1), by="speaker", valid="share")


def test_the_other_speaker_of_the_session_validates() -> None:
    folds = plan(dialogues(3), by="speaker", valid="other_speaker")
    assert len(folds) == 6
    assert folds[0].test_speakers == ("Ses1F",)
    assert folds[0].valid_speakers == ("Ses1M",)
    assert folds[0].train_speakers == ("Ses2F", "Ses2M", "Ses3F", "Ses3M")
    assert folds[1].valid_speakers == ("Ses1F",)


def test_other_speaker_needs_sessions_with_others() -> None:
    with pytest.raises(CorpusError, match="needs a session for every utterance"):
        plan(people(4, women=2), by="speaker", valid="other_speaker")
    alone = [said(n, n, session=f"of {n}") for n in "abc"]
    with pytest.raises(CorpusError, match="nobody else is in a session of a"):
        plan(alone, by="speaker", valid="other_speaker")


def test_partners_on_two_sides_are_named() -> None:
    (note,) = plan(dialogues(3), by="speaker")[0].notes
    assert "partners of one session are on two sides: Ses1 (Ses1M trains, Ses1F is tested)" in note
    (note,) = plan(dialogues(3), by="speaker", valid="other_speaker")[0].notes
    assert "Ses1 (Ses1M validates, Ses1F is tested)" in note
    assert all(not fold.notes for fold in plan(dialogues(3), by="session"))
    same = [said(n, n, session="studio") for n in "abc"]
    assert not plan(same, by="speaker")[0].notes, "one session for all says nothing"


def test_a_split_with_validation() -> None:
    rows = [("train", "a"), ("train", "b"), ("valid", "c"), ("test", "d")]
    utterances = [said(f"{s}1", s, split=split) for split, s in rows]
    for valid in ("none", "next"):
        (fold,) = plan(utterances, by="split", valid=valid)
        assert fold == Fold("split", ("a", "b"), ("d",), ("c",))
    with pytest.raises(ConfigError, match=r"split has 1 validation speakers of its own"):
        plan(utterances, by="split", valid="share")
    (fold,) = plan([u for u in utterances if u.split != "valid"], by="split", valid="share")
    assert (len(fold.train_speakers), len(fold.valid_speakers)) == (1, 1)


# Lists of others


def emobox(folder: Path, folds: Sequence[Mapping[str, Sequence[str]]]) -> Path:
    """Lists as EmoBox has them, in both of its forms."""
    for number, sides in enumerate(folds, 1):
        for side, names in sides.items():
            items = {
                f"emodb-{n}": {"wav": f"downloads/emodb/wav/{n}.wav", "emo": "a"} for n in names
            }
            path = folder / f"fold_{number}" / f"emodb_{side}_fold_{number}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(items))
            rows = [{"key": k, "dataset": "emodb", **v} for k, v in items.items()]
            path.with_suffix(".jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (folder / "label_map.json").write_text('{"a": "anger"}')
    return folder


NAMES = [f"{s:02d}a0{i}Wa" for s in (3, 8, 9, 10) for i in range(3)]
CORPUS = [said(name, name[:2]) for name in NAMES]


def of(*speakers: str) -> list[str]:
    return [name for name in NAMES if name[:2] in speakers]


def test_lists_that_keep_speakers_apart_are_folds_of_speakers(tmp_path: Path) -> None:
    lists = emobox(
        tmp_path,
        [
            {"train": of("08", "09", "10"), "test": of("03")},
            {"train": of("03", "09", "10"), "test": of("08")},
        ],
    )
    folds = plan(CORPUS, lists=str(lists))
    assert folds == (
        Fold("fold1", ("08", "09", "10"), ("03",)),
        Fold("fold2", ("03", "09", "10"), ("08",)),
    )
    assert folds[0].notes == ("from fold_1/emodb_*_fold_1.jsonl",)
    assert plan(CORPUS, lists=str(lists / "fold_2"))[0].test_speakers == ("08",)
    # Relative to the corpus, as a pattern.
    config = FoldsConfig(lists=f"{tmp_path.name}/fold_?/*.jsonl")
    assert plan_folds(CORPUS, config, read_fold_lists(config, str(tmp_path.parent))) == folds


def test_the_next_test_list_validates(tmp_path: Path) -> None:
    sides = [
        {"train": of(*sorted({"03", "08", "09", "10"} - {s})), "test": of(s)} for s in ("03", "08")
    ]
    folds = plan(CORPUS, lists=str(emobox(tmp_path, sides)), valid="next")
    assert folds[0] == Fold("fold1", ("09", "10"), ("03",), ("08",))
    assert folds[1] == Fold("fold2", ("09", "10"), ("08",), ("03",))


def test_a_validation_list_is_set_aside(tmp_path: Path) -> None:
    sides = {"train": of("03", "08"), "valid": of("09"), "test": of("10")}
    lists = str(emobox(tmp_path, [sides]))
    for valid in ("none", "next"):
        assert plan(CORPUS, lists=lists, valid=valid)[0] == Fold(
            "fold1", ("03", "08"), ("10",), ("09",)
        )
    one = emobox(tmp_path / "one", [{"train": of("03", "08", "09"), "test": of("10")}])
    with pytest.raises(ConfigError, match=r"set folds\.valid = 'none' or 'share'"):
        plan(CORPUS, lists=str(one), valid="next")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("id,split\n{rows}", "s.csv"),
        ("Filename\tSplit_Set\tEmotion\n{rows}", "labels.tsv"),
    ],
)
def test_a_table_with_a_split(tmp_path: Path, text: str, name: str) -> None:
    mark = "\t" if name.endswith("tsv") else ","
    suffix = ".wav" if name.endswith("tsv") else ""
    sides = {"03": "Train", "08": "train", "09": "Development", "10": "Test1"}
    more = f"{mark}A" if name.endswith("tsv") else ""
    rows = "".join(f"{n}{suffix}{mark}{sides[n[:2]]}{more}\n" for n in NAMES)
    (tmp_path / name).write_text(text.format(rows=rows))
    (fold,) = plan(CORPUS, lists=str(tmp_path / name))
    assert fold == Fold("fold1", ("03", "08"), ("10",), ("09",))


def test_a_table_with_numbers_of_folds(tmp_path: Path) -> None:
    rows = "".join(f"{n},{1 + int(n[:2]) % 2}\n" for n in NAMES)
    (tmp_path / "folds.csv").write_text(f"id,fold\n{rows}")
    folds = plan(CORPUS, lists=str(tmp_path / "folds.csv"))
    assert folds == (
        Fold("fold1", ("03", "09"), ("08", "10")),
        Fold("fold2", ("08", "10"), ("03", "09")),
    )


def test_separate_tables(tmp_path: Path) -> None:
    for side, speakers in {"train": ("03", "08"), "dev": ("09",), "test": ("10",)}.items():
        rows = "".join(f"wav/{n}.wav\n" for n in of(*speakers))
        (tmp_path / f"{side}.csv").write_text(f"path\n{rows}")
    (fold,) = plan(CORPUS, lists=str(tmp_path))
    assert fold == Fold("fold1", ("03", "08"), ("10",), ("09",))


def test_ids_that_only_one_of_the_two_has_are_named(tmp_path: Path) -> None:
    sides = {"train": [*of("08", "09"), "99a01Wa"], "test": of("03")}
    lists = str(emobox(tmp_path, [sides]))
    with pytest.raises(CorpusError) as e:
        plan(CORPUS, lists=lists)
    assert "names 1 utterance that the corpus does not have: 'emodb-99a01Wa'" in e.value.message
    assert "does not name 3 of the corpus's 12 utterances: '10a00Wa'" in e.value.message
    assert "folds.unlisted = 'leave_out'" in e.value.message

    (fold,) = plan(CORPUS, lists=lists, unlisted="leave_out")
    assert {u.utterance_id for u in fold.select(CORPUS, "train", "test")} == {*of("03", "08", "09")}
    assert any("left out: the list names 1 utterance " in note for note in fold.notes)
    assert any("left out: the list does not name 3 of" in note for note in fold.notes)


def test_an_utterance_that_is_left_out_is_in_no_training_set(tmp_path: Path) -> None:
    named = [n for n in NAMES if n != "08a01Wa"]
    sides = {
        "train": [n for n in named if n[:2] != "03"],
        "test": [n for n in named if n[:2] == "03"],
    }
    (fold,) = plan(CORPUS, lists=str(emobox(tmp_path, [sides])), unlisted="leave_out")
    assert not fold.speaker_dependent
    for training in (fold.training_speakers(), fold.transductive_speakers()):
        with pytest.raises(CorpusError, match="'08a01Wa' is no training utterance of fold 'fold1'"):
            training.check("08a01Wa", "08")
        training.check("08a02Wa", "08")
    (fold,) = plan(
        CORPUS, lists=str(emobox(tmp_path, [sides])), unlisted="leave_out", valid="share"
    )
    assert fold.utterances is not None
    assert {n[:2] for n in fold.utterances.valid} == {*fold.valid_speakers}
    assert {n[:2] for n in fold.utterances.train} == {*fold.train_speakers}
    assert "08a01Wa" not in fold.utterances.of("train", "valid", "test")


@pytest.mark.parametrize(
    "spelled", ["emodb-{}", "emodb_{}", "berlin_{}", "{}", "downloads/emodb/wav/{}.wav"]
)
def test_rows_are_found_by_the_ids_that_the_corpus_has(tmp_path: Path, spelled: str) -> None:
    lists = emobox(tmp_path, [{"train": of("08", "09", "10"), "test": of("03")}])
    corpus = [said(spelled.format(name), name[:2]) for name in NAMES]
    assert plan(corpus, lists=str(lists))[0] == Fold("fold1", ("08", "09", "10"), ("03",))


def test_lists_of_another_corpus_are_refused(tmp_path: Path) -> None:
    lists = emobox(tmp_path, [{"train": ["01a"], "test": ["02a"]}])
    with pytest.raises(CorpusError, match=r"none of the 2 listed utterances is in the corpus"):
        plan(CORPUS, lists=str(lists))


def listed(ids_and_paths: Mapping[str, str]) -> list[Utterance]:
    """A corpus whose speaker is in the first two characters of each file's name."""
    return [
        Utterance(name, path, Path(path).name[:2], "female", "sad")
        for name, path in ids_and_paths.items()
    ]


@pytest.mark.parametrize(
    "path",
    [
        "downloads/emodb/wav/{}.wav",  # as the list has it
        "wav/{}.wav",  # the corpus is a folder of what the list names
        "2023/downloads/emodb/wav/{}.wav",  # the other way round
        "clean/{}.wav",
        "clean/{}.flac",
        "shard-0.tar#wav/{}.flac@512+9000",
    ],
)
def test_rows_are_found_by_the_path_of_the_audio(tmp_path: Path, path: str) -> None:
    lists = str(emobox(tmp_path, [{"train": of("08", "09", "10"), "test": of("03")}]))
    paths = {f"u{i:04d}": path.format(name) for i, name in enumerate(NAMES)}
    speakers = {u: name[:2] for u, name in zip(paths, NAMES, strict=True)}
    expected = (Fold("fold1", ("08", "09", "10"), ("03",)),)
    config = FoldsConfig(lists=lists)
    of_listing = [Utterance(u, p, speakers[u], "female", "sad") for u, p in paths.items()]
    assert plan_folds(of_listing, config, read_fold_lists(config, "")) == expected
    # A stored corpus keeps its paths beside its utterances. Those that it left out are in no list.
    stored = [said(u, speakers[u]) for u in paths]
    more = {**paths, "left out": "downloads/emodb/wav/03a00Wa.wav"}
    assert plan_folds(stored, config, read_fold_lists(config, ""), more) == expected


def test_a_row_that_fits_several_recordings_is_refused_and_both_are_named(tmp_path: Path) -> None:
    lists = str(emobox(tmp_path, [{"train": of("08", "09", "10"), "test": of("03")}]))
    paths = {f"u{i:04d}": f"a/{name}.wav" for i, name in enumerate(NAMES)}
    config = FoldsConfig(lists=lists)
    twice = listed({**paths, "more": f"b/{NAMES[0]}.wav"})
    with pytest.raises(CorpusError) as e:
        plan_folds(twice, config, read_fold_lists(config, ""))
    assert f"'more' (b/{NAMES[0]}.wav) or 'u0000' (a/{NAMES[0]}.wav)" in e.value.message
    # The whole path decides between equal names.
    whole = {f"u{i:04d}": f"downloads/emodb/wav/{name}.wav" for i, name in enumerate(NAMES)}
    folds = plan_folds(
        listed({**whole, "more": f"b/{NAMES[0]}.wav"}),
        config.model_copy(update={"unlisted": "leave_out"}),
        read_fold_lists(config, ""),
    )
    assert folds[0].utterances is not None
    assert "more" not in folds[0].utterances.of("train", "test")


def test_a_name_of_a_file_counts_only_where_nothing_else_finds_a_row(tmp_path: Path) -> None:
    sides = {"train": of("08", "09", "10"), "test": of("03")}
    # The list's first recording is not in the corpus. Another one has its name, in another folder.
    paths = {name: f"downloads/emodb/wav/{name}.wav" for name in NAMES[1:]}
    corpus = listed({**paths, "another": f"other/{NAMES[0]}.wav"})
    config = FoldsConfig(lists=str(emobox(tmp_path, [sides])))
    with pytest.raises(CorpusError) as e:
        plan_folds(corpus, config, read_fold_lists(config, ""))
    assert f"the corpus does not have: 'emodb-{NAMES[0]}'" in e.value.message


LEAKING = [
    {"train": [n for n in NAMES if n[4] != str(i)], "test": [n for n in NAMES if n[4] == str(i)]}
    for i in range(3)
]
"""Each speaker is in training and test of each fold, as in EmoBox's lists of EmoDB."""


def test_lists_that_share_speakers_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(CorpusError) as e:
        plan(CORPUS, lists=str(emobox(tmp_path, LEAKING)))
    assert "fold_1/emodb_*_fold_1.jsonl has 4 speakers on two sides: '03', '08', '09', '10'" in (
        e.value.message
    )
    assert "folds.protocol = 'speaker_dependent'" in e.value.message


def test_the_speaker_dependent_arm_names_utterances(tmp_path: Path) -> None:
    lists = str(emobox(tmp_path, LEAKING))
    folds = plan(CORPUS, lists=lists, protocol="speaker_dependent")
    assert len(folds) == 3
    for fold, sides in zip(folds, LEAKING, strict=True):
        assert fold.speaker_dependent
        assert fold.shared_speakers("train", "test") == ("03", "08", "09", "10")
        training = fold.training_speakers()
        assert training.utterance_ids == {*sides["train"]}
        assert training.holds(sides["train"][0], sides["train"][0][:2])
        assert not training.holds(sides["test"][0], sides["test"][0][:2])
        with pytest.raises(CorpusError, match="is no training utterance"):
            training.check(sides["test"][0], sides["test"][0][:2])
        with pytest.raises(CorpusError, match="has no transductive arm"):
            fold.transductive_speakers()
    assert len({str(f.training_speakers().hashed()) for f in folds}) == 3
    assert plan(CORPUS[::-1], lists=lists, protocol="speaker_dependent") == folds
    (fold, *_) = plan(CORPUS, lists=lists, protocol="speaker_dependent", valid="next")
    assert fold.utterances is not None
    assert fold.utterances.valid == {*LEAKING[1]["test"]}
    assert fold.utterances.train == {*LEAKING[2]["test"]}


def test_an_utterance_on_two_sides_is_refused_in_every_protocol(tmp_path: Path) -> None:
    lists = emobox(tmp_path, [{"train": NAMES, "test": of("03")}])
    with pytest.raises(CorpusError, match="utterance '03a00Wa' is in both train and test"):
        plan(CORPUS, lists=str(lists), protocol="speaker_dependent")


def test_the_arm_is_refused_where_nothing_is_shared(tmp_path: Path) -> None:
    lists = emobox(tmp_path, [{"train": of("08", "09", "10"), "test": of("03")}])
    with pytest.raises(ConfigError, match="no speaker is on two sides of any fold"):
        plan(CORPUS, lists=str(lists), protocol="speaker_dependent")


def test_a_split_that_shares_speakers() -> None:
    utterances = [said(n, n[:2], split="test" if n[4] == "0" else "train") for n in NAMES]
    with pytest.raises(CorpusError, match="speaker '03' is in both train and test"):
        plan(utterances, by="split")
    (fold,) = plan(utterances, by="split", protocol="speaker_dependent")
    assert fold.utterances is not None
    assert fold.utterances.test == {n for n in NAMES if n[4] == "0"}


def test_a_fold_of_speakers_alone_never_shares_any() -> None:
    with pytest.raises(ValueError, match="names no utterances"):
        Fold("f", ("a",), ("a",), speaker_dependent=True)


def published() -> dict[int, dict[str, list[dict[str, str]]]]:
    folder = DATA / "iemocap_folds"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    return {
        n: {
            side: json.loads((folder / f"Session{n}/{side}_meta_data.json").read_text())[
                "meta_data"
            ]
            for side in ("train", "test")
        }
        for n in range(1, 6)
    }


def test_s3prls_lists_of_iemocap_are_the_folds_by_session() -> None:
    lists = published()
    utterances = []
    for n, sides in lists.items():
        for item in sides["test"]:
            name = Path(item["path"]).stem
            letter = name.rpartition("_")[2][0]
            utterances.append(said(name, f"Ses0{n}{letter}", session=f"Session{n}"))
    folds = plan(utterances, lists=str(DATA / "iemocap_folds"))

    assert folds == plan(utterances, by="session")
    sizes = {n: len(sides["test"]) for n, sides in lists.items()}
    counted: dict[int, int] = defaultdict(int)
    for n, fold in enumerate(folds, 1):
        counted[n] = len(fold.select(utterances, "test"))
    assert counted == sizes
