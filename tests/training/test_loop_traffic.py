"""How often an update of the loop waits for a GPU: counted by following values on a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from support.one_process import FOLD, OneRank, Tiny, train_here
from support.traffic import DeviceTraffic

from gmp_atl_dist.config import TrainWorkersConfig, WarmupConfig
from gmp_atl_dist.recipes.warmup import WarmupRecipe
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.training import loop, reporting
from gmp_atl_dist.training.batches import Batch
from gmp_atl_dist.training.engine import Engine
from gmp_atl_dist.training.loop import TrainJob
from gmp_atl_dist.training.recipe import Forward, Losses

pytest_plugins = ["support.one_process"]


class OnTheDevice(WarmupRecipe):
    """Its metrics are tensors. What the recipe and the model do is not counted here."""

    traffic: DeviceTraffic | None = None

    def losses(self, forward: Forward, batch: Batch) -> Losses:
        with self._unseen():
            found = super().losses(forward, batch)
            named = {"of_all": (torch.stack(found.sums).sum().detach(), batch.weight_B.sum())}
        return Losses(found.sums, named, hits=named["of_all"])

    @contextmanager
    def _unseen(self) -> Iterator[None]:
        if self.traffic is None:
            yield
            return
        with self.traffic.paused():
            yield


@pytest.mark.parametrize("micro_batches", [pytest.param(1, marks=pytest.mark.slow), 4])
def test_an_update_waits_for_the_device_once(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, micro_batches: int
) -> None:
    """Once for whether the gradient is finite, however many passes; nothing but batches is sent."""
    monkeypatch.setattr(reporting, "_CURVE_POINTS", 1)
    keys = {"batch_s": 3.0, "freeze_conv": True, "micro_batches": micro_batches}
    config = WarmupConfig.model_validate({**keys, "epochs": None, "steps": 3})
    recipe = OnTheDevice(config, tiny.corpus, tiny.backbone, FOLD.training_speakers())
    engines: list[Engine] = []
    start, sent = Engine.start_update, Batch.to
    counted: list[DeviceTraffic] = []
    batches = 0

    def start_update(self: Engine, step: int, total_steps: int) -> None:
        engines.append(self)
        start(self, step, total_steps)

    def to(self: Batch, device: torch.device) -> Batch:
        nonlocal batches
        batches += 1
        if recipe.traffic is None:
            return sent(self, device)
        with recipe.traffic.paused():
            return sent(self, device)

    update = loop._Trainer._update  # pyright: ignore[reportPrivateUsage]

    def watched(self: object, *args: object) -> bool:
        recipe.traffic = traffic = DeviceTraffic(engines[-1].model if engines else None)
        counted.append(traffic)
        try:
            with traffic:
                return update(self, *args)  # pyright: ignore[reportArgumentType]
        finally:
            recipe.traffic = None

    monkeypatch.setattr(Engine, "start_update", start_update)
    monkeypatch.setattr(Batch, "to", to)
    monkeypatch.setattr(loop._Trainer, "_update", watched)  # pyright: ignore[reportPrivateUsage]
    store = Store.open(str(tmp_path / "root"))
    job = TrainJob(recipe, store, ArtifactKey("warmup", "f" * 64), TrainWorkersConfig())
    train_here(job, OneRank())

    assert batches == 3 * micro_batches, "none is sent twice"
    first, middle, _ = counted
    assert first.sent == middle.sent == 0
    assert middle.syncs == {"__bool__": 1}, "DeepSpeed's look at the norm"
