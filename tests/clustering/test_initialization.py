"""The frames that first centroids are chosen from."""

from __future__ import annotations

import numpy as np
import pytest

from gmp_atl_dist.clustering.initialization import evenly, initialization_frames


@pytest.mark.parametrize(
    ("total", "most", "rows"),
    [
        (4, 10, [0, 1, 2, 3]),
        (4, 4, [0, 1, 2, 3]),
        (10, 4, [0, 2, 5, 7]),
        (9, 3, [0, 3, 6]),
        (0, 4, []),
    ],
)
def test_rows_are_evenly_spaced(total: int, most: int, rows: list[int]) -> None:
    found = evenly(total, most)
    assert found.tolist() == rows
    assert np.issubdtype(found.dtype, np.integer), "they are used as an index"


def test_a_large_codebook_is_started_from_more_frames() -> None:
    assert initialization_frames(500) == 50_000
    assert initialization_frames(12_500) == 50_000
    assert initialization_frames(12_501) == 50_004
