"""Which GPUs a configuration would leave idle, and what doctor says to set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from test_check_room import facts, group

from gmp_atl_dist.config import RunConfig
from gmp_atl_dist.config.file import load_config
from gmp_atl_dist.doctor.findings import Finding
from gmp_atl_dist.doctor.idle import check_idle
from gmp_atl_dist.ray_api.facts import ClusterFacts

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
EIGHT = facts((64, 8))
NONE = facts((64, 0))
SHARED = {"batch_s": 300, "micro_batches": 8}


def found(cluster: ClusterFacts, config: Mapping[str, object], **runtime: object) -> list[Finding]:
    trained = dict.fromkeys(("warmup", "retrain", "finetune"), SHARED)
    gpu = {"extract": {"gpus": 1, "workers": [1, 8]}, "train": {"gpus": 1}}
    whole = RunConfig.model_validate({**trained, **config, "runtime": {**gpu, **runtime}})
    made = list(check_idle(whole, cluster))
    assert all(f.severity == "warning" and f.remedy for f in made)
    return made


def test_gpus_that_are_used_are_well() -> None:
    assert found(EIGHT, {}) == []
    assert found(NONE, {}, extract={}, train={"workers": 4}) == [], "on cores alone"


@pytest.mark.parametrize("cluster", [EIGHT, facts((8, 0), groups=(group(2, 64, 8),))])
def test_a_cluster_with_gpus_that_nothing_asks_for(cluster: ClusterFacts) -> None:
    extract, train = found(cluster, {}, extract={}, train={})
    assert (extract.item, train.item) == ("runtime.extract.gpus = 0", "runtime.train.gpus = 0")
    assert "trainings compute on cores" in train.value
    assert train.remedy == "set runtime.train.gpus = 1"


def test_gpus_that_a_section_cannot_reach_are_not_named() -> None:
    elsewhere = {"resources": {"decode": 0.001}}
    assert found(EIGHT, {}, extract=elsewhere, train=elsewhere) == []


@pytest.mark.parametrize(("workers", "share", "fewer"), [(8, "37.5", 1), ([1, 2], "150", 1)])
def test_too_little_audio_for_each_gpu(workers: object, share: str, fewer: int) -> None:
    (told,) = found(EIGHT, {}, train={"gpus": 1, "workers": workers})
    assert "warmup, retrain, finetune: batch_s = 300, runtime.train.workers = " in told.item
    assert f"a pass of one GPU has {share} s of audio at most" in told.value
    assert f"set runtime.train.workers = {fewer}:" in told.remedy


def test_too_short_an_update_for_one_gpu() -> None:
    (told,) = found(EIGHT, {"finetune": {"batch_s": 32}})
    assert told.item == "finetune: batch_s = 32"
    assert "an update, and so a pass, has 32 s of audio" in told.value
    assert "a batch_s of 200 would keep the GPU busy, and is another experiment" in told.remedy


def test_passes_that_are_kept_short() -> None:
    (told,) = found(EIGHT, {}, train={"gpus": 1, "pass_s": 50})
    assert told.item == "runtime.train.pass_s = 50"
    assert found(EIGHT, {}, train={"gpus": 1, "pass_s": 250}) == []


def test_more_workers_than_micro_batches_divide_among() -> None:
    large = {n: {"batch_s": 2000, "micro_batches": 8} for n in ("warmup", "retrain", "finetune")}
    (told,) = found(EIGHT, large, train={"gpus": 1, "workers": 5})
    assert told.value == "of 10 passes of an update 2 are empty"
    assert told.remedy == "set runtime.train.workers to one of 1, 2, 4"
    assert found(EIGHT, large, train={"gpus": 1, "workers": 8}) == []


def test_stages_that_do_not_run_are_not_looked_at() -> None:
    short = {"warmup": {"batch_s": 32}, "retrain": {"batch_s": 32}}
    assert len(found(EIGHT, short)) == 1
    assert found(EIGHT, {**short, "finetune": {**SHARED, "start": "backbone"}}) == []


def test_extraction_that_could_have_more_workers_or_readers() -> None:
    workers, readers = found(EIGHT, {}, extract={"gpus": 1, "workers": 3, "readers": 2})
    assert workers.item == "runtime.extract.workers = 3 at most"
    assert "room for 8 with 1 GPU each" in workers.value
    assert workers.remedy == "set runtime.extract.workers = [1, 8]"
    assert readers.item == "runtime.extract.readers = 2"
    assert found(EIGHT, {}, extract={"gpus": 1, "workers": 8, "readers": 16}) == []
    (short,) = found(EIGHT, {}, extract={"gpus": 1, "workers": 8, "batch_s": 20})
    assert (short.item, short.remedy.split(":")[0]) == (
        "runtime.extract.batch_s = 20",
        "leave the key out",
    )
    assert found(EIGHT, {}, extract={"gpus": 1, "workers": 8, "batch_s": 120}) == []


@pytest.mark.parametrize(
    "name",
    [
        "iemocap.toml",
        *(
            f"{d}/{n}.toml"
            for d in ("iemocap", "iemocap_large")
            for n in ("gmp_atl", "finetune", "tapt")
        ),
    ],
)
def test_the_shipped_configurations_for_gpus_leave_none_idle(name: str) -> None:
    config = load_config(CONFIGS / name)
    assert config.runtime.train.gpus == 1
    assert list(check_idle(config, EIGHT)) == []
    for section in config.trained_sections:
        share_s = getattr(config, section).batch_s / config.runtime.train.max_workers
        assert 200 <= share_s <= 400
