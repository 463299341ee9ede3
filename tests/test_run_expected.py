"""What a run says before a stage that runs the model: hours, share of the GPU's rate, cost, or not known."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.one_process import Tiny, context_of, tiny_experiment
from test_run_progress import measured, record

from gmp_atl_dist.config import RunConfig
from gmp_atl_dist.config.runtime import PriceConfig
from gmp_atl_dist.execution import run_pipeline
from gmp_atl_dist.models.backbone_registry import read_config
from gmp_atl_dist.runs import progress as progress_module
from gmp_atl_dist.runs.estimate import ExpectedWork, Planned
from gmp_atl_dist.runs.expected import Rate, expectation, rate_of, training_flops
from gmp_atl_dist.runs.progress import RunProgress
from gmp_atl_dist.store.index import read_index
from gmp_atl_dist.store.runs import write_run

pytest_plugins = ["support.one_process"]

H100 = {"CPU": 16.0, "GPU": 8.0, "accelerator_type:H100": 1.0}
EUR = PriceConfig(gpu_hour=2.5, core_hour=0.1, currency="EUR")


def test_hours_share_and_cost_of_a_stage() -> None:
    held = {"CPU": 8.0, "GPU": 2.0}
    said = expectation(
        "retrain fold1", 7200.0, held, EUR, flops=0.25 * 7200 * 2 * 989e12, rate=rate_of([H100])
    )
    assert said == (
        "retrain fold1: expected to take about 2 h, 16 core-hours, 4 GPU-hours, 11.60 EUR, 25 % of the "
        "nominal rate of H100; by what stages took before"
    )


def test_what_is_not_known_is_said() -> None:
    held = {"CPU": 1.0, "GPU": 1.0}
    assert expectation("warmup fold1", None, held, EUR) == (
        "warmup fold1: how long it takes, and what it costs, is not known: nothing like it was measured "
        "below this root"
    )
    said = expectation("warmup", 600.0, held, PriceConfig(), flops=1.0, rate=rate_of([{"GPU": 1}]))
    assert said.startswith(
        "warmup: expected to take about 10 min, 0.167 core-hours, 0.167 GPU-hours, share"
    )
    assert (
        "share of the device's rate not known, because the cluster does not say which GPUs it has"
        in said
    )
    assert "number of workers may change" in expectation("warmup", 600.0, {}, EUR)
    of_cores = expectation("warmup", 5.0, {"CPU": 2.0}, PriceConfig())
    assert of_cores == (
        "warmup: expected to take less than a minute, less than 0.01 core-hours; by what stages took before"
    )
    assert "rate" not in expectation("warmup", 600.0, {"CPU": 2.0}, EUR, rate=Rate(None, "no GPU"))
    assert "rate" not in expectation("extract", 600.0, held, EUR)
    other = expectation("warmup", 600.0, held, EUR, before={"CPU": 8.0, "GPU": 8.0})
    assert other.endswith("by what stages took before; it then had 8 cores and 8 GPUs")
    assert expectation("warmup", 600.0, held, EUR, before=held).endswith("took before")
    resumed = expectation("warmup", 600.0, held, EUR, whole=False)
    assert resumed.endswith("; an earlier attempt has done a part of it")


def test_the_rate_of_gpus_of_one_known_kind() -> None:
    on_cpus = {"CPU": 64.0, "accelerator_type:T4": 1.0}
    assert rate_of([H100, on_cpus, H100]) == Rate(989e12, "H100"), (
        "a node without GPUs does not count"
    )
    assert rate_of(None).flops is None
    both = rate_of([H100, {"GPU": 1.0, "accelerator_type:L4": 1.0}])
    assert (both.flops, both.said) == (None, "the cluster has several kinds of GPUs: H100, L4")
    assert (
        rate_of([{"GPU": 1.0, "accelerator_type:K80": 1.0}]).said
        == "no nominal rate of K80 is known here"
    )


def test_the_arithmetic_of_a_training(tiny: Tiny) -> None:
    implementation, values = read_config(tiny.backbone.read_file("config.json"), "tiny")
    lengths = read_index(tiny.corpus)["num_samples"].to_numpy()
    of_frame = implementation.flops(values, float(lengths.mean()) / 320)

    def asked(name: str, **keys: object) -> float | None:
        config = RunConfig.model_validate({name: keys} if keys else {})
        return training_flops(
            config, Planned(name, "fold1", ExpectedWork(10.0)), tiny.backbone, tiny.corpus
        )

    frames = 10.0 * 50
    assert asked("warmup", freeze_conv=True) == pytest.approx(
        frames * (of_frame.conv + 3 * of_frame.rest)
    )
    assert asked("warmup", freeze_conv=False) == pytest.approx(
        frames * 3 * (of_frame.conv + of_frame.rest)
    )
    assert asked("extract") is None


def test_a_run_says_it_before_each_stage_that_runs_the_model(
    in_process: None,
    tiny_corpus: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(progress_module, "cluster_nodes", lambda: [H100])
    gpu = {"gpus": 1, "cpus": 1}
    price = {"gpu_hour": 2.5, "currency": "EUR"}
    config = tiny_experiment(
        tiny_corpus, tmp_path / "root", runtime={"train": gpu, "extract": gpu, "price": price}
    )
    context = context_of(tmp_path / "root", tiny_corpus, config)
    earlier = [measured(name, 7200.0) for name in ("extract", "finetune")]
    earlier.append(measured("warmup", 7200.0).model_copy(update={"held": {"CPU": 2.0}}))
    write_run(context.store, record(config, *earlier))
    run_pipeline(config, context, (RunProgress(config, context),))
    lines = capsys.readouterr().out.splitlines()

    warmup = next(line for line in lines if line.startswith("warmup fold1: expected"))
    assert "about 2 h, 2 core-hours, 2 GPU-hours, 5.00 EUR, " in warmup
    assert "H100; by what stages took before; it then had 2 cores" in warmup
    assert " % of the nominal rate of " in warmup
    assert float(warmup.split("EUR, ")[1].split(" %")[0]) < 1e-3, "2 h for a tiny model"
    extract = next(line for line in lines if line.startswith("extract fold1: expected"))
    assert "nominal rate" not in extract
    # It was never measured, and has the pace of another training.
    assert any(line.startswith("retrain fold1: expected") for line in lines)
    before = lines.index(warmup)
    assert not any("warmup fold1: done" in line for line in lines[:before])
    assert not any(line.startswith("cluster fold1: expected") for line in lines)
