"""Masked prediction of pseudo-labels: the same masks for any workers, labels in line with crops."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.one_process import FOLD, OneRank, Stopped, Tiny, train_here

from gmp_atl_dist.audio import num_frames
from gmp_atl_dist.config import Json, RetrainConfig, TrainWorkersConfig, digest
from gmp_atl_dist.errors import ArtifactError, CheckpointError, ModelError
from gmp_atl_dist.models.frame_losses import FrameTerms
from gmp_atl_dist.models.multitask import RetrainOutput
from gmp_atl_dist.recipes.retrain import RetrainRecipe
from gmp_atl_dist.records import StoredUtterance
from gmp_atl_dist.stages.retrain import Retrain
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.checkpoints import Checkpoints
from gmp_atl_dist.store.codebooks import Codebook, put_codebooks
from gmp_atl_dist.store.labels import UtteranceLabels, put_labels
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.store.readers import AudioReader, read_curves, read_utterances
from gmp_atl_dist.store.training_set import TrainingSet
from gmp_atl_dist.store.writer import ArtifactWriter
from gmp_atl_dist.training.batch_plan import BatchPlan
from gmp_atl_dist.training.batches import Batch, BatchLoader
from gmp_atl_dist.training.loop import TrainJob

pytest_plugins = ["support.one_process"]

KS = (1000, 3)
Labels = Mapping[str, tuple[np.ndarray, ...]]


def learnt(tiny: Tiny) -> tuple[StoredUtterance, ...]:
    return FOLD.select(read_utterances(tiny.corpus), "train")


def counted_up(tiny: Tiny) -> dict[str, tuple[np.ndarray, ...]]:
    """Scale 0 counts frames, so that a label tells its frame; scale 1 cycles."""
    found: dict[str, tuple[np.ndarray, ...]] = {}
    for u in learnt(tiny):
        frames = np.arange(num_frames(u.num_samples), dtype="<i4")
        found[u.utterance_id] = (frames, frames % np.int32(3))
    return found


BOOKS = tuple(
    Codebook(i, 2, "all", 0, np.arange(k, dtype=np.float32)[:, None]) for i, k in enumerate(KS)
)


def stored(tiny: Tiny, root: Path, labels: Labels, books: tuple[Codebook, ...] = BOOKS) -> Artifact:
    names = tuple(book.fingerprint for book in books)
    rows = [UtteranceLabels(key, names, scales) for key, scales in sorted(labels.items())]
    out = ArtifactWriter(tiny.with_root(root).store, ArtifactKey("label", "1" * 64))
    put_labels(out, "part", rows)
    return out.seal(version=1, science={}, inputs={})


def recipe_of(tiny: Tiny, root: Path, labels: Labels | None = None, **keys: Json) -> RetrainRecipe:
    config = RetrainConfig.model_validate(
        {"steps": 3, "batch_s": 3.0, "lr": 1e-3, "dropout": 0.0, "projection_dim": 16, **keys}
    )
    artifact = stored(tiny, root, counted_up(tiny) if labels is None else labels)
    training = TrainingSet(tiny.corpus, FOLD.training_speakers())
    return RetrainRecipe(config, training, tiny.backbone, artifact, BOOKS)


def loaded(
    tiny: Tiny,
    recipe: RetrainRecipe,
    *,
    rank: int = 0,
    world_size: int = 1,
    micro_batches: int = 1,
    max_samples: int = 3_000,
) -> list[Batch]:
    """This rank's micro-batches of the first three updates; crops are short."""
    made = BatchLoader(
        BatchPlan(
            recipe.utterances.num_samples,
            recipe.utterances.part_numbers,
            batch_s=1.3,
            max_samples=max_samples,
            seed=0,
        ),
        recipe.utterances.rows,
        AudioReader(tiny.corpus),
        rank=rank,
        world_size=world_size,
        micro_batches=micro_batches,
        max_samples=max_samples,
        seed=0,
    )
    return [batch for _, batches in made.updates(0, 3) for batch in batches]


