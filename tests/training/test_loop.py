"""The one training loop with DeepSpeed on one rank: learning, stopping, resuming, refusing."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from safetensors.torch import load as load_tensors
from support.one_process import FOLD, OneRank, Stopped, Tiny, one_rank, train_here

from gmp_atl_dist.audio import pcm16_to_float
from gmp_atl_dist.config import FinetuneConfig, Json, TrainWorkersConfig, WarmupConfig
from gmp_atl_dist.errors import CheckpointError, WorkerError
from gmp_atl_dist.inference.predictor import probabilities_of
from gmp_atl_dist.metrics import confusion_matrix, scores_from_confusion
from gmp_atl_dist.models.hubert import Hubert
from gmp_atl_dist.models.packed_clip_ops import ClipOps
from gmp_atl_dist.models.stored import emotion_model_from_files
from gmp_atl_dist.recipes.finetune import FinetuneRecipe
from gmp_atl_dist.recipes.warmup import WarmupRecipe
from gmp_atl_dist.records import CURVE_SCHEMA
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.checkpoints import CheckpointFile, CheckpointRecord
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.store.progress import ProgressFile, ProgressSnapshot, read_progress
from gmp_atl_dist.store.readers import AudioReader, read_curves, read_emotions
from gmp_atl_dist.store.writer import ArtifactWriter
from gmp_atl_dist.training import deepspeed_start, engine
from gmp_atl_dist.training.batches import Batch
from gmp_atl_dist.training.loop import TrainJob
from gmp_atl_dist.training.meter import Smoothed
from gmp_atl_dist.training.recipe import Forward, Losses, Recipe

pytest_plugins = ["support.one_process"]

SHORT: dict[str, Json] = {
    **{"batch_s": 3.0, "lr": 1e-3, "dropout": 0.0, "freeze_conv": True},
    "micro_batches": 2,
}


def warmup(tiny: Tiny, **keys: Json) -> WarmupRecipe:
    config = WarmupConfig.model_validate({**SHORT, "epochs": 2, **keys})
    return WarmupRecipe(config, tiny.corpus, tiny.backbone, FOLD.training_speakers())


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
    train_here(made, OneRank())
    return sealed(made)


Plain = Callable[..., Artifact]


@pytest.fixture(scope="module")
def plain(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Plain:
    """``warmup`` of two epochs that nothing disturbs; each kind of it is trained once a module."""

    @cache
    def trained_once(dropout: float, zero_stage: int = 1) -> Artifact:
        folder = tmp_path_factory.mktemp("plain")
        return trained(warmup(tiny, dropout=dropout), folder, zero_stage=zero_stage)

    return trained_once


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
        "skipped_at": [],
    }
    assert set(artifact.read_files()) == {"config.json", "model.safetensors", "training.json"}


def test_whoever_watches_the_cluster_sees_how_it_goes(tiny: Tiny, tmp_path: Path) -> None:
    gang = OneRank()
    train_here(job(warmup(tiny), tmp_path, checkpoint_every_steps=2), gang)

    first, last = gang.measured[0], gang.measured[-1]
    # Before the first update there is something to see already, in case that it hangs.
    assert (first["updates_done"], first["updates_planned"]) == (0, 6)
    assert "loss" not in first
    assert [last[name] for name in ("updates_done", "updates_planned", "updates_skipped")] == [
        6,
        6,
        0,
    ]
    assert {
        "loss",
        "gradient_norm",
        "learning_rate",
        "audio_h_per_h",
        "data_wait_share",
    } <= last.keys()
    assert last["checkpoint_time_s"] > first["checkpoint_time_s"]


@pytest.mark.parametrize("zero_stage", [1, 2, 3])
def test_a_resumed_training_ends_in_the_same_bytes(
    tiny: Tiny, tmp_path: Path, zero_stage: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A point of the curve every third update, so that the kill falls between two of them.
    monkeypatch.setattr("gmp_atl_dist.training.reporting._CURVE_POINTS", 3)
    recipe = warmup(tiny, epochs=3, dropout=0.1)
    whole = trained(recipe, tmp_path / "whole", zero_stage=zero_stage)

    folder = tmp_path / "stopped"
    stopped = job(recipe, folder, zero_stage=zero_stage, checkpoint_every_steps=2)
    with pytest.raises(Stopped):
        train_here(stopped, OneRank(stop_after=2))
    resumed = OneRank()
    train_here(stopped, resumed)
    artifact = sealed(stopped)

    (step,) = json.loads(artifact.read_file("training.json"))["resumed_at"]
    assert step in (2, 4), "the newest that was sealed when it was killed"
    assert 0 < step < 9
    for name in ("model.safetensors", "config.json"):
        assert artifact.read_file(name) == whole.read_file(name)
    assert read_curves(artifact) == read_curves(whole)


def test_a_checkpoint_of_a_gpu_goes_on_without_its_kernels_and_back(
    tiny: Tiny, tmp_path: Path, plain: Plain
) -> None:
    """A GPU's branch (fused AdamW, exchange while the backward pass computes) on a CPU, from kill to kill."""
    folder = tmp_path / "moved"
    made = job(warmup(tiny, dropout=0.0), folder, checkpoint_every_steps=1)
    kinds: list[bool] = []
    real = engine.adamw

    def adamw(*args: Any, fused: bool) -> torch.optim.AdamW:
        optimizer = real(*args, fused=fused)
        kinds.append(bool(optimizer.param_groups[0]["fused"]))
        return optimizer

    for of_a_gpu, kill in ((True, 1), (False, 1), (True, None)):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(engine, "has_gpu", lambda on=of_a_gpu: on)
            patch.setattr(engine, "adamw", adamw)
            patch.setattr(engine, "collective_backend", lambda: "gloo")
            patch.setattr(deepspeed_start, "has_gpu", lambda on=of_a_gpu: on)
            if kill is None:
                train_here(made, OneRank())
                continue
            with pytest.raises(Stopped):
                train_here(made, OneRank(stop_after=kill))
    assert kinds == [True, False, True]
    artifact, expected = sealed(made), plain(0.0)
    assert len(json.loads(artifact.read_file("training.json"))["resumed_at"]) == 2
    for name, weight in weights(expected).items():
        torch.testing.assert_close(weights(artifact)[name], weight, rtol=1e-5, atol=1e-6)


