"""A benchmark measures what is left after a warm-up. With few recordings there must be something left."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

_REPOSITORY = Path(__file__).resolve().parents[2]
_PER_SPEAKER = {"nemo_EB0": 60, "nemo_IC0": 60, "nemo_KS0": 20}


def _few_recordings(corpus: Path, out: Path) -> int:
    """A corpus of some recordings of each speaker, evenly spaced over the emotions; how many."""
    with (corpus / "manifest.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    chosen: list[dict[str, str]] = []
    for speaker, count in _PER_SPEAKER.items():
        mine = [row for row in rows if row["speaker"] == speaker]
        chosen += [mine[i * len(mine) // count] for i in range(count)]
    for row in chosen:
        path = out / row["path"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(corpus / row["path"])
    with (out / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(chosen)
    return len(chosen)


@pytest.mark.parametrize("frames", [1, 7, 12_000, 42_418])
def test_a_small_training_set_is_cut_into_parts_that_outlast_the_warm_up(frames: int) -> None:
    from benchmarks.subjects.extraction import part_frames

    parts = frames / part_frames(frames)

    # 12,000 frames are 140 recordings: parts of 5,000 frames were two, both of them warm-up.
    assert parts >= min(8, frames)


@pytest.mark.nightly
def test_extraction_of_140_recordings_is_measured(data_root: Path, tmp_path: Path) -> None:
    if not (data_root / "nemo").is_dir():
        pytest.skip("the corpus nemo is not in the test data")
    assert _few_recordings(data_root / "nemo", tmp_path) == 140

    options = ("--corpus", str(tmp_path), "--model", "random:tiny", "--layer", "2", "--rounds", "1")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.extract", *options],
        cwd=_REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr[-2000:]
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["times_real_time_pipeline"] > 0
    assert figures["bytes_per_audio_s"] > 0
