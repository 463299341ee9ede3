"""Options of training, each against a plain computation of PyTorch or transformers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import psutil
import pytest
import torch
from pydantic import ValidationError
from support.one_process import FOLD, OneRank, Stopped, Tiny, one_rank, train_here
from torch import Tensor, nn
from transformers import HubertConfig
from transformers.models.hubert import modeling_hubert

from gmp_atl_dist.audio import num_frames
from gmp_atl_dist.config import (
    FinetuneConfig,
    Json,
    OptimConfig,
    PretrainConfig,
    RetrainConfig,
    TrainWorkersConfig,
    WarmupConfig,
)
from gmp_atl_dist.errors import ModelError
from gmp_atl_dist.models.backbone import SpeechBackbone
from gmp_atl_dist.models.frame_losses import FrameTerms
from gmp_atl_dist.models.hubert import NAMED_SIZES, Hubert, build_random, pad_waves
from gmp_atl_dist.models.losses import ScaleJoin, frame_prediction_sums
from gmp_atl_dist.models.masking import span_mask
from gmp_atl_dist.models.multitask import WarmupModel
from gmp_atl_dist.recipes.finetune import FinetuneRecipe
from gmp_atl_dist.recipes.options import augmentation_masks
from gmp_atl_dist.recipes.warmup import WarmupRecipe
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.store.readers import AudioReader, read_curves
from gmp_atl_dist.store.writer import ArtifactWriter
from gmp_atl_dist.training.batches import Batch, BatchLoader, max_crop_samples
from gmp_atl_dist.training.engine import Engine
from gmp_atl_dist.training.groups import parameter_groups
from gmp_atl_dist.training.loop import TrainJob
from gmp_atl_dist.training.mixture import plan_updates
from gmp_atl_dist.training.schedule import dropped_layers, learning_rate

pytest_plugins = ["support.one_process"]

torch.set_num_threads(1)

SHORT: dict[str, Json] = {
    "steps": 4,
    "batch_s": 3.0,
    "micro_batches": 1,
    "dropout": 0.0,
    "lr": 1e-3,
}


def clips() -> tuple[Tensor, Tensor]:
    rng = np.random.default_rng(0)
    return pad_waves([rng.normal(0, 0.1, n).astype(np.float32) for n in (9000, 5200)])


def gradients(model: Hubert) -> dict[str, Tensor]:
    """Of a loss that reads the last layer and, as the feature penalty does, the front end."""
    model.zero_grad()
    frames = model.forward_frames(*clips())
    loss = frames.hidden[model.num_layers][frames.valid_BT].square().sum()
    loss = loss + 0.1 * frames.conv_features_BTC[frames.valid_BT].square().sum()
    loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def without_dropout() -> Hubert:
    model = build_random("tiny", 0).train()
    model.set_dropout(0.0)
    model.train_mask_embedding(False)
    return model


@pytest.mark.parametrize("factor", [0.5, 0.1])
def test_the_front_end_gets_its_factor_of_the_gradient_and_nothing_else_changes(
    factor: float,
) -> None:
    model = without_dropout()
    whole = gradients(model)
    model.front_end_gradient = factor
    part = gradients(model)

    assert part.keys() == whole.keys()
    of_front_end = [name for name in whole if name.startswith(model.front_end_prefix)]
    assert of_front_end
    for name, gradient in whole.items():
        if name not in of_front_end:
            assert torch.equal(part[name], gradient), name
        elif factor == 0.5:  # a power of two does not round
            assert torch.equal(part[name], factor * gradient), name
        else:
            atol = 1e-6 * float(gradient.abs().max())
            torch.testing.assert_close(part[name], factor * gradient, rtol=1e-5, atol=atol)


def test_a_frozen_backbone_has_a_gradient_of_zeros_of_every_parameter() -> None:
    model = without_dropout()
    names = gradients(model).keys()
    model.gradient_blocked = True
    blocked = gradients(model)
    assert blocked.keys() == names
    assert not any(bool(gradient.any()) for gradient in blocked.values())


@pytest.mark.parametrize("checkpointed", [False, True])
def test_a_dropped_layer_is_as_if_it_was_not_there_but_has_a_gradient(checkpointed: bool) -> None:
    model = without_dropout()
    names = gradients(model).keys()
    model.enable_layer_drop()
    if checkpointed:
        model.checkpoint_activations()
    model.dropped_layers = frozenset({2})
    dropped = gradients(model)
    hidden = model.forward_frames(*clips(), want=[1, 2, 3]).hidden

    short = without_dropout()
    del short.encoder.layers[1]
    short.config.num_hidden_layers -= 1
    expected = gradients(short)
    of_short = short.forward_frames(*clips(), want=[1, 2]).hidden

    assert torch.equal(hidden[2], hidden[1])
    assert torch.equal(hidden[1], of_short[1])
    assert torch.equal(hidden[3], of_short[2])
    assert dropped.keys() == names
    of_layer_2 = {name for name in names if name.startswith("encoder.layers.1.")}
    assert of_layer_2
    for name in names:
        if name in of_layer_2:
            assert not dropped[name].any(), name
        else:
            theirs = name.replace("encoder.layers.2.", "encoder.layers.1.")
            torch.testing.assert_close(dropped[name], expected[theirs], rtol=1e-5, atol=1e-6)


def test_no_layer_drops_out_in_evaluation() -> None:
    model = build_random("tiny", 0)
    with torch.inference_mode():
        before = model.forward_frames(*clips()).hidden[model.num_layers]
        model.enable_layer_drop()
        model.dropped_layers = frozenset({1, 2, 3})
        assert torch.equal(model.forward_frames(*clips()).hidden[model.num_layers], before)


def test_layers_drop_by_the_seed_and_the_update_alone() -> None:
    config = OptimConfig(steps=1, layer_drop=0.3)
    drawn = [dropped_layers(config, 12, step) for step in range(2000)]
    assert drawn == [dropped_layers(config, 12, step) for step in range(2000)]
    counts = [sum(i in layers for layers in drawn) / 2000 for i in range(1, 13)]
    assert counts == pytest.approx([0.3] * 12, abs=0.05)
    other = OptimConfig(steps=1, layer_drop=0.3, seed=1)
    assert drawn != [dropped_layers(other, 12, step) for step in range(2000)]
    assert dropped_layers(OptimConfig(steps=1), 12, 0) == frozenset()


def test_a_backbone_that_does_not_name_its_layers_is_refused_by_name() -> None:
    model = build_random("tiny", 0)
    del model.encoder.layers
    with pytest.raises(ModelError, match=r"Hubert does not say .* layer_drop .* encoder_layers"):
        model.enable_layer_drop()


def test_masks_of_frames_and_features_are_those_of_transformers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its own HuBERT with SpecAugment on, given the same masks."""
    wave_BN, num_samples_B = clips()
    wave_BN, num_samples_B = wave_BN[:1], num_samples_B[:1]
    values = dict(NAMED_SIZES["tiny"]) | {"apply_spec_augment": True, "mask_time_prob": 0.2}
    theirs = modeling_hubert.HubertModel(
        HubertConfig.from_dict(values | {"mask_feature_prob": 0.2, "layerdrop": 0.0})
    )
    model = without_dropout()
    theirs.load_state_dict(model.state_dict())
    for module in theirs.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif hasattr(module, "dropout") and isinstance(module.dropout, float):
            setattr(module, "dropout", 0.0)  # noqa: B010 (a number in transformers)
    theirs.train()
    frames = model.forward_frames(wave_BN, num_samples_B).valid_BT.shape[1]
    rng = np.random.default_rng(1)
    mask_BT = span_mask(frames, prob=0.4, length_frames=4, rng=rng)[None]
    mask_BD = span_mask(model.hidden_size, prob=0.4, length_frames=8, rng=rng)[None]
    assert mask_BT.any()
    assert mask_BD.any()

    def drawn(shape: tuple[int, int], *_: object, **__: object) -> np.ndarray:
        return mask_BT if shape[1] == frames else mask_BD

    monkeypatch.setattr(modeling_hubert, "_compute_mask_indices", drawn)
    expected = theirs(wave_BN).last_hidden_state
    found = model.forward_frames(
        wave_BN,
        num_samples_B,
        mask_BT=torch.from_numpy(mask_BT),
        mask_BD=torch.from_numpy(mask_BD),
    ).hidden[model.num_layers]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    plain = model.forward_frames(wave_BN, num_samples_B).hidden[model.num_layers]
    assert not torch.allclose(found, plain, atol=1e-2)