def test_twice_the_same_gives_the_same_bytes(tiny: Tiny, tmp_path: Path) -> None:
    a, b, other = (
        trained(warmup(tiny, epochs=1, dropout=0.1, seed=seed), tmp_path / name)
        for name, seed in (("a", 0), ("b", 0), ("other", 1))
    )
    assert a.manifest.receipts == b.manifest.receipts
    assert a.read_file("model.safetensors") != other.read_file("model.safetensors")


@pytest.mark.parametrize("micro_batches", [3, 8])
def test_micro_batches_add_up_to_the_batch(tiny: Tiny, tmp_path: Path, micro_batches: int) -> None:
    # 24 utterances in two batches; a micro-batch of the eight has one utterance or two.
    whole = trained(warmup(tiny, batch_s=4, epochs=1, micro_batches=1), tmp_path / "whole")
    recipe = warmup(tiny, batch_s=4, epochs=1, micro_batches=micro_batches)
    cut = trained(recipe, tmp_path / "cut")

    for name, weight in weights(whole).items():
        torch.testing.assert_close(weights(cut)[name], weight, rtol=1e-5, atol=5e-5)
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


@pytest.mark.parametrize("frozen", [True, False])
def test_no_backward_pass_runs_through_a_frozen_encoder(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frozen: bool
) -> None:
    """What has no ``grad_fn`` was built without a graph, so that nothing of it is kept either."""
    built: list[bool] = []
    features = Hubert.conv_rows

    def watched(self: Hubert, *args: object) -> torch.Tensor:
        found = features(self, *args)  # pyright: ignore[reportArgumentType]
        built.append(found.grad_fn is not None)
        return found

    monkeypatch.setattr(Hubert, "conv_rows", watched)
    trained(warmup(tiny, epochs=1, freeze_conv=frozen), tmp_path / "warmup")
    recipe = finetune(tiny, epochs=1, freeze_conv=frozen)
    recipe.selection = ()
    trained(recipe, tmp_path / "finetune")
    assert len(built) == 2 * 3 * 2, "of stages, updates and micro-batches"
    assert set(built) == {not frozen}


