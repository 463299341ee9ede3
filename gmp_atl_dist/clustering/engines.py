"""Who finds the nearest centroids: FAISS, or PyTorch where no FAISS fits the installed CUDA."""

from __future__ import annotations

from typing import Literal

from gmp_atl_dist.device import faiss_gpus

Engine = Literal["faiss", "torch"]
EngineChoice = Literal["auto", "faiss", "torch"]
"""What a configuration asks for (``runtime.cluster.engine``)."""


def chosen_engine(choice: EngineChoice, gpus: int) -> Engine:
    """``auto`` is FAISS, unless GPUs are asked for and the FAISS of this process does not see them."""
    if choice != "auto":
        return choice
    return "torch" if gpus and faiss_gpus() < gpus else "faiss"


def describe_engine(choice: EngineChoice, engine: Engine, gpus: float) -> str:
    """One line: the engine of a fit, and why it is that one."""
    name = {"faiss": "FAISS", "torch": "PyTorch"}[engine]
    where = f"{gpus:g} GPUs a process" if gpus else "the CPU"
    if choice != "auto":
        why = f'runtime.cluster.engine = "{choice}"'
    elif not gpus:
        why = "auto: FAISS without GPUs"
    elif engine == "faiss":
        why = "auto: this FAISS sees the GPUs"
    else:
        why = "auto: this FAISS sees no GPU"
    return f"nearest centroids by {name} on {where} ({why})"
