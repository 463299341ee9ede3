"""The gradient of an update, through the real loop, however the batch is cut.

AdamW's step hides a wrong factor on the loss. So its first moment is looked at, which after one update
with beta1 = 0 is the gradient itself, in the checkpoint that the loop has written.

Shapes: B utterances, T frames, D hidden size, C channels, K classes or clusters, G genders.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from support.gangs import train_by
from support.one_process import OneRank, Tiny, context_of, ingest, no_ray, train_here
from torch import Tensor, nn

from gmp_atl_dist.audio import num_frames, pcm16_to_float
from gmp_atl_dist.config import (
    FinetuneConfig,
    Json,
    RetrainConfig,
    TrainWorkersConfig,
    WarmupConfig,
)
from gmp_atl_dist.fold import Fold
from gmp_atl_dist.models.emotion import EmotionModel
from gmp_atl_dist.models.heads import FrameHead
from gmp_atl_dist.models.hubert import pad_waves
from gmp_atl_dist.models.margin_losses import AmSoftmax
from gmp_atl_dist.models.masking import span_mask
from gmp_atl_dist.models.multitask import RetrainModel, WarmupModel
from gmp_atl_dist.recipes.finetune import FinetuneRecipe
from gmp_atl_dist.recipes.retrain import RetrainRecipe
from gmp_atl_dist.recipes.warmup import WarmupRecipe
from gmp_atl_dist.seeding import keyed_rng
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.codebooks import Codebook
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.index import IndexRow, Utterances
from gmp_atl_dist.store.labels import UtteranceLabels, put_labels
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.store.readers import AudioReader, read_emotions
from gmp_atl_dist.store.training_set import TrainingSet
from gmp_atl_dist.store.writer import ArtifactWriter
from gmp_atl_dist.training.loop import TrainJob
from gmp_atl_dist.training.recipe import Recipe
from gmp_atl_dist.training.universal import TAG, make_universal

pytest_plugins = ["support.one_process"]

torch.set_num_threads(1)

KS = (5, 3)
BOOKS = tuple(
    Codebook(i, 2, "all", 0, np.arange(k, dtype=np.float32)[:, None]) for i, k in enumerate(KS)
)
# Every training utterance is in every update, none is cropped, and nothing is clipped or dropped.
WHOLE: dict[str, Json] = {
    "steps": 2,
    "batch_s": 100,
    "betas": [0.0, 0.98],
    "clip_norm": 1e9,
    "dropout": 0.0,
    "freeze_conv": False,
}
Term = tuple[float, Tensor, float]
Terms = Callable[[nn.Module, IndexRow, Tensor, Tensor], list[Term]]


LEANING = Fold(
    "leaning", train_speakers=("Ses03F", "Ses04F", "Ses04M"), test_speakers=("Ses01F", "Ses01M")
)


def leaning(tiny: Tiny, folder: Path) -> tuple[Artifact, Utterances]:
    """More of one emotion and gender than of others, so that weights of classes matter."""
    with no_ray():
        corpus = ingest(
            context_of(folder / "leaning", tiny.folder),
            part_audio_s=5,
            merge={"happy": "sad"},
            emotions=["angry", "neutral", "sad"],
        )
    return corpus, Utterances(corpus, LEANING.train_speakers)


@dataclass(frozen=True)
class Reference:
    """A stage's loss from its formula, of one utterance at a time and so without padding or cuts.

    ``recipe`` makes the stage's own with so many micro-batches. ``terms`` yields, of an utterance,
    (factor, numerator, denominator) of each term of the loss.
    """

    recipe: Callable[[int], Recipe]
    terms: Terms

    def gradient(self) -> dict[str, Tensor]:
        recipe = self.recipe(1)
        model, reader = recipe.build().train(), AudioReader(recipe.corpus)
        found = [
            self.terms(model, u, *pad_waves([pcm16_to_float(reader.samples(u))]))
            for u in recipe.utterances
        ]
        total = torch.zeros((), dtype=torch.float64)
        for term in zip(*found, strict=True):
            factor = term[0][0]
            numerator = torch.stack([n.double() for _, n, _ in term]).sum()
            total = total + factor * numerator / sum(d for _, _, d in term)
        total.backward()
        return {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def class_weight(values: list[str], value: str) -> float:
    """n / (K * count), of the classes that there are."""
    counts = Counter(values)
    return len(values) / (len(counts) * counts[value])


def warmup(tiny: Tiny, folder: Path) -> Reference:
    corpus, utterances = leaning(tiny, folder)
    emotions = read_emotions(corpus)

    def recipe(micro_batches: int) -> WarmupRecipe:
        config = WarmupConfig.model_validate({**WHOLE, "micro_batches": micro_batches})
        return WarmupRecipe(config, corpus, tiny.backbone, LEANING.training_speakers())

    def terms(model: nn.Module, u: IndexRow, wave_BN: Tensor, num_samples_B: Tensor) -> list[Term]:
        assert isinstance(model, WarmupModel)
        output = model(wave_BN, num_samples_B)
        of_emotion = class_weight([v.emotion for v in utterances], u.emotion)
        of_gender = class_weight([v.gender for v in utterances], u.gender)
        emotion = -output.emotion_BK[0].double().log_softmax(0)[emotions.index(u.emotion)]
        gender = -output.gender_BG[0].double().log_softmax(0)[("female", "male").index(u.gender)]
        return [
            (0.9, of_emotion * emotion, of_emotion),
            (0.1, of_gender * gender, of_gender),
        ]

    return Reference(recipe, terms)


def finetune(tiny: Tiny, folder: Path) -> Reference:
    """AM-Softmax, arXiv 1801.05599, equation 6, with s = 30 and m = 0.2."""
    corpus, utterances = leaning(tiny, folder)
    emotions = read_emotions(corpus)

    def recipe(micro_batches: int) -> FinetuneRecipe:
        config = FinetuneConfig.model_validate({**WHOLE, "micro_batches": micro_batches})
        return FinetuneRecipe(config, corpus, tiny.backbone, LEANING.training_speakers(), ())

    def terms(model: nn.Module, u: IndexRow, wave_BN: Tensor, num_samples_B: Tensor) -> list[Term]:
        assert isinstance(model, EmotionModel)
        assert isinstance(model.classifier, AmSoftmax)
        x_D = model.embed(wave_BN, num_samples_B)[0].double()
        w_KD = model.classifier.weight.double()
        cosine_K = w_KD @ x_D / (w_KD.norm(dim=1) * x_D.norm())
        target = emotions.index(u.emotion)
        margin_K = 0.2 * torch.eye(len(emotions), dtype=torch.float64)[target]
        loss = -(30 * (cosine_K - margin_K)).log_softmax(0)[target]
        weight = class_weight([v.emotion for v in utterances], u.emotion)
        return [(1.0, weight * loss, weight)]

    return Reference(recipe, terms)


def retrain(tiny: Tiny, folder: Path) -> Reference:
    """HuBERT, arXiv 2106.07447, equations 1 to 3, weighed as in fairseq, and its feature penalty."""
    corpus, utterances = leaning(tiny, folder)
    names = tuple(book.fingerprint for book in BOOKS)
    labels = {
        u.utterance_id: tuple(
            keyed_rng("labels", u.utterance_id).integers(0, k, num_frames(u.num_samples), "<i2")
            for k in KS
        )
        for u in utterances
    }
    out = ArtifactWriter(Store.open(str(folder / "labels")), ArtifactKey("label", "1" * 64))
    put_labels(out, "part", [UtteranceLabels(name, names, ids) for name, ids in labels.items()])
    artifact = out.seal(version=1, science={}, inputs={})

    def recipe(micro_batches: int) -> RetrainRecipe:
        config = RetrainConfig.model_validate(
            {
                **WHOLE,
                "micro_batches": micro_batches,
                "projection_dim": 16,
                "unmasked_weight": 0.3,
            }
        )
        training = LEANING.training_speakers()
        return RetrainRecipe(config, TrainingSet(corpus, training), tiny.backbone, artifact, BOOKS)

    def terms(model: nn.Module, u: IndexRow, wave_BN: Tensor, num_samples_B: Tensor) -> list[Term]:
        assert isinstance(model, RetrainModel)
        mask_T = span_mask(
            num_frames(u.num_samples),
            prob=0.8,
            length_frames=10,
            rng=keyed_rng("mask", 0, 0, u.utterance_id),
        )
        mask_BT = torch.from_numpy(mask_T)[None]
        frames = model.backbone.forward_frames(wave_BN, num_samples_B, mask_BT=mask_BT)
        x_TD = frames.hidden[model.backbone.config.num_hidden_layers][0].double()
        masked = unmasked = torch.zeros((), dtype=torch.float64)
        for head, ids in zip(model.heads, labels[u.utterance_id], strict=True):
            assert isinstance(head, FrameHead)
            a_TP = x_TD @ head.projection.weight.double().T + head.projection.bias.double()
            e_KP = head.label_embeddings.double()
            cosine_TK = (a_TP @ e_KP.T) / (a_TP.norm(dim=1)[:, None] * e_KP.norm(dim=1))
            chosen_T = (cosine_TK / 0.1).log_softmax(1)[range(len(ids)), ids.tolist()]
            masked = masked - chosen_T[mask_BT[0]].sum() / len(KS)
            unmasked = unmasked - chosen_T[~mask_BT[0]].sum() / len(KS)
        penalty = frames.conv_features_BTC[0].double().square().mean(1).sum()
        frames_T, masked_T = float(len(mask_T)), float(mask_T.sum())
        return [
            (1.0, masked, masked_T),
            (10.0, penalty, frames_T),
            (0.3, unmasked, frames_T - masked_T),
        ]

    return Reference(recipe, terms)


def of_the_loop(
    recipe: Recipe, folder: Path, ranks: int, zero_stage: Literal[1, 2, 3]
) -> dict[str, Tensor]:
    """The first update's gradient, as the optimiser got it."""
    workers = TrainWorkersConfig(workers=ranks, zero_stage=zero_stage, checkpoint_every_steps=1)
    store = Store.open(str(folder / "root"))
    job = TrainJob(recipe, store, ArtifactKey(recipe.name, "f" * 64), workers)
    if ranks == 1:
        train_here(job, OneRank())
    else:
        assert train_by(job, ranks) == [0] * ranks
    (saved,) = (folder / "root" / "checkpoints" / job.key.fingerprint).glob("00000001-*/files")
    make_universal(saved, folder / "universal")
    found = sorted((folder / "universal" / TAG / "zero").glob("*/exp_avg.pt"))
    moments = {p.parent.name: torch.load(p, weights_only=True) for p in found}
    # ZeRO 3 leaves it flat, with what makes it divisible by the ranks behind it.
    return {name: m["param"] if isinstance(m, dict) else m for name, m in moments.items()}


