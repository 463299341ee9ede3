"""The worked example of a backbone: installed as a package, and run from a random model to the report."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from support.one_process import context_of, no_ray, tiny_experiment
from transformers import Wav2Vec2Config, Wav2Vec2Model

from gmp_atl_dist import execution, stage_order
from gmp_atl_dist.config import ModelConfig
from gmp_atl_dist.errors import ModelError
from gmp_atl_dist.models.backbone import SpeechBackbone
from gmp_atl_dist.models.backbone_registry import backbone_types, find_backbone
from gmp_atl_dist.models.padding import pad_waves
from gmp_atl_dist.models.sizes import NAMED_SIZES
from gmp_atl_dist.models.source import backbone_from_files, load_source, model_to_files
from gmp_atl_dist.models.stored import emotion_model_from_files
from gmp_atl_dist.store.artifact import Artifact, find_artifact, list_artifacts

pytest_plugins = ["support.one_process"]

EXAMPLE = Path(__file__).resolve().parents[2] / "docs" / "examples" / "backbone_example.py"
GROUP = "gmp_atl_dist.backbones"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A site folder with the module and its entry point, as pip leaves them."""
    site = tmp_path_factory.mktemp("site")
    shutil.copy(EXAMPLE, site)
    info = site / "backbone_example-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: backbone-example\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\nwav2vec2 = backbone_example:Wav2Vec2\n")
    sys.path.insert(0, str(site))
    importlib.invalidate_caches()
    yield
    sys.path.remove(str(site))
    sys.modules.pop("backbone_example", None)
    importlib.invalidate_caches()


def model_folder(folder: Path, norm: str) -> Path:
    """A tiny random wav2vec 2.0 as ``save_pretrained`` leaves one."""
    stable = norm == "layer"
    keys = {"feat_extract_norm": norm, "do_stable_layer_norm": stable, "conv_bias": stable}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        model = Wav2Vec2Model(Wav2Vec2Config.from_dict({**NAMED_SIZES["tiny"], **keys}))
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["group", "layer"])
def model(
    request: pytest.FixtureRequest, installed: None, tmp_path_factory: pytest.TempPathFactory
) -> SpeechBackbone:
    folder = model_folder(tmp_path_factory.mktemp(request.param), request.param)
    return load_source(ModelConfig(source=str(folder)))


def clips() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(0, 0.1, n).astype(np.float32) for n in (4000, 9000, 400, 6321)]


def test_features_do_not_depend_on_padding(model: SpeechBackbone) -> None:
    waves = clips()
    layers = range(model.num_layers + 1)
    fast = model.frame_model([1, 2, 3], window_frames=100, context_frames=10)
    with torch.no_grad():
        together = model.forward_frames(*pad_waves(waves), want=layers)
        inferred = fast([torch.from_numpy(wave) for wave in waves], 1000)
        for b, wave in enumerate(waves):
            alone = model.forward_frames(*pad_waves([wave]), want=layers)
            frames = int(alone.num_frames_B[0])
            for layer in layers:
                x_TD = alone.hidden[layer][0]
                torch.testing.assert_close(
                    together.hidden[layer][b, :frames], x_TD, atol=1e-5, rtol=0
                )
                if layer:
                    torch.testing.assert_close(inferred[b][layer], x_TD, atol=1e-5, rtol=0)


def test_it_computes_what_transformers_does(model: SpeechBackbone) -> None:
    """For a clip that is alone, where padding plays no part."""
    assert isinstance(model.config, Wav2Vec2Config)
    stock = Wav2Vec2Model(model.config).eval()
    stock.load_state_dict(model.state_dict(), strict=False)
    wave_BN, num_samples_B = pad_waves(clips()[1:2])
    with torch.no_grad():
        ours = model.forward_frames(wave_BN, num_samples_B).hidden[model.num_layers]
        x_BN = wave_BN
        if model.config.normalize_waveform:
            x_BN = (x_BN - x_BN.mean()) * torch.rsqrt(x_BN.var(correction=0) + 1e-7)
        torch.testing.assert_close(ours, stock(x_BN).last_hidden_state, atol=1e-5, rtol=0)


def test_freezing_dropout_and_checkpointing_go_through_the_protocol(model: SpeechBackbone) -> None:
    own = backbone_from_files(model_to_files(model)).train()
    own.freeze_front_end()
    own.train_mask_embedding(False)
    own.set_dropout(0.0)
    own.checkpoint_activations()
    output = own.forward_frames(*pad_waves(clips()))
    output.hidden[own.num_layers][output.valid_BT].square().mean().backward()
    frozen = {n for n, p in own.named_parameters() if not p.requires_grad}
    assert "masked_spec_embed" in frozen
    assert {n for n in frozen if n != "masked_spec_embed"} == {
        n for n, _ in own.named_parameters() if n.startswith("feature_extractor.")
    }
    missing = {n for n, p in own.named_parameters() if p.requires_grad and p.grad is None}
    assert not missing


def test_an_adapter_is_refused_by_name(installed: None, tmp_path: Path) -> None:
    config = Wav2Vec2Config.from_dict({**NAMED_SIZES["tiny"], "add_adapter": True})
    with pytest.raises(ModelError, match="adapter"):
        find_backbone("wav2vec2")(config)


def test_it_is_refused_where_it_is_not_installed(tmp_path: Path) -> None:
    folder = model_folder(tmp_path, "group")
    path = [entry for entry in sys.path if not (Path(entry) / EXAMPLE.name).is_file()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", path)
        importlib.invalidate_caches()
        with pytest.raises(ModelError, match=r"'wav2vec2', which is not supported.*supported: hub"):
            load_source(ModelConfig(source=str(folder)))
    importlib.invalidate_caches()


def test_the_pipeline_runs_with_it_to_the_report(
    installed: None, tiny_corpus: Path, tmp_path: Path
) -> None:
    assert set(backbone_types()) == {"hubert", "wav2vec2"}
    folder, root = model_folder(tmp_path / "model", "group"), tmp_path / "root"
    config = tiny_experiment(
        tiny_corpus,
        root,
        model={"source": str(folder)},
        runtime={
            "corpus": str(tiny_corpus),
            "root": str(root),
            "train": {"frontend_cache": True, "gradient_checkpointing": True},
        },
    )
    context = context_of(root, tiny_corpus, config)
    with no_ray():
        report = execution.run_pipeline(config, context)

    made: dict[str, Artifact] = {}
    for key in list_artifacts(context.store):
        artifact = find_artifact(context.store, key)
        assert artifact is not None
        made[key.kind] = artifact
    assert set(made) >= {*stage_order.stage_names(config), "frontend"}
    for kind in ("backbone", "warmup", "retrain"):
        values = json.loads(made[kind].read_file("config.json"))
        assert values["model_type"] == "wav2vec2"
    classifier = emotion_model_from_files(made["finetune"].read_files())
    assert type(classifier.backbone).__name__ == "Wav2Vec2"
    assert any(name.startswith("wav2vec2.encoder.") for name in classifier.state_dict())
    scores = json.loads(report.read_file("report.json"))["pooled"]["outcome"]["scores"]
    assert 0 <= scores["uar"] <= 1
