"""Arms of an experiment over several seeds: their UAR, and intervals of the difference of two of them."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student_t

from benchmarks.harness.rounds import Spread
from gmp_atl_dist.metrics import confusion_matrix, scores_from_confusion
from gmp_atl_dist.stages.evaluate import Prediction
from gmp_atl_dist.statistics.arms import Arm, SeedPredictions, Truth
from gmp_atl_dist.statistics.bootstrap import Resampling, interval, resampled_scores

_DRAWS = 2000
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Arms:
    """Predictions of each arm for the same test utterances, one array per seed.

    Attributes:
        true_U: classes of the test utterances, by number.
        predicted: of each arm a (utterances,) array of classes per seed, in the order of ``true_U``.
        num_classes: number of classes.
    """

    true_U: np.ndarray
    predicted: Mapping[str, Sequence[np.ndarray]]
    num_classes: int

    @classmethod
    def of(
        cls, predictions: Mapping[str, Sequence[Sequence[Prediction]]], emotions: Sequence[str]
    ) -> Arms:
        """From the predictions of each arm and seed, which are for the same utterances in one order.

        Raises:
            ValueError: two of them are not for the same utterances.
        """
        first = next(iter(predictions.values()))[0]
        asked = [(p.utterance_id, p.emotion) for p in first]
        for arm, seeds in predictions.items():
            if any([(p.utterance_id, p.emotion) for p in one] != asked for one in seeds):
                raise ValueError(f"{arm}: its test utterances are not those of the first arm")
        number = {emotion: i for i, emotion in enumerate(emotions)}
        return cls(
            true_U=np.array([number[emotion] for _, emotion in asked]),
            predicted={
                arm: [np.array([number[p.predicted] for p in one]) for one in seeds]
                for arm, seeds in predictions.items()
            },
            num_classes=len(emotions),
        )

    def uar(self, arm: str) -> list[float]:
        """UAR of each seed."""
        return [_uar(self.true_U, p, self.num_classes) for p in self.predicted[arm]]

    def mean_uar(self, arm: str) -> Spread:
        """The mean over seeds, not the median, because the intervals are of means."""
        uar = self.uar(arm)
        return Spread(statistics.mean(uar), min(uar), max(uar))

    def over_utterances(self, arm: str, other: str) -> tuple[float, float]:
        """Bootstrap interval of the difference of the arms' means; both arms have the same draws.

        A class that a resample misses has its observed recall there. With 0 in its place, a class of few
        utterances pulls the interval away from the observed difference.
        """
        nothing = ("",) * len(self.true_U)
        truth = Truth(
            classes=tuple(map(str, range(self.num_classes))),
            utterances=tuple(map(str, range(len(self.true_U)))),
            true=self.true_U,
            speakers=nothing,
            genders=nothing,
            corpora=nothing,
        )
        both = [
            Arm(name, tuple(SeedPredictions(str(i), p, None, nothing) for i, p in enumerate(seeds)))
            for name, seeds in ((n, self.predicted[n]) for n in (arm, other))
        ]
        uar = resampled_scores(truth, both, Resampling(samples=_DRAWS, confidence=_CONFIDENCE))[
            ..., 0
        ]
        return interval(uar[0] - uar[1], _CONFIDENCE)

    def over_seeds(self, arm: str, other: str) -> tuple[float, float] | None:
        """Student's interval of the paired differences; None for one seed, which has no spread."""
        differences = np.subtract(self.uar(arm), self.uar(other))
        count = len(differences)
        if count < 2:
            return None
        spread = float(differences.std(ddof=1)) / math.sqrt(count)
        reach = float(student_t.ppf((1 + _CONFIDENCE) / 2, count - 1)) * spread
        return float(differences.mean()) - reach, float(differences.mean()) + reach

    def compared(self, arm: str, other: str) -> dict[str, float | Spread | None]:
        """The UAR of both arms, and both intervals of the difference, by the keys of ``harness.two_arms``."""
        for name in self.predicted:
            print(f"{name}: UAR {', '.join(f'{v:.1%}' for v in self.uar(name))}")
        low, high = self.over_utterances(arm, other)
        seeds_low, seeds_high = self.over_seeds(arm, other) or (None, None)
        return {
            f"uar_{arm}": self.mean_uar(arm),
            f"uar_{other}": self.mean_uar(other),
            "uar_difference_low": low,
            "uar_difference_high": high,
            "uar_difference_seeds_low": seeds_low,
            "uar_difference_seeds_high": seeds_high,
            "test_utterances": len(self.true_U),
        }


def _uar(true_U: np.ndarray, predicted_U: np.ndarray, num_classes: int) -> float:
    matrix = confusion_matrix(true_U.tolist(), predicted_U.tolist(), num_classes)
    return scores_from_confusion(matrix).uar