def warmup(tiny: Tiny, **keys: Json) -> WarmupRecipe:
    config = WarmupConfig.model_validate({**SHORT, **keys})
    return WarmupRecipe(config, tiny.corpus, tiny.backbone, FOLD.training_speakers())


def finetune(tiny: Tiny, **keys: Json) -> FinetuneRecipe:
    config = FinetuneConfig.model_validate({**SHORT, "embedding_dim": 16, **keys})
    return FinetuneRecipe(
        config, tiny.corpus, tiny.backbone, FOLD.training_speakers(), FOLD.valid_speakers
    )


def batches(
    recipe: WarmupRecipe | FinetuneRecipe, steps: int = 4, micro_batches: int = 1
) -> list[list[Batch]]:
    """What the loop would read."""
    config = recipe.optim
    plan = plan_updates(
        recipe.corpus,
        recipe.utterances,
        None,
        batch_s=config.batch_s,
        max_samples=max_crop_samples(config.max_utterance_s),
        seed=config.seed,
    )
    loader = BatchLoader(
        plan,
        recipe.utterances.rows,
        AudioReader(recipe.corpus),
        rank=0,
        world_size=1,
        micro_batches=micro_batches,
        max_samples=max_crop_samples(config.max_utterance_s),
        seed=config.seed,
    )
    return [found for _, found in loader.updates(0, steps)]


