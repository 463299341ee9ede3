"""Tests on each device: the CPU, and a GPU where there is one.

A test that takes ``device`` is run for both. The run for the GPU is marked ``gpu`` and skips itself without
one; that for the CPU shows on any machine that the test works. PYTEST_DONT_REWRITE
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from gmp_atl_dist.device import choose_accelerator

needs_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no GPU here"),
]
DEVICES = ("cpu", pytest.param("cuda", marks=needs_gpu))


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """The package computes on it in this process meanwhile, and on the CPU afterwards."""
    choose_accelerator(request.param)
    try:
        yield torch.device(request.param)
    finally:
        choose_accelerator("cpu")
