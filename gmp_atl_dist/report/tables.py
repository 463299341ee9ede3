"""Tables that readers take away: scores as CSV and LaTeX, predictions as CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from gmp_atl_dist.report.content import ReportContent
    from gmp_atl_dist.report.outcome import Outcome

_SYMBOLS = str.maketrans({"±": r"$\pm$", "–": "--", "<": r"$<$", ">": r"$>$", "|": r"$|$"})  # noqa: RUF001
_NEGATIVE = re.compile(r"(?<![\w.-])-(?=\d)")
_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        **{c: f"\\{c}" for c in "&%$#_{}"},
        "\n": " ",
        "\r": " ",
    }
)


class PredictionRow(NamedTuple):
    """One row of ``predictions.csv``; ``probabilities`` follow the class list."""

    utterance_id: str
    fold: str
    speaker: str
    gender: str
    emotion: str
    predicted: str
    probabilities: Sequence[float]


def predictions_csv(rows: Iterable[PredictionRow], classes: Sequence[str]) -> bytes:
    """UTF-8, one line per test utterance, a column ``p_CLASS`` per class."""
    header = [*PredictionRow._fields[:-1], *(f"p_{name}" for name in classes)]
    return csv_bytes(
        [header, *([*row[:-1], *(f"{p:.4f}" for p in row.probabilities)] for row in rows)]
    )


def stored_predictions_csv(content: ReportContent) -> bytes:
    """The same table from ``report.json``."""
    found, classes = content.predictions, content.classes
    return predictions_csv(
        (
            PredictionRow(name, fold, speaker, gender, classes[true], classes[predicted], p)
            for name, fold, speaker, gender, true, predicted, p in zip(
                *(getattr(found, field) for field in type(found).model_fields), strict=True
            )
        ),
        classes,
    )


def scores_csv(content: ReportContent) -> bytes:
    """One line per score: of all test utterances, and of each fold, class, corpus, gender and speaker.

    Values are fractions. ``classes`` says how many a mean over classes has; that of a corpus, speaker
    or gender has only the classes with a test utterance. ``low`` and ``high`` limit the interval that
    resamples utterances, where there is one; of a speaker's WAR, Wilson's. ``speaker_low`` and
    ``speaker_high`` limit the one that resamples speakers.
    """
    header = ["scope", "name", "score", "value", "low", "high", "utterances", "classes"]
    header += ["speaker_low", "speaker_high"]
    return csv_bytes([header, *_score_rows(content)])


def _score_rows(content: ReportContent) -> Iterator[list[object]]:
    pooled = content.pooled.outcome
    yield from _outcome_rows("all", "", pooled)
    if content.calibration is not None:
        for score in ("confidence", "expected_calibration_error"):
            value = f"{getattr(content.calibration, score):.6f}"
            yield ["all", "", score, value, "", "", content.calibration.count, "", "", ""]
    for fold in content.folds:
        yield from _outcome_rows("fold", fold.name, fold.outcome)
    for i, name in enumerate(content.classes):
        scores = pooled.scores
        yield [
            "class",
            name,
            "recall",
            f"{scores.recalls[i]:.6f}",
            "",
            "",
            scores.support[i],
            "",
            "",
            "",
        ]
    for scope, groups in (
        ("corpus", content.groups.corpora),
        ("gender", content.groups.genders),
        ("speaker", content.groups.speakers),
    ):
        for group in groups:
            for score in ("war", "uar"):
                low, high = getattr(group.intervals, score) if group.intervals else ("", "")
                if score == "war" and group.war_interval is not None:
                    low, high = group.war_interval
                value = f"{getattr(group, score):.6f}"
                over = group.num_classes if score == "uar" else ""
                row = [scope, group.name, score, value, _six(low), _six(high), group.count, over]
                yield [*row, "", ""]


def _outcome_rows(scope: str, name: str, outcome: Outcome) -> Iterator[list[object]]:
    scores, intervals = outcome.scores, outcome.intervals
    for score in ("war", "uar"):
        low, high = getattr(intervals, score)
        value = f"{getattr(scores, score):.6f}"
        over = len(scores.recalls) if score == "uar" else ""
        speakers = outcome.speaker_intervals
        by_speaker = map(_six, getattr(speakers, score)) if speakers else ("", "")
        row = [scope, name, score, value, _six(low), _six(high), scores.num_utterances, over]
        yield [*row, *by_speaker]
    for score in ("macro_f1", "weighted_f1"):
        value, over = f"{getattr(scores, score):.6f}", len(scores.recalls)
        yield [scope, name, score, value, "", "", scores.num_utterances, over, "", ""]


def _six(value: object) -> str:
    return f"{value:.6f}" if isinstance(value, float) else ""


def scores_latex(content: ReportContent, title: str) -> bytes:
    """A ``tabular`` of WAR, UAR and F1 in percent, with intervals, for each fold and all together.

    Args:
        title: of the page; that of a run names the corpus.
    """
    level = f"{100 * content.pooled.outcome.intervals.confidence:g}"
    lines = [
        f"% {_comment(title)}; protocol: {content.protocol.name}",
        rf"% Intervals: {level} percent, bootstrap over test utterances. "
        rf"Chance (UAR): {100 / len(content.classes):.1f}",
        r"\begin{tabular}{lrllr}",
        r"\hline",
        r"Test set & Utterances & WAR (\%) & UAR (\%) & Macro F1 (\%) \\",
        r"\hline",
    ]
    if len(content.folds) > 1:
        lines += [_scores_row(f"fold {f.name}", f.outcome) for f in content.folds] + [r"\hline"]
    lines += [_scores_row("all", content.pooled.outcome), r"\hline", r"\end{tabular}", ""]
    return "\n".join(lines).encode()


def escape_latex(text: str) -> str:
    """Text for the cell of a LaTeX table."""
    return text.translate(_LATEX)


def latex_row(cells: Iterable[str]) -> str:
    """A row of a LaTeX table, from plain texts."""
    # A row that begins with a bracket or a star would be an option of the line break before it.
    return "{}" + " & ".join(map(_latex_text, cells)) + r" \\"


def _latex_text(text: str) -> str:
    escaped = escape_latex(" ".join(text.split())).translate(_SYMBOLS)
    return _NEGATIVE.sub("$-$", escaped)


def _scores_row(name: str, outcome: Outcome) -> str:
    scores, intervals = outcome.scores, outcome.intervals
    cells = [
        name,
        str(scores.num_utterances),
        *(
            f"{100 * value:.1f} [{100 * low:.1f}, {100 * high:.1f}]"
            for value, (low, high) in (
                (scores.war, intervals.war),
                (scores.uar, intervals.uar),
            )
        ),
        f"{100 * scores.macro_f1:.1f}",
    ]
    return latex_row(cells)


def _comment(text: str) -> str:
    """Text for a LaTeX comment, which ends at the end of the line."""
    return " ".join(text.split())


def csv_bytes(rows: Iterable[Iterable[object]]) -> bytes:
    """Rows as CSV in UTF-8."""
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue().encode()