@dataclass
class Oracle:
    """A model that notes what is masked, and is sure of the label of the right frame."""

    batch: Batch
    masks: dict[tuple[int, str], tuple[bool, ...]] = field(default_factory=dict)

    def __call__(
        self,
        wave_BN: torch.Tensor,
        num_samples_B: torch.Tensor,
        labels_SX: torch.Tensor,
        *,
        mask_M: torch.Tensor | None,
        counted_X: torch.Tensor | None,
        seeds: list[int],
    ) -> RetrainOutput:
        lengths = [num_frames(n) for n in num_samples_B.tolist()]
        assert len(seeds) == len(lengths)
        right_SM = np.concatenate(
            [
                np.stack([np.arange(first, first + n), np.arange(first, first + n) % 3])
                for first, n in zip(self.batch.first_frames, lengths, strict=True)
            ],
            axis=1,
        )
        if mask_M is not None:
            of_clips = mask_M.split(lengths)
            for u, mask_T in zip(self.batch.utterances, of_clips, strict=True):
                self.masks[self.batch.step, u.utterance_id] = tuple(mask_T.tolist())
        counted = slice(None) if counted_X is None else counted_X.numpy()
        terms = []
        for right_M, labels_M in zip(right_SM[:, counted], labels_SX, strict=True):
            correct_M = labels_M == torch.from_numpy(right_M)
            terms.append(FrameTerms(50.0 * ~correct_M, correct_M))
        return RetrainOutput(terms, torch.ones(sum(lengths), 2))


@pytest.mark.parametrize("masked", [True, False])
def test_labels_are_cropped_with_the_audio(tiny: Tiny, tmp_path: Path, masked: bool) -> None:
    recipe = recipe_of(tiny, tmp_path, masked=masked)
    batches = loaded(tiny, recipe)
    assert any(first for batch in batches for first in batch.first_frames), "some are cropped"
    for batch in batches:
        losses = recipe.losses(Oracle(batch), batch)
        predicted, frames = recipe.counts(batch)

        assert float(losses.sums[0]) == pytest.approx(0, abs=1e-6)
        assert losses.metrics == {
            "accuracy_scale0": (predicted, predicted),
            "accuracy_scale1": (predicted, predicted),
            "loss_scale0": (pytest.approx(0, abs=1e-6), predicted),
            "loss_scale1": (pytest.approx(0, abs=1e-6), predicted),
        }
        # The penalty of features that are all 1 is 1 a frame.
        assert float(losses.sums[1]) == pytest.approx(frames)
        assert (predicted < frames) if masked else (predicted == frames)


@pytest.mark.parametrize("world_size", [2, 3, 4])
@pytest.mark.parametrize("micro_batches", [1, 4])
def test_masks_and_counts_do_not_depend_on_workers(
    tiny: Tiny, tmp_path: Path, world_size: int, micro_batches: int
) -> None:
    recipe = recipe_of(tiny, tmp_path)

    def seen(batches: list[Batch]) -> tuple[dict[tuple[int, str], tuple[bool, ...]], np.ndarray]:
        masks: dict[tuple[int, str], tuple[bool, ...]] = {}
        totals = np.zeros((3, 2))
        for batch in batches:
            oracle = Oracle(batch, masks)
            recipe.losses(oracle, batch)
            totals[batch.step] += recipe.counts(batch)
        return masks, totals

    alone, expected = seen(loaded(tiny, recipe))
    shared = [
        batch
        for rank in range(world_size)
        for batch in loaded(
            tiny, recipe, rank=rank, world_size=world_size, micro_batches=micro_batches
        )
    ]
    masks, totals = seen(shared)

    assert masks == alone
    assert any(any(mask) for mask in masks.values())
    np.testing.assert_array_equal(totals, expected)


def all_losses(recipe: RetrainRecipe, batches: list[Batch], model: torch.nn.Module | None) -> None:
    for batch in batches:
        recipe.losses(model or Oracle(batch), batch)


def test_masks_change_from_epoch_to_epoch(tiny: Tiny, tmp_path: Path) -> None:
    recipe = recipe_of(tiny, tmp_path)
    (batch, *_) = loaded(tiny, recipe)
    later = replace(batch, epoch=batch.epoch + 1)
    now, then = Oracle(batch), Oracle(later)
    recipe.losses(now, batch)
    recipe.losses(then, later)
    assert list(now.masks.values()) != list(then.masks.values())


