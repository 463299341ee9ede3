"""Names folds whose training speakers are all of one gender, where a gender head is trained."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from gmp_atl_dist.fold import Fold
from gmp_atl_dist.records import GENDERS


class OfGender(Protocol):
    """An utterance, of which only these are needed."""

    @property
    def speaker(self) -> str: ...

    @property
    def gender(self) -> str: ...


def one_gender(fold: Fold, utterances: Iterable[OfGender]) -> tuple[str, ...]:
    """A warning where a gender head would have one class; nothing otherwise."""
    train = set(fold.train_speakers)
    genders = {u.gender for u in utterances if u.speaker in train}
    (gender, *others) = sorted(genders) or [""]
    if others or gender not in GENDERS:
        return ()
    return (
        f"all training speakers are {gender}, so the gender head of warm-up has one class and learns "
        f"nothing; set warmup.gender_weight = 0 and cluster.gender = 'none'",
    )
