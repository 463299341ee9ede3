"""Stage ``mfcc``: Kaldi's MFCC in place of a layer's features, for the first labels of pretraining.

The artefact has the form of ``extract``'s, with MFCC as layer 0, so that ``cluster`` and ``label`` are the
same stages whatever they are given. Parts are those that ``extract`` would make, of the same speakers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from gmp_atl_dist.config import ExtractConfig, Json
from gmp_atl_dist.stages.base import Context, Pending, Seal, Stage, map_parts
from gmp_atl_dist.stages.learners import Learners, plan_parts
from gmp_atl_dist.store.artifact import Artifact, ArtifactWriter
from gmp_atl_dist.store.features import feature_part_name


@dataclass(frozen=True)
class Mfcc(Stage):
    """fp16 MFCC of the utterances that pretraining may hear."""

    config: ExtractConfig
    learners: Learners

    kind: ClassVar[str] = "mfcc"

    @property
    def label(self) -> str:
        return f"{self.name} {self.learners.fold.name}"

    def science(self) -> dict[str, Json]:
        kept = self.config.model_dump(mode="json", include={"part_frames", "compression"})
        return {"mfcc": kept, "speakers": list(self.learners.speakers)}

    def inputs(self) -> Mapping[str, Artifact | Pending]:
        return {"corpus": self.learners.corpus}

    def run(self, context: Context, out: ArtifactWriter) -> Seal:
        from gmp_atl_dist.inference.audio_slices import AudioSlices, Heard
        from gmp_atl_dist.inference.mfcc_extractor import MFCC_LAYER, MfccArgument, MfccExtractor

        heard = Heard(self.learners.corpus, frozenset(self.learners.speakers))
        map_parts(
            context,
            out,
            self.label,
            plan_parts(self.learners.index(), self.config.part_frames),
            MfccExtractor,
            MfccArgument(self.config.compression, context.store, out.key),
            context.settings.extract,
            outputs=lambda name: [feature_part_name(name, MFCC_LAYER)],
            reader=partial(AudioSlices, heard),
        )
        return Seal()