AUGMENTED: dict[str, Json] = {
    **{"mask_time_prob": 0.4, "mask_time_length_frames": 3},
    **{"mask_feature_prob": 0.4, "mask_feature_length": 6},
}


def test_the_masks_of_an_utterance_do_not_know_its_batch(tiny: Tiny) -> None:
    recipe = warmup(tiny, **AUGMENTED)
    config = recipe.optim
    assert isinstance(config, WarmupConfig)

    def by_utterance(micro_batches: int) -> dict[tuple[int, str], tuple[bytes, bytes]]:
        found: dict[tuple[int, str], tuple[bytes, bytes]] = {}
        for batch in (b for update in batches(recipe, 6, micro_batches) for b in update):
            masks = augmentation_masks(config, batch, 48)
            of_clips = masks["mask_M"].split([num_frames(u.num_samples) for u in batch.utterances])
            for row, (u, mask_T) in enumerate(zip(batch.utterances, of_clips, strict=True)):
                found[batch.epoch, u.utterance_id] = (
                    mask_T.numpy().tobytes(),
                    masks["mask_BD"][row].numpy().tobytes(),
                )
        return found

    whole, cut = by_utterance(1), by_utterance(5)
    assert whole == cut
    assert len(set(whole.values())) > len(whole) // 2
    assert augmentation_masks(WarmupConfig(), batches(warmup(tiny), 1)[0][0], 48) == {}


@pytest.mark.parametrize("length", [3, 40, 500])
def test_the_share_of_masks_of_specaugment_is_exact_in_the_mean(length: int) -> None:
    rng = np.random.default_rng(0)
    drawn = [
        span_mask(length, prob=0.05, length_frames=1, rng=rng, fewest=0).sum() for _ in range(4000)
    ]
    assert np.mean(drawn) == pytest.approx(0.05 * length, rel=0.1)