class Spoilt(WarmupRecipe):
    """Its loss is not finite at some updates."""

    at: tuple[int, ...] = (2,)
    value = float("nan")

    def losses(self, forward: Forward, batch: Batch) -> Losses:
        found = super().losses(forward, batch)
        if batch.step not in self.at or batch.micro != 1:
            return found
        return replace(found, sums=tuple(s * self.value for s in found.sums))


def spoilt(tiny: Tiny, **keys: Json) -> Spoilt:
    config = WarmupConfig.model_validate({**SHORT, "epochs": 2, **keys})
    return Spoilt(config, tiny.corpus, tiny.backbone, FOLD.training_speakers())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("zero_stage", [1, 2, 3])
def test_an_update_whose_loss_is_not_finite_is_skipped_and_counted(
    tiny: Tiny,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    value: float,
    zero_stage: int,
    plain: Plain,
) -> None:
    monkeypatch.setattr(Spoilt, "value", value)
    recipe = spoilt(tiny)
    artifact = trained(recipe, tmp_path, zero_stage=zero_stage)

    assert json.loads(artifact.read_file("training.json"))["skipped_at"] == [2]
    losses, expected = (read_curves(a)["loss"] for a in (artifact, plain(0.0, zero_stage)))
    assert [step for step, _ in losses] == [1, 2, 4, 5, 6], "of update 3 nothing was measured"
    assert losses[:2] == expected[:2]
    assert all(bool(torch.isfinite(w).all()) for w in weights(artifact).values())
    (said,) = [r.getMessage() for r in caplog.records if "is skipped" in r.getMessage()]
    assert "not finite at update 2" in said
    assert any(u.utterance_id in said for u in recipe.utterances)


def test_a_skipped_update_leaves_everything_as_it_was(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Spoilt, "at", (0, 1, 2, 3, 4, 5))
    before, after = weights(tiny.backbone), weights(trained(spoilt(tiny), tmp_path))
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_too_many_of_them_stop_the_training(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Spoilt, "at", (1, 2, 3))
    made = job(spoilt(tiny, max_skipped_updates=2), tmp_path)
    with pytest.raises(
        WorkerError,
        match=r"warmup: the loss .* not finite at update 3; .*3 updates .*lower warmup\.lr",
    ):
        train_here(made, OneRank())
    assert ArtifactWriter(made.store, made.key).done() == {}, "nothing of it is kept"


def test_an_enormous_learning_rate_is_found_out(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match=r"not finite at update"):
        trained(warmup(tiny, lr=1e30, warmup_fraction=0.0, max_skipped_updates=1), tmp_path)


@pytest.fixture
def checkpoint(tiny: Tiny, tmp_path: Path) -> tuple[TrainJob, Path]:
    """A job that was killed, and the files of its only checkpoint."""
    made = job(warmup(tiny, epochs=5), tmp_path, checkpoint_every_steps=1)
    with pytest.raises(Stopped):
        train_here(made, OneRank(stop_after=1))
    place = tmp_path / "root" / "checkpoints" / made.key.fingerprint
    folders = sorted(path for path in place.iterdir() if path.is_dir())
    for folder in folders[1:]:
        shutil.rmtree(folder)
    return made, folders[0] / "files"


def seal_again(files: Path) -> None:
    """A record that believes what is there, as of one who can write to the store."""
    record = CheckpointRecord.model_validate_json((files.parent / "_record.json").read_text())
    found = [
        CheckpointFile(
            path=str(p.relative_to(files)),
            bytes=p.stat().st_size,
            sha256=hashlib.sha256(p.read_bytes()).hexdigest(),
        )
        for p in sorted(files.rglob("*"))
        if p.is_file()
    ]
    text = record.model_copy(update={"files": tuple(found)}).model_dump_json()
    (files.parent / "_record.json").write_text(text)


def resumed_at(done: TrainJob) -> list[int]:
    return json.loads(sealed(done).read_file("training.json"))["resumed_at"]


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
        seal_again(folder)
        with pytest.raises(
            CheckpointError, match=r"holds more than tensors .* delete the run's folder"
        ):
            train_here(made, OneRank())
        path.write_bytes(kept[path])
    assert not sprung.exists(), "what was in the checkpoint has been executed"


