"""Loads backbones from their sources, and converts models to files and back.

A source is ``random:SIZE``, a local folder, a hub id with a pinned revision, or a store URI. One loader
serves all of them. It finds the implementation by the ``model_type`` in ``config.json``, and refuses a
checkpoint that lacks weights: transformers itself would replace them by random ones and continue.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from transformers import PreTrainedModel
from transformers.utils import logging as hf_logging

from gmp_atl_dist.config import RANDOM_SOURCE, ModelConfig
from gmp_atl_dist.errors import ModelError
from gmp_atl_dist.models.backbone import (
    DEFAULT_MODEL_TYPE,
    SpeechBackbone,
)
from gmp_atl_dist.models.backbone_config import read_config_values, set_normalize_waveform
from gmp_atl_dist.models.backbone_registry import find_backbone
from gmp_atl_dist.models.checkpoint_files import (
    loading_error,
    refuse_lying_index,
    refuse_not_finite,
    refuse_pointers,
)
from gmp_atl_dist.models.seeded import seeded

_CONFIG = "config.json"
_SAFETENSORS = "model.safetensors"
_PICKLED = "pytorch_model.bin"
_WEIGHTS = (_SAFETENSORS, f"{_SAFETENSORS}.index.json", _PICKLED, f"{_PICKLED}.index.json")


def load_source(
    config: ModelConfig, read_uri: Callable[[str], Mapping[str, bytes]] | None = None
) -> SpeechBackbone:
    """The stock model that ``config.source`` names, in float32 and eval mode.

    ``normalize_waveform = 'auto'`` keeps the value in the model's own ``config.json``. Stock models have
    none; for them it is True where the convolutions use layer norm.

    Args:
        config: the ``[model]`` section.
        read_uri: reads the files ``config.json`` and ``model.safetensors`` of a store URI.

    Raises:
        ModelError: there is no such model, it cannot be reached, its files are not complete, or its model
            type is not supported.
    """
    normalize = {"yes": True, "no": False, "auto": None}[config.normalize_waveform]
    source = config.source
    if source.startswith(RANDOM_SOURCE):
        size = source.removeprefix(RANDOM_SOURCE)
        implementation = find_backbone(DEFAULT_MODEL_TYPE)
        return implementation.build_random(size, config.seed, normalize=normalize)
    if "://" in source:
        if read_uri is None:
            raise ModelError(f"model.source: {source} is a store URI, and no store was given")
        backbone = backbone_from_files(read_uri(source), name=source, seed=config.seed)
    elif (folder := Path(source).expanduser()).is_dir():
        backbone = _load_folder(folder, source, config.seed)
    elif source.count("/") == 1 and source[0] not in "./~":
        backbone = _load_folder(_download(source, config.revision), source, config.seed)
    else:
        raise ModelError(
            f"model.source: {source!r} is neither a folder nor a hub id such as "
            f"facebook/hubert-base-ls960; give an existing folder, a hub id, a store URI or "
            f"random:tiny|mini|small|base|large"
        )
    if normalize is not None:
        set_normalize_waveform(backbone.config, normalize)
    return backbone


def model_to_files(model: PreTrainedModel) -> dict[str, bytes]:
    """``config.json`` and ``model.safetensors``: the same bytes for the same model."""
    with tempfile.TemporaryDirectory() as folder, no_progress_bars():
        # One file whatever the size. save_original_format would write weights under the names of
        # the checkpoint they once came from, and so other bytes for equal models.
        model.save_pretrained(folder, max_shard_size="1TB", save_original_format=False)
        return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def backbone_from_files(
    files: Mapping[str, bytes], *, name: str = "the stored model", seed: int = 0
) -> SpeechBackbone:
    """The inverse of :func:`model_to_files` for a backbone; float32, eval mode.

    Args:
        files: file name to content; other names than the two needed are ignored.
        name: what errors call the model.
        seed: of a mask embedding that the files lack.

    Raises:
        ModelError: a file is missing or damaged, weights are missing, or the model type is not supported.
    """
    missing = [file for file in (_CONFIG, _SAFETENSORS) if file not in files]
    if missing:
        present = ", ".join(sorted(files)) or "nothing"
        raise ModelError(f"{name} has no {' and no '.join(missing)}; found {present}")
    with tempfile.TemporaryDirectory() as folder:
        for file in (_CONFIG, _SAFETENSORS):
            Path(folder, file).write_bytes(files[file])
        return _load_folder(Path(folder), name, seed)


def _load_folder(folder: Path, name: str, seed: int) -> SpeechBackbone:
    implementation = _implementation(folder, name)
    try:
        # Seeded, because weights that a checkpoint may lack must be the same at every load.
        with no_progress_bars(), seeded(seed):
            config = implementation.configuration().from_pretrained(folder)
            config._name_or_path = name
            loaded = implementation.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                local_files_only=True,
                output_loading_info=True,
            )
    except ModelError:
        raise
    except Exception as e:
        # Whatever a damaged file makes torch, pickle or safetensors raise.
        raise loading_error(e, folder, _WEIGHTS, name) from e
    backbone, info = cast("tuple[SpeechBackbone, dict[str, set[str]]]", loaded)
    missing = sorted(info["missing_keys"] - implementation.optional_weights)
    if missing:
        shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise ModelError(
            f"{name} lacks {len(missing)} weights of a {config.model_type} model ({shown}); give a "
            f"complete checkpoint"
        )
    refuse_not_finite(backbone, folder, _WEIGHTS, name)
    # Later errors name the model by this, not by a temporary folder.
    backbone.config._name_or_path = name
    return backbone.eval()


def _implementation(folder: Path, name: str) -> type[SpeechBackbone]:
    refuse_pointers(folder, (_CONFIG, *_WEIGHTS), name)
    try:
        config_json = (folder / _CONFIG).read_bytes()
    except FileNotFoundError:
        raise ModelError(f"{name} has no {_CONFIG}; give a folder of save_pretrained") from None
    except OSError as e:
        raise ModelError(f"{name}: {_CONFIG} cannot be read: {e}") from e
    model_type = read_config_values(config_json, name).get("model_type")
    implementation = find_backbone(str(model_type), name)
    if not any((folder / file).is_file() for file in _WEIGHTS):
        raise ModelError(f"{name} has no weights; put {_SAFETENSORS} beside its {_CONFIG}")
    refuse_lying_index(folder, _WEIGHTS, name)
    return implementation


def _download(hub_id: str, revision: str) -> Path:
    """The folder with the model's files in the hub's cache.

    This does not call ``from_pretrained(hub_id)``: for a repository with pickled weights only, such as that
    of the default source, that call also asks a bot of the hub to convert the weights. transformers reads
    pickled weights with ``torch.load(weights_only=True)``, so nothing in them is executed.
    """
    try:
        config = hf_hub_download(hub_id, _CONFIG, revision=revision)
        try:
            hf_hub_download(hub_id, _SAFETENSORS, revision=revision)
        except EntryNotFoundError:
            hf_hub_download(hub_id, _PICKLED, revision=revision)
    except (OSError, ValueError) as e:
        if known := _answer_of_hub(e, hub_id, revision):
            raise ModelError(f"model.source: {known}") from e
        reason = str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
        raise ModelError(
            f"model.source: {hub_id} at revision {revision} cannot be downloaded from the hub "
            f"{os.environ.get('HF_ENDPOINT', 'https://huggingface.co')} ({reason}); where the hub "
            f"is not reachable, download the model elsewhere and give its folder or store URI"
        ) from e
    return Path(config).parent


def _answer_of_hub(error: Exception, hub_id: str, revision: str) -> str:
    """What is wrong with the id or the revision; "" if the hub did not say so, or did not answer."""
    if isinstance(error, RevisionNotFoundError):
        default = ModelConfig()
        note = ""
        if revision == default.revision and hub_id != default.source:
            note = f", which is the default and a commit of {default.source}"
        return (
            f"{hub_id} has no revision {revision}{note}; set model.revision to a commit of that model"
            f"{'' if revision == 'main' else ', or to main'}"
        )
    if isinstance(error, GatedRepoError):
        return f"{hub_id} is gated; accept its terms on the hub, and set HF_TOKEN to a token of your own"
    if isinstance(error, RepositoryNotFoundError):
        return (
            f"the hub has no model {hub_id}, or it is private; correct model.source, or set HF_TOKEN to "
            f"a token that may read it"
        )
    if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
        return (
            f"{hub_id} at revision {revision} lacks {_CONFIG}, or has neither {_SAFETENSORS} nor "
            f"{_PICKLED}; give a model for transformers"
        )
    return ""


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Without the progress bars of transformers, which garble the log of many workers."""
    if not hf_logging.is_progress_bar_enabled():
        yield
        return
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.enable_progress_bar()
