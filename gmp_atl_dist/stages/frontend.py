"""What a frozen convolutional encoder gives, kept once for every epoch, fold and trained stage.

Where ``freeze_conv`` holds, the outputs of HuBERT's convolutional encoder never change, and computing them
is a third of a forward pass of HuBERT-base. With ``runtime.train.frontend_cache`` a trained stage has
them computed once, on its own workers, into an artefact of kind ``frontend``, and reads them. It is keyed
by the corpus and the encoder's own weights, so folds share it, and so do stages as long as none of them
trained the encoder: a ``finetune`` shares it with ``warmup`` where ``retrain`` froze it as well.

On a CPU a training that reads them ends in the same bytes as one that does not (the encoder computes each
clip by itself either way), on a GPU in the same to the rounding of bf16; so it is no science. Crops are other
audio than the whole, over which HuBERT-base normalises, so a stage that crops computes them anew.
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
from gmp_atl_dist.store.artifact import Artifact, ArtifactWriter
from gmp_atl_dist.store.frontend import frontend_part_name
from gmp_atl_dist.store.index import read_index
from gmp_atl_dist.store.readers import audio_part_names

if TYPE_CHECKING:
    from gmp_atl_dist.training.recipe import Recipe

_WEIGHTS = "model.safetensors"
_ENCODER = "feature_extractor."
_SHAPES_IT = (
    *("conv_dim", "conv_kernel", "conv_stride", "conv_bias"),
    *("feat_extract_norm", "feat_extract_activation", "normalize_waveform"),
)


@dataclass(frozen=True)
class Frontend(Stage):
    """Outputs of the convolutional encoder of ``model`` for every utterance, fp32.

    Of test speakers too: nothing here is fitted, an utterance's frames follow from its own samples and
    given weights. Whoever learns reads the rows of the fold's training speakers and no others.
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
            # Those of the training, whose number of threads may tell in the last bit.
            context.settings.train,
            outputs=lambda name: [frontend_part_name(name)],
        )
        return Seal()


def frontend_of(context: Context, label: str, recipe: Recipe, model: Artifact) -> Artifact | None:
    """What a training that begins with ``model`` reads instead of audio, if anything; says why."""
    if not recipe.optim.freeze_conv:
        return None
    words = _costs(recipe, model)
    longest_s = int(recipe.utterances.num_samples.max()) / SAMPLE_RATE_HZ
    cropped = longest_s > recipe.optim.max_utterance_s
    asked = context.settings.train.frontend_cache
    if cropped:
        said = (
            f"not kept, since {recipe.name}.max_utterance_s = {recipe.optim.max_utterance_s:g} crops "
            f"utterances of up to {longest_s:.4g} s"
        )
    else:
        said = "kept" if asked else "not kept: runtime.train.frontend_cache = false"
    context.reporter.line(f"{label}: {words}; it is {said}")
    return find_or_run(Frontend(recipe.corpus, model), context) if asked and not cropped else None


def _costs(recipe: Recipe, model: Artifact) -> str:
    """What keeping the encoder's outputs takes and saves. Shares are of products, not of time."""
    from transformers import HubertConfig

    from gmp_atl_dist.models.flops import frame_flops

    config = HubertConfig.from_dict(json.loads(model.read_file("config.json")))
    lengths = recipe.utterances.num_samples
    flops = frame_flops(config, float(lengths.mean()) / FRAME_HOP_SAMPLES)
    heard_s = float(lengths.sum()) / SAMPLE_RATE_HZ
    stored_s = float(read_index(recipe.corpus)["num_samples"].to_numpy().sum()) / SAMPLE_RATE_HZ
    stored_bytes = 4 * config.conv_dim[-1] * stored_s * SAMPLE_RATE_HZ / FRAME_HOP_SAMPLES
    epochs = _epochs(recipe, heard_s)
    return (
        f"the frozen convolutional encoder hears {heard_s / 3600:.3g} h in each of {epochs:.3g} "
        f"epochs, {epochs * heard_s / 3600:.3g} h in all, with {100 * flops.forward_share:.0f} % of a "
        f"forward pass's products and {100 * flops.update_share:.0f} % of an update's; keeping what "
        f"it gives takes {stored_bytes / 1e9:.3g} GB and one pass over {stored_s / 3600:.3g} h, once "
        f"for all folds"
    )


def _epochs(recipe: Recipe, heard_s: float) -> float:
    optim = recipe.optim
    return optim.epochs or (optim.steps or 0) / max(1, heard_s // optim.batch_s)


def encoder_digest(model: Artifact) -> str:
    """sha256 of the convolutional encoder's weights, and of what of the configuration shapes it.

    The weights alone are read, some 17 MB of a model's hundreds. Layout of safetensors: 8 bytes of
    length, that much JSON, the tensors (https://github.com/huggingface/safetensors#format).
    """
    config = json.loads(model.read_file("config.json"))
    found = hashlib.sha256(canonical_json({name: config.get(name) for name in _SHAPES_IT}).encode())
    with model.store.open_input(f"{model.key.prefix}/files/{_WEIGHTS}") as f:
        size = int.from_bytes(f.read(8), "little")
        header = json.loads(f.read(size))
        for name in sorted(n for n in header if n.startswith(_ENCODER)):
            start, end = header[name]["data_offsets"]
            f.seek(8 + size + start)
            found.update(
                canonical_json([name, header[name]["dtype"], header[name]["shape"]]).encode()
            )
            found.update(f.read(end - start))
    return found.hexdigest()
