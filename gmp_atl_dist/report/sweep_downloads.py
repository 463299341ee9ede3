"""Each table of a sweep's page as CSV, LaTeX and Markdown."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from gmp_atl_dist.report.downloads import Download, text_download
from gmp_atl_dist.report.sweep_cells import CellLines, SweepTable
from gmp_atl_dist.report.tables import csv_bytes, latex_row

_MARKDOWN = re.compile(r"([\\`*_\[\]<>|~#])")
_BREAKS = re.compile(r"\s+")


def table_downloads(tables: Iterable[SweepTable]) -> list[tuple[SweepTable, list[Download]]]:
    """The files of each table."""
    return [
        (
            table,
            [
                text_download(f"{table.name}.csv", "CSV", to_csv(table)),
                text_download(f"{table.name}.tex", "LaTeX", to_latex(table)),
                text_download(f"{table.name}.md", "Markdown", to_markdown(table)),
            ],
        )
        for table in tables
    ]


def to_csv(table: SweepTable) -> bytes:
    """UTF-8. Scores and differences are fractions; each has columns for its spread and interval."""
    return csv_bytes([table.csv_header(), *table.csv_rows()])


def to_latex(table: SweepTable) -> bytes:
    """A ``tabular``; the notes are comments.

    A comment says which engine is needed if there are letters that pdfLaTeX cannot write.
    """
    body = [
        [
            _joined(cell, "[{}]" if column.numeric else "({})")
            for column, cell in zip(table.columns, row, strict=True)
        ]
        for row in table.lines()
    ]
    titles = [column.title for column in table.columns]
    comments = [table.title, *table.notes]
    if scripts := _other_scripts(text for row in [titles, *body] for text in row):
        comments.append(
            f"Letters of other scripts ({', '.join(scripts)}): compile with XeLaTeX or LuaLaTeX and a font "
            f"that has them."
        )
    form = "".join("r" if column.numeric else "l" for column in table.columns)
    lines = [
        *(f"% {_BREAKS.sub(' ', comment)}" for comment in comments),
        rf"\begin{{tabular}}{{{form}}}",
        r"\hline",
        latex_row(titles),
        r"\hline",
        *(latex_row(row) for row in body),
        r"\hline",
        r"\end{tabular}",
        "",
    ]
    return "\n".join(lines).encode()


def to_markdown(table: SweepTable) -> bytes:
    """A table of pipes, with the notes as a list below it."""
    rule = ["---:" if column.numeric else "---" for column in table.columns]
    lines = [
        _markdown_row(_markdown(column.title) for column in table.columns),
        _markdown_row(rule),
        *(_markdown_row(_markdown(_joined(cell, "({})")) for cell in row) for row in table.lines()),
    ]
    if table.notes:
        lines += ["", *(f"- {_markdown(note)}" for note in table.notes)]
    return "\n".join([*lines, ""]).encode()


def _joined(cell: CellLines, second: str) -> str:
    return f"{cell.first} {second.format(cell.second)}" if cell.second else cell.first


def _markdown(text: str) -> str:
    return _MARKDOWN.sub(r"\\\1", text)


def _markdown_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(_BREAKS.sub(' ', cell) for cell in cells)} |"


def _other_scripts(texts: Iterable[str]) -> list[str]:
    """Scripts other than Latin, by the names of their letters."""
    letters = {c for text in texts for c in text if c.isalpha()}
    names = {unicodedata.name(c, "UNKNOWN").split()[0] for c in letters}
    return sorted(name.capitalize() for name in names - {"LATIN"})
