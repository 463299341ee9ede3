"""A pass that does not fit into the memory: one error that helps, or two passes of half the clips.

The allocator's failure is planted where a library reports it: within the model's forward pass, by the
amount of audio of the pass.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from support.gangs import train_by
from support.one_process import FOLD, OneRank, Tiny, finish, no_ray, train_here
from torch import nn

from gmp_atl_dist import runtime
from gmp_atl_dist.audio import SAMPLE_RATE_HZ
from gmp_atl_dist.config import Json, TrainWorkersConfig, WarmupConfig
from gmp_atl_dist.errors import WorkerError
from gmp_atl_dist.recipes.warmup import WarmupRecipe
from gmp_atl_dist.stages.warmup import Warmup
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.store.readers import read_curves
from gmp_atl_dist.store.writer import ArtifactWriter
from gmp_atl_dist.training.batches import Batch
from gmp_atl_dist.training.loop import TrainJob
from gmp_atl_dist.training.memory import halves
from gmp_atl_dist.training.recipe import Recipe

pytest_plugins = ["support.one_process"]


def of_a_gpu() -> Exception:
    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 ...")


def of_a_cpu() -> Exception:
    text = "DefaultCPUAllocator: can't allocate memory: you tried to allocate 99999999999 bytes."
    return RuntimeError(f"[enforce fail at alloc_cpu.cpp:119] err == 0. {text} Error code 12")


class Narrow(WarmupRecipe):
    """Its model refuses passes of more than ``room_s`` seconds of audio, in the forward or backward pass."""

    room_s = 1e9
    rank: int | None = None
    """The rank with little memory; None: all."""
    amid = "forward"
    error: Callable[[], Exception] = staticmethod(of_a_gpu)

    def build(self) -> nn.Module:
        model = super().build()
        model.register_forward_pre_hook(self._refuse)
        if self.amid == "backward":
            # By the gradient of a middle layer some others were added up, and others were not.
            of_layer = [p for n, p in model.named_parameters() if "encoder.layers.1." in n]
            of_layer[0].register_hook(self._refuse_backward)
        return model

    def _refuse(self, _: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        self._full = self._here and float(args[1].sum()) / SAMPLE_RATE_HZ > self.room_s
        if self._full and self.amid == "forward":
            raise self.error()

    def _refuse_backward(self, *_: object) -> None:
        if self._full:
            raise self.error()

    @property
    def _here(self) -> bool:
        return self.rank in (None, torch.distributed.get_rank())


def narrow(tiny: Tiny, **keys: Json) -> Narrow:
    short = {"batch_s": 6.0, "lr": 1e-3, "dropout": 0.0, "micro_batches": 2, "epochs": 4}
    config = WarmupConfig.model_validate({**short, **keys})
    return Narrow(config, tiny.corpus, tiny.backbone, FOLD.training_speakers())


def job(recipe: Narrow, folder: Path, **workers: Json) -> TrainJob:
    return TrainJob(
        recipe,
        Store.open(str(folder)),
        ArtifactKey(recipe.name, "f" * 64),
        TrainWorkersConfig.model_validate({"checkpoint_every_steps": 100, **workers}),
    )


def curves(done: TrainJob) -> dict[str, list[float]]:
    artifact = ArtifactWriter(done.store, done.key).seal(version=1, science={}, inputs={})
    return {name: [v for _, v in points] for name, points in read_curves(artifact).items()}


def check_same(found: dict[str, list[float]], expected: dict[str, list[float]]) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert len(values) >= 4
        assert found[name] == pytest.approx(values, rel=1e-5), name


@pytest.mark.parametrize("error", [of_a_gpu, pytest.param(of_a_cpu, marks=pytest.mark.slow)])
def test_a_pass_that_does_not_fit_is_told_once(
    tiny: Tiny, tmp_path: Path, error: Callable[[], Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Narrow, "room_s", 0.5)
    monkeypatch.setattr(Narrow, "error", staticmethod(error))
    made = job(narrow(tiny), tmp_path)
    with pytest.raises(WorkerError) as told:
        train_here(made, OneRank())
    for part in (
        *(r"^warmup: update 0, pass 1 of 2: no memory is left on .* GiB free of .* GiB for ",),
        r"\d+\.\d s of audio in \d+ clips, the longest of 0\.\d s",
        *("allocate", r"raise warmup\.micro_batches \(now 2\)", r"warmup\.batch_s \(now 6\)"),
        *(r"gradient_checkpointing = true", r'on_out_of_memory = "halve"'),
    ):
        told.match(part)

    # What a restarted gang does: nothing, so that the stage can end with what was noted.
    assert made.checkpoints.failure() == told.value.message
    gang = OneRank()
    train_here(made, gang)
    assert (gang.measured, ArtifactWriter(made.store, made.key).done()) == ([], {})
    made.checkpoints.withdraw_failure()
    monkeypatch.setattr(Narrow, "room_s", 1e9)
    train_here(made, OneRank())
    assert len(curves(made)["loss"]) >= 4


class NarrowStage(Warmup):
    def recipe(self) -> Recipe:
        speakers = self.fold.training_speakers()
        return Narrow(self.config, self.corpus, tiny_backbone(self), speakers)


def tiny_backbone(stage: Warmup) -> Artifact:
    assert isinstance(stage.backbone, Artifact)
    return stage.backbone


def test_the_stage_ends_with_the_error_and_the_next_run_tries_again(
    tiny: Tiny, tmp_path: Path
) -> None:
    """Ray starts a gang again whatever ended it, and is content when that one returns."""
    context = tiny.with_root(tmp_path / "root")
    stage = NarrowStage(narrow(tiny).optim, tiny.corpus, tiny.backbone, FOLD)  # pyright: ignore[reportArgumentType]
    tries: list[int] = []

    def as_ray(loop: Callable[[TrainJob, OneRank], None], made: TrainJob, **_: object) -> None:
        for _try in range(4):
            tries.append(_try)
            try:
                train_here(made, OneRank())
            except WorkerError:
                continue
            return

    with no_ray(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(runtime, "train", as_ray)
        patch.setattr(Narrow, "room_s", 0.5)
        with pytest.raises(WorkerError, match="warmup: update 0, pass 1 of 2: no memory is left"):
            finish(stage, context)
        assert tries == [0, 1], "the second one returned at once"
        patch.setattr(Narrow, "room_s", 1e9)
        assert "model.safetensors" in finish(stage, context).read_files()


def test_another_error_is_not_taken_for_it(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Narrow, "room_s", 0.5)
    monkeypatch.setattr(Narrow, "error", staticmethod(lambda: RuntimeError("shapes differ")))
    for number, mode in enumerate(("stop", "halve")):
        made = job(narrow(tiny), tmp_path / str(number), on_out_of_memory=mode)
        with pytest.raises(RuntimeError, match="shapes differ"):
            train_here(made, OneRank())
        assert made.checkpoints.failure() is None


@pytest.mark.parametrize(
    ("zero_stage", "amid"),
    [
        (1, "backward"),
        pytest.param(1, "forward", marks=pytest.mark.slow),
        pytest.param(2, "forward", marks=pytest.mark.slow),
        pytest.param(2, "backward", marks=pytest.mark.slow),
    ],
)
def test_a_halved_pass_leaves_the_curve_as_it_was(
    tiny: Tiny,
    tmp_path: Path,
    amid: str,
    zero_stage: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    whole = job(narrow(tiny), tmp_path / "whole", zero_stage=zero_stage)
    train_here(whole, OneRank())
    monkeypatch.setattr(Narrow, "room_s", 3.0)
    monkeypatch.setattr(Narrow, "amid", amid)
    halved = job(narrow(tiny), tmp_path / "halved", zero_stage=zero_stage, on_out_of_memory="halve")
    train_here(halved, OneRank())
    said = [r.getMessage() for r in caplog.records if "cut in two" in r.getMessage()]
    assert said
    assert "warmup: update 0: a pass of" in said[0]
    assert len(said) <= 3, "what did not fit once is not tried again"
    check_same(curves(halved), curves(whole))


def test_a_single_clip_cannot_be_cut(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Narrow, "room_s", 0.1)
    made = job(narrow(tiny), tmp_path, on_out_of_memory="halve")
    with pytest.raises(WorkerError, match=r"update 0, pass 1 of \d+: .* in 1 clips"):
        train_here(made, OneRank())


@pytest.mark.parametrize(
    ("rank", "amid"),
    [
        pytest.param(1, "forward", marks=pytest.mark.slow),
        pytest.param(0, "backward", marks=pytest.mark.nightly),
        pytest.param(None, "forward", marks=pytest.mark.nightly),
    ],
)
def test_one_of_two_workers_has_little_memory(
    tiny: Tiny, tmp_path: Path, rank: int | None, amid: str
) -> None:
    """All ranks exchange as often, also when one of them takes more passes."""
    waits = {"workers": 2, "collective_timeout_s": 60.0}
    whole = job(narrow(tiny), tmp_path / "whole", **waits)
    assert train_by(whole, 2) == [0, 0]
    recipe = narrow(tiny)
    recipe.room_s, recipe.rank, recipe.amid = 3.0, rank, amid
    halved = job(recipe, tmp_path / "halved", on_out_of_memory="halve", **waits)
    assert train_by(halved, 2) == [0, 0]
    check_same(curves(halved), curves(whole))


def test_the_halves_are_the_whole() -> None:
    lengths = [900, 1000, 1700, 2000, 2500]
    wave_BN = torch.zeros(5, 2500)
    for row, n in enumerate(lengths):
        wave_BN[row, :n] = row + 1
    utterances: tuple[object, ...] = tuple("abcde")
    batch = Batch(
        *(3, 1, 2),
        utterances,  # pyright: ignore[reportArgumentType]
        tuple(range(5)),
        wave_BN,
        torch.tensor(lengths),
        torch.ones(5),
    )
    cut = halves(batch)
    assert cut is not None
    short, long = cut
    assert (short.utterances, long.utterances) == (tuple("ab"), tuple("cde"))
    assert (short.first_frames, long.first_frames) == ((0, 1), (2, 3, 4))
    assert (short.wave_BN.shape, long.wave_BN.shape) == ((2, 1000), (3, 2500))
    assert torch.equal(short.wave_BN, wave_BN[:2, :1000])
    assert (short.step, short.epoch, short.micro) == (3, 1, 2)
    one = halves(short)
    assert one is not None
    assert halves(one[0]) is None


def test_zero_3_cannot_cut_a_pass_of_one_worker() -> None:
    with pytest.raises(ValidationError, match="exchange weights within each pass"):
        TrainWorkersConfig(zero_stage=3, on_out_of_memory="halve")
