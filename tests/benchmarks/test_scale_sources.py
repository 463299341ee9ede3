"""The subject of ``benchmarks.scale`` with three sources: each step is done, in every round."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from benchmarks.harness.child import run_alone
from benchmarks.inputs.sources import run_config, write_parts, write_sources
from benchmarks.subjects.sources import STEPS, drive
from gmp_atl_dist.store.artifact import find_artifact, list_artifacts
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.readers import INDEX_PART


@pytest.mark.nightly
def test_each_round_seals_all_sources_anew(tmp_path: Path) -> None:
    folder = str(tmp_path / "three")
    write_sources(folder, 1000)
    write_parts(folder)
    store = Store.open(run_config(folder).runtime.root)
    assert list_artifacts(store) == []

    for _ in range(2):
        measured = run_alone(partial(drive, folder, 1000))
        assert [step for step in STEPS if measured.step_s[step] <= 0] == []
        assert 0 < measured.driver_peak_gib < 1
        assert measured.driver_cpu_s > 0
        sealed = [find_artifact(store, key) for key in list_artifacts(store)]
        rows = [
            (a.kind, a.receipts[f"parts/{INDEX_PART}.parquet"].rows)
            for a in sealed
            if a is not None
        ]
        assert sorted(rows) == [
            ("combine", 1000),
            ("ingest", 200),
            ("ingest", 300),
            ("ingest", 500),
        ]