def test_fine_tuning_with_all_options_resumes_to_the_same_bytes(tiny: Tiny, tmp_path: Path) -> None:
    """Killed once while the backbone is frozen and once after."""
    keys: dict[str, Json] = {
        **AUGMENTED,
        **{"steps": 9, "dropout": 0.1, "head_dropout": 0.2, "layer_drop": 0.4, "lr": 3e-3},
        **{"freeze_conv": False, "feature_grad_mult": 0.1, "adam_eps": 1e-6, "micro_batches": 2},
        **{"head_lr_factor": 2.0, "layer_lr_decay": 0.8, "freeze_backbone_steps": 4},
    }
    recipe = finetune(tiny, **keys)
    recipe.selection = ()

    def job(name: str) -> TrainJob:
        workers = TrainWorkersConfig(checkpoint_every_steps=1)
        store = Store.open(str(tmp_path / name))
        return TrainJob(recipe, store, ArtifactKey("finetune", "f" * 64), workers)

    whole, torn = job("whole"), job("torn")
    train_here(whole, OneRank())
    with pytest.raises(Stopped):
        train_here(torn, OneRank(stop_after=2))
    with pytest.raises(Stopped):
        train_here(torn, OneRank(stop_after=3))
    train_here(torn, OneRank())
    made = [
        ArtifactWriter(of.store, of.key).seal(version=1, science={}, inputs={})
        for of in (whole, torn)
    ]
    resumed = json.loads(made[1].read_file("training.json"))["resumed_at"]
    assert 0 < resumed[0] < 4 < resumed[1] < 9
    assert len({of.read_file("model.safetensors") for of in made}) == 1
    assert read_curves(made[0]) == read_curves(made[1])


@pytest.mark.parametrize("stage", [warmup, finetune])
def test_masks_and_head_dropout_reach_the_loss_and_not_the_prediction(
    tiny: Tiny, stage: Callable[..., WarmupRecipe | FinetuneRecipe]
) -> None:
    def losses(**keys: Json) -> tuple[float, ...]:
        recipe = stage(tiny, **keys)
        model = recipe.build().train()
        torch.manual_seed(1)
        (batch,) = batches(recipe, 1)[0]
        return tuple(float(x.detach()) for x in recipe.losses(model, batch).sums)

    plain = losses()
    assert losses(**AUGMENTED) != plain
    assert losses(head_dropout=0.5) != plain
    if stage is finetune:
        recipes = [finetune(tiny), finetune(tiny, **AUGMENTED, head_dropout=0.5)]
        rows = list(recipes[0].selection)
        logits: list[Tensor] = []
        for recipe in recipes:
            model = recipe.build().eval()
            with torch.inference_mode():
                waves = [np.ones(8000, np.float32) * 0.01 * i for i in range(1, len(rows))]
                logits.append(model(*pad_waves(waves)))
        assert torch.equal(*logits)


