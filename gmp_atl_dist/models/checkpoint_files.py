"""Checks of a checkpoint's files and weights, so that a bad one is named where it is loaded.

A Git LFS pointer or a damaged file would otherwise end in a message of torch that advises unsafe loading.
Weights that are not finite would be found two stages later, and blamed on a recording.
"""

from __future__ import annotations

import json
import pickle
import struct
from pathlib import Path

import torch

from gmp_atl_dist.errors import ModelError

_LFS = b"version https://git-lfs.github.com/spec/"
_SHOWN = 5
_PICKLE_FAULTS = (pickle.PickleError, EOFError)
_NO_PICKLE = (LookupError, ValueError, TypeError, AttributeError, struct.error)


def refuse_pointers(folder: Path, names: tuple[str, ...], model: str) -> None:
    """Refuse files that a clone without Git LFS leaves in place of the real ones.

    Args:
        folder: of the checkpoint.
        names: of ``config.json``, and of weights or their index; those that exist are looked at.
        model: what errors call the model.

    Raises:
        ModelError: names the file.
    """
    for name in (*names, *_shards(folder, names)):
        path = folder / name
        if path.is_file() and _starts_with(path, _LFS):
            raise ModelError(
                f"{model}: {name} is a Git LFS pointer, not the file itself; run git lfs pull in that "
                f"folder, or download the file"
            )


def loading_error(
    error: Exception, folder: Path, weights: tuple[str, ...], model: str
) -> ModelError:
    """What a failed loading says: the file and what to do, without torch's advice to load it unsafely."""
    file = next((name for name in weights if (folder / name).is_file()), "its weights")
    # Torch's own message advises to load the file unsafely, whatever the type of its error. Bytes that are no
    # pickle end in any of the others.
    unreadable = file.endswith(".bin") and isinstance(error, _NO_PICKLE)
    if isinstance(error, _PICKLE_FAULTS) or unreadable or "weights_only" in str(error):
        return ModelError(
            f"{model} cannot be loaded: {file} is damaged, or holds more than tensors, which is never "
            f"loaded; download it again, or convert it to model.safetensors where you trust it"
        )
    return ModelError(
        f"{model} cannot be loaded, its files are damaged or do not fit ({type(error).__name__}: {error}); "
        f"give a whole checkpoint that save_pretrained of transformers wrote"
    )


def refuse_lying_index(folder: Path, names: tuple[str, ...], model: str) -> None:
    """Refuse an index of weights that is none, or that lists what is not in the folder.

    Args:
        folder: of the checkpoint.
        names: of weights and their indexes; the first that exists is the one that is loaded.
        model: what errors call the model.

    Raises:
        ModelError: names the index and the entry.
    """
    name = next((name for name in names if (folder / name).is_file()), "")
    if not name.endswith(".index.json"):
        return
    remedy = "download the checkpoint again, or write it again by save_pretrained"
    try:
        index = json.loads((folder / name).read_bytes())
    except (ValueError, RecursionError) as e:
        raise ModelError(f"{model}: {name} is no JSON ({type(e).__name__}); {remedy}") from None
    listed = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(listed, dict) or not listed:
        raise ModelError(f"{model}: {name} has no weight_map of tensors and their files; {remedy}")
    if not isinstance(index.get("metadata"), dict):
        raise ModelError(f"{model}: {name} has no metadata; {remedy}")
    for tensor, file in listed.items():
        if not isinstance(file, str) or Path(file).name != file:
            raise ModelError(
                f"{model}: {name} says that {tensor} is in {file!r}, which is no file of the model's folder; "
                f"it was not opened; {remedy}"
            )
        if not (folder / file).is_file():
            raise ModelError(
                f"{model}: {name} says that {tensor} is in {file}, which is not there; {remedy}"
            )


def refuse_not_finite(
    module: torch.nn.Module, folder: Path | None, weights: tuple[str, ...], model: str
) -> None:
    """Refuse weights with NaN or infinite values.

    Args:
        module: the loaded model.
        folder: where its files lie, to name the file; None: it is not named.
        weights: names that the file may have.
        model: what errors call the model.

    Raises:
        ModelError: names file, tensors and numbers of values.
    """
    bad = {
        name: int((~torch.isfinite(tensor)).sum())
        for name, tensor in module.state_dict().items()
        if tensor.is_floating_point() and not torch.isfinite(tensor).all()
    }
    if not bad:
        return
    present = (name for name in weights if folder is not None and (folder / name).is_file())
    file = next(present, "the checkpoint")
    shown = ", ".join(f"{name} ({count} values)" for name, count in list(bad.items())[:_SHOWN])
    more = f" and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
    raise ModelError(
        f"{model}: {file} has weights that are NaN or infinite, in {shown}{more}; the training that "
        f"wrote it diverged, or the file is damaged: take another checkpoint"
    )


def _shards(folder: Path, names: tuple[str, ...]) -> tuple[str, ...]:
    """Names of the files that an index of weights lists."""
    found: set[str] = set()
    for name in names:
        if not name.endswith(".index.json") or not (folder / name).is_file():
            continue
        try:
            listed = json.loads((folder / name).read_bytes())["weight_map"].values()
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            continue  # refuse_lying_index says what is wrong with it
        # A name from data: files of this folder alone.
        found |= {str(file) for file in listed if Path(str(file)).name == str(file)}
    return tuple(sorted(found))


def _starts_with(path: Path, start: bytes) -> bool:
    with path.open("rb") as f:
        return f.read(len(start)) == start
