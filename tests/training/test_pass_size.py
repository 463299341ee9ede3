"""How many micro-batches a pass has: the same update, the same bytes after a resume, and what fits."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load as load_tensors
from support.gangs import train_by
from support.one_process import FOLD, OneRank, Stopped, Tiny, train_here
from test_batches import counted, loader, some
from torch import nn

from gmp_atl_dist.config import Json, TrainWorkersConfig, WarmupConfig
from gmp_atl_dist.recipes.warmup import WarmupRecipe
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.store.readers import read_curves
from gmp_atl_dist.store.writer import ArtifactWriter
from gmp_atl_dist.training import pass_size
from gmp_atl_dist.training.batches import BatchLoader
from gmp_atl_dist.training.loop import TrainJob
from gmp_atl_dist.training.memory import audio_s, too_large
from gmp_atl_dist.training.pass_size import fitted_pass_s

pytest_plugins = ["support.one_process"]

GIB = 1 << 30
WAITS: dict[str, Json] = {"checkpoint_every_steps": 1, "collective_timeout_s": 60.0}


def warmup(tiny: Tiny, **keys: Json) -> WarmupRecipe:
    short = {"batch_s": 4.0, "lr": 1e-3, "dropout": 0.1, "micro_batches": 6, "epochs": 2}
    config = WarmupConfig.model_validate({**short, **keys})
    return WarmupRecipe(config, tiny.corpus, tiny.backbone, FOLD.training_speakers())


def job(recipe: WarmupRecipe, folder: Path, **workers: Json) -> TrainJob:
    return TrainJob(
        recipe,
        Store.open(str(folder)),
        ArtifactKey(recipe.name, "f" * 64),
        TrainWorkersConfig.model_validate({"checkpoint_every_steps": 100, **workers}),
    )


def sealed(done: TrainJob) -> Artifact:
    return ArtifactWriter(done.store, done.key).seal(version=1, science={}, inputs={})


@pytest.fixture
def joined(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of micro-batches in each pass that was loaded."""
    seen: list[int] = []
    load = BatchLoader._load

    def noted(self: BatchLoader, step: int) -> Any:
        batches = load(self, step)
        seen.extend(batch.joined for batch in batches)
        return batches

    monkeypatch.setattr(BatchLoader, "_load", noted)
    return seen


@pytest.mark.parametrize(
    ("world_size", "micros_of_audio", "joined"),
    [
        (1, 0, [1] * 7),
        (1, 2.5, [2, 2, 2, 1]),
        (1, 4, [4, 3]),
        (1, 100, [7]),
        (2, 2, [2, 2]),
        (2, 3.9, [2, 2]),
        (4, 100, [2]),
        (7, 100, [1]),
    ],
)
def test_a_pass_has_as_many_micro_batches_as_asked_for(
    world_size: int, micros_of_audio: float, joined: list[int]
) -> None:
    utterances = some(40)
    plain = loader(utterances, batch_s=60, micro_batches=7)
    (_, whole), *_ = plain.updates(0, 1)
    found = []
    for rank in range(world_size):
        made = loader(utterances, rank=rank, world_size=world_size, batch_s=60, micro_batches=7)
        made.join(micros_of_audio * made.micro_s)
        (_, passes), *_ = made.updates(0, 1)
        assert len(passes) == made.passes == len(joined)
        if rank == 0:
            assert [batch.joined for batch in passes] == joined
        found += passes
    assert counted(found) == counted(whole), "every clip once, with the same samples"
    assert sum(map(audio_s, found)) == pytest.approx(sum(map(audio_s, whole)))
    assert len({batch.micro for batch in found}) == len(found), "dropout differs among passes"


def test_joined_micro_batches_are_the_same_training(
    tiny: Tiny, tmp_path: Path, joined: list[int]
) -> None:
    """On a CPU with dropout too, because it is drawn for each clip."""
    found: list[Artifact] = []
    for name, workers in (("each", {}), ("two", {"pass_s": 2.5}), ("all", {"pass_s": 99})):
        made = job(warmup(tiny), tmp_path / name, **workers)
        train_here(made, OneRank())
        found.append(sealed(made))
    assert set(joined) == {1, 2, 6}, joined
    each, *others = found
    for other in others:
        assert [v for _, v in read_curves(other)["loss"]] == pytest.approx(
            [v for _, v in read_curves(each)["loss"]], rel=1e-4
        )
        for name, weight in load_tensors(each.read_file("model.safetensors")).items():
            there = load_tensors(other.read_file("model.safetensors"))[name]
            torch.testing.assert_close(there, weight, rtol=1e-4, atol=1e-4)


