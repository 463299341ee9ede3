"""bf16 products on a GPU that has them, fp32 on a CPU, fp32 weights and optimiser on both."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from support.one_process import FOLD, OneRank, Tiny, train_here

from gmp_atl_dist import device
from gmp_atl_dist.config import TrainWorkersConfig, WarmupConfig
from gmp_atl_dist.recipes.warmup import WarmupRecipe
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.training.batches import Batch
from gmp_atl_dist.training.deepspeed_start import deepspeed_config
from gmp_atl_dist.training.loop import TrainJob
from gmp_atl_dist.training.recipe import Forward, Losses

pytest_plugins = ["support.one_process"]


@pytest.mark.parametrize(
    ("accelerator", "has_bf16", "expected"),
    [("cuda", True, True), ("cuda", False, False), ("cpu", True, False)],
)
def test_deepspeed_is_told_bf16_where_a_gpu_has_it(
    monkeypatch: pytest.MonkeyPatch, accelerator: str, has_bf16: bool, expected: bool
) -> None:
    monkeypatch.setattr(device, "accelerator", lambda: accelerator)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: has_bf16)
    card = SimpleNamespace(name="Card", major=7, minor=5)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
    told = deepspeed_config(
        WarmupConfig(), TrainWorkersConfig(), passes=4, universal=False, trained=10**8, world_size=2
    )
    assert isinstance(autocast := told["torch_autocast"], dict)
    assert (autocast["enabled"], autocast["dtype"]) == (expected, "bfloat16")
    # DeepSpeed's own modes would hold the weights themselves in 16 bits.
    assert not {"bf16", "fp16"} & told.keys()


class Witnessed(WarmupRecipe):
    """Notes the types of what the model is made of and of what comes out."""

    seen: set[torch.dtype]

    def losses(self, forward: Forward, batch: Batch) -> Losses:
        hooks = torch.nn.modules.module.register_module_forward_hook(self._note)
        try:
            return super().losses(forward, batch)
        finally:
            hooks.remove()

    def _note(self, module: torch.nn.Module, _: object, output: object) -> None:
        tensors = [*module.parameters(), output]
        self.seen |= {t.dtype for t in tensors if isinstance(t, torch.Tensor)}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, which would be taken")
def test_everything_is_fp32_on_a_cpu(tiny: Tiny, tmp_path: Path) -> None:
    training = FOLD.training_speakers()
    config = WarmupConfig(epochs=None, steps=1)
    recipe = Witnessed(config, tiny.corpus, tiny.backbone, training)
    recipe.seen = set()
    store = Store.open(str(tmp_path / "root"))
    job = TrainJob(recipe, store, ArtifactKey("warmup", "f" * 64), TrainWorkersConfig())
    train_here(job, OneRank())
    assert recipe.seen == {torch.float32}
