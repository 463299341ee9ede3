"""Loads a fine-tuned model from files, a folder or a store."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from gmp_atl_dist.errors import ModelError
from gmp_atl_dist.models.emotion import EmotionModel
from gmp_atl_dist.models.source import no_progress_bars
from gmp_atl_dist.store.filesystem import Store

MODEL_FILES = ("config.json", "model.safetensors")


def emotion_model_from_files(files: Mapping[str, bytes], name: str = "model") -> EmotionModel:
    """The model in ``eval()``, from the bytes of ``config.json`` and ``model.safetensors``.

    Raises:
        ModelError: a file is missing, or they are not a model that ``finetune`` wrote.
    """
    missing = [n for n in MODEL_FILES if n not in files]
    if missing:
        raise ModelError(
            f"{name} has no {' and no '.join(missing)}; give the files/ folder of a finetune artefact"
        )
    with tempfile.TemporaryDirectory(prefix="gmp-atl-") as folder:
        for file in MODEL_FILES:
            (Path(folder) / file).write_bytes(files[file])
        try:
            with no_progress_bars():
                model = EmotionModel.from_pretrained(folder, use_safetensors=True)
        except ModelError:
            raise
        except Exception as e:
            raise ModelError(
                f"{name} is not a model that finetune wrote ({type(e).__name__}: {e}); give the "
                f"files/ folder of a finetune artefact"
            ) from e
    return model.eval()


def load_emotion_model(uri: str) -> EmotionModel:
    """The model in a folder or at a store URI."""
    store = Store.open(uri)
    present = {e.path for e in store.list()} & set(MODEL_FILES)
    return emotion_model_from_files({name: store.read(name) for name in present}, uri)
