"""Outputs of a frozen convolutional encoder, stored once for every epoch, fold and trained stage.

Where ``freeze_conv`` is true, the outputs of the convolutional encoder never change. Computing them is a
third of a forward pass of HuBERT-base. With ``runtime.train.frontend_cache`` a trained stage computes them
once, on its own workers, into an artefact of kind ``frontend``, and reads them from there. The artefact's
key is made of the corpus and the encoder's own weights. So folds share it, and so do stages as long as none
of them trained the encoder: ``finetune`` shares it with ``warmup`` where ``retrain`` froze the encoder too.

The stored outputs are not part of the science. With HuBERT on a CPU, a training that reads them gives the
same bytes as one that does not, because the encoder computes one clip at a time in both. On a GPU the
result is the same to the rounding of bf16. A stage that crops utterances computes its own outputs:
HuBERT-base normalises over the whole clip, and a crop is another clip.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from gmp_atl_dist.audio import FRAME_HOP_SAMPLES, SAMPLE_RATE_HZ
from gmp_atl_dist.config import Json, canonical_json
from gmp_atl_dist.runtime import Task
from gmp_atl_dist.stages.base import Context, Seal, Stage, find_or_run
from gmp_atl_dist.stages.mapped import map_parts
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.frontend import frontend_part_name
from gmp_atl_dist.store.index import read_index
from gmp_atl_dist.store.readers import audio_part_names
from gmp_atl_dist.store.writer import ArtifactWriter

if TYPE_CHECKING:
    from gmp_atl_dist.training.recipe import Recipe

_WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Frontend(Stage):
    """Outputs of the convolutional encoder of ``model`` for every utterance, fp32.

    Test speakers are included. Nothing is fitted here: an utterance's frames depend on its own samples and
    on given weights. A training reads the rows of the fold's training speakers and no others.
    """

    corpus: Artifact
    model: Artifact

    kind: ClassVar[str] = "frontend"

    def science(self) -> dict[str, Json]:
        return {"encoder": encoder_digest(self.model)}

    def inputs(self) -> Mapping[str, Artifact]:
        return {"corpus": self.corpus}

    def run(self, context: Context, out: ArtifactWriter) -> Seal:
        from gmp_atl_dist.inference.frontend import FrontendArgument, FrontendWorker

        map_parts(
            context,
            out,
            context.tags(self),
            [Task(name) for name in audio_part_names(self.corpus)],
            FrontendWorker,
            FrontendArgument(self.corpus, self.model, context.store, out.key),
            # The settings of the training: the number of threads may change the last bit.
            context.settings.train,
            outputs=lambda name: [frontend_part_name(name)],
        )
        return Seal()


def frontend_of(context: Context, label: str, recipe: Recipe, model: Artifact) -> Artifact | None:
    """The stored encoder outputs for a training that starts from ``model``, or None if it reads audio.

    Reports which of the two, and why.
    """
    if not recipe.optim.freeze_conv:
        return None
    costs = _costs(recipe, model)
    longest_s = int(recipe.utterances.num_samples.max()) / SAMPLE_RATE_HZ
    cropped = longest_s > recipe.optim.max_utterance_s
    wanted = context.settings.train.frontend_cache
    if cropped:
        decision = (
            f"not stored, because {recipe.name}.max_utterance_s = {recipe.optim.max_utterance_s:g} "
            f"crops utterances of up to {longest_s:.4g} s"
        )
    else:
        decision = "stored" if wanted else "not stored: runtime.train.frontend_cache = false"
    context.reporter.line(f"{label}: {costs}; they are {decision}")
    return find_or_run(Frontend(recipe.corpus, model), context) if wanted and not cropped else None


def _costs(recipe: Recipe, model: Artifact) -> str:
    """The cost and the gain of storing the encoder's outputs. Shares are of products, not of time."""
    from gmp_atl_dist.models.backbone_registry import read_config

    implementation, config = read_config(model.read_file("config.json"), model.key.prefix)
    facts = implementation.facts(config)
    lengths = recipe.utterances.num_samples
    flops = implementation.flops(config, float(lengths.mean()) / FRAME_HOP_SAMPLES)
    training_s = float(lengths.sum()) / SAMPLE_RATE_HZ
    stored_s = float(read_index(recipe.corpus)["num_samples"].to_numpy().sum()) / SAMPLE_RATE_HZ
    stored_bytes = 4 * facts.front_end_dim * stored_s * SAMPLE_RATE_HZ / FRAME_HOP_SAMPLES
    epochs = _epochs(recipe, training_s)
    return (
        f"the frozen convolutional encoder reads {training_s / 3600:.3g} h in each of {epochs:.3g} "
        f"epochs, {epochs * training_s / 3600:.3g} h in all; it has {100 * flops.forward_share:.0f} % of "
        f"the products of a forward pass and {100 * flops.update_share:.0f} % of those of an update; its "
        f"outputs take {stored_bytes / 1e9:.3g} GB and one pass over {stored_s / 3600:.3g} h, once for all "
        f"folds"
    )


def _epochs(recipe: Recipe, training_s: float) -> float:
    optim = recipe.optim
    return optim.epochs or (optim.steps or 0) / max(1, training_s // optim.batch_s)


def encoder_digest(model: Artifact) -> str:
    """sha256 of the convolutional encoder's weights, and of the configuration keys that it depends on.

    Only these weights are read, some 17 MB of a model's hundreds. Layout of safetensors: 8 bytes of
    length, that much JSON, the tensors (https://github.com/huggingface/safetensors#format).
    """
    from gmp_atl_dist.models.backbone_config import read_config_values
    from gmp_atl_dist.models.backbone_registry import find_backbone

    config = read_config_values(model.read_file("config.json"), model.key.prefix)
    backbone = find_backbone(str(config.get("model_type")), model.key.prefix)
    shape = {name: config.get(name) for name in backbone.front_end_keys}
    digest = hashlib.sha256(canonical_json(shape).encode())
    with model.store.open_input(f"{model.key.prefix}/files/{_WEIGHTS}") as f:
        size = int.from_bytes(f.read(8), "little")
        header = json.loads(f.read(size))
        for name in sorted(n for n in header if n.startswith(backbone.front_end_prefix)):
            start, end = header[name]["data_offsets"]
            f.seek(8 + size + start)
            digest.update(
                canonical_json([name, header[name]["dtype"], header[name]["shape"]]).encode()
            )
            digest.update(f.read(end - start))
    return digest.hexdigest()
