"""MFCC of one part: on a CPU by ``mfcc.py``, on a GPU by ``device_mfcc.py``.

Shape suffixes: T frames of 20 ms, D values of a frame.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa
import torch

from gmp_atl_dist.device import has_gpu, torch_device
from gmp_atl_dist.inference.device_mfcc import MFCC_LAYER, DeviceMfcc
from gmp_atl_dist.inference.extractor import audio_seconds
from gmp_atl_dist.inference.forward import Forward, stored_wave
from gmp_atl_dist.inference.mfcc import mfcc
from gmp_atl_dist.inference.started import to_fp16
from gmp_atl_dist.runtime import DeviceWork, Task
from gmp_atl_dist.store.features import UtteranceFrames, put_features
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.manifest import ArtifactKey, receipts_json
from gmp_atl_dist.store.writer import ArtifactWriter

_BATCH_S = 600.0
"""On a GPU: 20 MB of samples, 40 MB of values in float64."""


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
        self._forward = (
            Forward(DeviceMfcc(torch_device()), (MFCC_LAYER,), _BATCH_S) if has_gpu() else None
        )

    def compute(self, task: Task, table: pa.Table) -> Callable[[], str]:
        audio_s, compression = audio_seconds(table), self._argument.compression

        def put(rows: list[UtteranceFrames]) -> str:
            receipt = put_features(
                self._out, task.name, MFCC_LAYER, rows, audio_s=audio_s, compression=compression
            )
            return receipts_json([receipt])

        if self._forward is None:
            rows = self._rows(table)
            return lambda: put(rows)
        pending = self._forward.start(table)
        return DeviceWork(pending.wait, lambda: put(pending()[MFCC_LAYER]))

    def _rows(self, table: pa.Table) -> list[UtteranceFrames]:
        """The MFCC of each utterance on a CPU, fp16 [T, D]."""
        ids, pcm16 = table["utterance_id"].to_pylist(), table["pcm16"].combine_chunks()
        rows: list[UtteranceFrames] = []
        for row, num_samples in enumerate(table["num_samples"].to_pylist()):
            x_TD = mfcc(stored_wave(pcm16[row], ids[row], num_samples))
            narrow_TD = to_fp16(torch.from_numpy(x_TD), ids[row], MFCC_LAYER)
            rows.append(UtteranceFrames(ids[row], narrow_TD))
        return rows
