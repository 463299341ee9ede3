"""doctor says who finds the nearest centroids, and where that cannot work."""

from __future__ import annotations

import pytest

from gmp_atl_dist.config import RuntimeConfig
from gmp_atl_dist.device import faiss_gpus
from gmp_atl_dist.doctor.engine import check_engine


@pytest.mark.parametrize(
    ("cluster", "severity", "words"),
    [
        ({}, "ok", "by FAISS on the CPU (auto: FAISS without GPUs)"),
        ({"gpus": 1}, "ok", "by PyTorch on 1 GPUs a process (auto: this FAISS sees no GPU)"),
        ({"engine": "torch"}, "ok", "by PyTorch on the CPU (runtime.cluster.engine"),
        ({"engine": "faiss", "gpus": 1}, "warning", "sees 0 GPUs, runtime.cluster.gpus = 1"),
    ],
)
def test_the_engine_of_this_machine(cluster: dict[str, object], severity: str, words: str) -> None:
    if faiss_gpus():
        pytest.skip("FAISS sees GPUs here")
    (found,) = check_engine(RuntimeConfig.model_validate({"cluster": cluster}))
    assert found.severity == severity
    assert words in found.value
    assert found.item.startswith("runtime.cluster.engine = ")


def test_without_faiss_another_check_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gmp_atl_dist.doctor.engine.find_spec", lambda name: None)
    assert list(check_engine(RuntimeConfig())) == []
