"""``gmp-atl audit``: what the sides of lists share, in every form in which lists lie."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from gmp_atl_dist.cli.main import main
from gmp_atl_dist.corpora.splits.audit import FoldAudit, audit_fold
from gmp_atl_dist.corpora.splits.forms import ListedRow, read_rows
from gmp_atl_dist.corpora.splits.lists import read_lists
from gmp_atl_dist.corpora.splits.recordings import RecordingNames
from gmp_atl_dist.corpora.splits.rules import RULES, rule_of
from gmp_atl_dist.corpora.splits.told import tell
from gmp_atl_dist.errors import ConfigError, CorpusError
from gmp_atl_dist.store.filesystem import Store

EMODB = {"train": ["03a01Wa", "08a02Na"], "test": ["03a02Fa", "09b01Ta"]}
CREMAD = {"train": ["1001_IEO_ANG_HI", "1002_DFA_SAD_XX"], "test": ["1001_DFA_NEU_XX"]}
IEMOCAP = {
    "train": ["Ses02F_impro01_F000", "Ses02F_impro01_M001"],
    "test": ["Ses01F_impro01_F000", "Ses01F_script01_1_M001"],
}


def emobox(
    folder: Path, dataset: str, sides: Mapping[str, Sequence[str]], **fields: object
) -> Path:
    path = folder / dataset / "fold_1"
    path.mkdir(parents=True)
    for side, names in sides.items():
        rows = [
            {"key": f"{dataset}-{n}", "dataset": dataset, "wav": f"downloads/{n}.wav", **fields}
            for n in names
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (path / f"{dataset}_{side}_fold_1.jsonl").write_text(text)
    return folder / dataset


def audited(where: Path, rule: str = "auto", audio: Path | None = None) -> FoldAudit:
    (fold,) = read_lists([str(where)]).folds
    rows = [row for side in fold.sides.values() for row in side]
    recordings = RecordingNames(Store.open(str(audio)) if audio else None)
    return audit_fold(tell(fold, rule_of(rows, rule)), recordings)


def table(folder: Path, text: str, name: str = "list.csv") -> Path:
    (folder / name).write_text(text)
    return folder / name


@pytest.mark.parametrize(
    ("dataset", "sides", "verdict", "speakers"),
    [
        ("emodb", EMODB, "leak", ("03",)),
        ("cremad", CREMAD, "leak", ("1001",)),
        ("iemocap", IEMOCAP, "clean", None),
    ],
)
def test_emoboxs_lists(
    tmp_path: Path,
    dataset: str,
    sides: Mapping[str, Sequence[str]],
    verdict: str,
    speakers: tuple[str, ...] | None,
) -> None:
    found = audited(emobox(tmp_path, dataset, sides))
    shared = found.of("speakers")
    assert found.verdict == verdict
    assert (shared.names if shared else None) == speakers
    assert RULES[dataset].title in found.source


def test_the_command_exits_with_3_on_a_leak_and_names_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    emobox(tmp_path, "emodb", EMODB)
    emobox(tmp_path, "iemocap", IEMOCAP)
    assert main(["audit", str(tmp_path)]) == 3
    out, err = capsys.readouterr()
    assert (
        "leak: emodb/fold_1/emodb_*_fold_1.jsonl: speakers in training and in test: 1 (03)" in out
    )
    assert "1 of 2 test utterances" in out
    assert "file names (EmoDB: the first two digits)" in out
    assert "1 of 2 folds leak: emodb/fold_1/emodb_*_fold_1.jsonl" in err
    assert main(["audit", str(tmp_path / "iemocap")]) == 0


def test_the_command_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "--json", str(emobox(tmp_path, "emodb", EMODB))]) == 3
    (fold,) = json.loads(capsys.readouterr().out)
    assert (fold["verdict"], fold["utterances"]) == ("leak", {"train": 2, "test": 2})
    (shared,) = [s for s in fold["shared"] if s["kind"] == "speakers"]
    assert (shared["names"], shared["sides"]) == (["03"], ["train", "test"])


def test_a_list_without_speakers_is_not_called_clean(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "path,split\nx/ann_1.wav,train\nx/ben_1.wav,train\nx/ann_2.wav,test\n"
    path = str(table(tmp_path, text))
    assert main(["audit", path]) == 2
    assert "the list names no speaker" in capsys.readouterr().out
    assert main(["audit", "--speaker", r"/([a-z]+)_\d", path]) == 3
    assert "speakers in training and in test: 1 (ann)" in capsys.readouterr().out
    assert main(["audit", "--speaker", "[a-z]+", path]) == 2
    assert "has 0 groups" in capsys.readouterr().err
    assert main(["audit", "--rule", "emodbb", path]) == 2
    assert "rule 'emodbb' is not known" in capsys.readouterr().err


def test_s3prls_speakers_of_iemocap_are_not_believed(tmp_path: Path) -> None:
    """Its field is the beginning of the dialogue's name, which is one name for two people."""
    for side, names in {
        "train": ["Ses01F_impro01_F000", "Ses01M_impro01_F000"],
        "test": ["Ses01F_impro01_M000", "Ses01F_impro02_M000"],
    }.items():
        items = [
            {"path": f"Session1/sentences/wav/{n[:-5]}/{n}.wav", "label": "ang", "speaker": n[:6]}
            for n in names
        ]
        path = tmp_path / "Session1" / f"{side}_meta_data.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"labels": {"ang": 0}, "meta_data": items}))
    found = audited(tmp_path)
    assert found.of("speakers") is None, "the woman trains, the man is tested"
    assert "the list has one name for several people" in found.source
    dialogues = found.of("dialogues")
    assert dialogues is not None
    assert dialogues.names == ("Ses01F_impro01",)
    assert found.verdict == "warning"