@pytest.mark.parametrize(
    ("stage", "cuts"),
    [
        (warmup, [(3, 1, 2)]),
        # One pass by two ranks: the second has nothing to do.
        (finetune, [(3, 1, 1), (1, 2, 3)]),
        # 12 are more than there are utterances, so that some have nothing to do.
        (retrain, [(1, 1, 1), (2, 1, 1), (4, 1, 1), (12, 1, 1), (3, 2, 1)]),
    ],
)
def test_it_is_that_of_the_formula_over_all_masked_frames_or_weighted_utterances(
    tiny: Tiny,
    tmp_path: Path,
    stage: Callable[[Tiny, Path], Reference],
    cuts: list[tuple[int, int, Literal[1, 2, 3]]],
) -> None:
    reference = stage(tiny, tmp_path)
    expected = reference.gradient()
    for micro_batches, ranks, zero_stage in cuts:
        folder = tmp_path / f"{micro_batches}-by-{ranks}"
        found = of_the_loop(reference.recipe(micro_batches), folder, ranks, zero_stage)
        assert found.keys() == expected.keys()
        for name, gradient in expected.items():
            atol = 1e-4 * float(gradient.abs().max()) + 1e-6
            mine = found[name].flatten()[: gradient.numel()].view_as(gradient)
            torch.testing.assert_close(mine, gradient, rtol=1e-3, atol=atol)
