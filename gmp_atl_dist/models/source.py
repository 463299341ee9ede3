"""Where a HuBERT comes from, and how models become files of the store and models again.

A source is ``random:SIZE``, a local folder, a hub id with a pinned revision, or a store URI. All of
them end in one loader, which refuses what is not a whole HuBERT: transformers itself would fill
missing weights with random ones and go on.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from safetensors import SafetensorError
from transformers import HubertConfig, PreTrainedModel
from transformers.utils import logging as hf_logging

from gmp_atl_dist.config import RANDOM_SOURCE, ModelConfig
from gmp_atl_dist.errors import ModelError
from gmp_atl_dist.models.hubert import Hubert, build_random, seeded, set_normalize_waveform

_CONFIG = "config.json"
_SAFETENSORS = "model.safetensors"
_PICKLED = "pytorch_model.bin"
_WEIGHTS = (_SAFETENSORS, f"{_SAFETENSORS}.index.json", _PICKLED, f"{_PICKLED}.index.json")
# Created by Hubert where the checkpoint has none; only masked prediction reads it.
_OPTIONAL_WEIGHTS = frozenset({"masked_spec_embed"})


def load_source(
    config: ModelConfig, read_uri: Callable[[str], Mapping[str, bytes]] | None = None
) -> Hubert:
    """The stock model that ``config.source`` names, in float32 and eval mode.

    ``normalize_waveform = 'auto'`` keeps what the model's own ``config.json`` says, and where that
    is silent (every stock model) follows the norm of the convolutions.

    Args:
        config: the ``[model]`` section.
        read_uri: reads the files ``config.json`` and ``model.safetensors`` of a store URI.

    Raises:
        ModelError: there is no such model, it cannot be reached, or it is not a whole HuBERT.
    """
    normalize = {"yes": True, "no": False, "auto": None}[config.normalize_waveform]
    source = config.source
    if source.startswith(RANDOM_SOURCE):
        return build_random(source.removeprefix(RANDOM_SOURCE), config.seed, normalize=normalize)
    if "://" in source:
        if read_uri is None:
            raise ModelError(f"model.source: {source} is a store URI, and no store was given")
        hubert = hubert_from_files(read_uri(source), name=source, seed=config.seed)
    elif (folder := Path(source).expanduser()).is_dir():
        hubert = _load_folder(folder, source, config.seed)
    elif source.count("/") == 1 and source[0] not in "./~":
        hubert = _load_folder(_download(source, config.revision), source, config.seed)
    else:
        raise ModelError(
            f"model.source: {source!r} is neither a folder nor a hub id such as "
            f"facebook/hubert-base-ls960; give an existing folder, a hub id, a store URI or "
            f"random:tiny|mini|small|base|large"
        )
    if normalize is not None:
        set_normalize_waveform(hubert.config, normalize)
    return hubert


def model_to_files(model: PreTrainedModel) -> dict[str, bytes]:
    """``config.json`` and ``model.safetensors``: the same bytes for the same model."""
    with tempfile.TemporaryDirectory() as folder, no_progress_bars():
        # One file whatever the size. save_original_format would write weights under the names of
        # the checkpoint they once came from, and so other bytes for equal models.
        model.save_pretrained(folder, max_shard_size="1TB", save_original_format=False)
        return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def hubert_from_files(
    files: Mapping[str, bytes], *, name: str = "the stored model", seed: int = 0
) -> Hubert:
    """The inverse of :func:`model_to_files` for a backbone; float32, eval mode.

    Args:
        files: file name to content; names other than the two needed are ignored.
        name: what errors call the model.
        seed: of a mask embedding that the files lack.

    Raises:
        ModelError: a file is missing or damaged, or it is not a whole HuBERT.
    """
    missing = [file for file in (_CONFIG, _SAFETENSORS) if file not in files]
    if missing:
        found = ", ".join(sorted(files)) or "nothing"
        raise ModelError(f"{name} has no {' and no '.join(missing)}; found {found}")
    with tempfile.TemporaryDirectory() as folder:
        for file in (_CONFIG, _SAFETENSORS):
            Path(folder, file).write_bytes(files[file])
        return _load_folder(Path(folder), name, seed)


def _load_folder(folder: Path, name: str, seed: int) -> Hubert:
    _check_folder(folder, name)
    try:
        # Seeded, for what a checkpoint may lack must not differ between two loads of it.
        with no_progress_bars(), seeded(seed):
            config = HubertConfig.from_pretrained(folder)
            config._name_or_path = name
            loaded = Hubert.from_pretrained(
                folder,
                config=config,
                dtype=torch.float32,
                local_files_only=True,
                output_loading_info=True,
            )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as e:
        raise ModelError(
            f"{name} cannot be loaded, its files are damaged or do not fit: {e}"
        ) from e
    hubert, info = cast("tuple[Hubert, dict[str, set[str]]]", loaded)
    missing = sorted(info["missing_keys"] - _OPTIONAL_WEIGHTS)
    if missing:
        shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        raise ModelError(
            f"{name} lacks {len(missing)} weights of a HuBERT ({shown}); give a whole checkpoint"
        )
    # What errors call the model later on: a temporary folder would help nobody.
    hubert.config._name_or_path = name
    return hubert.eval()


def _check_folder(folder: Path, name: str) -> None:
    try:
        values = json.loads((folder / _CONFIG).read_bytes())
    except FileNotFoundError:
        raise ModelError(f"{name} has no {_CONFIG}; give a folder of save_pretrained") from None
    except (OSError, ValueError) as e:
        raise ModelError(f"{name}: {_CONFIG} cannot be read: {e}") from e
    found = values.get("model_type") if isinstance(values, dict) else None
    if found != "hubert":
        raise ModelError(
            f"{name} is a model of type {found!r}, and this method needs 'hubert'; "
            f"give one such as facebook/hubert-base-ls960"
        )
    if not any((folder / file).is_file() for file in _WEIGHTS):
        raise ModelError(f"{name} has no weights; put {_SAFETENSORS} beside its {_CONFIG}")


def _download(hub_id: str, revision: str) -> Path:
    """The folder with the model's files in the hub's cache.

    Not ``from_pretrained(hub_id)``: for a repository with pickled weights only, such as
    hubert-base-ls960, that also asks a bot of the hub to convert it. transformers reads those with
    ``torch.load(weights_only=True)``, so nothing in them is executed.
    """
    try:
        config = hf_hub_download(hub_id, _CONFIG, revision=revision)
        try:
            hf_hub_download(hub_id, _SAFETENSORS, revision=revision)
        except EntryNotFoundError:
            hf_hub_download(hub_id, _PICKLED, revision=revision)
    except (OSError, ValueError) as e:
        reason = str(e).strip().splitlines()[0] if str(e).strip() else type(e).__name__
        raise ModelError(
            f"model.source: {hub_id} at revision {revision} cannot be had from the hub "
            f"{os.environ.get('HF_ENDPOINT', 'https://huggingface.co')} ({reason}); where the hub "
            f"is not reachable, download the model elsewhere and give its folder or store URI"
        ) from e
    return Path(config).parent


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Bars of many workers only garble the log."""
    if not hf_logging.is_progress_bar_enabled():
        yield
        return
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.enable_progress_bar()
