"""The digests of a lineage: no name in it, a bounded size, and the same sample from every corpus."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pytest

from gmp_atl_dist.errors import ModelError
from gmp_atl_dist.store import lineage
from gmp_atl_dist.store.lineage import Lineage, TrainedOn, recording_keys


def table(speakers: int, takes: range) -> pa.Table:
    pairs = [(f"s{s}", t) for s in range(speakers) for t in takes]
    shas = [hashlib.sha256(f"{s} {t}".encode()).hexdigest() for s, t in pairs]
    return pa.table({"speaker": [s for s, _ in pairs], "audio_sha256": shas})


def trained(rows: pa.Table) -> TrainedOn:
    return TrainedOn.of(
        rows,
        stages=["warmup", "retrain"],
        fold="fold1",
        corpus="c" * 64,
        adapter="x",
        utterances={},
    )


def test_it_names_nobody_and_finds_everybody() -> None:
    rows = table(3, range(4))
    found = trained(rows)
    text = Lineage(start="random", trained_on=(found,)).to_json()
    assert b"s0" not in text
    assert Lineage.read(text, "model").trained_on == (found,)
    assert found.knows(["s2", "t", "s0"]) == ("s0", "s2")
    keys = recording_keys(rows["audio_sha256"].to_pylist())
    np.testing.assert_array_equal(found.keys, np.sort(keys))
    assert hex(int(keys[0]))[2:].zfill(16) == rows["audio_sha256"][0].as_py()[:16]
    assert found.describe() == (
        "warmup and retrain of fold1 on 3 speakers and 12 recordings of corpus cccccccc (x)"
    )


def test_of_many_recordings_each_speaker_has_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lineage, "MOST_RECORDINGS", 30)
    found = trained(table(5, range(20)))
    assert (found.num_recordings, len(found.keys)) == (100, 30)
    half = recording_keys(table(5, range(10))["audio_sha256"].to_pylist())
    for speaker in range(5):
        shared = np.isin(half[10 * speaker : 10 * speaker + 10], found.keys)
        assert shared.any(), "a corpus with half of the recordings is found"


def test_another_form_is_refused() -> None:
    with pytest.raises(ModelError, match=r"m: its lineage \(gmp_atl_lineage\) .* version"):
        Lineage.read({"version": 2, "start": "x"}, "m")
    with pytest.raises(ModelError, match="export the model again"):
        Lineage.read(b"[", "m")
    # Of a later release: what is not understood may say who was trained on.
    with pytest.raises(ModelError, match=r"m: its lineage .* at speakers: .* export"):
        Lineage.read({"start": "x", "speakers": ["s1"]}, "m")
