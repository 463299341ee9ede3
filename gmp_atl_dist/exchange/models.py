"""Exports models from the store into folders that ``transformers`` loads without this package.

The weights are the bytes of the artefact. ``config.json`` differs: it names classes of transformers, or
for the classifier those of ``modeling_gmp_atl.py`` in the folder, and it has the model's lineage.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal, cast

from gmp_atl_dist.audio import SAMPLE_RATE_HZ
from gmp_atl_dist.config import RunConfig
from gmp_atl_dist.errors import ArtifactError, ConfigError, ModelError
from gmp_atl_dist.exchange.card_facts import CardFacts
from gmp_atl_dist.exchange.folders import check_folder, write_folder
from gmp_atl_dist.exchange.model_card import render_card
from gmp_atl_dist.exchange.onnx_card import render_onnx_card
from gmp_atl_dist.models.head_registry import LOSSES, POOLINGS
from gmp_atl_dist.models.stored import EXPORTED_TYPE, emotion_model_from_files
from gmp_atl_dist.stages.base import Pending
from gmp_atl_dist.stages.fold_artifacts import FoldArtifacts
from gmp_atl_dist.stages.lineage import lineage_of, lineage_of_backbone
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.lineage import LINEAGE_KEY
from gmp_atl_dist.store.runs import RunRecord

What = Literal["classifier", "backbone"]
BackboneStage = Literal["retrain", "warmup", "backbone"]
Format = Literal["transformers", "onnx"]

_CONFIG, _WEIGHTS, _CARD = "config.json", "model.safetensors", "README.md"
_BACKBONE_TYPE = "hubert"
"""The format of an export is HuBERT's."""
_CLASSIFIER_TYPE = "gmp_atl_emotion"
ONNX_NAME = "model.onnx"
_PREPROCESSOR, _CODE = "preprocessor_config.json", "modeling_gmp_atl.py"
EXPORTED_NAMES = frozenset({_CONFIG, _WEIGHTS, _CARD, _PREPROCESSOR, _CODE})
ONNX_NAMES = frozenset({ONNX_NAME, _CARD})


@dataclass(frozen=True)
class Exported:
    """The exported artefact, and the number of bytes written."""

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
    stage: BackboneStage | None = None,
    format: Format = "transformers",
    overwrite: bool = False,
    run: RunRecord | None = None,
) -> Exported:
    """Write the classifier of a fold, or the backbone that ``stage`` made, with a model card.

    Without a ``stage``, it is the backbone that was fine-tuned. The card names ``run`` and the corpus of its
    record.

    Raises:
        ConfigError: the extra ``onnx`` is not installed, or a backbone is to be exported to ONNX, or the
            experiment has no such stage.
        ArtifactError: the stage is not done, its files are damaged, or the folder is not empty.
        ModelError: this version does not write such a model.
    """
    if format == "onnx":
        check_onnx(what)
    kind = "finetune" if what == "classifier" else _stage_of(config, stage)
    handles = {"backbone": backbone, **made.handles}
    if kind not in handles:
        raise ConfigError(
            f"--stage {kind}: this experiment has no such stage, because finetune.start = "
            f"{config.finetune.start!r} and extract.of = {config.extract.of!r} do without it; name another"
        )
    artifact = handles[kind]
    if isinstance(artifact, Pending):
        raise ArtifactError(
            f"{kind} {made.fold.name} is not done ({artifact.key.fingerprint[:12]}); first run gmp-atl "
            f"run with the same configuration"
        )
    values = _model_config(artifact)
    facts = CardFacts.of(config, corpus, backbone, made, artifact, values, run)
    if format == "onnx":
        check_folder(folder, ONNX_NAMES, overwrite=overwrite)
        written = _onnx_files(artifact, facts)
        write_folder(folder, written)
        return Exported(artifact, sum(map(len, written.values())))
    if what == "classifier":
        _refuse_plugins(values, f"{kind} {made.fold.name}")
    check_folder(folder, EXPORTED_NAMES, overwrite=overwrite)
    known = (
        lineage_of_backbone(backbone) if kind == "backbone" else lineage_of(artifact, [made.fold])
    )
    values[LINEAGE_KEY] = known.model_dump(mode="json")
    written = {
        _CONFIG: _json(_classifier_config(values) if what == "classifier" else _hubert(values)),
        _PREPROCESSOR: _json(_preprocessor(values)),
        _WEIGHTS: artifact.read_file(_WEIGHTS),
    }
    if what == "classifier":
        written[_CODE] = (files("gmp_atl_dist.exchange") / _CODE).read_bytes()
    written[_CARD] = render_card(facts).encode()
    write_folder(folder, written)
    return Exported(artifact, sum(map(len, written.values())))


