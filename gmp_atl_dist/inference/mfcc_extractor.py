"""MFCC of one part, on a CPU by ``mfcc.py``; on a GPU by torchaudio, where that is installed.

Shape suffixes: N samples, F frames of 10 ms, T of 20 ms, D values of a frame.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from gmp_atl_dist.audio import MIN_SAMPLES, SAMPLE_RATE_HZ
from gmp_atl_dist.device import has_gpu, torch_device
from gmp_atl_dist.inference.extractor import audio_seconds
from gmp_atl_dist.inference.forward import stored_wave
from gmp_atl_dist.inference.mfcc import KEPT_EVERY, MFCC_DIM, NUM_CEPSTRA, mfcc
from gmp_atl_dist.inference.started import to_fp16
from gmp_atl_dist.runtime import Task
from gmp_atl_dist.store.artifact import ArtifactKey, ArtifactWriter, receipts_json
from gmp_atl_dist.store.features import UtteranceFrames, put_features
from gmp_atl_dist.store.filesystem import Store

MFCC_LAYER = 0
"""MFCC are stored as features of this layer; HuBERT's layers begin with 1."""

Compute = Callable[[np.ndarray], np.ndarray]
"""float32 wave [N] to float32 [T, D]."""


@dataclass(frozen=True)
class MfccArgument:
    compression: str
    store: Store
    key: ArtifactKey


class MfccExtractor:
    """Computes the MFCC of one part and stores them as features."""

    def __init__(self, argument: MfccArgument) -> None:
        self._argument = argument
        self._out = ArtifactWriter(argument.store, argument.key)
        self._mfcc = chosen_mfcc()

    def compute(self, task: Task, table: pa.Table) -> Callable[[], str]:
        ids, pcm16 = table["utterance_id"].to_pylist(), table["pcm16"].combine_chunks()
        rows: list[UtteranceFrames] = []
        for row, num_samples in enumerate(table["num_samples"].to_pylist()):
            x_TD = self._mfcc(stored_wave(pcm16[row], ids[row], num_samples))
            narrow_TD = to_fp16(torch.from_numpy(x_TD), ids[row], MFCC_LAYER)
            rows.append(UtteranceFrames(ids[row], narrow_TD))
        audio_s, compression = audio_seconds(table), self._argument.compression

        def put() -> str:
            receipt = put_features(
                self._out, task.name, MFCC_LAYER, rows, audio_s=audio_s, compression=compression
            )
            return receipts_json([receipt])

        return put


def chosen_mfcc() -> Compute:
    """torchaudio's on a GPU if it is installed, otherwise that of ``mfcc.py``."""
    torchaudio = load_torchaudio() if has_gpu() else None
    if torchaudio is None:
        return mfcc
    return lambda wave_N: torchaudio_mfcc(torchaudio, wave_N)


def load_torchaudio() -> Any | None:
    """The module, or None where it is not installed or links another torch."""
    try:
        import torchaudio.compliance.kaldi  # pyright: ignore[reportMissingImports]
        import torchaudio.functional  # pyright: ignore[reportMissingImports]
    except (ImportError, OSError):
        return None
    return torchaudio


def torchaudio_mfcc(torchaudio: Any, wave_N: np.ndarray) -> np.ndarray:
    """The same values as ``mfcc.py``, by torchaudio on this process's device."""
    if len(wave_N) < MIN_SAMPLES:
        return np.zeros((0, MFCC_DIM), np.float32)
    cepstra_FC = torchaudio.compliance.kaldi.mfcc(
        torch.from_numpy(wave_N)[None].to(torch_device()),
        sample_frequency=SAMPLE_RATE_HZ,
        num_ceps=NUM_CEPSTRA,
        use_energy=False,
        dither=0.0,
    )
    first_CF = torchaudio.functional.compute_deltas(cepstra_FC.T)
    second_CF = torchaudio.functional.compute_deltas(first_CF)
    x_FD = torch.cat([cepstra_FC.T, first_CF, second_CF]).T
    return x_FD[::KEPT_EVERY].cpu().numpy()
