"""Models from folders, stores and the hub; what is refused, and what it says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import HubertConfig, HubertForCTC, HubertModel, Wav2Vec2Config, Wav2Vec2Model

from gmp_atl_dist.config import ModelConfig
from gmp_atl_dist.errors import ModelError
from gmp_atl_dist.models import source
from gmp_atl_dist.models.hubert import NAMED_SIZES, Hubert, build_random
from gmp_atl_dist.models.source import backbone_from_files, load_source, model_to_files

torch.set_num_threads(1)

TINY = {**NAMED_SIZES["tiny"], "num_hidden_layers": 2}


def stock(**values: object) -> HubertModel:
    return HubertModel(HubertConfig.from_dict({**TINY, **values}))


def same_weights(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


def test_random_is_built_from_size_and_seed() -> None:
    model = load_source(ModelConfig(source="random:tiny", seed=4))
    assert same_weights(model, build_random("tiny", 4))
    assert model.config.normalize_waveform is False
    normalized = load_source(ModelConfig(source="random:tiny", normalize_waveform="yes"))
    assert normalized.config.normalize_waveform is True
    with pytest.raises(ModelError, match="'huge' is unknown"):
        load_source(ModelConfig(source="random:huge"))


def test_files_round_trip_bit_for_bit() -> None:
    model = build_random("tiny", 1, normalize=True)
    files = model_to_files(model)
    assert sorted(files) == ["config.json", "model.safetensors"]
    assert files == model_to_files(model)
    again = backbone_from_files(files)
    assert same_weights(model, again)
    assert not again.training
    assert again.config.normalize_waveform is True
    assert model_to_files(again) == files


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_a_stock_folder_is_loaded(tmp_path: Path, norm: str) -> None:
    model = stock(feat_extract_norm=norm, do_stable_layer_norm=norm == "layer")
    model.save_pretrained(tmp_path)
    loaded = load_source(ModelConfig(source=str(tmp_path)))
    assert same_weights(model, loaded)
    assert not loaded.training
    assert loaded.config.layerdrop == loaded.config.mask_time_prob == 0
    assert loaded.config.normalize_waveform is (norm == "layer")
    forced = load_source(ModelConfig(source=str(tmp_path), normalize_waveform="yes"))
    assert forced.config.normalize_waveform is True
    forced = load_source(ModelConfig(source=str(tmp_path), normalize_waveform="no"))
    assert forced.config.normalize_waveform is False


def test_auto_keeps_what_the_model_was_trained_with(tmp_path: Path) -> None:
    build_random("tiny", 0, normalize=True).save_pretrained(tmp_path)
    assert load_source(ModelConfig(source=str(tmp_path))).config.normalize_waveform is True


def test_a_pickled_checkpoint_with_old_weight_names_is_loaded(tmp_path: Path) -> None:
    """As facebook/hubert-base-ls960 lies on the hub."""
    model = stock()
    model.config.save_pretrained(tmp_path)
    names = {"parametrizations.weight.original0": "weight_g"}
    names |= {"parametrizations.weight.original1": "weight_v"}
    state = {}
    for key, value in model.state_dict().items():
        for new, old in names.items():
            key = key.replace(new, old)
        state[key] = value
    torch.save(state, tmp_path / "pytorch_model.bin")
    loaded = load_source(ModelConfig(source=str(tmp_path)))
    assert same_weights(model, loaded)
    # Its files are those of the same weights from anywhere else.
    files = model_to_files(loaded)
    assert files["model.safetensors"] == model_to_files(model)["model.safetensors"]


def test_the_backbone_of_a_ctc_checkpoint_is_loaded(tmp_path: Path) -> None:
    """As facebook/hubert-large-ls960-ft lies on the hub."""
    model = HubertForCTC(HubertConfig.from_dict(TINY))
    model.save_pretrained(tmp_path)
    assert same_weights(model.hubert, load_source(ModelConfig(source=str(tmp_path))))


def test_half_precision_is_widened(tmp_path: Path) -> None:
    stock().half().save_pretrained(tmp_path)
    loaded = load_source(ModelConfig(source=str(tmp_path)))
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}


def test_a_checkpoint_without_mask_embedding_gets_one(tmp_path: Path) -> None:
    stock(mask_time_prob=0.0).save_pretrained(tmp_path)
    loaded = load_source(ModelConfig(source=str(tmp_path)))
    assert isinstance(loaded, Hubert)
    assert torch.isfinite(loaded.masked_spec_embed).all()
    assert loaded.masked_spec_embed.requires_grad
    assert same_weights(loaded, load_source(ModelConfig(source=str(tmp_path))))


def test_a_store_uri_is_read_by_the_caller() -> None:
    model = build_random("tiny", 2)
    asked: list[str] = []

    def read(uri: str) -> dict[str, bytes]:
        asked.append(uri)
        return model_to_files(model)

    loaded = load_source(ModelConfig(source="s3://bucket/model", normalize_waveform="yes"), read)
    assert asked == ["s3://bucket/model"]
    assert same_weights(model, loaded)
    assert loaded.config.normalize_waveform is True
    with pytest.raises(ModelError, match="no store was given"):
        load_source(ModelConfig(source="s3://bucket/model"))
    with pytest.raises(ModelError, match=r"s3://b/m has no model\.safetensors; found config\.json"):
        load_source(ModelConfig(source="s3://b/m"), lambda _: {"config.json": b"{}"})
    with pytest.raises(ModelError, match="found nothing"):
        backbone_from_files({})


def test_other_models_are_refused(tmp_path: Path) -> None:
    values = {k: v for k, v in TINY.items() if k != "intermediate_size"}
    Wav2Vec2Model(Wav2Vec2Config.from_dict(values)).save_pretrained(tmp_path)
    with pytest.raises(
        ModelError, match=r"type 'wav2vec2', which is not supported.*supported: hubert\."
    ):
        load_source(ModelConfig(source=str(tmp_path)))


def test_incomplete_folders_are_refused(tmp_path: Path) -> None:
    config = ModelConfig(source=str(tmp_path))
    with pytest.raises(ModelError, match=r"has no config\.json"):
        load_source(config)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json cannot be read"):
        load_source(config)
    model = stock()
    model.config.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="has no weights"):
        load_source(config)
    (tmp_path / "model.safetensors").write_bytes(b"not a tensor file")
    with pytest.raises(ModelError, match="damaged or do not fit"):
        load_source(config)


def test_missing_weights_are_refused_not_made_up(tmp_path: Path) -> None:
    stock().save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    kept = {k: v for k, v in weights.items() if not k.startswith("encoder.layers.1.feed")}
    save_file(kept, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        ModelError, match=r"lacks 4 weights of a hubert model \(encoder\.layers\.1\.feed"
    ):
        load_source(ModelConfig(source=str(tmp_path)))


def test_weights_of_another_size_are_refused(tmp_path: Path) -> None:
    stock().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    config["intermediate_size"] = 100
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="do not fit"):
        load_source(ModelConfig(source=str(tmp_path)))


def test_errors_name_the_source_and_not_a_temporary_folder() -> None:
    model = backbone_from_files(model_to_files(build_random("tiny", 0)), name="s3://bucket/model")
    wave_BN, num_samples_B = torch.zeros(1, 400), torch.tensor([400])
    with pytest.raises(ModelError, match="s3://bucket/model has no layer 7: it has 3 layers"):
        model.forward_frames(wave_BN, num_samples_B, want=[7])
    assert b"bucket" not in model_to_files(model)["config.json"]


def test_what_is_neither_folder_nor_hub_id_is_refused() -> None:
    for name in ("./not-there", "/not/there/at/all", "nowhere"):
        with pytest.raises(ModelError, match="neither a folder nor a hub id"):
            load_source(ModelConfig(source=name))


def test_an_unreachable_hub_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> str:
        raise OSError("Name or service not known")

    monkeypatch.setattr(source, "hf_hub_download", fail)
    with pytest.raises(ModelError, match=r"base-ls960 at revision dba3.*not reachable.*its folder"):
        load_source(ModelConfig())


def test_a_hub_model_is_loaded_from_its_pinned_revision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = stock()
    model.save_pretrained(tmp_path)
    asked: list[tuple[str, str, str]] = []

    def fetch(hub_id: str, file: str, *, revision: str) -> str:
        asked.append((hub_id, file, revision))
        return str(tmp_path / file)

    monkeypatch.setattr(source, "hf_hub_download", fetch)
    loaded = load_source(ModelConfig(source="someone/hubert", revision="abc"))
    assert isinstance(loaded, Hubert)
    assert same_weights(model, loaded)
    assert asked == [
        ("someone/hubert", file, "abc") for file in ("config.json", "model.safetensors")
    ]
