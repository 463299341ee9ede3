"""Stage ``extract``: frame features of chosen layers of the warmed-up model.

The model is in ``eval()``, nothing is masked, and an utterance's features do not depend on the batch
that it fell into. A part of ``ingest`` becomes one part a layer. Test speakers are not extracted at
all, so nothing fitted later could see them; the transductive arm says otherwise by name.

Shape suffixes: B utterances, N samples, T frames, D hidden.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from gmp_atl_dist.audio import SAMPLE_RATE_HZ
from gmp_atl_dist.config import ExtractConfig, Json
from gmp_atl_dist.records import Fold, TrainingSet
from gmp_atl_dist.runtime import Task
from gmp_atl_dist.stages.base import Context, Pending, Seal, Stage, map_parts, sealed
from gmp_atl_dist.store.artifact import Artifact, ArtifactWriter
from gmp_atl_dist.store.readers import (
    feature_part_name,
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
        from gmp_atl_dist.inference.extractor import Extractor, ExtractorArgument

        wanted = self._learning_set()
        layers = tuple(sorted(self.config.layers))
        names = sorted({u.part for u in wanted.utterances})
        map_parts(
            context,
            out,
            self.label,
            [Task(name) for name in names],
            Extractor,
            ExtractorArgument(
                self.corpus,
                sealed(self.warmup),
                wanted.ids,
                layers,
                int(self.config.batch_s * SAMPLE_RATE_HZ),
                context.store,
                out.key,
            ),
            context.settings.extract,
            outputs=lambda name: [feature_part_name(name, layer) for layer in layers],
        )
        return Seal()

    def _learning_set(self) -> TrainingSet:
        return learning_set(self.corpus, self.fold, self.transductive)
