"""What tests ask of stored labels and codebooks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.codebooks import Codebook, read_codebooks
from gmp_atl_dist.store.labels import LabelCheck, UtteranceLabels


def check_labels(rows: Iterable[UtteranceLabels], books: Sequence[Codebook]) -> list[np.ndarray]:
    """int64 counts [ids] of every scale, over all rows; errors are those of ``LabelCheck``."""
    check = LabelCheck(books)
    for row in rows:
        check.add(row)
    check.check_counts()
    return check.counts


def label_counts(codebooks: Artifact) -> tuple[int, ...]:
    """The number of label ids of each scale, over all of its codebooks."""
    ends: dict[int, int] = {}
    for book in read_codebooks(codebooks):
        ends[book.scale] = max(ends.get(book.scale, 0), book.end)
    return tuple(ends[scale] for scale in sorted(ends))
