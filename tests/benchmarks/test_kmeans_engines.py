"""The engines part of the k-means benchmark, on a CPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.harness.rounds import MeasurementError
from benchmarks.subjects.engines import iterations

REPOSITORY = Path(__file__).resolve().parents[2]


def test_engines_are_timed_and_agree() -> None:
    found = iterations(600, 5, gpus=0)
    assert set(found.seconds) == {"FAISS", "torch", "faiss.Kmeans"}
    assert all(seconds > 0 for seconds in found.seconds.values())
    assert found.agreement >= 0.999
    with pytest.raises(MeasurementError, match="4 frames are fewer than k = 5"):
        iterations(4, 5, gpus=0)


@pytest.mark.slow
def test_the_engines_part_runs_quick() -> None:
    command = [sys.executable, "-m", "benchmarks.kmeans", "--quick", "--parts", "engines"]
    options = ["--engine-frames", "3000", "--engine-ks", "20", "40"]
    done = subprocess.run(
        [*command, *options], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "3000 frames x 768, k = 40: seconds of an iteration" in done.stdout
    line = json.loads(done.stdout.splitlines()[-1])
    assert line["engines_agree"] >= 0.999
    assert line["torch_over_faiss"] > 0
    assert line["own_over_ours"] > 0
