"""What may be imported where, as far as import-linter cannot see it: in a running interpreter."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"torch", "ray", "pyarrow", "transformers", "numpy", "faiss", "deepspeed", "matplotlib"}


@pytest.mark.parametrize(
    ("module", "allowed"),
    [
        ("gmp_atl_dist", set()),
        ("gmp_atl_dist.errors", set()),
        ("gmp_atl_dist.config", set()),
        ("gmp_atl_dist.records", {"pyarrow", "numpy"}),
        ("gmp_atl_dist.store.artifact", {"pyarrow", "numpy"}),
    ],
)
def test_a_light_module_stays_light(module: str, allowed: set[str]) -> None:
    script = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    loaded = subprocess.check_output([sys.executable, "-c", script], text=True)

    assert set(loaded.split()) & HEAVY <= allowed