def test_rows_that_fill_up_count_for_nothing(tiny: Tiny, tmp_path: Path) -> None:
    recipe = recipe_of(tiny, tmp_path)
    (batch, *_) = loaded(tiny, recipe)
    empty = replace(batch, weight_B=torch.zeros_like(batch.weight_B))
    losses = recipe.losses(Oracle(empty), empty)
    assert [float(s) for s in losses.sums] == [0.0, 0.0]
    assert recipe.counts(empty) == (0.0, 0.0)


@pytest.mark.parametrize("off_by", [-1, 1])
def test_a_label_more_or_less_than_frames_names_the_utterance(
    tiny: Tiny, tmp_path: Path, off_by: int
) -> None:
    labels = counted_up(tiny)
    name, scales = next(iter(labels.items()))
    first = scales[0]
    labels[name] = tuple(np.resize(ids, len(ids) + off_by) for ids in scales)
    recipe = recipe_of(tiny, tmp_path, labels)
    batches = loaded(tiny, recipe)
    with pytest.raises(
        ModelError,
        match=rf"'{name}': {len(first) + off_by} labels of scale 0 for {len(first)} frames",
    ):
        all_losses(recipe, batches, None)


def test_an_utterance_without_labels_is_named(tiny: Tiny, tmp_path: Path) -> None:
    labels = counted_up(tiny)
    name, _ = labels.popitem()
    recipe = recipe_of(tiny, tmp_path, labels)
    batches = loaded(tiny, recipe)
    with pytest.raises(ModelError, match=f"'{name}' has no labels"):
        all_losses(recipe, batches, None)


@pytest.mark.parametrize("masked", [True, False])
def test_clips_of_one_frame_are_fine(tiny: Tiny, tmp_path: Path, masked: bool) -> None:
    recipe = recipe_of(tiny, tmp_path, masked=masked)
    model = recipe.build()
    for batch in loaded(tiny, recipe, max_samples=400):
        assert set(batch.num_samples_B.tolist()) == {400}
        losses = recipe.losses(model, batch)
        assert all(math.isfinite(float(s.detach())) for s in losses.sums)
        torch.stack(losses.sums).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("masked", [True, False])
def test_it_trains(tiny: Tiny, tmp_path: Path, masked: bool) -> None:
    labels = {
        name: tuple((ids % np.int32(2)).astype("<i4") for ids in scales)
        for name, scales in counted_up(tiny).items()
    }
    recipe = recipe_of(tiny, tmp_path, labels, masked=masked, steps=12, lr=5e-3)
    job = TrainJob(
        recipe,
        tiny.with_root(tmp_path).store,
        ArtifactKey("retrain", "2" * 64),
        TrainWorkersConfig(),
    )
    train_here(job, OneRank())
    artifact = ArtifactWriter(job.store, job.key).seal(version=1, science={}, inputs={})
    losses = [value for _, value in read_curves(artifact)["loss"]]

    assert sum(losses[-3:]) < sum(losses[:3])
    assert set(artifact.read_files()) == {"config.json", "model.safetensors", "training.json"}


def test_labels_of_another_codebook_stop_the_training(tiny: Tiny, tmp_path: Path) -> None:
    labels = counted_up(tiny)
    beyond = {name: (a, b + np.int32(3)) for name, (a, b) in labels.items()}
    recipe = recipe_of(tiny, tmp_path, beyond)
    model, batches = recipe.build(), loaded(tiny, recipe)
    with pytest.raises(ModelError, match="labels of scale 1 run from 3 to 5, expected 0 to 2"):
        all_losses(recipe, batches, model)


def test_labels_that_name_another_codebook_stop_the_training(tiny: Tiny, tmp_path: Path) -> None:
    other = (BOOKS[0], replace(BOOKS[1], metric="cosine"))
    artifact = stored(tiny, tmp_path, counted_up(tiny), other)
    recipe = recipe_of(tiny, tmp_path / "unused")
    training = TrainingSet(tiny.corpus, FOLD.training_speakers())
    recipe = RetrainRecipe(recipe._config, training, tiny.backbone, artifact, BOOKS)
    with pytest.raises(ModelError, match=f"are of codebook {other[1].fingerprint[:12]}, expected"):
        all_losses(recipe, loaded(tiny, recipe), recipe.build())


