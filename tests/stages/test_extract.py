"""Features: as many frames as the formula says, whoever was beside, finite, and training alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.one_process import FOLD, Tiny, finish, ingest
from support.plans import plan_of

from gmp_atl_dist.audio import num_frames, pcm16_to_float
from gmp_atl_dist.config import ExtractConfig, RuntimeConfig, StreamWorkersConfig
from gmp_atl_dist.errors import ModelError
from gmp_atl_dist.inference.audio_slices import AudioSelection, AudioSlices
from gmp_atl_dist.inference.cost import cost_batches
from gmp_atl_dist.inference.extractor import Extractor, ExtractorArgument, ForwardArgument
from gmp_atl_dist.inference.forward import load_backbone
from gmp_atl_dist.inference.started import to_fp16
from gmp_atl_dist.models.source import backbone_from_files, model_to_files
from gmp_atl_dist.stages.base import Context
from gmp_atl_dist.stages.extract import Extract
from gmp_atl_dist.stages.frame_index import frame_index
from gmp_atl_dist.stages.label_plan import LabelPlan
from gmp_atl_dist.stages.part_plan import plan_parts
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.features import feature_part_name, feature_source_parts, read_features
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.store.readers import AudioReader, audio_part_names, read_utterances
from gmp_atl_dist.store.training_set import TrainingSet
from gmp_atl_dist.store.writer import ArtifactWriter

pytest_plugins = ["support.one_process"]

STORED = plan_of()


def extract(
    tiny: Tiny,
    context: Context,
    *,
    corpus: Artifact | None = None,
    model: Artifact | None = None,
    layers: Sequence[int] = (2, 3),
    batch_s: float = 60.0,
    transductive: bool = False,
    plan: LabelPlan = STORED,
    **config: Any,
) -> Artifact:
    training = TrainingSet(
        corpus or tiny.corpus,
        FOLD.transductive_speakers() if transductive else FOLD.training_speakers(),
    )
    settings = RuntimeConfig(extract=StreamWorkersConfig(batch_s=batch_s))
    stage = Extract(
        ExtractConfig(layers=tuple(layers), **config), model or tiny.backbone, training, plan
    )
    return finish(stage, replace(context, settings=settings))


def frames_of(features: Artifact, layer: int) -> dict[str, np.ndarray]:
    return {
        u.utterance_id: u.frames_TD
        for part in feature_source_parts(features, layer)
        for u in read_features(features, part, layer)
    }


@pytest.mark.usefixtures("in_process")
def test_only_training_speakers_are_extracted(tiny: Tiny, tmp_path: Path) -> None:
    features = extract(tiny, tiny.with_root(tmp_path))
    utterances = {u.utterance_id: u for u in read_utterances(tiny.corpus)}
    for layer in (2, 3):
        found = frames_of(features, layer)
        assert {utterances[i].speaker for i in found} == set(FOLD.train_speakers)
        assert len(found) == 24
        for utterance_id, x_TD in found.items():
            expected = num_frames(utterances[utterance_id].num_samples)
            assert x_TD.shape == (expected, 64)
            assert x_TD.dtype == np.float16
    everyone = extract(tiny, tiny.with_root(tmp_path), transductive=True)
    assert len(frames_of(everyone, 2)) == 40
    assert everyone.key != features.key


@pytest.mark.usefixtures("in_process")
def test_features_do_not_depend_on_who_is_beside(tiny: Tiny, tmp_path: Path) -> None:
    context = tiny.with_root(tmp_path)
    together = ingest(context, part_audio_s=1000)
    alone = ingest(context, part_audio_s=0.1)
    assert len(audio_part_names(together)) == 1
    assert len(audio_part_names(alone)) == 40
    batched = extract(tiny, context, corpus=together, batch_s=60)
    single = extract(tiny, context, corpus=alone, batch_s=0.1, part_frames=1)
    assert len(feature_source_parts(batched, 2)) == 1
    assert len(feature_source_parts(single, 2)) == 24
    for layer in (2, 3):
        a, b = frames_of(batched, layer), frames_of(single, layer)
        assert a.keys() == b.keys()
        for utterance_id, x_TD in a.items():
            np.testing.assert_array_equal(x_TD, b[utterance_id])


@pytest.mark.usefixtures("in_process")
def test_features_are_those_of_the_model_in_eval(tiny: Tiny, tmp_path: Path) -> None:
    features = frames_of(extract(tiny, tiny.with_root(tmp_path)), 2)
    model = backbone_from_files(tiny.backbone.read_files())
    reader = AudioReader(tiny.corpus)
    for u in FOLD.select(read_utterances(tiny.corpus), "train")[:4]:
        wave_BN = torch.from_numpy(pcm16_to_float(reader.samples(u)))[None]
        with torch.inference_mode():
            output = model(wave_BN, output_hidden_states=True)
        np.testing.assert_allclose(
            features[u.utterance_id].astype(np.float32),
            output.hidden_states[2][0].numpy(),
            rtol=2e-3,
            atol=2e-3,
        )


@pytest.mark.usefixtures("in_process")
def test_a_part_done_twice_has_the_same_bytes(tiny: Tiny, tmp_path: Path) -> None:
    a = extract(tiny, tiny.with_root(tmp_path / "a"))
    b = extract(tiny, tiny.with_root(tmp_path / "b"))
    assert a.manifest.receipts == b.manifest.receipts
    assert sum(r.audio_s for r in a.manifest.receipts) == pytest.approx(
        sum(u.num_samples for u in FOLD.select(read_utterances(tiny.corpus), "train")) / 16_000
    )


def test_the_order_of_parts_does_not_matter(tiny: Tiny, tmp_path: Path) -> None:
    store = tiny.with_root(tmp_path).store
    training = TrainingSet(tiny.corpus, FOLD.transductive_speakers())
    tasks = plan_parts(frame_index(training), 100)
    assert len(tasks) > 3
    heard = AudioSelection(training)
    forward = ForwardArgument(heard, tiny.backbone, load_backbone, (2,), 3000, 250, 60.0)
    found = []
    for name, step in (("forward", 1), ("backward", -1)):
        key = ArtifactKey("extract", name)
        read, worker = AudioSlices(heard), Extractor(ExtractorArgument(forward, "none", store, key))
        puts = [worker.compute(task, read(task)) for task in tasks[::step]]
        for put in puts[::-1]:
            put()
        found.append(ArtifactWriter(store, key).done())
    assert found[0] == found[1]


@pytest.mark.usefixtures("in_process")
def test_compressed_features_are_the_same(tiny: Tiny, tmp_path: Path) -> None:
    context = tiny.with_root(tmp_path)
    plain = extract(tiny, context)
    packed = extract(tiny, context, compression="zstd")
    assert packed.key != plain.key
    assert sum(r.bytes for r in packed.manifest.receipts) < sum(
        r.bytes for r in plain.manifest.receipts
    )
    a, b = frames_of(plain, 2), frames_of(packed, 2)
    assert all(np.array_equal(x_TD, b[i]) for i, x_TD in a.items())
    assert a.keys() == b.keys()


def shouting(tiny: Tiny, context: Context) -> Artifact:
    """The tiny model, its last layer a million times as loud."""
    model = backbone_from_files(tiny.backbone.read_files())
    weights = {
        name: p for name, p in model.named_parameters() if "layers.2.final_layer_norm" in name
    }
    with torch.no_grad():
        for parameter in weights.values():
            parameter.mul_(1e6)
    out = ArtifactWriter(context.store, ArtifactKey("warmup", "0" * 64))
    for name, data in model_to_files(model).items():
        out.put_file(name, data)
    return out.seal(version=1, science={}, inputs={})


@pytest.mark.usefixtures("in_process")
def test_features_too_large_for_fp16_name_the_utterance(tiny: Tiny, tmp_path: Path) -> None:
    context = tiny.with_root(tmp_path)
    with pytest.raises(ModelError, match=r"utterance 'Ses0[345].*': layer 3 .* not finite in fp16"):
        extract(tiny, context, model=shouting(tiny, context))


@pytest.mark.parametrize("value", [float("inf"), float("nan"), 1e5, -1e5])
def test_one_value_that_is_not_finite_is_refused(value: float) -> None:
    x_TD = torch.zeros(3, 4)
    x_TD[1, 2] = value
    with pytest.raises(ModelError, match=r"utterance 'u7': layer 9 .* at frame 1 "):
        to_fp16(x_TD, "u7", 9)


@given(
    lengths=st.dictionaries(st.integers(0, 500), st.integers(400, 400_000), max_size=60),
    budget=st.integers(1, 2_000_000),
)
def test_batches_hold_every_row_once_within_the_budget(
    lengths: dict[int, int], budget: int
) -> None:
    batches = list(cost_batches(lengths, budget))

    assert sorted(row for batch in batches for row in batch) == sorted(lengths)
    for batch in batches:
        padded = max(lengths[row] for row in batch) * len(batch)
        assert padded <= budget or len(batch) == 1
    reordered = dict(sorted(lengths.items(), reverse=True))
    assert list(cost_batches(reordered, budget)) == batches


def test_a_row_says_what_it_holds(tiny: Tiny, tmp_path: Path) -> None:
    import pyarrow as pa

    from gmp_atl_dist.errors import ArtifactError
    from gmp_atl_dist.records import FEATURE_SCHEMA

    out = ArtifactWriter(tiny.with_root(tmp_path).store, ArtifactKey("extract", "0" * 64))
    row = {"utterance_id": "u", "layer": 2, "num_frames": 3, "dim": 4, "frames": bytes(2 * 11)}
    out.put_part(feature_part_name("part", 2), pa.Table.from_pylist([row], schema=FEATURE_SCHEMA))
    with pytest.raises(ArtifactError, match=r"utterance 'u' .* 11 values, expected 3 x 4"):
        list(read_features(out.seal(version=1, science={}, inputs={}), "part", 2))
