"""Stage ``extract``: frame features of chosen layers of a model.

The model is in ``eval()`` and nothing is masked. The features of an utterance do not depend on the batch
that it is in. Parts are planned for an even number of frames; each becomes one stored part per layer.
Test speakers are not extracted at all, so nothing that is fitted later can use them, except in the
transductive protocol. With fused labels, only the clustering sample is extracted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from gmp_atl_dist.audio import FRAME_HOP_SAMPLES, SAMPLE_RATE_HZ
from gmp_atl_dist.config import ExtractConfig, Json, StreamWorkersConfig, hashed
from gmp_atl_dist.stages.base import Context, Handle, Seal, Stage, sealed
from gmp_atl_dist.stages.frame_index import frame_index
from gmp_atl_dist.stages.gender import gender_inputs
from gmp_atl_dist.stages.label_plan import LabelPlan
from gmp_atl_dist.stages.mapped import map_parts
from gmp_atl_dist.stages.part_plan import plan_parts
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.features import feature_part_name
from gmp_atl_dist.store.training_set import TrainingSet
from gmp_atl_dist.store.writer import ArtifactWriter

if TYPE_CHECKING:
    from gmp_atl_dist.clustering.sample import UtteranceSample
    from gmp_atl_dist.inference.extractor import ForwardArgument


@dataclass(frozen=True)
class Extract(Stage):
    """fp16 frame features of the chosen layers, for the training set."""

    config: ExtractConfig
    model: Handle
    training: TrainingSet
    plan: LabelPlan
    iteration: int = 0

    kind: ClassVar[str] = "extract"
    version: ClassVar[int] = 2

    @property
    def fold_name(self) -> str:
        return self.training.fold.name

    def science(self) -> dict[str, Json]:
        science: dict[str, Json] = {
            "extract": hashed(self.config),
            **self.training.training_speakers.hashed(),
        }
        if self._draws_by_predicted_gender:
            # The shares follow from these keys and from the input, which may not be there yet.
            return {**science, "sample_by_predicted_gender": dict(self.plan.drawn_by)}
        sample = self._sample
        if sample is not None and not sample.is_all:
            science["sample"] = [sample.share, sample.seed]
            if sample.by:
                science["sample_of_each"] = [sample.by, [list(pair) for pair in sample.shares]]
        return science

    def inputs(self) -> Mapping[str, Handle]:
        inputs = {"corpus": self.training.corpus, self.model.kind: self.model}
        return inputs | (gender_inputs(self.training) if self._draws_by_predicted_gender else {})

    def run(self, context: Context, out: ArtifactWriter) -> Seal:
        from gmp_atl_dist.inference.audio_slices import AudioSlices
        from gmp_atl_dist.inference.extractor import Extractor, ExtractorArgument

        layers = tuple(sorted(self.config.layers))
        model = sealed(self.model)
        costs = self.plan.describe(self.training, hidden_size(model), len(layers))
        context.reporter.line(f"{self.label}: {costs}")
        workers = context.settings.extract
        forward = forward_argument(self.config, model, self.training, layers, workers, self._sample)
        map_parts(
            context,
            out,
            context.tags(self),
            plan_parts(frame_index(self.training, self._sample), self.config.part_frames),
            Extractor,
            ExtractorArgument(forward, self.config.compression, context.store, out.key),
            workers,
            outputs=lambda name: [feature_part_name(name, layer) for layer in layers],
            reader=partial(AudioSlices, forward.selection),
            part_frames=self.config.part_frames,
        )
        return Seal()

    @property
    def _draws_by_predicted_gender(self) -> bool:
        by_gender = self.plan.drawn_by.get("balance") == "gender"
        return self.plan.fused and by_gender and self.training.genders is not None

    @property
    def _sample(self) -> UtteranceSample | None:
        return self.plan.sample if self.plan.fused else None


def hidden_size(model: Artifact) -> int:
    """Hidden size of the model in a ``warmup``, ``pretrain`` or ``backbone`` artefact."""
    from gmp_atl_dist.models.backbone_registry import read_config

    implementation, config = read_config(model.read_file("config.json"), model.key.prefix)
    return implementation.facts(config).hidden_size


def forward_argument(
    config: ExtractConfig,
    model: Artifact,
    training: TrainingSet,
    layers: tuple[int, ...],
    workers: StreamWorkersConfig,
    sample: UtteranceSample | None,
) -> ForwardArgument:
    """The argument of the workers of ``extract`` and of fused ``label``."""
    from gmp_atl_dist.inference.audio_slices import AudioSelection
    from gmp_atl_dist.inference.extractor import ForwardArgument
    from gmp_atl_dist.inference.forward import load_backbone

    frames_a_second = SAMPLE_RATE_HZ / FRAME_HOP_SAMPLES
    return ForwardArgument(
        selection=AudioSelection(training, sample),
        model=model,
        load=load_backbone,
        layers=layers,
        window_frames=int(config.max_window_s * frames_a_second),
        context_frames=int(config.window_context_s * frames_a_second),
        batch_s=workers.batch_s,
    )