def test_a_lists_own_speakers_count(tmp_path: Path) -> None:
    text = "path,speaker,split\n03a01Wa.wav,anna,train\n03a02Wa.wav,ben,test\n"
    assert audited(table(tmp_path, text)).of("speakers") is None


def test_one_speaker_in_two_unicode_forms_is_one(tmp_path: Path) -> None:
    text = "path,speaker,split\na.wav,Zo\u00eb,train\nb.wav,Zoe\u0308\u200b,test\n"
    shared = audited(table(tmp_path, text)).of("speakers")
    assert shared is not None
    assert shared.names == ("Zo\u00eb",)


SEGMENTS = "path,speaker,split,start,end\nlong.wav,a,train,0,2\nlong.wav,b,test,{},{}\n"


@pytest.mark.parametrize(
    ("start", "end", "verdict"),
    [
        ("2", "4", "clean"),
        ("1.9", "4", "leak"),
        ("0.5", "1", "leak"),
        ("", "", "leak"),
        ("", "0.5", "leak"),
        ("5", "", "clean"),
    ],
)
def test_segments_of_one_recording(tmp_path: Path, start: str, end: str, verdict: str) -> None:
    found = audited(table(tmp_path, SEGMENTS.format(start, end)))
    assert found.verdict == verdict
    assert (found.of("audio") is not None) == (verdict == "leak")
    assert found.num_apart == (verdict == "clean")


