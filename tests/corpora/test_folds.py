"""Folds: no speaker on two sides, whatever the corpus; and planted leaks are caught."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gmp_atl_dist.config import FoldsConfig
from gmp_atl_dist.corpora.folds import plan_folds
from gmp_atl_dist.errors import ConfigError, CorpusError
from gmp_atl_dist.fold import Fold, TrainingSpeakers
from gmp_atl_dist.records import StoredUtterance


def said(name: str, speaker: str, session: str = "", split: str = "") -> StoredUtterance:
    return StoredUtterance(
        utterance_id=name,
        speaker=speaker,
        gender="female",
        emotion="sad",
        session=session,
        split=split,
        num_samples=16000,
        audio_sha256="0" * 64,
        part="p",
        row=0,
    )


def sessions(count: int) -> list[StoredUtterance]:
    """Two speakers a session, two utterances each."""
    return [
        said(f"s{n}{g}{i}", f"s{n}{g}", f"s{n}")
        for n in range(1, count + 1)
        for g in "FM"
        for i in range(2)
    ]


def plan(utterances: list[StoredUtterance], **config: object) -> tuple[Fold, ...]:
    return plan_folds(utterances, FoldsConfig.model_validate(config))


def test_one_session_out_at_a_time() -> None:
    folds = plan(sessions(3))
    assert folds == (
        Fold("fold1", ("s2F", "s2M", "s3F", "s3M"), ("s1F", "s1M")),
        Fold("fold2", ("s1F", "s1M", "s3F", "s3M"), ("s2F", "s2M")),
        Fold("fold3", ("s1F", "s1M", "s2F", "s2M"), ("s3F", "s3M")),
    )


def test_one_speaker_out_at_a_time() -> None:
    folds = plan(sessions(2), by="speaker")
    assert [f.test_speakers for f in folds] == [("s1F",), ("s1M",), ("s2F",), ("s2M",)]
    assert folds[0].train_speakers == ("s1M", "s2F", "s2M")


def test_the_order_of_utterances_changes_nothing() -> None:
    assert plan(sessions(4)[::-1]) == plan(sessions(4))


def test_next_is_cyclic() -> None:
    folds = plan(sessions(3), valid="next")
    assert [f.valid_speakers for f in folds] == [("s2F", "s2M"), ("s3F", "s3M"), ("s1F", "s1M")]
    assert folds[2].train_speakers == ("s2F", "s2M")


def test_next_goes_around_the_groups_that_are_held_out() -> None:
    folds = plan(sessions(4), valid="next", held_out=[["s4", "s2"], ["s1"]])
    assert folds == (
        Fold("fold1", ("s3F", "s3M"), ("s2F", "s2M", "s4F", "s4M"), ("s1F", "s1M")),
        Fold("fold2", ("s3F", "s3M"), ("s1F", "s1M"), ("s2F", "s2M", "s4F", "s4M")),
    )


def test_one_held_out_group_is_one_fold() -> None:
    (fold,) = plan(sessions(3), held_out=[["s2"]])
    assert fold.test_speakers == ("s2F", "s2M")
    assert fold.train_speakers == ("s1F", "s1M", "s3F", "s3M")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"held_out": [["s1"], ["s9"]]}, r"held_out\[1\]: .* 's9'; known are s1, s2, s3"),
        ({"held_out": [["s1", "s2"], ["s2"]]}, r"held_out\[1\]: 's2' is in folds.held_out\[0\]"),
        ({"held_out": [["s1"], []]}, r"held_out\[1\]: is empty; name a session"),
        ({"held_out": [["s1"]], "valid": "next"}, "list a second one"),
        ({"run": [2, 4]}, "there is no fold 4; this corpus has folds 1 to 3"),
        ({"by": "split", "held_out": [["test"]]}, "cannot be combined with folds.by = 'split'"),
    ],
)
def test_what_cannot_be_meant_is_refused(config: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan(sessions(3), **config)


def test_one_group_alone_cannot_be_held_out() -> None:
    for config in ({}, {"held_out": [["s1"]]}):
        with pytest.raises(ConfigError, match="only one session"):
            plan(sessions(1), **config)


def test_nobody_left_to_learn_from_is_refused() -> None:
    with pytest.raises(CorpusError, match="no speaker is in train"):
        plan(sessions(2), valid="next")
    with pytest.raises(CorpusError, match="no speaker is in train"):
        plan(sessions(2), held_out=[["s1", "s2"]])
    with pytest.raises(CorpusError, match="the corpus has no utterance"):
        plan([])


def test_run_picks_folds_and_keeps_their_names() -> None:
    assert [f.name for f in plan(sessions(3), run=[3, 1, 3])] == ["fold1", "fold3"]


def test_a_session_is_needed_for_folds_by_session() -> None:
    with pytest.raises(CorpusError, match=r"needs a session(.|\n)*'lost' has none"):
        plan([*sessions(3), said("lost", "x")])
    assert len(plan([*sessions(3), said("lost", "x")], by="speaker")) == 7


def test_a_speaker_of_two_sessions_is_a_leak() -> None:
    leaky = [*sessions(3), said("guest", "s1F", "s2")]
    with pytest.raises(CorpusError, match="'s1F' is in both train and test"):
        plan(leaky)
    with pytest.raises(CorpusError, match="'s1F' is in both"):
        plan(leaky, valid="next")


def split_corpus() -> list[StoredUtterance]:
    return [
        said("a", "s1", split="train"),
        said("b", "s2", split="valid"),
        said("c", "s3", split="test"),
        said("d", "s4", split="train"),
    ]


def test_a_given_split_is_one_fold() -> None:
    want = (Fold("split", ("s1", "s4"), ("s3",), ("s2",)),)
    assert plan(split_corpus(), by="split") == want
    assert plan(split_corpus(), by="split", valid="next") == want


def test_a_given_split_that_leaks_or_has_holes_is_refused() -> None:
    with pytest.raises(CorpusError, match="'s1' is in both train and test"):
        plan([*split_corpus(), said("e", "s1", split="test")], by="split")
    with pytest.raises(CorpusError, match="'s2' is in both train and valid"):
        plan([*split_corpus(), said("e", "s2", split="train")], by="split")
    with pytest.raises(CorpusError, match=r"utterance 'e' has none"):
        plan([*split_corpus(), said("e", "s5")], by="split")
    without_valid = [u for u in split_corpus() if u.split != "valid"]
    with pytest.raises(ConfigError, match="needs utterances of split valid"):
        plan(without_valid, by="split", valid="next")
    assert plan(without_valid, by="split")[0].valid_speakers == ()


def test_planted_leaks_cannot_be_constructed() -> None:
    sides: tuple[tuple[tuple[str, ...], ...], ...] = (
        (("a", "b"), ("b",), ()),
        (("a",), ("b",), ("b",)),
        (("a",), ("b",), ("a",)),
    )
    for train, test, valid in sides:
        with pytest.raises(CorpusError, match="is in both"):
            Fold("leaky", train, test, valid)


def test_learners_refuse_test_and_valid_speakers() -> None:
    fold = Fold("f", ("a",), ("b",), ("c",))
    assert fold.training_speakers().speakers == ("a",)
    for leak in "bc":
        with pytest.raises(CorpusError, match=f"outside the training set.*\n.*speaker '{leak}'"):
            TrainingSpeakers(("a", leak), fold)
    assert fold.transductive_speakers().speakers == ("a", "b", "c")


@st.composite
def corpora(draw: st.DrawFn) -> list[StoredUtterance]:
    """Any number of sessions of any speakers, each speaker in one session."""
    sizes = draw(st.lists(st.integers(1, 3), min_size=2, max_size=6))
    utterances = [
        said(f"{n}-{s}-{i}", f"{n}-{s}", f"session{n}")
        for n, size in enumerate(sizes)
        for s in range(size)
        for i in range(draw(st.integers(1, 3)))
    ]
    return draw(st.permutations(utterances))


@given(corpora(), st.sampled_from(["session", "speaker"]), st.sampled_from(["none", "next"]))
def test_every_speaker_is_on_one_side_and_is_tested_once(
    utterances: list[StoredUtterance], by: str, valid: str
) -> None:
    groups = {u.session if by == "session" else u.speaker for u in utterances}
    if valid == "next" and len(groups) == 2:
        with pytest.raises(CorpusError, match="no speaker is in train"):
            plan(utterances, by=by, valid=valid)
        return
    folds = plan(utterances, by=by, valid=valid)
    everyone = sorted({u.speaker for u in utterances})
    for fold in folds:
        sides = [*fold.train_speakers, *fold.valid_speakers, *fold.test_speakers]
        assert sorted(sides) == everyone
        assert bool(fold.valid_speakers) == (valid == "next")
    tested = Counter(u.utterance_id for fold in folds for u in fold.select(utterances, "test"))
    assert tested == Counter(u.utterance_id for u in utterances)
    assert len(folds) == len(groups)
