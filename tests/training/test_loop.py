"""The one training loop with DeepSpeed on one rank: learning, stopping, resuming, refusing."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from one_process import FOLD, OneRank, Stopped, Tiny, one_rank, train_here
from safetensors.torch import load as load_tensors

from gmp_atl_dist.audio import pcm16_to_float
from gmp_atl_dist.config import FinetuneConfig, Json, TrainWorkersConfig, WarmupConfig
from gmp_atl_dist.errors import CheckpointError, WorkerError
from gmp_atl_dist.inference.predictor import probabilities_of
from gmp_atl_dist.metrics import confusion_matrix, scores_from_confusion
from gmp_atl_dist.models.stored import emotion_model_from_files
from gmp_atl_dist.recipes.finetune import FinetuneRecipe
from gmp_atl_dist.recipes.warmup import WarmupRecipe
from gmp_atl_dist.records import CURVE_SCHEMA
from gmp_atl_dist.store.artifact import Artifact, ArtifactKey, ArtifactWriter
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.readers import AudioReader, read_curves, read_emotions, read_utterances
from gmp_atl_dist.training.batches import Batch
from gmp_atl_dist.training.loop import TrainJob
from gmp_atl_dist.training.recipe import Forward, Losses, Recipe

pytest_plugins = ["one_process"]

SHORT: dict[str, Json] = {"batch_size": 8, "lr": 1e-3, "dropout": 0.0, "freeze_conv": True}


def warmup(tiny: Tiny, **keys: Json) -> WarmupRecipe:
    config = WarmupConfig.model_validate({**SHORT, "epochs": 2, **keys})
    training = FOLD.training(read_utterances(tiny.corpus))
    return WarmupRecipe(config, tiny.corpus, tiny.backbone, training)


def job(recipe: Recipe, folder: Path, **workers: Json) -> TrainJob:
    return TrainJob(
        recipe,
        Store.open(str(folder / "root")),
        ArtifactKey(recipe.name, "f" * 64),
        TrainWorkersConfig.model_validate({"checkpoint_every_steps": 100, **workers}),
    )


def sealed(done: TrainJob) -> Artifact:
    return ArtifactWriter(done.store, done.key).seal(version=1, science={}, inputs={})


def trained(recipe: Recipe, folder: Path, **workers: Json) -> Artifact:
    made = job(recipe, folder, **workers)
    train_here(made, OneRank(folder))
    return sealed(made)


def weights(artifact: Artifact) -> dict[str, torch.Tensor]:
    return load_tensors(artifact.read_file("model.safetensors"))


def test_warmup_learns_its_training_set(tiny: Tiny, tmp_path: Path) -> None:
    recipe = warmup(tiny, epochs=8, lr=3e-3, freeze_conv=False)
    artifact = trained(recipe, tmp_path)
    curves = read_curves(artifact)
    losses = [value for _, value in curves["loss"]]

    assert [step for step, _ in curves["loss"]] == list(range(1, 25))
    assert sum(losses[-4:]) < 0.7 * sum(losses[:4])
    assert json.loads(artifact.read_file("training.json")) == {
        "updates": 24,
        "epochs": 8,
        "best_epoch": None,
        "resumed_at": [],
    }
    assert set(artifact.read_files()) == {"config.json", "model.safetensors", "training.json"}


@pytest.mark.parametrize("zero_stage", [0, 1, 2])
def test_a_resumed_training_ends_in_the_same_bytes(
    tiny: Tiny, tmp_path: Path, zero_stage: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A point of the curve every third update, so that the kill falls between two of them.
    monkeypatch.setattr("gmp_atl_dist.training.loop._CURVE_POINTS", 3)
    recipe = warmup(tiny, epochs=3, dropout=0.1)
    whole = trained(recipe, tmp_path / "whole", zero_stage=zero_stage)

    folder = tmp_path / "stopped"
    stopped = job(recipe, folder, zero_stage=zero_stage, checkpoint_every_steps=2)
    with pytest.raises(Stopped):
        train_here(stopped, OneRank(folder, stop_after=2))
    resumed = OneRank(folder)
    train_here(stopped, resumed)
    artifact = sealed(stopped)

    assert [p.name for p in resumed.saved] == ["checkpoint-000006", "checkpoint-000008"]
    assert json.loads(artifact.read_file("training.json"))["resumed_at"] == [4]
    for name in ("model.safetensors", "config.json"):
        assert artifact.read_file(name) == whole.read_file(name)
    assert read_curves(artifact) == read_curves(whole)


def test_twice_the_same_gives_the_same_bytes(tiny: Tiny, tmp_path: Path) -> None:
    a, b, other = (
        trained(warmup(tiny, epochs=1, dropout=0.1, seed=seed), tmp_path / name)
        for name, seed in (("a", 0), ("b", 0), ("other", 1))
    )
    assert a.manifest.receipts == b.manifest.receipts
    assert a.read_file("model.safetensors") != other.read_file("model.safetensors")


@pytest.mark.parametrize("micro_batch_size", [1, 3])
def test_micro_batches_add_up_to_the_batch(
    tiny: Tiny, tmp_path: Path, micro_batch_size: int
) -> None:
    # 24 utterances in batches of 9: the third is short.
    recipe = warmup(tiny, batch_size=9, epochs=1)
    whole = trained(recipe, tmp_path / "whole")
    cut = trained(recipe, tmp_path / "cut", micro_batch_size=micro_batch_size)

    for name, weight in weights(whole).items():
        torch.testing.assert_close(weights(cut)[name], weight, rtol=1e-5, atol=1e-5)
    assert [v for _, v in read_curves(cut)["loss"]] == pytest.approx(
        [v for _, v in read_curves(whole)["loss"]], rel=1e-4
    )


def test_the_frozen_encoder_stays_as_it_was(tiny: Tiny, tmp_path: Path) -> None:
    before = weights(tiny.backbone)
    after = weights(trained(warmup(tiny, epochs=1), tmp_path))
    moved = {name for name in before if not torch.equal(before[name], after[name])}

    assert moved
    assert not any(name.startswith("feature_extractor.") for name in moved)
    assert "masked_spec_embed" not in moved


class Spoilt(WarmupRecipe):
    """Its loss is not finite at one update."""

    at = 2
    value = float("nan")

    def losses(self, forward: Forward, batch: Batch) -> Losses:
        found = super().losses(forward, batch)
        if batch.step != self.at:
            return found
        return replace(found, sums=tuple(s * self.value for s in found.sums))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_the_training(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    monkeypatch.setattr(Spoilt, "value", value)
    plain = warmup(tiny)
    recipe = Spoilt(
        WarmupConfig.model_validate({**SHORT, "epochs": 2}),
        tiny.corpus,
        tiny.backbone,
        FOLD.training(read_utterances(tiny.corpus)),
    )
    assert recipe.utterances == plain.utterances
    made = job(recipe, tmp_path)
    with pytest.raises(
        WorkerError,
        match=r"warmup: the loss is not finite at update 2 on 1 of 1 .*lower warmup\.lr",
    ) as error:
        train_here(made, OneRank(tmp_path))

    assert any(u.utterance_id in error.value.message for u in recipe.utterances)
    assert ArtifactWriter(made.store, made.key).done() == {}, "nothing of it is kept"


def test_an_enormous_learning_rate_is_found_out(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match=r"warmup: the loss is not finite at update"):
        trained(warmup(tiny, lr=1e30, warmup_fraction=0.0), tmp_path)


@pytest.fixture
def checkpoint(tiny: Tiny, tmp_path: Path) -> tuple[TrainJob, Path]:
    made = job(warmup(tiny), tmp_path, checkpoint_every_steps=1)
    gang = OneRank(tmp_path, stop_after=1)
    with pytest.raises(Stopped):
        train_here(made, gang)
    return made, gang.saved[0]


def test_a_checkpoint_of_other_workers_is_refused(checkpoint: tuple[TrainJob, Path]) -> None:
    made, folder = checkpoint
    path = folder / "progress.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"world_size": 2}))
    with pytest.raises(CheckpointError, match=r"step 1 was written by 2 workers .* by 1"):
        train_here(made, OneRank(folder.parent))


class Trap:
    """Makes a folder where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)

    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, (self._path,)


