"""Files that readers can take from the page, as data URIs: a page without scripts has no other way."""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import quote

from gmp_atl_dist.report.confusion_png import confusion_png
from gmp_atl_dist.report.content import ReportContent
from gmp_atl_dist.report.images import data_uri
from gmp_atl_dist.report.tables import scores_csv, scores_latex, stored_predictions_csv

_SAFE = ",;:/-_.()[]*!'$=@+"
"""Characters of tables that a data URI may contain as they are."""
_MIME = {"csv": "text/csv", "tex": "application/x-tex", "md": "text/markdown"}
_MOST_CSV_BYTES = 900_000


class Download(NamedTuple):
    """A file with its name, what it holds, and its size in bytes."""

    name: str
    words: str
    uri: str
    size: int


def downloads_of(content: ReportContent, title: str) -> list[Download]:
    """The files of a page called ``title``. Predictions are left out if they are too many for one page."""
    png = confusion_png(content.pooled.outcome.confusion, content.classes)
    found = [
        text_download(
            "scores.csv", "scores of folds, classes, genders and speakers", scores_csv(content)
        ),
        text_download("scores.tex", "LaTeX table of the scores", scores_latex(content, title)),
        Download("confusion.png", "confusion matrix", data_uri("image/png", png), len(png)),
    ]
    predictions = stored_predictions_csv(content) if content.predictions.utterances else b""
    if predictions and len(predictions) <= _MOST_CSV_BYTES:
        found.append(text_download("predictions.csv", "all test predictions", predictions))
    return found


def text_download(name: str, words: str, data: bytes) -> Download:
    """A text file; the end of ``name`` says what it is."""
    mime = _MIME[name.rpartition(".")[2]]
    uri = f"data:{mime};charset=utf-8,{quote(data, safe=_SAFE)}"
    return Download(name, words, uri, len(data))
