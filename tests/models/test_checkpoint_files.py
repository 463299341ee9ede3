"""Checkpoints that are pointers, damaged or not finite, and answers of the hub."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import GatedRepoError
from safetensors.torch import load_file, save_file
from support.handed import handed_case
from transformers import HubertConfig, HubertModel

from gmp_atl_dist.config import ModelConfig
from gmp_atl_dist.errors import ModelError
from gmp_atl_dist.models import source
from gmp_atl_dist.models.hubert import NAMED_SIZES, build_random
from gmp_atl_dist.models.source import backbone_from_files, load_source, model_to_files

torch.set_num_threads(1)

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 72862\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A stock checkpoint with ``model.safetensors``."""
    values = {**NAMED_SIZES["tiny"], "num_hidden_layers": 2}
    HubertModel(HubertConfig.from_dict(values)).save_pretrained(tmp_path)
    return tmp_path


def refused(folder: Path) -> str:
    with pytest.raises(ModelError) as caught:
        load_source(ModelConfig(source=str(folder)))
    return caught.value.message


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_git_lfs_pointer_is_named(folder: Path, name: str) -> None:
    (folder / name).write_bytes(POINTER)
    assert f"{name} is a Git LFS pointer" in refused(folder)
    assert "git lfs pull" in refused(folder)


def test_a_pickled_pointer_and_a_pointer_of_a_shard_are_named(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(POINTER)
    assert "pytorch_model.bin is a Git LFS pointer" in refused(folder)
    (folder / "pytorch_model.bin").unlink()
    index = '{"metadata": {}, "weight_map": {"a": "model-1.safetensors", "b": "../x"}}'
    (folder / "model.safetensors.index.json").write_text(index)
    (folder / "model-1.safetensors").write_bytes(POINTER)
    assert "model-1.safetensors is a Git LFS pointer" in refused(folder)


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("damage", ["text", "empty", "cut", "trap", "html"])
def test_damaged_and_unsafe_pickles_are_refused_without_advice_of_unsafe_loading(
    folder: Path, damage: str
) -> None:
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    path = folder / "pytorch_model.bin"
    torch.save({**weights, "x": Trap(folder / "sprung")} if damage == "trap" else weights, path)
    data = path.read_bytes()
    data = {
        "text": b"not a file of tensors",
        "empty": b"",
        "cut": data[: len(data) // 2],
        "html": b"<!doctype html><html></html>",
    }.get(damage, data)
    path.write_bytes(data)
    message = refused(folder)
    assert "cannot be loaded" in message
    assert "weights_only" not in message
    assert "trust" in message or "damaged" in message
    assert not (folder / "sprung").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_name_file_and_tensor(folder: Path, value: float) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["encoder.layers.1.attention.k_proj.weight"][0, :3] = value
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    message = refused(folder)
    assert "model.safetensors has weights that are NaN or infinite" in message
    assert "encoder.layers.1.attention.k_proj.weight (3 values)" in message


def test_stored_models_are_checked_too() -> None:
    backbone = build_random("tiny", 0)
    name = "encoder.layers.0.feed_forward.intermediate_dense.bias"
    backbone.get_parameter(name).data[2] = torch.nan
    with pytest.raises(
        ModelError, match=r"s3://b/m: model\.safetensors .*intermediate_dense\.bias"
    ):
        backbone_from_files(model_to_files(backbone), name="s3://b/m")


class Hub(BaseHTTPRequestHandler):
    """Answers as the hub does for a wrong revision of one model, and for no other model."""

    def do_HEAD(self) -> None:
        known = "/someone/known/" in self.path
        self.send_response(404)
        self.send_header("X-Error-Code", "RevisionNotFound" if known else "RepoNotFound")
        self.send_header("X-Error-Message", "Invalid rev id" if known else "Repository not found")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def answer(monkeypatch: pytest.MonkeyPatch, endpoint: str, home: Path, name: str) -> str:
    """What loading a model from the hub at ``endpoint`` says."""
    download = partial(hf_hub_download, endpoint=endpoint, cache_dir=home)
    monkeypatch.setattr(source, "hf_hub_download", download)
    with pytest.raises(ModelError) as caught:
        load_source(ModelConfig(source=name))
    return caught.value.message


def test_a_wrong_id_and_a_wrong_revision_are_told_apart(
    hub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    revision = answer(monkeypatch, hub, tmp_path, "someone/known")
    assert "someone/known has no revision dba3bb02" in revision
    assert "the default and a commit of facebook/hubert-base-ls960" in revision
    assert "set model.revision to a commit of that model, or to main" in revision
    name = answer(monkeypatch, hub, tmp_path, "someone/else")
    assert "the hub has no model someone/else, or it is private" in name


def test_a_gated_model_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> str:
        raise GatedRepoError.__new__(GatedRepoError)

    monkeypatch.setattr(source, "hf_hub_download", fail)
    with pytest.raises(ModelError, match=r"is gated; accept its terms.*HF_TOKEN"):
        load_source(ModelConfig(source="someone/gated"))


def test_the_handed_pointer(tmp_path: Path) -> None:
    assert "pytorch_model.bin is a Git LFS pointer" in refused(
        handed_case("lfs-pointer-checkpoint", tmp_path) / "model"
    )


def test_the_handed_weights(tmp_path: Path) -> None:
    message = refused(handed_case("nan-weights-in-checkpoint", tmp_path) / "model")
    assert "model.safetensors has weights that are NaN or infinite, in encoder.layers." in message


def test_the_handed_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = handed_case("hub-id-with-default-revision", tmp_path) / "hub.py"
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as hub:
        try:
            assert hub.stdout is not None
            endpoint = f"http://127.0.0.1:{hub.stdout.readline().strip()}"
            said = answer(monkeypatch, endpoint, tmp_path, "facebook/hubert-large-ll60k")
        finally:
            hub.terminate()
    assert "set model.revision to a commit of that model, or to main" in said