def write_zip(trap: Trap, path: Path) -> None:
    torch.save({"module": {}, "optimizer_state_dict": trap}, path)


def write_pickle(trap: Trap, path: Path) -> None:
    path.write_bytes(pickle.dumps(trap, protocol=2))


@pytest.mark.parametrize("write", [write_zip, write_pickle])
def test_a_checkpoint_that_runs_code_is_refused(
    checkpoint: tuple[TrainJob, Path], tmp_path: Path, write: Callable[[Trap, Path], None]
) -> None:
    made, folder = checkpoint
    sprung = tmp_path / "sprung"
    shards = sorted(folder.rglob("*.pt"))
    kept = {path: path.read_bytes() for path in shards}
    assert len(shards) == 2, "the model's and the optimiser's"
    for path in shards:
        write(Trap(sprung), path)
        with pytest.raises(
            CheckpointError, match=r"holds more than tensors .* delete the run's folder"
        ):
            train_here(made, OneRank(folder.parent))
        path.write_bytes(kept[path])
    assert not sprung.exists(), "what was in the checkpoint has been executed"


def test_a_shard_that_is_cut_short_is_refused(checkpoint: tuple[TrainJob, Path]) -> None:
    made, folder = checkpoint
    for path in folder.rglob("*.pt"):
        path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(CheckpointError, match="delete the run's folder below checkpoints/"):
        train_here(made, OneRank(folder.parent))


def test_a_checkpoint_without_shards_is_refused(checkpoint: tuple[TrainJob, Path]) -> None:
    made, folder = checkpoint
    for path in folder.rglob("*.pt"):
        path.unlink()
    with pytest.raises(CheckpointError, match="delete the run's folder below checkpoints/"):
        train_here(made, OneRank(folder.parent))


