"""Frame features of one part of ``ingest``: ``eval()``, nothing masked, padding-exact.

Shape suffixes: B utterances, N samples, T frames, D hidden.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from gmp_atl_dist.audio import SAMPLE_RATE_HZ, num_frames, pcm16_to_float
from gmp_atl_dist.device import autocast, torch_device
from gmp_atl_dist.errors import ModelError
from gmp_atl_dist.inference.cost import cost_batches
from gmp_atl_dist.models.padding import pad_waves
from gmp_atl_dist.models.source import hubert_from_files
from gmp_atl_dist.records import FEATURE_SCHEMA
from gmp_atl_dist.runtime import Task
from gmp_atl_dist.store.artifact import Artifact, ArtifactKey, ArtifactWriter, receipts_json
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.readers import AudioPart, feature_part_name, read_audio_part


@dataclass(frozen=True)
class ExtractorArgument:
    corpus: Artifact
    warmup: Artifact
    wanted: frozenset[str]
    layers: tuple[int, ...]
    batch_samples: int
    store: Store
    key: ArtifactKey


class Extractor:
    """Features of one part of ``ingest``; the model is loaded once a worker."""

    def __init__(self, argument: ExtractorArgument) -> None:
        self._argument = argument
        self._out = ArtifactWriter(argument.store, argument.key)
        self._device = torch_device()
        self._model = hubert_from_files(argument.warmup.read_files()).eval()
        nn.Module.to(self._model, self._device)

    def __call__(self, task: Task) -> str:
        part = read_audio_part(self._argument.corpus, task.name)
        rows = [u.row for u in part.utterances if u.utterance_id in self._argument.wanted]
        lengths = {row: part.utterances[row].num_samples for row in rows}
        frames: dict[int, dict[int, np.ndarray]] = {}
        for batch in cost_batches(lengths, self._argument.batch_samples):
            frames.update(self._forward(part, batch))
        receipts = []
        for layer in self._argument.layers:
            table = _feature_table(part, rows, layer, frames)
            receipts.append(
                self._out.put_part(
                    feature_part_name(task.name, layer),
                    table,
                    frames=sum(num_frames(lengths[row]) for row in rows),
                    audio_s=sum(lengths.values()) / SAMPLE_RATE_HZ / len(self._argument.layers),
                )
            )
        return receipts_json(receipts)

    def _forward(self, part: AudioPart, rows: list[int]) -> Iterator[tuple[int, dict]]:
        """(row, fp16 [T, D] by layer) for every row of a batch."""
        waves = [pcm16_to_float(part.samples(row)) for row in rows]
        wave_BN, num_samples_B = pad_waves(waves)
        with torch.inference_mode(), autocast():
            output = self._model.forward_frames(
                wave_BN.to(self._device),
                num_samples_B,
                want=self._argument.layers,
            )
        for i, row in enumerate(rows):
            count = num_frames(len(waves[i]))
            yield (
                row,
                {
                    layer: to_fp16(x_BTD[i, :count], part.utterances[row].utterance_id, layer)
                    for layer, x_BTD in output.hidden.items()
                },
            )


def to_fp16(x_TD: torch.Tensor, utterance_id: str, layer: int) -> np.ndarray:
    """fp16 [T, D] in C order.

    Raises:
        ModelError: a value is not finite, or too large for fp16; names the utterance.
    """
    narrow = x_TD.to("cpu", torch.float16).numpy()
    if not np.isfinite(narrow).all():
        raise ModelError(
            f"utterance {utterance_id!r}: layer {layer} has features that are not finite in fp16 "
            f"(largest finite {np.nanmax(np.abs(x_TD.float().cpu().numpy())):.3g}); listen to the "
            f"recording, or train warmup with a lower warmup.lr"
        )
    return np.ascontiguousarray(narrow)


def _feature_table(
    part: AudioPart, rows: list[int], layer: int, frames: dict[int, dict[int, np.ndarray]]
) -> pa.Table:
    records = []
    for row in rows:
        x_TD = frames[row][layer]
        utterance = part.utterances[row]
        expected = num_frames(utterance.num_samples)
        if len(x_TD) != expected:
            raise ModelError(
                f"utterance {utterance.utterance_id!r}: the model gave {len(x_TD)} frames, expected "
                f"{expected} for {utterance.num_samples} samples; its convolutions are not HuBERT's"
            )
        records.append(
            {
                "utterance_id": utterance.utterance_id,
                "layer": layer,
                "num_frames": len(x_TD),
                "dim": x_TD.shape[1],
                "frames": x_TD.tobytes(),
            }
        )
    return pa.Table.from_pylist(records, schema=FEATURE_SCHEMA)