def test_scales_of_different_lengths_are_named(tiny: Tiny, tmp_path: Path) -> None:
    labels = counted_up(tiny)
    name, (first, second) = next(iter(labels.items()))
    labels[name] = (first, second[:-1])
    recipe = recipe_of(tiny, tmp_path, labels)
    with pytest.raises(ArtifactError, match=rf"labels of utterance '{name}' in part 'part' are"):
        all_losses(recipe, loaded(tiny, recipe), None)


def retrain_stage(tiny: Tiny, root: Path, k: int) -> tuple[Retrain, RetrainRecipe]:
    """The stage on ``k`` clusters, and its recipe."""
    store = tiny.with_root(root).store
    book = Codebook(0, 2, "all", 0, np.arange(k, dtype=np.float32)[:, None])
    out = ArtifactWriter(store, ArtifactKey("cluster", digest(k)))
    put_codebooks(out, [book])
    codebooks = out.seal(version=1, science={}, inputs={})
    rows = [
        UtteranceLabels(name, (book.fingerprint,), ((ids % np.int32(k)).astype("<i4"),))
        for name, (ids, _) in sorted(counted_up(tiny).items())
    ]
    out = ArtifactWriter(store, ArtifactKey("label", digest([k])))
    put_labels(out, "part", rows)
    labels = out.seal(version=1, science={}, inputs={})
    config = RetrainConfig.model_validate({"steps": 3, "dropout": 0.0, "projection_dim": 16})
    training = TrainingSet(tiny.corpus, FOLD.training_speakers())
    stage = Retrain(config, tiny.backbone, codebooks, labels, training)
    recipe = stage.recipe()
    assert isinstance(recipe, RetrainRecipe)
    return stage, recipe


def heads_of(recipe: RetrainRecipe) -> dict[str, torch.Tensor]:
    return {n: t for n, t in recipe.build().state_dict().items() if n.startswith("heads.")}


def test_another_k_begins_with_heads_of_its_own(tiny: Tiny, tmp_path: Path) -> None:
    """Not from what was learnt for the k before, whose checkpoint is there and whole."""
    (five, five_recipe), (seven, seven_recipe) = (retrain_stage(tiny, tmp_path, k) for k in (5, 7))
    assert five.key != seven.key
    store = tiny.with_root(tmp_path).store
    workers = TrainWorkersConfig(checkpoint_every_steps=1)
    with pytest.raises(Stopped):
        train_here(TrainJob(five_recipe, store, five.key, workers), OneRank(stop_after=1))
    assert Checkpoints(store, five.key.fingerprint).sealed()
    fresh = heads_of(seven_recipe)
    assert fresh["heads.0.label_embeddings"].shape == (7, 16)

    resumed: dict[int, list[int]] = {}
    for k, stage, recipe in ((7, seven, seven_recipe), (5, five, five_recipe)):
        train_here(TrainJob(recipe, store, stage.key, workers), OneRank())
        artifact = ArtifactWriter(store, stage.key).seal(version=1, science={}, inputs={})
        resumed[k] = json.loads(artifact.read_file("training.json"))["resumed_at"]
    assert resumed[7] == []
    assert resumed[5], "the same k does go on"

    torch.manual_seed(3)  # and whatever was drawn before
    for name, head in heads_of(seven_recipe).items():
        assert torch.equal(head, fresh[name])


def test_a_checkpoint_of_another_k_under_this_ones_name_is_refused(
    tiny: Tiny, tmp_path: Path
) -> None:
    (five, recipe), (seven, other) = (retrain_stage(tiny, tmp_path, k) for k in (5, 7))
    store = tiny.with_root(tmp_path).store
    workers = TrainWorkersConfig(checkpoint_every_steps=1)
    with pytest.raises(Stopped):
        train_here(TrainJob(recipe, store, five.key, workers), OneRank(stop_after=1))
    for entry in store.list(f"checkpoints/{five.key.fingerprint}"):
        path = entry.path.replace(five.key.fingerprint, seven.key.fingerprint)
        store.put(path, store.read(entry.path))
    with pytest.raises(CheckpointError, match="cannot be read"):
        train_here(TrainJob(other, store, seven.key, workers), OneRank())