def cut_short(files: Path) -> None:
    path = next(files.rglob("*optim_states.pt"))
    path.write_bytes(path.read_bytes()[:-500])


def one_bit(files: Path) -> None:
    path = next(files.rglob("*model_states.pt"))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def one_missing(files: Path) -> None:
    next(files.rglob("*optim_states.pt")).unlink()


def record_cut(files: Path) -> None:
    path = files.parent / "_record.json"
    path.write_bytes(path.read_bytes()[:-20])


def no_record(files: Path) -> None:
    (files.parent / "_record.json").unlink()


@pytest.mark.parametrize("damage", [cut_short, one_bit, one_missing, record_cut, no_record])
def test_a_torn_checkpoint_is_passed_over_for_the_one_before(
    tiny: Tiny,
    tmp_path: Path,
    damage: Callable[[Path], None],
    caplog: pytest.LogCaptureFixture,
    plain: Plain,
) -> None:
    recipe, whole = warmup(tiny, dropout=0.1), plain(0.1)
    folder = tmp_path / "stopped"
    stopped = job(recipe, folder, checkpoint_every_steps=1)
    gang = OneRank(stop_after=2)
    with pytest.raises(Stopped):
        train_here(stopped, gang)
    folders = sorted((folder / "root" / "checkpoints" / stopped.key.fingerprint).iterdir())
    with_record = [f for f in folders if (f / "_record.json").exists()]
    older, newest = with_record[-2:]
    damage(newest / "files")
    train_here(stopped, OneRank())

    assert resumed_at(stopped) == [int(older.name.partition("-")[0])]
    said = [r.getMessage() for r in caplog.records if "is skipped: " in r.getMessage()]
    assert len(said) == (0 if damage in (record_cut, no_record) else 1), "no record, no checkpoint"
    assert all(newest.name in line for line in said)
    assert weights(sealed(stopped)).keys() == weights(whole).keys()
    assert sealed(stopped).read_file("model.safetensors") == whole.read_file("model.safetensors")


def test_with_no_whole_checkpoint_it_begins_anew(checkpoint: tuple[TrainJob, Path]) -> None:
    made, files = checkpoint
    for path in files.rglob("*.pt"):
        path.unlink()
    train_here(made, OneRank())
    assert resumed_at(made) == []


