"""Stage ``extract``: frame features of chosen layers of the warmed-up model.

The model is in ``eval()``, nothing is masked, and an utterance's features do not depend on the batch
that it fell into. A part of ``ingest`` becomes one part a layer. Test speakers are not extracted at
all, so nothing fitted later could see them; the transductive arm says otherwise by name.

Shape suffixes: B utterances, N samples, T frames, D hidden.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from gmp_atl_dist.audio import SAMPLE_RATE_HZ, num_frames, pcm16_to_float
from gmp_atl_dist.config import ExtractConfig, Json
from gmp_atl_dist.device import autocast, torch_device
from gmp_atl_dist.errors import ModelError
from gmp_atl_dist.models.padding import pad_waves
from gmp_atl_dist.models.source import hubert_from_files
from gmp_atl_dist.records import FEATURE_SCHEMA, Fold, TrainingSet
from gmp_atl_dist.runtime import Task
from gmp_atl_dist.stages.base import Context, Pending, Seal, Stage, map_parts, receipts_json, sealed
from gmp_atl_dist.store.artifact import Artifact, ArtifactKey, ArtifactWriter
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.readers import (
    AudioPart,
    feature_part_name,
    read_audio_part,
    read_utterances,
)


def learning_set(corpus: Artifact, fold: Fold, transductive: bool) -> TrainingSet:
    """Whose audio clustering and retraining learn from."""
    utterances = read_utterances(corpus)
    return fold.transductive(utterances) if transductive else fold.training(utterances)


@dataclass(frozen=True)
class Extract(Stage):
    """fp16 features of ``config.layers`` for the utterances that clustering may see."""

    config: ExtractConfig
    corpus: Artifact
    warmup: Artifact | Pending
    fold: Fold
    transductive: bool

    kind: ClassVar[str] = "extract"

    @property
    def label(self) -> str:
        return f"extract {self.fold.name}"

    def science(self) -> dict[str, Json]:
        speakers = sorted({u.speaker for u in self._learning_set().utterances})
        return {
            "layers": sorted(self.config.layers),
            "batch_s": self.config.batch_s,
            "speakers": list(speakers),
        }

    def inputs(self) -> Mapping[str, Artifact | Pending]:
        return {"corpus": self.corpus, "warmup": self.warmup}

    def run(self, context: Context, out: ArtifactWriter) -> Seal:
        wanted = self._learning_set()
        layers = tuple(sorted(self.config.layers))
        names = sorted({u.part for u in wanted.utterances})
        map_parts(
            context,
            out,
            self.label,
            [Task(name) for name in names],
            _Extractor,
            _ExtractorArgument(
                self.corpus,
                sealed(self.warmup),
                wanted.ids,
                layers,
                int(self.config.batch_s * SAMPLE_RATE_HZ),
                context.store,
                out.key,
            ),
            context.workers.extract,
            outputs=lambda name: [feature_part_name(name, layer) for layer in layers],
        )
        return Seal()

    def _learning_set(self) -> TrainingSet:
        return learning_set(self.corpus, self.fold, self.transductive)


@dataclass(frozen=True)
class _ExtractorArgument:
    corpus: Artifact
    warmup: Artifact
    wanted: frozenset[str]
    layers: tuple[int, ...]
    batch_samples: int
    store: Store
    key: ArtifactKey


class _Extractor:
    """Features of one part of ``ingest``; the model is loaded once a worker."""

    def __init__(self, argument: _ExtractorArgument) -> None:
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


def cost_batches(lengths: dict[int, int], budget_samples: int) -> Iterator[list[int]]:
    """Rows in batches of at most ``budget_samples`` padded samples, longest first.

    Depends on the lengths alone, so that the bytes do not depend on who extracts the part.
    """
    batch: list[int] = []
    longest = 0
    for row in sorted(lengths, key=lambda r: (-lengths[r], r)):
        if batch and longest * (len(batch) + 1) > budget_samples:
            yield batch
            batch = []
        longest = lengths[row] if not batch else longest
        batch.append(row)
    if batch:
        yield batch


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