def test_recordings_are_compared_by_their_samples(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = (np.sin(np.arange(16000) / 9) * 9000).astype(np.int16)
    sf.write(tmp_path / "a.wav", samples, 16000)
    sf.write(tmp_path / "copy.flac", samples, 16000)
    sf.write(tmp_path / "other.wav", samples[::-1], 16000)
    path = table(
        tmp_path,
        "path,speaker,split\na.wav,a,train\ncopy.flac,b,test\nother.wav,c,test\ngone.wav,d,test\n",
    )
    assert audited(path).verdict == "clean"
    shared = audited(path, audio=tmp_path).of("audio")
    assert shared is not None
    assert shared.names == ("copy.flac",)
    assert main(["audit", "--audio", str(tmp_path), str(path)]) == 3
    assert "recordings: 3 read, 1 not found" in capsys.readouterr().out
    # A wrong folder is no clean verdict.
    assert main(["audit", "--audio", str(tmp_path / "nowhere"), str(path)]) == 2
    assert "4 of 4 recordings are not below --audio" in capsys.readouterr().out


def test_validation_may_share_nothing_with_test(tmp_path: Path) -> None:
    text = "path,speaker,split\na.wav,a,train\nb.wav,b,valid\nc.wav,b,test\n"
    assert audited(table(tmp_path, text)).verdict == "leak"
    text = "path,speaker,split\na.wav,a,train\nb.wav,a,valid\nc.wav,b,test\n"
    assert audited(table(tmp_path, text)).verdict == "warning"


def test_sessions_warn_and_texts_do_not(tmp_path: Path) -> None:
    text = "path,speaker,split,session,text\na.wav,a,train,s1,hi\nb.wav,b,test,{},hi\n"
    found = audited(table(tmp_path, text.format("s1")))
    assert found.verdict == "warning"
    found = audited(table(tmp_path, text.format("s2")))
    assert found.of("texts") is not None
    assert found.verdict == "clean"


def test_separate_tables_in_one_command(tmp_path: Path) -> None:
    table(tmp_path, "path,speaker\na.wav,a\n", "my_train.csv")
    table(tmp_path, "path,speaker\nb.wav,a\n", "final_test.csv")
    found = read_lists([str(tmp_path / "my_train.csv"), str(tmp_path / "final_test.csv")])
    (fold,) = found.folds
    assert {side: len(rows) for side, rows in fold.sides.items()} == {"train": 1, "test": 1}


def test_a_test_list_alone_cannot_be_judged(tmp_path: Path) -> None:
    found = audited(emobox(tmp_path, "emodb", {"test": EMODB["test"]}))
    assert found.unknown == ("there is no train list",)
    assert found.verdict == "unknown"


def test_files_that_are_no_lists_are_named(tmp_path: Path) -> None:
    emobox(tmp_path, "emodb", EMODB)
    (tmp_path / "emodb" / "label_map.json").write_text("{}")
    assert read_lists([str(tmp_path)]).ignored == ("emodb/label_map.json",)
    with pytest.raises(ConfigError, match="tells no side"):
        read_lists([str(table(tmp_path, "path,speaker\na.wav,a\n"))])
    with pytest.raises(ConfigError, match="there is no list"):
        read_lists([str(tmp_path / "nothing")])


def test_folds_are_in_natural_order(tmp_path: Path) -> None:
    for n in (10, 9, 1):
        for side in ("train", "test"):
            table(tmp_path, "path,speaker\na.wav,a\n", f"fold{n}_{side}.csv")
    names = [fold.name for fold in read_lists([str(tmp_path)]).folds]
    assert names == ["fold1_*.csv", "fold9_*.csv", "fold10_*.csv"]


def test_a_table_with_sides_and_folds_is_folds(tmp_path: Path) -> None:
    rows = [
        f"{fold}-{side}.wav,s{fold}{side},{side},{fold}\n"
        for fold in (2, 10)
        for side in ("train", "test")
    ]
    (tmp_path / "all.csv").write_text("path,speaker,split,fold\n" + "".join(rows))
    folds = read_lists([str(tmp_path / "all.csv")]).folds
    assert [fold.name for fold in folds] == ["all.csv, fold 2", "all.csv, fold 10"]
    for number, fold in zip((2, 10), folds, strict=True):
        speakers = {side: [row.speaker for row in rows] for side, rows in fold.sides.items()}
        assert speakers == {"train": [f"s{number}train"], "test": [f"s{number}test"]}


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("x.jsonl", b'{"key": "a"}\n{"key": "b', r"x\.jsonl:2: is not JSON"),
        ("x.jsonl", b"[1]\n", r"x\.jsonl:1: is list, not an object"),
        ("x.json", b'{"a": 1}', r"x\.json, 'a': is int, not an object"),
        ("x.jsonl", b'{"emo": "sad"}', r"x\.jsonl:1: names no utterance"),
        ("x.csv", b"speaker,emotion\na,sad\n", "names no utterance; it needs one of the columns"),
        ("x.csv", b"path,speaker\na.wav,Zo\xeb\n", "is not UTF-8 text"),
        ("x.csv", b'path,speaker\n"a.wav,x\nb.wav,y\nc.wav,z\n', "quotation mark"),
        ("x.csv", b"path,start,end\na.wav,2,1\n", r"row 1: ends at 1 s, before it starts at 2 s"),
        ("x.csv", b"path,start\na.wav,soon\n", "start_s is 'soon', not a number of seconds"),
        ("x.wav", b"RIFF", "is no .jsonl"),
    ],
)
def test_a_list_that_cannot_be_read_is_refused(name: str, data: bytes, message: str) -> None:
    with pytest.raises(CorpusError, match=message):
        read_rows(data, name)


