"""Loads a fine-tuned model from its files, or from a folder or store that holds them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import cast

from gmp_atl_dist.errors import ConfigError, ModelError
from gmp_atl_dist.models.checkpoint_files import refuse_not_finite, refuse_pointers
from gmp_atl_dist.models.emotion import EmotionConfig, EmotionModel
from gmp_atl_dist.models.source import no_progress_bars
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.model_files import check_model_files

MODEL_FILES = ("config.json", "model.safetensors")
EXPORTED_TYPE = "gmp_atl"
"""The model type of an exported classifier, which brings its own class for transformers."""


def emotion_model_from_files(files: Mapping[str, bytes], name: str = "model") -> EmotionModel:
    """The model in ``eval()``, from the bytes of ``config.json`` and ``model.safetensors``.

    Its pooling and loss are those that ``config.json`` names.

    Raises:
        ModelError: a file is missing, the files are not a model that ``finetune`` wrote, its pooling or
            loss is not installed here, or the weights are not those of the model.
    """
    _refuse_missing(files, name)
    config_json, weights = (files[file] for file in MODEL_FILES)
    return _load(config_json, weights, name)


def _refuse_missing(present: Collection[str], name: str) -> None:
    missing = [n for n in MODEL_FILES if n not in present]
    if missing:
        raise ModelError(
            f"{name} has no {' and no '.join(missing)}; give the files/ folder of a finetune artefact"
        )


def _load(config_json: bytes, weights: bytes | Path, name: str) -> EmotionModel:
    """``weights`` are the bytes of ``model.safetensors``, or its path, which saves a copy of a gigabyte."""
    with tempfile.TemporaryDirectory(prefix="gmp-atl-") as folder:
        config_file, weights_file = (Path(folder) / file for file in MODEL_FILES)
        config_file.write_bytes(_own_config(config_json))
        if isinstance(weights, Path):
            weights_file.symlink_to(weights)
        else:
            weights_file.write_bytes(weights)
        refuse_pointers(Path(folder), MODEL_FILES, name)
        try:
            with no_progress_bars():
                loaded = EmotionModel.from_pretrained(
                    folder, use_safetensors=True, output_loading_info=True
                )
        except ModelError as e:
            raise ModelError(
                f"{name} is not a model that finetune wrote, or not for this release: {e.message}"
            ) from e
        except ConfigError as e:
            raise ModelError(f"{name}: its head cannot be built here: {e}") from e
        except Exception as e:
            raise ModelError(
                f"{name} is not a model that finetune wrote ({type(e).__name__}: {e}); give the "
                f"files/ folder of a finetune artefact"
            ) from e
        model, info = cast("tuple[EmotionModel, dict[str, set[str]]]", loaded)
        refuse_not_finite(model, Path(folder), MODEL_FILES[1:], name)
    # transformers would fill a missing weight with random values.
    wrong = sorted({*info["missing_keys"], *info["unexpected_keys"]})
    if wrong:
        raise ModelError(
            f"{name}: the weights are not those of a model with pooling {model.config.pooling!r} and loss "
            f"{model.config.loss!r} ({', '.join(wrong[:5])}); install the version of the plug-in that the "
            f"model was trained with, or train it again"
        )
    return model.eval()


def _own_config(data: bytes) -> bytes:
    """``config.json`` with our own model type, where it is that of an exported classifier.

    The weights and all other keys are the same. transformers warns about a type that is not the class's.
    """
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        return data  # transformers names what is wrong with it
    if not isinstance(values, dict) or values.get("model_type") != EXPORTED_TYPE:
        return data
    own = {key: value for key, value in values.items() if key not in ("auto_map", "architectures")}
    return json.dumps(own | {"model_type": EmotionConfig.model_type}).encode()


def load_emotion_model(uri: str) -> EmotionModel:
    """The model in a folder or at a store URI.

    Raises:
        ModelError: as :func:`emotion_model_from_files`.
        ArtifactError: the files are those of an artefact, and differ from its receipts.
    """
    check_model_files(uri)
    store = Store.open(uri)
    present = {e.path for e in store.list()} & set(MODEL_FILES)
    if store.uri.startswith("file://"):
        _refuse_missing(present, uri)
        config_file, weights_file = MODEL_FILES
        return _load(store.read(config_file), Path(store.absolute(weights_file)), uri)
    return emotion_model_from_files({name: store.read(name) for name in present}, uri)
