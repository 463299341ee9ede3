"""How ``gmp-atl predict`` prints predictions: columns on a terminal, plain lines in a pipe."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from gmp_atl_dist.prediction.notes import NoteSummary
from gmp_atl_dist.prediction.results import EmotionSpan, RecordingPrediction

_SHORTEST_NAME = 16
_SHOWN_BAD = 50
_HEADINGS = ("recording", "emotion", "prob.", "others")


class Columns:
    """Lines for a person: recording, emotion, its probability, and the others in falling order.

    Args:
        width: of the terminal, in characters.
        longest: characters of the longest name of a recording.
        emotions: the classes.
    """

    def __init__(self, width: int, longest: int, emotions: Sequence[str]) -> None:
        self._width = width
        self._emotion = max(len(_HEADINGS[1]), *map(len, emotions))
        # The other emotions should fit, as long as a quarter of the terminal is left for the name.
        others = sum(len(emotion) + 7 for emotion in emotions) - min(map(len, emotions)) - 9
        free = width - self._emotion - len(_HEADINGS[2]) - 6 - others
        self._name = max(_SHORTEST_NAME, min(longest, max(free, width // 4)))

    def header(self) -> list[str]:
        """The line above all others."""
        return [self._line(*_HEADINGS)]

    def lines(self, result: RecordingPrediction) -> list[str]:
        """One line for the recording, and one for each window."""
        if result.verdict is None:
            return [self._line(result.file, "-", "", result.error)]
        lines = [self._span(result.file, result.verdict)]
        lines += [self._span(f"  {_seconds(window)}", window) for window in result.windows]
        return lines

    def _span(self, name: str, span: EmotionSpan) -> str:
        others = sorted(span.probabilities.items(), key=lambda item: -item[1])[1:]
        rest = "  ".join(f"{emotion} {p:.2f}" for emotion, p in others)
        return self._line(name, span.emotion, f"{span.probability:.3f}", rest)

    def _line(self, name: str, emotion: str, probability: str, others: str) -> str:
        if len(name) > self._name:
            # The end of a path tells more than its beginning.
            name = "…" + name[1 - self._name :]
        columns = f"{name:{self._name}}  {emotion:{self._emotion}}  {probability:5}  {others}"
        line = columns.rstrip()
        return line if len(line) <= self._width else line[: self._width - 1] + "…"


class PlainLines:
    """Lines for programs and pipes: ``FILE: EMOTION P  EMOTION P  -> EMOTION``.

    The classes are in their fixed order; the one behind the arrow is the most probable.
    """

    def header(self) -> list[str]:
        return []

    def lines(self, result: RecordingPrediction) -> list[str]:
        """One line for the recording, and one for each window; none for a bad recording."""
        if result.verdict is None:
            return []
        lines = [f"{result.file}: {_values(result.verdict)}"]
        lines += [f"{result.file} [{_seconds(w)}]: {_values(w)}" for w in result.windows]
        return lines


class Tally:
    """Counts of what was predicted. Its size does not grow with the recordings.

    Attributes:
        done: number of recordings, bad ones included.
        notes: notes on input that is unlike training data.
    """

    def __init__(self) -> None:
        self.done = 0
        self.notes = NoteSummary()
        self._counts: Counter[str] = Counter()
        self._bad: list[str] = []

    def add(self, result: RecordingPrediction) -> None:
        """Count one recording."""
        self.done += 1
        self.notes.add(result.file, result.notes)
        if result.verdict is not None:
            self._counts[result.verdict.emotion] += 1
        elif len(self._bad) < _SHOWN_BAD:
            self._bad.append(f"{result.file}: {result.error}")

    @property
    def bad(self) -> int:
        """Recordings that could not be predicted."""
        return self.done - sum(self._counts.values())

    def summary(self) -> str:
        """How many recordings there were, and how many of each emotion."""
        words = ", ".join(f"{count} {emotion}" for emotion, count in self._counts.most_common())
        return f"{_recordings(self.done - self.bad)} predicted{': ' if words else ''}{words}"

    def problem(self) -> str:
        """The bad recordings, the first 50 by name; empty if there is none."""
        if not self.bad:
            return ""
        lines = [f"{self.bad} of {_recordings(self.done)} could not be predicted:"]
        lines += [f"  - {problem}" for problem in self._bad]
        if self.bad > len(self._bad):
            lines.append(f"  ... and {self.bad - len(self._bad)} more")
        return "\n".join(lines)


def _recordings(count: int) -> str:
    return "1 recording" if count == 1 else f"{count} recordings"


def _values(span: EmotionSpan) -> str:
    values = "  ".join(f"{emotion} {p:.3f}" for emotion, p in span.probabilities.items())
    return f"{values}  -> {span.emotion}"


def _seconds(span: EmotionSpan) -> str:
    return f"{span.start_s:.2f}-{span.end_s:.2f} s"