def test_head_dropout_is_dropout_of_the_pooled_vector() -> None:
    """Of a backbone without dropout: the logits are those of the pooled vector, dropped by hand."""
    model = WarmupModel(without_dropout(), 4, head_dropout=0.5).train()
    seen: list[Tensor] = []
    model.pooling.register_forward_hook(lambda _m, _a, out: seen.append(cast(Tensor, out)))
    torch.manual_seed(3)
    found = model(*clips(), seeds=[1, 2]).emotion_BK
    torch.manual_seed(3)
    dropped = nn.functional.dropout(seen[0], 0.5, training=True)
    assert torch.equal(found, model.emotion(dropped))
    assert bool((dropped == 0).any())


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("weights", [(), (1.0, 0.25, 3.0)])
def test_scales_are_weighed_and_joined_as_in_the_formula(
    weights: tuple[float, ...], reduction: Literal["mean", "sum"]
) -> None:
    rng = np.random.default_rng(0)
    logits = [torch.from_numpy(rng.normal(size=(14, k)).astype(np.float32)) for k in (5, 3, 4)]
    for x in logits:
        x.requires_grad_()
    labels = torch.from_numpy(rng.integers(0, 3, (3, 14)))
    select = torch.from_numpy(rng.random(14) < 0.5)
    terms = [
        FrameTerms(nn.functional.cross_entropy(x, y, reduction="none"), x.argmax(-1) == y)
        for x, y in zip(logits, labels, strict=True)
    ]
    sums = frame_prediction_sums(terms, select, ScaleJoin(weights, reduction))

    total = torch.zeros((), dtype=torch.float64)
    for weight, x, y in zip(weights or (1.0,) * 3, logits, labels, strict=True):
        chosen = x.double().log_softmax(-1).gather(-1, y[..., None])[..., 0]
        total = total - weight * chosen[select].sum()
    if reduction == "mean":
        total = total / sum(weights or (1.0,) * 3)
    assert float(sums.loss.detach()) == pytest.approx(float(total.detach()), rel=1e-6)
    found, expected = (torch.autograd.grad(loss, logits) for loss in (sums.loss, total))
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


def test_weights_of_other_scales_are_refused() -> None:
    with pytest.raises(ValueError, match="2 weights for the losses of 3 scales"):
        ScaleJoin((1.0, 2.0))(torch.ones(3))


OPTIMISED: dict[str, Json] = {
    **{"freeze_conv": False, "adam_eps": 1e-2, "clip_norm": 0.05, "weight_decay": 0.3, "lr": 0.02},
    **{"head_lr_factor": 3.0, "layer_lr_decay": 0.5, "freeze_backbone_steps": 2, "steps": 6},
}


@pytest.mark.parametrize("zero_stage", [1, 2, 3])
def test_an_engine_allocates_what_its_model_needs(tiny: Tiny, zero_stage: Literal[1, 2, 3]) -> None:
    """Not DeepSpeed's buckets of 2 GB: on a GPU they are memory, and a process with many cannot fork."""
    recipe = warmup(tiny)
    model = recipe.build()
    workers = TrainWorkersConfig(zero_stage=zero_stage)
    with one_rank():
        before_bytes = psutil.Process().memory_info().vms
        engine = Engine(model, recipe.backbone(model), recipe.optim, workers, passes=1)
        engine.train()
        allocated_bytes = psutil.Process().memory_info().vms - before_bytes
    assert allocated_bytes < 2**30


