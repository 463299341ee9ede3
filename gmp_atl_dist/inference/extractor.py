"""Frame features of one part: the model is in ``eval()``, nothing is masked, no clip affects another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from gmp_atl_dist.audio import SAMPLE_RATE_HZ
from gmp_atl_dist.inference.audio_slices import AudioSelection
from gmp_atl_dist.inference.forward import Forward, Loader
from gmp_atl_dist.runtime import DeviceWork, Task
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.features import put_features
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.manifest import ArtifactKey, receipts_json
from gmp_atl_dist.store.writer import ArtifactWriter


@dataclass(frozen=True)
class ForwardArgument:
    """The settings of a forward pass over recordings, sent to each worker."""

    selection: AudioSelection
    model: Artifact
    load: Loader
    layers: tuple[int, ...]
    window_frames: int
    context_frames: int
    batch_s: float | None

    def build(self) -> Forward:
        model = self.load(self.model, self.layers, self.window_frames, self.context_frames)
        return Forward(model, self.layers, self.batch_s)


@dataclass(frozen=True)
class ExtractorArgument:
    forward: ForwardArgument
    compression: str
    store: Store
    key: ArtifactKey


class Extractor:
    """Writes one part per layer. Each worker loads the model once."""

    def __init__(self, argument: ExtractorArgument) -> None:
        self._argument = argument
        self._out = ArtifactWriter(argument.store, argument.key)
        self._forward = argument.forward.build()

    def compute(self, task: Task, table: pa.Table) -> Callable[[], str]:
        pending = self._forward.start(table)
        audio_s = audio_seconds(table) / len(self._argument.forward.layers)

        def put() -> str:
            features = pending()
            return receipts_json(
                put_features(
                    self._out,
                    task.name,
                    layer,
                    rows,
                    audio_s=audio_s,
                    compression=self._argument.compression,
                )
                for layer, rows in features.items()
            )

        return DeviceWork(pending.wait, put)


def audio_seconds(table: pa.Table) -> float:
    """Seconds of audio in a table of recordings."""
    return int(table["num_samples"].to_numpy().sum()) / SAMPLE_RATE_HZ
