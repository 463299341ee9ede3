"""A table of typed cells, and how each kind of cell is written: on the page, and in a CSV file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

from gmp_atl_dist.metrics import Bounds
from gmp_atl_dist.report.formats import NOTHING, data_size

Kind: TypeAlias = Literal[
    "text",
    "mono",
    "count",
    "named",
    "percent",
    "score",
    "difference",
    "p",
    "tenth",
    "decimal",
    "money",
    "size",
]


class NamedCell(NamedTuple):
    """A name, and what it stands for."""

    name: str
    title: str


class ScoreCell(NamedTuple):
    """A score as a fraction: mean and standard deviation over seeds, and an interval of the mean."""

    mean: float
    sd: float | None = None
    interval: Bounds | None = None


class DifferenceCell(NamedTuple):
    """A difference of two scores as a fraction, with its interval."""

    value: float
    interval: Bounds


class CellLines(NamedTuple):
    """The text of a cell: what matters, and a second line."""

    first: str
    second: str = ""


class TableColumn(NamedTuple):
    """``key`` is the column of the CSV file, ``title`` that of people."""

    key: str
    title: str
    kind: Kind = "text"

    @property
    def numeric(self) -> bool:
        return self.kind not in ("text", "mono", "named")


@dataclass(frozen=True)
class SweepTable:
    """A table of the page. ``None`` is an empty cell.

    Attributes:
        name: of its files.
        notes: without which it must not be read.
    """

    name: str
    title: str
    columns: tuple[TableColumn, ...]
    rows: tuple[tuple[object, ...], ...]
    notes: tuple[str, ...] = ()

    def lines(self) -> list[list[CellLines]]:
        """Every cell as text."""
        return [
            [_KINDS[c.kind].lines(v) for c, v in zip(self.columns, row, strict=True)]
            for row in self.rows
        ]

    def csv_header(self) -> list[str]:
        return [c.key + suffix for c in self.columns for suffix in _KINDS[c.kind].suffixes]

    def csv_rows(self) -> list[list[str]]:
        """Scores and differences are fractions here."""
        return [
            [cell for c, v in zip(self.columns, row, strict=True) for cell in _raw(c.kind, v)]
            for row in self.rows
        ]


def p_value(p: float) -> str:
    """Three decimals, or that it is smaller."""
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _raw(kind: Kind, value: object) -> Sequence[str]:
    rule = _KINDS[kind]
    return [""] * len(rule.suffixes) if value is None else rule.raw(value)


class _Rule(NamedTuple):
    shown: Callable[..., CellLines]
    raw: Callable[..., Sequence[str]]
    suffixes: tuple[str, ...] = ("",)

    def lines(self, value: object) -> CellLines:
        return CellLines(NOTHING) if value is None else self.shown(value)


def _score(value: ScoreCell) -> CellLines:
    first = f"{100 * value.mean:.1f}" + ("" if value.sd is None else f" ± {100 * value.sd:.1f}")
    if value.interval is None:
        return CellLines(first)
    low, high = value.interval
    return CellLines(first, f"{100 * low:.1f} to {100 * high:.1f}")


def _difference(value: DifferenceCell) -> CellLines:
    low, high = value.interval
    return CellLines(f"{100 * value.value:+.1f}", f"{100 * low:+.1f} to {100 * high:+.1f}")


def _six(value: float | None) -> str:
    return "" if value is None else f"{value:.6f}"


def _text(value: object) -> CellLines:
    return CellLines(str(value))


def _as_is(value: object) -> list[str]:
    return [str(value)]


_KINDS: dict[Kind, _Rule] = {
    "text": _Rule(_text, _as_is),
    "mono": _Rule(_text, _as_is),
    "named": _Rule(
        lambda v: CellLines(v.name, v.title), lambda v: [v.name, v.title], ("", "_title")
    ),
    "count": _Rule(lambda v: CellLines(f"{v:,}"), _as_is),
    "percent": _Rule(lambda v: CellLines(f"{100 * v:.1f}"), lambda v: [_six(v)]),
    "score": _Rule(
        _score,
        lambda v: [_six(v.mean), _six(v.sd), *map(_six, v.interval or (None, None))],
        ("", "_sd", "_low", "_high"),
    ),
    "difference": _Rule(
        _difference, lambda v: [_six(v.value), *map(_six, v.interval)], ("", "_low", "_high")
    ),
    # Six decimals would make 0 of a small p-value.
    "p": _Rule(lambda v: CellLines(p_value(v)), lambda v: [f"{v:.6g}"]),
    "tenth": _Rule(lambda v: CellLines(f"{v:,.1f}"), lambda v: [_six(v)]),
    "decimal": _Rule(lambda v: CellLines(f"{v:.3f}"), lambda v: [_six(v)]),
    "money": _Rule(lambda v: CellLines(f"{v:,.2f}"), lambda v: [_six(v)]),
    "size": _Rule(lambda v: CellLines(data_size(v)), _as_is),
}