@pytest.mark.parametrize("zero_stage", [1, 2, 3])
def test_the_optimiser_is_adamw_with_the_rates_of_the_documentation(
    tiny: Tiny, zero_stage: Literal[1, 2, 3]
) -> None:
    """Against PyTorch's own, one parameter a group, whose backbone joins in a new optimiser when it thaws."""
    recipe = warmup(tiny, **OPTIMISED)
    config, read = recipe.optim, batches(recipe, 6)
    reference = recipe.build().train()
    backbone = recipe.backbone(reference)
    layers, inside = backbone.num_layers, {f"backbone.{n}" for n, _ in backbone.named_parameters()}

    def factor(name: str) -> float:
        if name not in inside:
            return 3.0
        if ".encoder.layers." in name:
            return 0.5 ** (layers - 1 - int(name.split(".layers.")[1].partition(".")[0]))
        return 0.5**layers

    def optimiser(names: set[str]) -> torch.optim.AdamW:
        return torch.optim.AdamW(
            [
                {"params": [p], "factor": factor(n), "weight_decay": 0.3 if p.ndim > 1 else 0.0}
                for n, p in reference.named_parameters()
                if n in names and p.requires_grad
            ],
            betas=config.betas,
            eps=1e-2,
        )

    head = optimiser({n for n, _ in reference.named_parameters()} - inside)
    body = optimiser(inside)
    start = {n: p.detach().clone() for n, p in reference.named_parameters()}
    clipped: list[bool] = []
    with one_rank():
        model = recipe.build()
        workers = TrainWorkersConfig(zero_stage=zero_stage)
        engine = Engine(model, recipe.backbone(model), config, workers, passes=1)
        engine.train()
        for step, (batch,) in enumerate(read):
            engine.start_update(step, 6)
            rate = learning_rate(config, step, 6)
            losses = recipe.losses(engine.forward, batch.to(engine.device))
            counts = recipe.counts(batch)
            terms = zip(recipe.factors, losses.sums, counts, strict=True)
            engine.backward(sum((f * s / c for f, s, c in terms), torch.zeros(())))
            engine.step()

            reference.zero_grad()
            sums = recipe.losses(reference, batch).sums
            terms = zip(recipe.factors, sums, counts, strict=True)
            sum((f * s / c for f, s, c in terms), torch.zeros(())).backward()
            joined = [head] if step < 2 else [head, body]
            trained = [p for o in joined for g in o.param_groups for p in g["params"]]
            norm = float(nn.utils.clip_grad_norm_(trained, config.clip_norm))
            assert float(engine.gradient_norm) == pytest.approx(norm, rel=1e-3)
            clipped.append(norm > config.clip_norm)
            for of in joined:
                for group in of.param_groups:
                    group["lr"] = rate * group["factor"]
                of.step()
            with engine.gathered(recipe.build) as whole:
                found = {n: p.detach().clone() for n, p in whole.named_parameters()}
            for name, expected in reference.named_parameters():
                if step < 2 and name in inside:
                    assert torch.equal(found[name], start[name]), name
                torch.testing.assert_close(found[name], expected, rtol=2e-4, atol=2e-6, msg=name)
    assert all(clipped), "the norm is above clip_norm, or clipping was not tested"


def test_by_default_there_are_the_two_groups_of_earlier_releases(tiny: Tiny) -> None:
    """Checkpoints of a training that is under way must fit after an upgrade."""
    recipe = finetune(tiny)
    model = recipe.build()
    groups = parameter_groups(model, recipe.backbone(model), recipe.optim)
    trained = [p for p in model.parameters() if p.requires_grad]
    matrices, vectors = ([p for p in trained if (p.ndim > 1) is many] for many in (True, False))
    assert [[id(p) for p in g.parameters] for g in groups] == [
        [id(p) for p in of] for of in (matrices, vectors)
    ]
    assert [(g.weight_decay, g.lr_factor, g.freezes) for g in groups] == [
        (0.01, 1.0, False),
        (0.0, 1.0, False),
    ]


def test_the_norm_behind_the_last_layer_belongs_to_it() -> None:
    last_norm = _stable()
    depths = last_norm.parameter_depths()
    assert depths["encoder.layer_norm.weight"] == last_norm.num_layers
    assert depths["encoder.layers.0.final_layer_norm.weight"] == 1
    assert depths["feature_projection.projection.weight"] == 0
    assert build_random("tiny", 0).parameter_depths()["encoder.layer_norm.weight"] == 0


def _stable() -> SpeechBackbone:
    values = dict(NAMED_SIZES["tiny"]) | {"do_stable_layer_norm": True}
    return Hubert(HubertConfig.from_dict(values))


