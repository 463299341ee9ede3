"""How a backbone is found by its model type, and what is refused."""

from __future__ import annotations

import json
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from transformers import HubertConfig

from gmp_atl_dist.errors import ModelError
from gmp_atl_dist.models.backbone import SpeechBackbone
from gmp_atl_dist.models.backbone_config import BackboneFacts
from gmp_atl_dist.models.backbone_registry import (
    BACKBONES,
    backbone_types,
    find_backbone,
    read_config,
)
from gmp_atl_dist.models.hubert import Hubert, build_random
from gmp_atl_dist.models.sizes import NAMED_SIZES


class Inexact(Hubert):
    exact_padding = False


@pytest.fixture
def declared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Entry points of another package, each wrong in its own way."""
    info = tmp_path / "others-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: others\nVersion: 1.0\n")
    points = {
        "inexact": f"{__name__}:Inexact",
        "missing": "no_such_module:Model",
        "nothing": "json:dumps",
    }
    lines = [f"{name} = {target}" for name, target in points.items()]
    (info / "entry_points.txt").write_text("\n".join([f"[{BACKBONES.name}]", *lines]))
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])


def test_hubert_is_found_without_being_installed() -> None:
    assert find_backbone("hubert") is Hubert
    assert "hubert" in backbone_types()
    assert issubclass(Hubert, SpeechBackbone)


def test_the_entry_point_of_an_installed_package_is_the_same_class() -> None:
    for point in entry_points(group=BACKBONES.name, name="hubert"):
        assert point.load() is Hubert


@pytest.mark.parametrize(
    ("model_type", "message"),
    [
        ("inexact", "has no exact padding"),
        ("missing", r"cannot be loaded \(ModuleNotFoundError.*repair or reinstall"),
        ("nothing", "not a subclass of"),
        ("wavlm", r"s3://b/m is a model of type 'wavlm'.*supported: hubert, inexact"),
    ],
)
def test_what_is_no_backbone_is_refused(declared: None, model_type: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        find_backbone(model_type, "s3://b/m")


def test_facts_come_from_the_configuration_alone() -> None:
    config = HubertConfig.from_dict(dict(NAMED_SIZES["tiny"]))
    implementation, again = read_config(json.dumps(config.to_dict()).encode())
    facts = implementation.facts(again)
    assert facts == BackboneFacts(
        model_type="hubert",
        hidden_size=64,
        num_layers=3,
        front_end_dim=32,
        front_end_kernels=(10, 3, 3, 3, 3, 2, 2),
        front_end_strides=(5, 2, 2, 2, 2, 2, 2),
        exact_padding=True,
    )
    assert (facts.hop_samples, facts.field_samples) == (320, 400)
    model = build_random("tiny", 0)
    assert (model.hidden_size, model.num_layers) == (64, 3)


@pytest.mark.parametrize("config_json", [b"{", b"[]"])
def test_a_damaged_configuration_is_refused(config_json: bytes) -> None:
    with pytest.raises(ModelError, match=r"the model: config\.json cannot be read"):
        read_config(config_json)


def test_another_type_has_no_random_sizes() -> None:
    with pytest.raises(ModelError, match="no random sizes of model type 'hubert'"):
        super(Hubert, Hubert).build_random("tiny", 0)  # the default, which HuBERT overrides