def test_after_damage_to_every_checkpoint_the_new_ones_are_kept(
    tiny: Tiny, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The damaged ones have more updates than the new ones, and are deleted for them."""
    made = job(warmup(tiny), tmp_path, checkpoint_every_steps=1)
    with pytest.raises(Stopped):
        train_here(made, OneRank(stop_after=4))
    damaged = {record.folder for record in made.checkpoints.sealed()}
    for name in damaged:
        one_bit(tmp_path / "root" / "checkpoints" / made.key.fingerprint / name / "files")
    assert len(damaged) == 2
    with pytest.raises(Stopped):
        train_here(made, OneRank(stop_after=3))

    kept = made.checkpoints.sealed()
    assert len(kept) == 2
    assert damaged.isdisjoint(record.folder for record in kept)
    assert kept[0].step <= 4
    said = [r.getMessage() for r in caplog.records if "is deleted: " in r.getMessage()]
    assert sorted(line.split()[1] for line in said) == sorted(damaged)
    train_here(made, OneRank())
    assert resumed_at(made) == [kept[0].step]


def test_old_checkpoints_and_those_of_killed_attempts_are_removed(
    tiny: Tiny, tmp_path: Path
) -> None:
    made = job(warmup(tiny, epochs=4), tmp_path, checkpoint_every_steps=1)
    left = f"checkpoints/{made.key.fingerprint}/00000001-dead/files/half"
    made.store.put(left, b"half")
    train_here(made, OneRank())
    folder = tmp_path / "root" / "checkpoints" / made.key.fingerprint
    names = sorted(f.name for f in folder.iterdir() if any(f.rglob("*")))

    assert len([n for n in names if (folder / n / "_record.json").exists()]) == 2
    assert "00000001-dead" not in names


def test_asked_to_leave_it_saves_and_goes_on_later(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plain: Plain
) -> None:
    monkeypatch.setattr("gmp_atl_dist.training.ranks._STOP_POLL_S", 0.0)
    recipe, whole = warmup(tiny, dropout=0.1), plain(0.1)
    made = job(recipe, tmp_path / "left")

    class Asked(OneRank):
        """The stop is requested when it logs for the first time: it has started by then."""

        def log_metrics(self, metrics: Mapping[str, float]) -> None:
            made.checkpoints.request_stop()

    train_here(made, Asked())
    assert ArtifactWriter(made.store, made.key).done() == {}, "it is not finished"
    assert [record.step for record in made.checkpoints.sealed()] == [1]

    made.checkpoints.withdraw_stop()
    train_here(made, OneRank())
    assert resumed_at(made) == [1]
    assert sealed(made).read_file("model.safetensors") == whole.read_file("model.safetensors")


def test_a_gang_that_starts_while_a_stop_is_requested_loads_nothing(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = warmup(tiny)
    made = job(recipe, tmp_path)
    ProgressFile(made.store, made.key).write(ProgressSnapshot(done=3, total=9))
    made.checkpoints.request_stop()
    monkeypatch.setattr(WarmupRecipe, "build", lambda _: pytest.fail("it built the model"))
    train_here(made, OneRank())
    assert made.checkpoints.sealed() == []
    assert read_progress(made.store, made.key) is None, "of an earlier gang, whose updates are lost"


def test_who_watches_finetune_sees_the_accuracy_without_the_margin(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A margin that no logit survives: with it every training answer is wrong."""
    monkeypatch.setattr(ProgressFile, "is_due", True)
    config = FinetuneConfig.model_validate(
        {**SHORT, "epochs": 2, "embedding_dim": 16, "am_margin": 0.99}
    )
    training = FOLD.training_speakers()
    recipe = FinetuneRecipe(config, tiny.corpus, tiny.backbone, training, ())
    made = job(recipe, tmp_path)
    train_here(made, OneRank())

    snapshot = read_progress(made.store, made.key)
    assert snapshot is not None
    assert snapshot.metrics["accuracy_with_margin"] == 0.0
    assert snapshot.metrics["accuracy"] > 0.0
    assert snapshot.metrics["chance"] == pytest.approx(0.25)
    assert snapshot.measures()[0].startswith("accuracy ")
    assert snapshot.measures()[0].endswith(" % (chance 25 %)")
    curves = read_curves(sealed(made))
    assert "accuracy" not in curves, "stored curves stay as they are"


def test_a_smoothed_mean_follows_and_forgets() -> None:
    smoothed = Smoothed(points=2)
    assert smoothed.mean is None
    smoothed.add(4, 4)
    assert smoothed.mean == 1.0
    smoothed.add(0, 4)
    assert smoothed.mean == pytest.approx(2 / 6)
    for _ in range(40):
        smoothed.add(0, 4)
    assert smoothed.mean == pytest.approx(0.0, abs=1e-9)


def test_gradient_checkpointing_computes_again_and_changes_nothing(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    forward = ClipOps.feed_forward

    def counted(
        self: ClipOps, feed: object, x_MD: torch.Tensor, place: int, p: float
    ) -> torch.Tensor:
        calls.append("")
        return forward(self, feed, x_MD, place, p)

    monkeypatch.setattr(ClipOps, "feed_forward", counted)
    recipe = warmup(tiny, epochs=1, dropout=0.1)
    plain = trained(recipe, tmp_path / "plain")
    once = len(calls)
    spared = trained(recipe, tmp_path / "spared", gradient_checkpointing=True)
    assert len(calls) - once == 2 * once > 0
    assert spared.read_file("model.safetensors") == plain.read_file("model.safetensors")


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
    config = FinetuneConfig.model_validate({**SHORT, "epochs": 3, "embedding_dim": 16, **keys})
    learners = FOLD.training_speakers()
    return kind(config, tiny.corpus, tiny.backbone, learners, FOLD.valid_speakers)


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
        train_here(first, OneRank(stop_after=1))
    train_here(job(scripted(1), folder, checkpoint_every_steps=4), OneRank())
    artifact = sealed(first)

    assert json.loads(artifact.read_file("training.json"))["best_epoch"] == 1
    assert artifact.read_file("model.safetensors") == whole.read_file("model.safetensors")
    assert read_curves(artifact) == read_curves(whole)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda store, path: store.put(path, store.read(path)[:-3] + b"xyz"), "is damaged"),
        (lambda store, path: store.delete(path), "is missing"),
    ],
    ids=["altered", "gone"],
)
@pytest.mark.parametrize("name", ["model.safetensors", "_files.json"])
def test_a_best_epoch_that_was_harmed_during_the_stop_is_not_exported(
    tiny: Tiny, tmp_path: Path, harm: Callable[[Store, str], None], said: str, name: str
) -> None:
    recipe = finetune(tiny, Scripted)
    assert isinstance(recipe, Scripted)
    recipe.script = (True, False, False)
    stopped = job(recipe, tmp_path, checkpoint_every_steps=4)
    with pytest.raises(Stopped):
        train_here(stopped, OneRank(stop_after=1))
    harm(stopped.store, f"{stopped.key.prefix}/candidates/0001/{name}")

    with pytest.raises(CheckpointError, match=f"best epoch, 1, cannot be used: {name} {said}"):
        train_here(stopped, OneRank())
    assert not stopped.store.exists(f"{stopped.key.prefix}/_manifest.json")


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