@pytest.mark.parametrize("keys", [{}, {"head_lr_factor": 5.0, "freeze_backbone_steps": 2}])
def test_the_logged_rate_is_the_one_that_the_optimiser_has(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: dict[str, Json]
) -> None:
    used: list[set[float]] = []
    step = torch.optim.AdamW.step

    def watched(self: torch.optim.AdamW, closure: None = None) -> object:
        used.append({float(group["lr"]) for group in self.param_groups})
        return step(self, closure)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    recipe = warmup(tiny, **keys)
    job = TrainJob(
        recipe,
        Store.open(str(tmp_path / "root")),
        ArtifactKey(recipe.name, "f" * 64),
        TrainWorkersConfig(),
    )
    train_here(job, OneRank())
    curves = read_curves(ArtifactWriter(job.store, job.key).seal(version=1, science={}, inputs={}))
    logged = [value for _, value in curves["learning_rate"]]
    assert len(set(logged)) > 1
    calls = len(used) // 4  # DeepSpeed steps each group by itself
    found = [set().union(*used[i : i + calls]) for i in range(0, len(used), calls)]
    if not keys:
        assert [sorted(rates) for rates in found] == [[pytest.approx(rate)] for rate in logged]
        assert "head_learning_rate" not in curves
        return
    heads = [value for _, value in curves["head_learning_rate"]]
    rates = [learning_rate(recipe.optim, i, 4) for i in range(4)]
    assert heads == pytest.approx([5 * rate for rate in rates])
    assert logged == pytest.approx([0.0, 0.0, *rates[2:]])
    assert [sorted(rates) for rates in found] == [
        pytest.approx(sorted(pair)) for pair in zip(logged, heads, strict=True)
    ]


@pytest.mark.parametrize(("wanted", "low"), [("fp32", False), ("bf16", True)])
def test_workers_with_gpus_exchange_gradients_in_the_type_that_is_configured(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, wanted: Literal["fp32", "bf16"], low: bool
) -> None:
    """What DeepSpeed has made of it, with the autocast of a GPU on a CPU."""
    from deepspeed.runtime import torch_autocast

    monkeypatch.setattr("gmp_atl_dist.training.deepspeed_start.use_bf16", lambda: True)
    # DeepSpeed keeps it for the process; put back afterwards.
    monkeypatch.setattr(torch_autocast, "TORCH_AUTOCAST_INITIALIZED", False)
    monkeypatch.setattr(torch_autocast, "TORCH_AUTOCAST_DTYPE", None)
    recipe = warmup(tiny)
    with one_rank():
        model = recipe.build()
        workers = TrainWorkersConfig(gradient_dtype=wanted)
        engine = Engine(model, recipe.backbone(model), recipe.optim, workers, passes=1)
        zero: Any = engine._engine.optimizer  # pyright: ignore[reportPrivateUsage]
        buckets = set(zero.ipg_buckets)
    assert buckets == ({torch.float32, torch.bfloat16} if low else {torch.float32})


@pytest.mark.parametrize(
    ("config", "keys", "said"),
    [
        (WarmupConfig, {"feature_grad_mult": 0.1}, r"feature_grad_mult: 0.1 with freeze_conv"),
        (
            WarmupConfig,
            {"mask_time_length_frames": 5},
            r"mask_time_length_frames: 5 with mask_time_prob",
        ),
        (
            FinetuneConfig,
            {"mask_feature_length": 9},
            r"mask_feature_length: 9 with mask_feature_prob",
        ),
        # No key of a stage in which it would have no effect.
        (PretrainConfig, {"head_lr_factor": 2.0}, "head_lr_factor"),
        (PretrainConfig, {"scale_weights": [1.0]}, "scale_weights"),
        (RetrainConfig, {"mask_feature_prob": 0.1}, "mask_feature_prob"),
        (RetrainConfig, {"head_dropout": 0.1}, "head_dropout"),
        (WarmupConfig, {"scale_reduction": "sum"}, "scale_reduction"),
        (FinetuneConfig, {"layer_drop": 1.0}, "layer_drop"),
        (FinetuneConfig, {"layer_lr_decay": 0.0}, "layer_lr_decay"),
    ],
)
def test_a_key_without_an_effect_is_refused_by_name(
    config: type[OptimConfig], keys: dict[str, Json], said: str
) -> None:
    with pytest.raises(ValidationError, match=said):
        config.model_validate(keys)