def test_an_unknown_word_for_a_side_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"row 2: split is 'later'; use train, valid or test"):
        read_lists([str(table(tmp_path, "path,split\na.wav,train\nb.wav,later\n"))])


@pytest.mark.parametrize(
    ("rule", "path", "expected"),
    [
        ("iemocap", "Session1/x/Ses01F_impro01_M003.wav", {"speaker": "Ses01M"}),
        ("emodb", "downloads/emodb/wav/03a02Wb.wav", {"speaker": "03", "text": "a02"}),
        ("cremad", "AudioWAV/1052_WSI_ANG_XX.wav", {"speaker": "1052", "text": "WSI"}),
        ("ravdess", "Actor_11/03-01-07-02-02-02-11.wav", {"speaker": "11", "text": "02"}),
        ("esd", "0005/Neutral/0005_000001.wav", {"speaker": "0005"}),
        ("shemo", "female/F01S01.wav", {"speaker": "F01"}),
        ("subesco", "M_09_SHUMANTA_S_2_FEAR_2.wav", {"speaker": "M_09", "text": "S_2"}),
        ("tess", "OAF_should_fear.wav", {"speaker": "OA", "text": "should"}),
        ("savee", "JE_sa11.wav", {"speaker": "JE", "text": "sa11"}),
        ("emovo", "f2/gio-f2-b2.wav", {"speaker": "f2", "text": "b2"}),
        ("aesdd", "anger/a06 (05)b.wav", {"speaker": "5", "text": "06"}),
        ("meld", "train_splits/dia660_utt6.mp4", {"dialogue": "train_splits/dia660"}),
        ("msppodcast", "Audio/MSP-PODCAST_0675_0365_0001.wav", {"session": "0675"}),
        ("nemo", "audio/EB0/EB0_sadness_10.flac", {"speaker": "EB0", "text": "10"}),
    ],
)
def test_names_of_files_by_their_corpus(rule: str, path: str, expected: dict[str, str]) -> None:
    read = RULES[rule].read(ListedRow("x", path=path))
    assert read is not None
    assert read.items() >= expected.items()
    assert ("speaker" in read) == ("speaker" in expected)


def test_a_rule_is_chosen_by_names_only_where_all_fit() -> None:
    rows = [ListedRow("x", path=f"wav/{n}.wav") for n in ("03a01Wa", "08a02Na")]
    assert rule_of(rows) is RULES["emodb"]
    assert rule_of([*rows, ListedRow("x", path="wav/other.wav")]) is None
    assert rule_of(rows, "none") is None


def test_rows_that_do_not_fit_their_rule_are_counted(tmp_path: Path) -> None:
    sides = {"train": ["03a01Wa", "noise"], "test": ["09a02Fa"]}
    found = audited(emobox(tmp_path, "emodb", sides))
    assert found.unknown == ("1 rows tell no speaker; the first: 'emodb-noise'",)
    assert found.verdict == "unknown"


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("s3:/bkt", "error: 's3:/bkt' is no URI; write s3://bkt"),
        (
            "s3:/bkt/lists/*.csv",
            "error: 's3:/bkt/lists/*.csv' is no URI; write s3://bkt/lists/*.csv",
        ),
        ("", "error: '' is empty; name a folder"),
    ],
)
def test_a_misspelt_uri_is_told_whole(
    given: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["audit", given]) == 2
    assert capsys.readouterr().err.startswith(told)