def test_zero_3_learns_judges_and_exports_as_zero_1(tiny: Tiny, tmp_path: Path) -> None:
    # Without dropout: ZeRO 3 takes the reference path, whose dropout follows another random state.
    recipe = finetune(tiny, epochs=2, dropout=0.0)
    one = trained(recipe, tmp_path / "1")
    three = trained(recipe, tmp_path / "3", zero_stage=3, gradient_checkpointing=True)
    expected = read_curves(one)
    for name, points in read_curves(three).items():
        assert points == [(step, pytest.approx(v, rel=1e-4)) for step, v in expected[name]], name
    for name, weight in weights(one).items():
        # AdamW makes a step of the learning rate out of a gradient that is only rounding.
        torch.testing.assert_close(weights(three)[name], weight, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("saved", "workers", "asked"), [(3, 1, 1), (2, 1, 3), (3, 2, 3)], ids=str)
def test_zero_3_goes_on_as_it_was_or_not_at_all(
    tiny: Tiny, tmp_path: Path, saved: int, workers: int, asked: int
) -> None:
    """``workers`` is who saved it, as its record says."""
    recipe = warmup(tiny)
    stopped = job(recipe, tmp_path, zero_stage=saved, checkpoint_every_steps=1)
    with pytest.raises(Stopped):
        train_here(stopped, OneRank(stop_after=1))
    for path in (tmp_path / "root").rglob("_record.json"):
        record = CheckpointRecord.model_validate_json(path.read_text())
        path.write_text(record.model_copy(update={"world_size": workers}).model_dump_json())
    with pytest.raises(
        CheckpointError,
        match=rf"by {workers} workers with .*zero_stage = {saved}; 1 workers .* = {asked} cannot .* set both",
    ):
        train_here(job(recipe, tmp_path, zero_stage=asked), OneRank())


def test_progress_is_left_where_status_looks(tiny: Tiny, tmp_path: Path) -> None:
    artifact = trained(warmup(tiny, epochs=1), tmp_path)
    raw = json.loads(artifact.store.read(f"{artifact.key.prefix}/_progress.json"))

    assert raw["total"] == 3
    assert 1 <= raw["done"] <= 3
    assert {"loss", "emotion_accuracy", "gender_accuracy"} <= set(raw["metrics"])


def test_curves_have_the_schema_that_readers_want(tiny: Tiny, tmp_path: Path) -> None:
    artifact = trained(warmup(tiny, epochs=1), tmp_path)
    table: pa.Table = artifact.read_part("curves", CURVE_SCHEMA)
    names = {"loss", "gradient_norm", "learning_rate", "emotion_accuracy", "gender_accuracy"}
    assert table.num_rows == 3 * len(names)
    assert set(table["name"].to_pylist()) == names


def test_the_environment_is_put_back() -> None:
    before = dict(os.environ)
    with one_rank():
        assert os.environ["WORLD_SIZE"] == "1"
    assert dict(os.environ) == before