class Card:
    """A GPU's memory, told to the module that measures: ``per_s`` bytes for a second of audio."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, per_s: float, free: float) -> None:
        self.per_s, self.free, self.probes = per_s, free, 0
        monkeypatch.setattr(pass_size, "has_gpu", lambda: True)
        monkeypatch.setattr(pass_size, "free_cached_memory", lambda: None)
        monkeypatch.setattr(pass_size, "gpu_free_bytes", lambda: int(self.free))
        monkeypatch.setattr(pass_size, "gpu_peak_bytes", self.peak_bytes)

    def peak_bytes(self, compute: Callable[[], object]) -> int:
        compute()
        self.probes += 1
        *_, batch = compute.args  # pyright: ignore[reportFunctionMemberAccess]
        return int(GIB + self.per_s * audio_s(batch))


def test_what_a_gpu_has_room_for_is_kept_with_the_checkpoint(
    tiny: Tiny, tmp_path: Path, joined: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    card = Card(monkeypatch, per_s=GIB, free=2.5 * GIB)
    whole = job(warmup(tiny), tmp_path / "whole", checkpoint_every_steps=1)
    train_here(whole, OneRank())
    assert card.probes == 2
    (passes,) = set(joined)
    assert 1 < passes < 6

    cut = job(warmup(tiny), tmp_path / "cut", checkpoint_every_steps=1)
    with pytest.raises(Stopped):
        train_here(cut, OneRank(stop_after=1))
    card.free = 80 * GIB
    train_here(cut, OneRank())
    assert (card.probes, set(joined)) == (4, {passes}), "nothing was measured again"
    found, expected = sealed(cut), sealed(whole)
    assert len(json.loads(found.read_file("training.json"))["resumed_at"]) == 1
    assert found.read_file("model.safetensors") == expected.read_file("model.safetensors")
    assert read_curves(found) == read_curves(expected)


def test_a_checkpoint_from_before_goes_on_with_the_passes_that_it_had(
    tiny: Tiny, tmp_path: Path, joined: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a one does not say how much audio a pass had; a CPU's says 0, which is the same."""
    made = job(warmup(tiny), tmp_path, checkpoint_every_steps=1)
    with pytest.raises(Stopped):
        train_here(made, OneRank(stop_after=1))
    card = Card(monkeypatch, per_s=1.0, free=80 * GIB)
    train_here(made, OneRank())
    assert (card.probes, set(joined)) == (0, {1})


def test_probes_that_do_not_fit_leave_each_micro_batch_a_pass(
    tiny: Tiny, tmp_path: Path, joined: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    Card(monkeypatch, per_s=1.0, free=80 * GIB)

    def full(compute: Callable[[], object]) -> int:
        compute()
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(pass_size, "gpu_peak_bytes", full)
    plain = job(warmup(tiny), tmp_path / "plain")
    train_here(plain, OneRank())
    monkeypatch.setattr(pass_size, "has_gpu", lambda: False)
    on_cpu = job(warmup(tiny), tmp_path / "cpu")
    train_here(on_cpu, OneRank())
    assert set(joined) == {1}
    name = "model.safetensors"
    assert sealed(plain).read_file(name) == sealed(on_cpu).read_file(name), "probes leave no trace"


class Uneven(WarmupRecipe):
    """The GPU of the second rank has room for half as much as that of the first."""

    def build(self) -> nn.Module:
        rank = torch.distributed.get_rank()
        told = {
            "has_gpu": lambda: True,
            "free_cached_memory": lambda: None,
            "gpu_free_bytes": lambda: int((2 if rank else 4) * 1.25 * GIB),
            "gpu_peak_bytes": lambda compute: int(GIB * (1 + audio_s(compute.args[-1]))),
        }
        for name, value in told.items():
            setattr(pass_size, name, value)  # of this process alone
        return super().build()


@pytest.mark.slow
def test_the_smallest_gpu_of_a_gang_decides(tiny: Tiny, tmp_path: Path) -> None:
    made = {}
    for kind in (WarmupRecipe, Uneven):
        recipe = warmup(tiny, micro_batches=8)
        recipe.__class__ = kind
        done = job(recipe, tmp_path / kind.__name__, workers=2, **WAITS)
        assert train_by(done, 2) == [0, 0]
        made[kind] = done
    (newest, *_) = made[Uneven].checkpoints.sealed()
    made[Uneven].checkpoints.fetch(newest, tmp_path / "held")
    state = json.loads((tmp_path / "held" / "state.json").read_text())
    assert state["pass_s"] == pytest.approx(2.0, rel=0.05), "0.8 of what the second has"
    plain, joined = (
        [v for _, v in read_curves(sealed(made[k]))["loss"]] for k in (WarmupRecipe, Uneven)
    )
    assert joined == pytest.approx(plain, rel=1e-4)


@pytest.mark.parametrize(
    ("peaks", "room", "expected"),
    [
        ((2 * GIB, 4 * GIB), 20 * GIB, 320.0),
        ((2 * GIB, 4 * GIB), 80 * GIB, 400.0),
        ((2 * GIB, 4 * GIB), -GIB, 0.0),
        ((4 * GIB, 4 * GIB), 20 * GIB, 80.0),
    ],
)
def test_what_fits_follows_from_how_memory_grows(
    peaks: tuple[int, int], room: float, expected: float
) -> None:
    assert fitted_pass_s((40.0, 80.0), peaks, room) == pytest.approx(expected)


def test_the_error_of_a_full_memory_names_the_key() -> None:
    made = loader(some(12), batch_s=60, micro_batches=3)
    made.join(1e9)
    ((_, (batch,)),) = made.updates(0, 1)
    error = too_large("update 0", batch, "warmup", WarmupConfig(), MemoryError())
    assert f"has 3 micro-batches: set runtime.train.pass_s below {audio_s(batch):.0f}" in str(error)
    made.join(0)
    (_, single), *_ = made.updates(0, 1)
    error = too_large("update 0", single[0], "warmup", WarmupConfig(), MemoryError())
    assert "pass_s" not in str(error), "it would change nothing"


@pytest.mark.parametrize("wrong", [0, -1, "all", True, float("inf")])
def test_what_is_no_amount_of_audio_is_refused_once(wrong: object) -> None:
    with pytest.raises(ValidationError, match='expected "auto", or seconds of audio') as told:
        TrainWorkersConfig.model_validate({"pass_s": wrong})
    assert told.value.error_count() == 1
