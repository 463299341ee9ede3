"""How much a stage worked through: audio and updates, from its sealed artefact.

Mapped stages note the audio of each part. For trained stages, the audio is estimated from the number of
updates, since their artefacts do not hold it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np

from gmp_atl_dist.audio import SAMPLE_RATE_HZ
from gmp_atl_dist.config import OptimConfig
from gmp_atl_dist.fold import Fold
from gmp_atl_dist.stages.base import Stage, sealed
from gmp_atl_dist.stages.trained import TrainedStage
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.checkpoints import Checkpoints
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.index import Utterances
from gmp_atl_dist.store.training_set import TrainingSet
from gmp_atl_dist.store.writer import ArtifactWriter

SUMMARY = "training.json"


@dataclass(frozen=True)
class Work:
    """Seconds of audio, repeated passes counted, and updates of a training."""

    audio_s: float = 0.0
    updates: int = 0

    def without(self, before: Work) -> Work:
        """What is left without ``before``, which knows the audio of mapped stages or the updates."""
        updates = max(0, self.updates - before.updates)
        share = updates / self.updates if self.updates else 1.0
        return Work(max(0.0, self.audio_s * share - before.audio_s), updates)


def done_before(stage: Stage, store: Store) -> Work:
    """What earlier attempts have done of a stage that is resumed."""
    if isinstance(stage, TrainedStage):
        steps = [record.step for record in Checkpoints(store, stage.key.fingerprint).sealed()]
        return Work(updates=max(steps, default=0))
    receipts = ArtifactWriter(store, stage.key).done().values()
    return Work(sum(receipt.audio_s for receipt in receipts))


def work_of(stage: Stage, artifact: Artifact) -> Work:
    """The work in a sealed artefact, by all attempts together."""
    if not isinstance(stage, TrainedStage):
        return Work(sum(receipt.audio_s for receipt in artifact.manifest.receipts))
    summary = json.loads(artifact.read_file(SUMMARY))
    updates = int(summary["updates"])
    return Work(_trained_audio_s(stage, updates, int(summary["epochs"])), updates)


def _trained_audio_s(stage: TrainedStage, updates: int, epochs: int) -> float:
    """The audio of all epochs; with a number of updates in place of epochs about a full batch each."""
    optim = getattr(stage, "config", None)
    training, fold = getattr(stage, "training", None), getattr(stage, "fold", None)
    if not isinstance(optim, OptimConfig):
        return 0.0
    if isinstance(training, TrainingSet):
        used = training.training_speakers
    elif isinstance(fold, Fold):
        used = fold.training_speakers()
    else:
        return 0.0
    corpus = sealed(stage.inputs()["corpus"])
    samples = Utterances(corpus, used.speakers, used.utterance_ids).num_samples
    total = np.minimum(samples, optim.max_utterance_s * SAMPLE_RATE_HZ).sum()
    audio_s = epochs * float(total) / SAMPLE_RATE_HZ
    return audio_s if optim.steps is None else min(audio_s, updates * optim.batch_s)
