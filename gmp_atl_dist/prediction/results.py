"""What is predicted of a recording, and its windows."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class EmotionSpan:
    """The probabilities of one window, ``start_s`` to ``end_s`` of the recording."""

    start_s: float
    end_s: float
    probabilities: dict[str, float]

    @property
    def emotion(self) -> str:
        """The most probable emotion."""
        return max(self.probabilities, key=self.probabilities.__getitem__)

    @property
    def probability(self) -> float:
        """Of :attr:`emotion`."""
        return self.probabilities[self.emotion]


@dataclass(frozen=True, slots=True)
class RecordingPrediction:
    """The prediction of one recording.

    Attributes:
        file: its path or URI as it was given or found; ``wave 3`` for the array with index 3.
        verdict: of the whole recording; None if there is an error.
        windows: emotion over time, in order; empty without windows.
        notes: codes of :data:`gmp_atl_dist.prediction.notes.NOTES`: the input is unlike training data.
        error: why the recording could not be predicted; empty if it was.
    """

    file: str
    verdict: EmotionSpan | None = None
    windows: tuple[EmotionSpan, ...] = ()
    notes: tuple[str, ...] = field(default=())
    error: str = ""
