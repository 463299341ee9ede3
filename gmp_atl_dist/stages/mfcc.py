"""Stage ``mfcc``: Kaldi's MFCC instead of features of a layer, for the first labels of pretraining.

The artefact has the form of ``extract``'s, with MFCC as layer 0. So ``cluster`` and ``label`` are the same
stages for both. Its parts are those that ``extract`` would make for the same speakers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from gmp_atl_dist.config import ExtractConfig, Json, hashed
from gmp_atl_dist.stages.base import Context, Handle, Seal, Stage
from gmp_atl_dist.stages.frame_index import frame_index
from gmp_atl_dist.stages.mapped import map_parts
from gmp_atl_dist.stages.part_plan import plan_parts
from gmp_atl_dist.store.features import feature_part_name
from gmp_atl_dist.store.training_set import TrainingSet
from gmp_atl_dist.store.writer import ArtifactWriter


@dataclass(frozen=True)
class Mfcc(Stage):
    """fp16 MFCC of the training set, for the first labels of pretraining."""

    config: ExtractConfig
    training: TrainingSet

    kind: ClassVar[str] = "mfcc"

    @property
    def fold_name(self) -> str:
        return self.training.fold.name

    def science(self) -> dict[str, Json]:
        kept = hashed(self.config, include={"part_frames", "compression"})
        return {"mfcc": kept, **self.training.training_speakers.hashed()}

    def inputs(self) -> Mapping[str, Handle]:
        return {"corpus": self.training.corpus}

    def run(self, context: Context, out: ArtifactWriter) -> Seal:
        from gmp_atl_dist.inference.audio_slices import AudioSelection, AudioSlices
        from gmp_atl_dist.inference.device_mfcc import MFCC_LAYER
        from gmp_atl_dist.inference.mfcc_extractor import MfccArgument, MfccExtractor

        selection = AudioSelection(self.training)
        map_parts(
            context,
            out,
            context.tags(self),
            plan_parts(frame_index(self.training), self.config.part_frames),
            MfccExtractor,
            MfccArgument(self.config.compression, context.store, out.key),
            context.settings.extract,
            outputs=lambda name: [feature_part_name(name, MFCC_LAYER)],
            reader=partial(AudioSlices, selection),
            part_frames=self.config.part_frames,
        )
        return Seal()
