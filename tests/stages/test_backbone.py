"""The stock model in the store: copied once, and known to be a HuBERT with the layers asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.one_process import Tiny, context_of, finish

from gmp_atl_dist.config import ModelConfig
from gmp_atl_dist.errors import ModelError
from gmp_atl_dist.models.source import backbone_from_files
from gmp_atl_dist.stages.backbone import Backbone, check_layers
from gmp_atl_dist.store.artifact import Artifact


def backbone(root: Path, source: str, seed: int = 0) -> Artifact:
    stage = Backbone(ModelConfig(source=source, seed=seed))
    return finish(stage, context_of(root, root))


pytest_plugins = ["support.one_process"]


@pytest.fixture
def folder(tiny: Tiny, tmp_path: Path) -> Path:
    """The tiny model as ``save_pretrained`` leaves one."""
    folder = tmp_path / "model"
    folder.mkdir()
    for name, data in tiny.backbone.read_files().items():
        (folder / name).write_bytes(data)
    return folder


def test_a_random_one_follows_its_seed(tiny: Tiny, tmp_path: Path) -> None:
    again = backbone(tmp_path, "random:tiny")
    other = backbone(tmp_path, "random:tiny", seed=1)

    assert again.manifest.receipts == tiny.backbone.manifest.receipts
    assert again.identity == tiny.backbone.identity != other.identity
    assert again.manifest.notes == {"source": "random:tiny", "num_layers": "3"}


def test_a_folder_and_its_uri_are_copied(tiny: Tiny, folder: Path, tmp_path: Path) -> None:
    for source in (str(folder), folder.as_uri()):
        copied = backbone(tmp_path / "root", source)
        assert backbone_from_files(copied.read_files()).config.num_hidden_layers == 3
        assert copied.read_file("model.safetensors") == tiny.backbone.read_file("model.safetensors")


def test_a_folder_that_changed_is_looked_at_again(folder: Path, tmp_path: Path) -> None:
    before = Backbone(ModelConfig(source=str(folder))).key
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"note": "changed"}))
    assert Backbone(ModelConfig(source=str(folder))).key != before


def test_an_unsupported_model_type_is_refused(folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "wav2vec2"}))
    with pytest.raises(
        ModelError, match=r"type 'wav2vec2', which is not supported.*supported: hubert\."
    ):
        backbone(tmp_path / "root", str(folder))


def test_damaged_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ModelError, match="damaged"):
        backbone(tmp_path / "root", str(folder))


def test_an_empty_folder_or_uri_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for source in (str(tmp_path / "empty"), (tmp_path / "nowhere").as_uri()):
        with pytest.raises(ModelError, match="holds no file"):
            backbone(tmp_path / "root", source)


@pytest.mark.parametrize("source", ["random:huge", "random:", "/no/such/folder", "./neither"])
def test_an_unknown_source_is_refused(tmp_path: Path, source: str) -> None:
    with pytest.raises(ModelError, match=r"choose from tiny, mini|neither a folder nor a hub id"):
        backbone(tmp_path / "root", source)


def test_layers_that_it_lacks_are_named(tiny: Tiny) -> None:
    check_layers(tiny.backbone, (1, 2, 3))
    with pytest.raises(ModelError, match=r"\[4, 12\] of \[2, 4, 12\] .* layers 1 to 3"):
        check_layers(tiny.backbone, (2, 4, 12))
