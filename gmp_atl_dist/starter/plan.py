"""Chooses a model and its training so that a run fits a time, from a measured rate."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from gmp_atl_dist.starter.find_corpus import FoundCorpus
from gmp_atl_dist.starter.machine import MachineFacts

_SHARE_OF_TRAINING = 0.7
"""Of the time; the rest is for starting workers, ingest, clustering, evaluation and the report."""
_MOST_GROUPS = 5


@dataclass(frozen=True)
class Model:
    """A choice of ``model.source``.

    Attributes:
        source: what the configuration names.
        measured: the random model of the same size, whose rate is measured.
        least_passes: passes over the training set below which a smaller model learns more.
        memory_gib: what training takes.
    """

    source: str
    measured: str
    least_passes: float
    layers: tuple[int, ...]
    lr: float
    embedding_dim: int
    memory_gib: float

    @property
    def pretrained(self) -> bool:
        return self.source != self.measured


_GPU_BATCH_S = 300
"""Of an update, at most, so that a pass of a GPU has as much; see docs/cluster.md."""
# From small to large: a larger one is measured only if the smaller one has time to spare.
MODELS = (
    Model("random:tiny", "random:tiny", 0, (1, 2, 3), 2e-3, 64, 2),
    Model("random:mini", "random:mini", 20, (2, 4, 6), 1e-3, 128, 2),
    Model("random:small", "random:small", 40, (2, 4, 6), 5e-4, 256, 4),
    Model("facebook/hubert-base-ls960", "random:base", 8, (6, 9, 12), 1e-4, 256, 12),
)


@dataclass(frozen=True)
class Plan:
    """What a run does, and how long that is expected to take."""

    model: Model
    rate: float
    training_s: float
    warmup_epochs: int
    retrain_steps: int
    finetune_epochs: int
    batch_s: float
    groups: tuple[tuple[str, ...], ...]
    expected_s: float
    tried: tuple[tuple[str, float], ...]


def make_plan(
    found: FoundCorpus,
    machine: MachineFacts,
    hours: float,
    rate_of: Callable[[str, int], float],
) -> Plan:
    """The largest model that passes over the training set often enough in the time."""
    groups = speaker_groups(found)
    tested = set(groups[0]) if groups else set()
    utterances = found.listing.utterances
    share = sum(u.speaker not in tested for u in utterances) / len(utterances)
    training_s = max(1.0, found.total_s * share)
    budget_s = hours * 3600 * _SHARE_OF_TRAINING
    chosen, rate, passes = MODELS[0], 1.0, 0.0
    tried: list[tuple[str, float]] = []
    for model in MODELS:
        if model.memory_gib > machine.memory_gib or (model.pretrained and not machine.hub):
            break
        # A training has one GPU: others would have too little audio of an update. They train other folds.
        measured = rate_of(model.measured, machine.cores)
        tried.append((model.source, measured))
        possible = budget_s * measured / training_s
        if model is not MODELS[0] and possible < model.least_passes:
            break
        chosen, rate, passes = model, measured, possible
    most = (10, 10, 20) if chosen.pretrained else (15, 10, 30)
    # A pass of extraction is a forward pass alone, a third of an update. Rounded down, but one at least.
    warmup, retrain, finetune = (
        max(1, min(limit, int((passes - 0.4) * part)))
        for part, limit in zip((0.3, 0.25, 0.45), most, strict=True)
    )
    batch_s = float(max(8, min(_GPU_BATCH_S if machine.gpus else 32, round(training_s / 10))))
    steps = max(1, round(retrain * training_s / batch_s))
    spent_s = (warmup + retrain + finetune + 0.4) * training_s / rate
    return Plan(
        model=chosen,
        rate=rate,
        training_s=training_s,
        warmup_epochs=warmup,
        retrain_steps=steps,
        finetune_epochs=finetune,
        batch_s=batch_s,
        groups=groups,
        expected_s=spent_s / _SHARE_OF_TRAINING,
        tried=tuple(tried),
    )


def speaker_groups(found: FoundCorpus) -> tuple[tuple[str, ...], ...]:
    """Groups of speakers to hold out in turn, each with every gender as far as possible.

    None for IEMOCAP, whose sessions are the groups.
    """
    if found.config.adapter == "iemocap":
        return ()
    gender = {u.speaker: u.gender for u in found.listing.utterances}
    return deal(sorted(gender, key=lambda speaker: (gender[speaker], speaker)))


def deal(speakers: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Speakers that are sorted by gender, dealt to at most five groups, with two in each if it goes."""
    count = max(2, min(_MOST_GROUPS, len(speakers) // 2))
    return tuple(tuple(sorted(speakers[i::count])) for i in range(count) if speakers[i::count])
