"""Figures of the literature, with the protocol under which each was measured.

They are context, not a comparison: other splits, other classes and other selection rules give other figures.
``page/sweep_references.json`` has those whose source gives the figure. Each was compared with its source in
November 2026: table 2 of emotion2vec (also for SUPERB's 64.92 %), table 4 of EmoBox, the results in the
repository of Chen and Rudnicky, and the abstract of GMP-ATL.
"""

from __future__ import annotations

import functools
import json
from importlib import resources

from pydantic import TypeAdapter

from gmp_atl_dist.report.protocol import Content


class ReferenceFigure(Content):
    """A published figure. ``uar`` and ``war`` are fractions; None where the source does not give it.

    Attributes:
        corpus: name of the adapter.
        num_classes: 0 where the source that we have does not say it.
        source: citation; ``url`` leads to it.
    """

    system: str
    corpus: str
    num_classes: int = 0
    protocol: str
    uar: float | None = None
    war: float | None = None
    source: str
    url: str


@functools.cache
def all_references() -> tuple[ReferenceFigure, ...]:
    """Every figure, in the order of the file."""
    path = resources.files("gmp_atl_dist.report") / "page" / "sweep_references.json"
    found = json.loads(path.read_text(encoding="utf-8"))
    return TypeAdapter(tuple[ReferenceFigure, ...]).validate_python(found)


def references_for(adapter: str, num_classes: int) -> tuple[ReferenceFigure, ...]:
    """The figures of a corpus with as many classes. Other numbers of classes are another task."""
    return tuple(
        figure
        for figure in all_references()
        if figure.corpus == adapter and figure.num_classes in (0, num_classes)
    )
