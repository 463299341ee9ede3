"""Loads DeepSpeed's checkpoints without executing them, and makes them fit any number of ranks."""

from __future__ import annotations

import argparse
import copyreg
import io
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from enum import Enum
from pathlib import Path
from typing import Any

import torch

from gmp_atl_dist.errors import CheckpointError
from gmp_atl_dist.training.deepspeed_start import before_deepspeed

TAG = "state"
"""The folder of DeepSpeed's files within a checkpoint."""


def make_universal(folder: Path, out: Path) -> None:
    """Write the universal form of the checkpoint in ``folder`` to ``out``. Any number of ranks can load it.

    https://www.deepspeed.ai/tutorials/universal-checkpointing/

    Raises:
        CheckpointError: it cannot be read.
    """
    before_deepspeed()
    from deepspeed.checkpoint import ds_to_universal

    options = argparse.Namespace(
        input_folder=str(folder / TAG),
        output_folder=str(out / TAG),
        num_extract_workers=1,  # more would be forked from a process that has threads
        num_merge_workers=1,
        keep_temp_folder=False,
        strict=True,
        inject_missing_state=True,
    )
    store_as_plain_values()
    with loading(folder), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        ds_to_universal.main(options)


def store_as_plain_values() -> None:
    """Have DeepSpeed's enumerations pickled by their values, from now on and in this process.

    Python before 3.11.4 pickles a member of an enumeration by ``getattr``, which no checkpoint may call when
    it is loaded (https://docs.python.org/3/library/copyreg.html).
    """
    from deepspeed.runtime.zero.config import ZeroStageEnum

    copyreg.pickle(ZeroStageEnum, _by_value)


def _by_value(member: Enum) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    return type(member), (member.value,)


@contextmanager
def loading(folder: Path) -> Iterator[None]:
    """DeepSpeed may unpickle tensors and plain values alone within this block.

    Raises:
        CheckpointError: it found something else, or nothing that it can read.
    """
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    advice = "delete the run's folder below checkpoints/ to train this stage from its start"
    try:
        with torch.serialization.safe_globals([LossScaler, ZeroStageEnum, fragment_address]):
            yield
    except pickle.UnpicklingError as e:
        # PyTorch's own message advises to load it anyway, which would execute it.
        raise CheckpointError(
            f"the checkpoint in {folder.name} is damaged or holds more than tensors and plain "
            f"values, so it was not loaded; {advice}"
        ) from e
    except Exception as e:
        raise CheckpointError(
            f"the checkpoint in {folder.name} cannot be read ({type(e).__name__}: {e}); {advice}"
        ) from e
