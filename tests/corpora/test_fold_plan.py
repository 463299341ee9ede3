"""Folds are counted from labels alone: in ``corpora check``, and in ``doctor``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.handed import handed_case

from gmp_atl_dist.cli.main import main
from gmp_atl_dist.config import FoldsConfig, RunConfig
from gmp_atl_dist.corpora.fold_plan import count_folds
from gmp_atl_dist.corpora.folds import plan_folds
from gmp_atl_dist.doctor.corpus import check_corpus
from gmp_atl_dist.doctor.findings import Finding
from gmp_atl_dist.records import Utterance

HEADER = "id,path,speaker,gender,emotion,session,split,start_s,end_s"


def utterances(*rows: tuple[str, str, float | None]) -> list[Utterance]:
    return [
        Utterance(f"u{i}", f"u{i}.wav", speaker, "female", emotion, end_s=end_s)
        for i, (speaker, emotion, end_s) in enumerate(rows)
    ]


def test_sides_are_counted_and_absent_classes_named() -> None:
    corpus = utterances(
        ("a", "sad", 1800.0), ("a", "joy", 1800.0), ("b", "sad", 3600.0), ("c", "joy", None)
    )
    folds = plan_folds(corpus, FoldsConfig(by="speaker", valid="next"))
    first, _, last = count_folds(corpus, folds, ("joy", "sad"))
    assert [str(side) for side in first.sides] == [
        "1 utterance, 1 speaker, - h",
        "1 utterance, 1 speaker, 1.00 h",
        "2 utterances, 1 speaker, 1.00 h",
    ]
    assert first.absent() == "training: sad; validation: joy"
    assert last.absent() == "training: joy; test: sad"
    known = count_folds(corpus, folds, ("joy", "sad"), {"u3": 7200.0})
    assert str(next(known).sides[0]) == "1 utterance, 1 speaker, 2.00 h"


@pytest.fixture
def check(tmp_path: Path) -> Callable[..., list[Finding]]:
    """The findings of ``doctor`` about a table and the folds of a configuration."""

    def findings(*rows: str, **folds: object) -> list[Finding]:
        (tmp_path / "a.wav").write_bytes(b"RIFF")
        (tmp_path / "manifest.csv").write_text("\n".join([HEADER, *rows]) + "\n")
        settings = {
            "corpus": {"adapter": "table"},
            "folds": folds,
            "runtime": {"corpus": str(tmp_path)},
        }
        return list(check_corpus(RunConfig.model_validate(settings), 5.0, 5.0))

    return findings


def values(findings: list[Finding], severity: str) -> str:
    return "\n".join(f"{f.item}: {f.value}; {f.remedy}" for f in findings if f.severity == severity)


TWO = ("u1,a.wav,s,f,sad,,train,0,1800", "u2,a.wav,t,m,sad,,test,0,1800")


def test_doctor_counts_each_fold(check: Callable[..., list[Finding]]) -> None:
    found = check(*TWO, by="speaker")
    assert "fold1: training: 1 utterance, 1 speaker, 0.50 h; test: 1" in values(found, "ok")
    assert values(found, "fatal") == ""


def test_doctor_names_absent_classes(check: Callable[..., list[Finding]]) -> None:
    found = check(*TWO, "u3,a.wav,t,m,joy,,test,0,1", by="split")
    assert "absent classes: training: joy" in values(found, "warning")


@pytest.mark.parametrize(
    ("rows", "folds", "said"),
    [
        (TWO, {"by": "session"}, "needs a session for every utterance"),
        (TWO[:1], {"by": "speaker"}, "has only one speaker (s)"),
        (TWO, {"by": "speaker", "held_out": [["nobody"]]}, "there is no speaker 'nobody'"),
        (
            (*TWO, "u3,a.wav,s,f,sad,,test,0,1"),
            {"by": "split"},
            "speaker 's' is in both train and test",
        ),
    ],
)
def test_doctor_is_fatal_where_folds_cannot_be_planned(
    check: Callable[..., list[Finding]],
    rows: tuple[str, ...],
    folds: dict[str, object],
    said: str,
) -> None:
    assert said in values(check(*rows, **folds), "fatal")


def test_doctor_names_a_speaker_with_two_genders(check: Callable[..., list[Finding]]) -> None:
    found = check(*TWO, "u3,a.wav,s,m,sad,,train,0,1", by="speaker")
    assert "speaker 's': has two genders" in values(found, "warning")


def test_doctor_refuses_too_many_bad_labels(check: Callable[..., list[Finding]]) -> None:
    found = check(*TWO, "u3,a.wav,s,robot,sad,,train,0,1", by="speaker")
    assert "1 of 3 utterances are bad" in values(found, "fatal")
    assert "gender 'robot' is not known" in values(found, "fatal")


@pytest.mark.parametrize(
    ("letter", "said"),
    [
        ("a", "needs a session for every utterance"),
        ("b", "has only one speaker"),
        ("c", "there is no speaker 'nobody'"),
        ("d", "speaker 's0' is in both train and test"),
    ],
)
def test_the_handed_folds_that_cannot_be_planned(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    letter: str,
    said: str,
) -> None:
    monkeypatch.chdir(handed_case("check-ignores-folds", tmp_path))
    assert main(["corpora", "check", "--config", f"{letter}.toml"]) in (2, 3)
    assert said in capsys.readouterr().err


def test_the_handed_corpus_without_gender(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = handed_case("no-gender-at-all", tmp_path)
    for name in ("w0.wav", "w1.wav"):
        (folder / "corpus" / name).write_bytes(b"RIFF")
    monkeypatch.chdir(folder)
    assert main(["corpora", "check", "--config", "c.toml"]) == 0
    assert "2 utterances of 2 speakers" in capsys.readouterr().out