def _stage_of(config: RunConfig, stage: BackboneStage | None) -> BackboneStage:
    """The stage whose backbone is written."""
    start = config.finetune.start
    if stage is None and start == "backbone" and config.pretrain.iterations:
        raise ConfigError(
            "--what backbone: this experiment fine-tunes the model of pretrain itself, which model export "
            "does not write; give --stage backbone for the random weights that it began with"
        )
    return stage or start


def check_onnx(what: What) -> None:
    """Raises ConfigError if ``what`` cannot be exported to ONNX here."""
    from gmp_atl_dist.exchange.onnx_files import check_installed

    if what != "classifier":
        raise ConfigError(f"--format onnx --what {what}: only the classifier is exported to ONNX")
    check_installed()


def _onnx_files(artifact: Artifact, facts: CardFacts) -> dict[str, bytes]:
    from gmp_atl_dist.exchange.onnx_files import OPSET, onnx_bytes

    files = {name: artifact.read_file(name) for name in (_CONFIG, _WEIGHTS)}
    model = emotion_model_from_files(files, artifact.key.prefix)
    metadata = {"fingerprint": artifact.key.fingerprint, "title": facts.title}
    return {
        ONNX_NAME: onnx_bytes(model, metadata),
        _CARD: render_onnx_card(facts, OPSET).encode(),
    }


def _refuse_plugins(values: Mapping[str, object], label: str) -> None:
    """Raises ModelError for a classifier that ``modeling_gmp_atl.py`` cannot rebuild."""
    problems = [
        f"finetune.{key} = {name!r} is not built in; built in are {', '.join(sorted(group.built_in))}"
        for key, group in (("pooling", POOLINGS), ("loss", LOSSES))
        # Without these keys, the model is of a version that had the first ones only.
        if (name := values.get(key)) is not None and name not in group.built_in
    ]
    if problems:
        raise ModelError.of_all(
            f"{label}: this classifier cannot be exported, because the exported folder must work without "
            f"gmp_atl_dist and without plug-ins, and its {_CODE} has the built-in parts only; use "
            f"gmp-atl predict with the artefact, or export with --what backbone:",
            problems,
        )


def _hubert(values: dict[str, object]) -> dict[str, object]:
    """The configuration for ``HubertModel``.

    That class has a mask embedding only if ``mask_time_prob`` is above 0.
    """
    # SpecAugment stays off nevertheless, because apply_spec_augment is false.
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
        # Not gmp_atl_emotion, which is a class of this package where it is installed.
        "model_type": EXPORTED_TYPE,
        "auto_map": {
            "AutoConfig": f"{module}.GmpAtlConfig",
            "AutoModelForAudioClassification": f"{module}.GmpAtlForAudioClassification",
        },
    }


def _preprocessor(values: dict[str, object]) -> dict[str, object]:
    """The configuration of ``Wav2Vec2FeatureExtractor``.

    It normalises the waveform, which our backbone does itself.
    """
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
    values = json.loads(artifact.read_file(_CONFIG))
    if not isinstance(values, dict) or "normalize_waveform" not in values:
        raise ModelError(
            f"{artifact.key.prefix}/files/{_CONFIG} does not belong to a model that this version wrote; "
            f"run gmp-atl verify"
        )
    model_type = str(values.get("backbone_type", values.get("model_type")))
    if model_type not in (_BACKBONE_TYPE, _CLASSIFIER_TYPE):
        raise ModelError(
            f"{artifact.key.prefix} holds a model of type {model_type!r}; gmp-atl model export writes "
            f"{_BACKBONE_TYPE!r} only. Give the artefact's files/ folder to the class that implements "
            f"the model type, which loads it with from_pretrained"
        )
    return cast("dict[str, object]", values)


def _json(values: dict[str, object]) -> bytes:
    return (json.dumps(values, indent=2, sort_keys=True) + "\n").encode()
