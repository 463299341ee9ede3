"""Stores the heads of a warmed-up model beside its backbone, and loads both."""

from __future__ import annotations

from collections.abc import Mapping

import safetensors.torch
from safetensors import SafetensorError

from gmp_atl_dist.errors import ModelError
from gmp_atl_dist.models.multitask import WarmupModel
from gmp_atl_dist.models.source import backbone_from_files

HEADS_NAME = "heads.safetensors"
_BACKBONE = "backbone."


def heads_to_bytes(model: WarmupModel) -> bytes:
    """Everything of the model but its backbone: the same bytes for the same weights."""
    heads = {
        name: x.detach().float().cpu().contiguous()
        for name, x in model.state_dict().items()
        if not name.startswith(_BACKBONE)
    }
    return safetensors.torch.save(heads)


def warmup_model_from_files(files: Mapping[str, bytes], name: str) -> WarmupModel:
    """The model in ``eval()``, from the files of a ``warmup`` artefact.

    Raises:
        ModelError: the artefact has no heads, or they are damaged, or the backbone cannot be loaded.
    """
    if HEADS_NAME not in files:
        raise ModelError(
            f"{name} has no {HEADS_NAME}, so it cannot predict the gender of unlabelled speech; it was made "
            f"by an earlier release. Delete it, and run again"
        )
    try:
        heads = safetensors.torch.load(files[HEADS_NAME])
        backbone = backbone_from_files(files, name=name)
        layers = "average" if "layer_logits" in heads else "last"
        model = WarmupModel(backbone, len(heads["emotion.bias"]), layers)
        state = {name: x for name, x in model.state_dict().items() if name.startswith(_BACKBONE)}
        model.load_state_dict({**state, **heads})
    except (SafetensorError, KeyError, RuntimeError) as e:
        raise ModelError(f"{name}: {HEADS_NAME} is damaged ({e}); run gmp-atl verify") from e
    return model.eval()
