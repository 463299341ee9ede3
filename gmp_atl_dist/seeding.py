"""Random numbers that depend on a key alone: not on earlier draws, and not on the process."""

from __future__ import annotations

import hashlib

import numpy as np


def keyed_seed(*key: object) -> int:
    """63 bits from the key; equal keys give equal seeds on every machine."""
    text = "\x1f".join(str(k) for k in key)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def keyed_rng(*key: object) -> np.random.Generator:
    """A generator whose seed is :func:`keyed_seed`."""
    return np.random.default_rng(keyed_seed(*key))