class Scripted(FinetuneRecipe):
    """Its selection utterances are judged by a script: all right in the epochs ``good_after``."""

    script: tuple[bool, ...] = ()
    judged = 0

    def predict(self, forward: Forward, batch: Batch) -> tuple[list[int], list[int], int]:
        true, _, classes = super().predict(forward, batch)
        right = self.script[self.judged // len(self.selection)]
        self.judged += len(true)
        return true, true if right else [(t + 1) % classes for t in true], classes


def finetune(
    tiny: Tiny, kind: type[FinetuneRecipe] = FinetuneRecipe, **keys: Json
) -> FinetuneRecipe:
    utterances = read_utterances(tiny.corpus)
    config = FinetuneConfig.model_validate({**SHORT, "epochs": 3, "embedding_dim": 16, **keys})
    valid = FOLD.select(utterances, "valid")
    return kind(config, tiny.corpus, tiny.backbone, FOLD.training(utterances), valid)


@pytest.mark.parametrize(
    ("script", "best"),
    [
        ((True, False, False), 1),
        ((False, True, True), 2),
        ((False, False, True), 3),
        ((False, False, False), 1),
    ],
)
def test_the_best_epoch_on_valid_is_kept(
    tiny: Tiny, tmp_path: Path, script: tuple[bool, ...], best: int
) -> None:
    recipe = finetune(tiny, Scripted)
    assert isinstance(recipe, Scripted)
    recipe.script = script
    artifact = trained(recipe, tmp_path)
    store, prefix = artifact.store, artifact.key.prefix

    assert json.loads(artifact.read_file("training.json"))["best_epoch"] == best
    kept = f"{prefix}/candidates/{best:04d}"
    assert artifact.read_file("model.safetensors") == store.read(f"{kept}/model.safetensors")
    assert read_curves(artifact)["selection_uar"] == [
        (3 * (i + 1), 1.0 if right else 0.0) for i, right in enumerate(script)
    ]


def test_a_best_epoch_before_the_stop_is_not_forgotten(tiny: Tiny, tmp_path: Path) -> None:
    def scripted(judged_epochs: int) -> Scripted:
        recipe = finetune(tiny, Scripted)
        assert isinstance(recipe, Scripted)
        recipe.script = (True, False, False)
        recipe.judged = judged_epochs * len(recipe.selection)
        return recipe

    whole = trained(scripted(0), tmp_path / "whole")
    folder = tmp_path / "stopped"
    first = job(scripted(0), folder, checkpoint_every_steps=4)
    with pytest.raises(Stopped):
        train_here(first, OneRank(folder, stop_after=1))
    train_here(job(scripted(1), folder, checkpoint_every_steps=4), OneRank(folder))
    artifact = sealed(first)

    assert json.loads(artifact.read_file("training.json"))["best_epoch"] == 1
    assert artifact.read_file("model.safetensors") == whole.read_file("model.safetensors")
    assert read_curves(artifact) == read_curves(whole)


def test_selection_looks_without_margin_and_without_dropout(tiny: Tiny, tmp_path: Path) -> None:
    recipe = finetune(tiny, epochs=1, dropout=0.3)
    artifact = trained(recipe, tmp_path)
    model = emotion_model_from_files(artifact.read_files())
    reader, emotions = AudioReader(tiny.corpus), read_emotions(tiny.corpus)
    predicted: list[int] = []
    for u in recipe.selection:
        (probabilities,) = probabilities_of(model, [pcm16_to_float(reader.samples(u))])
        predicted.append(max(range(4), key=probabilities.__getitem__))
    true = [emotions.index(u.emotion) for u in recipe.selection]
    expected = scores_from_confusion(confusion_matrix(true, predicted, 4)).uar
    assert read_curves(artifact)["selection_uar"] == [(3, pytest.approx(expected))]


def test_progress_is_left_where_status_looks(tiny: Tiny, tmp_path: Path) -> None:
    artifact = trained(warmup(tiny, epochs=1), tmp_path)
    raw = json.loads(artifact.store.read(f"{artifact.key.prefix}/_progress.json"))

    assert raw["total"] == 3
    assert 1 <= raw["done"] <= 3
    assert {"loss", "emotion_accuracy", "gender_accuracy"} <= set(raw["measures"])


def test_curves_have_the_schema_that_readers_want(tiny: Tiny, tmp_path: Path) -> None:
    artifact = trained(warmup(tiny, epochs=1), tmp_path)
    table: pa.Table = artifact.read_part("curves", CURVE_SCHEMA)
    assert table.num_rows == 9
    assert set(table["name"].to_pylist()) == {"loss", "emotion_accuracy", "gender_accuracy"}


def test_the_environment_is_put_back() -> None:
    before = dict(os.environ)
    with one_rank():
        assert os.environ["WORLD_SIZE"] == "1"
    assert dict(os.environ) == before
