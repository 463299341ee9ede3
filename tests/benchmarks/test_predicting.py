"""The subjects of ``benchmarks.predict`` read one exported folder and give the same probabilities."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.classifiers import write_noise

from benchmarks.harness.rounds import MeasurementError
from benchmarks.inputs.classifier import EMOTIONS, recordings, write_exported_classifier
from benchmarks.subjects.predicting import largest_difference, predict_once


def test_ours_and_the_pipeline_agree(tmp_path: Path) -> None:
    model = str(tmp_path / "model")
    write_exported_classifier(model, "tiny")
    paths = [str(write_noise(tmp_path / f"{i}.wav", 0.4 + 0.3 * i, seed=i)) for i in range(5)]
    ours = predict_once("ours", model, paths, 1, 2)
    for subject in ("pipeline-1", "pipeline-4"):
        theirs = predict_once(subject, model, paths, 1, 2)
        assert set(theirs.probabilities[0]) == set(EMOTIONS)
        assert largest_difference(ours, theirs) < 1e-4


def test_recordings_are_spread_over_the_corpus(tmp_path: Path) -> None:
    for i in range(9):
        write_noise(tmp_path / f"{i}.wav", 0.1)
    assert recordings(str(tmp_path), 3, "") == [str(tmp_path / f"{i}.wav") for i in (0, 3, 6)]
    with pytest.raises(MeasurementError, match="has 9 recordings; lower --files"):
        recordings(str(tmp_path), 10, "")
