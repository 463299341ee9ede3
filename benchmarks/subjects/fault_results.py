"""What a run made, and whether another run made the same."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gmp_atl_dist.store.artifact import find_artifact, list_artifacts
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.readers import read_curves

_TRAINED = ("warmup", "retrain", "finetune")
_UNCOMPARED = ("report",)
"""Has the time of the run in it."""
_CURVES_DIFFER = 1e-5
_LOSSES = "loss"


@dataclass(frozen=True)
class Result:
    """Of all artefacts of a root, by kind and fingerprint.

    Attributes:
        digests: sha256 of each object, by its name.
        losses: of the trained ones: (update, loss).
    """

    digests: dict[tuple[str, str], dict[str, str]]
    losses: dict[tuple[str, str], list[tuple[int, float]]]


def results_of(uri: str) -> Result:
    """Read the manifests and the curves below a root."""
    store = Store.open(uri)
    digests: dict[tuple[str, str], dict[str, str]] = {}
    losses: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for key in list_artifacts(store):
        if key.kind in _UNCOMPARED:
            continue
        artifact = find_artifact(store, key)
        if artifact is None:
            continue  # not sealed
        place = (key.kind, key.fingerprint)
        digests[place] = {r.name: r.sha256 for r in artifact.manifest.receipts}
        if key.kind in _TRAINED:
            losses[place] = read_curves(artifact).get(_LOSSES, [])
    return Result(digests, losses)


def compare(expected: Result, found: Result) -> list[str]:
    """What is not the same, in words; empty if all is.

    Trained artefacts are the same if each loss is, to 1e-5: the file that says where a training was resumed
    differs. All others have the same bytes.
    """
    problems: list[str] = []
    for place, digests in sorted(expected.digests.items()):
        kind, fingerprint = place
        what = f"{kind} {fingerprint[:12]}"
        if place not in found.digests:
            problems.append(f"{what} is missing")
        elif place in expected.losses:
            worst = _difference(expected.losses[place], found.losses[place])
            if not worst <= _CURVES_DIFFER:
                problems.append(f"{what}: losses differ by {worst:.2g}")
        elif digests != found.digests[place]:
            names = sorted(
                name
                for name in digests.keys() | found.digests[place].keys()
                if digests.get(name) != found.digests[place].get(name)
            )
            problems.append(f"{what}: other bytes in {', '.join(names[:5])}")
    return problems


def _difference(expected: list[tuple[int, float]], found: list[tuple[int, float]]) -> float:
    """The largest relative difference; infinite if the updates are not the same."""
    if [step for step, _ in expected] != [step for step, _ in found]:
        return math.inf
    a, b = (np.array([value for _, value in curve]) for curve in (expected, found))
    # Not by max(), which passes over what is not a number.
    return float(np.max(np.abs(a - b) / np.maximum(np.abs(a), 1e-9), initial=0.0))
