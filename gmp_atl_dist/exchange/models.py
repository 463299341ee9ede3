"""Models out of the store, into folders that ``transformers`` loads by itself.

Weights are the artefact's own bytes. What differs is ``config.json``, which names classes that
transformers has or, for the classifier, finds in the folder: ``modeling_gmp_atl.py``.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal, cast

from gmp_atl_dist.audio import SAMPLE_RATE_HZ
from gmp_atl_dist.config import RunConfig
from gmp_atl_dist.errors import ArtifactError, ModelError
from gmp_atl_dist.exchange.card_facts import CardFacts
from gmp_atl_dist.exchange.folders import check_folder, write_folder
from gmp_atl_dist.exchange.model_card import render_card
from gmp_atl_dist.stages.base import Pending
from gmp_atl_dist.stages.fold_artifacts import FoldArtifacts
from gmp_atl_dist.store.artifact import Artifact

What = Literal["classifier", "backbone"]
BackboneStage = Literal["retrain", "warmup", "backbone"]

_CONFIG, _WEIGHTS, _CARD = "config.json", "model.safetensors", "README.md"
_BACKBONE_TYPE = "hubert"
"""The format of an export is HuBERT's."""
_CLASSIFIER_TYPE = "gmp_atl_emotion"
_PREPROCESSOR, _CODE = "preprocessor_config.json", "modeling_gmp_atl.py"
EXPORTED_NAMES = frozenset({_CONFIG, _WEIGHTS, _CARD, _PREPROCESSOR, _CODE})


@dataclass(frozen=True)
class Exported:
    """What was written, and from which artefact."""

    artifact: Artifact
    num_bytes: int


def export_model(
    config: RunConfig,
    corpus: Artifact,
    backbone: Artifact,
    made: FoldArtifacts,
    folder: Path,
    *,
    what: What,
    stage: BackboneStage = "retrain",
    overwrite: bool = False,
) -> Exported:
    """Write the fold's classifier, or the backbone as ``stage`` left it, with a model card.

    Raises:
        ArtifactError: that stage is not done, its files are damaged, or the folder is in use.
        ModelError: the model is not one that this version writes.
    """
    kind = "finetune" if what == "classifier" else stage
    handles = {"backbone": backbone, **made.handles}
    artifact = handles[kind]
    if isinstance(artifact, Pending):
        raise ArtifactError(
            f"{kind} {made.fold.name} is not done ({artifact.key.fingerprint[:12]}); run gmp-atl run "
            f"with the same configuration first"
        )
    check_folder(folder, EXPORTED_NAMES, overwrite=overwrite)
    values = _model_config(artifact)
    written = {
        _CONFIG: _json(_classifier_config(values) if what == "classifier" else _hubert(values)),
        _PREPROCESSOR: _json(_preprocessor(values)),
        _WEIGHTS: _read_checked(artifact, _WEIGHTS),
    }
    if what == "classifier":
        written[_CODE] = (files("gmp_atl_dist.exchange") / _CODE).read_bytes()
    facts = CardFacts.of(config, corpus, backbone, made, artifact, values)
    written[_CARD] = render_card(facts).encode()
    write_folder(folder, written)
    return Exported(artifact, sum(map(len, written.values())))


def _hubert(values: dict[str, object]) -> dict[str, object]:
    """For ``HubertModel``, which has a mask embedding only where a mask could be drawn."""
    # SpecAugment stays off all the same: apply_spec_augment is false in what the stages write.
    return values | {
        "architectures": ["HubertModel"],
        "model_type": _BACKBONE_TYPE,
        "apply_spec_augment": False,
        "mask_time_prob": 0.05,
    }


def _classifier_config(values: dict[str, object]) -> dict[str, object]:
    module = _CODE.removesuffix(".py")
    return _hubert(values) | {
        "architectures": ["GmpAtlForAudioClassification"],
        # Not ours, gmp_atl_emotion: where this package is installed, that one is its own class.
        "model_type": "gmp_atl",
        "auto_map": {
            "AutoConfig": f"{module}.GmpAtlConfig",
            "AutoModelForAudioClassification": f"{module}.GmpAtlForAudioClassification",
        },
    }


def _preprocessor(values: dict[str, object]) -> dict[str, object]:
    """``Wav2Vec2FeatureExtractor``'s, which normalises what our backbone would normalise itself."""
    return {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "feature_size": 1,
        "sampling_rate": SAMPLE_RATE_HZ,
        "padding_side": "right",
        "padding_value": 0.0,
        "do_normalize": bool(values["normalize_waveform"]),
        "return_attention_mask": True,
    }


def _model_config(artifact: Artifact) -> dict[str, object]:
    values = json.loads(_read_checked(artifact, _CONFIG))
    if not isinstance(values, dict) or "normalize_waveform" not in values:
        raise ModelError(
            f"{artifact.key.prefix}/files/{_CONFIG} is not of a model that this version wrote; run "
            f"gmp-atl verify"
        )
    model_type = str(values.get("backbone_type", values.get("model_type")))
    if model_type not in (_BACKBONE_TYPE, _CLASSIFIER_TYPE):
        raise ModelError(
            f"{artifact.key.prefix} holds a model of type {model_type!r}; gmp-atl model export writes "
            f"{_BACKBONE_TYPE!r} only. Give the artefact's files/ folder to the class that implements "
            f"the model type, which loads it with from_pretrained"
        )
    return cast("dict[str, object]", values)


def _read_checked(artifact: Artifact, name: str) -> bytes:
    data = artifact.read_file(name)
    receipt = artifact.receipts.get(f"files/{name}")
    if receipt is None or hashlib.sha256(data).hexdigest() != receipt.sha256:
        raise ArtifactError(
            f"{artifact.store.uri}/{artifact.key.prefix}/files/{name} is not what was written; run "
            f"gmp-atl verify"
        )
    return data


def _json(values: dict[str, object]) -> bytes:
    return (json.dumps(values, indent=2, sort_keys=True) + "\n").encode()
