"""What the subjects of ``benchmarks.train`` train on: random labels, kept front-end outputs, recipes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.inputs.speech import Speech
from benchmarks.inputs.stages import sealed_of_kind
from benchmarks.subjects.updates import NotedFinetune, NotedRetrain
from gmp_atl_dist.audio import num_frames
from gmp_atl_dist.config import FinetuneConfig, RetrainConfig
from gmp_atl_dist.stages.base import find_or_run
from gmp_atl_dist.stages.frontend import Frontend
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.codebooks import Codebook
from gmp_atl_dist.store.index import Utterances
from gmp_atl_dist.store.labels import UtteranceLabels, put_labels
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.store.training_set import TrainingSet
from gmp_atl_dist.store.writer import ArtifactWriter

RANKS = 2
K = 500
CLIP_NORM = 10.0
_BOOK = Codebook(0, 9, "all", 0, np.arange(K, dtype=np.float32)[:, None])


@dataclass(frozen=True)
class Plan:
    """How long a training is.

    Attributes:
        warm_up: first updates, which do not count.
        updates: that count.
        batch_s: seconds of audio per update, over all ranks.
        trainer_batch: recordings per process and update of the Trainer.
    """

    warm_up: int
    updates: int
    batch_s: float
    trainer_batch: int

    @property
    def end(self) -> int:
        """The update that ends the time that is measured; it is begun, so one more is taken."""
        return self.warm_up + self.updates


def put_random_labels(root: str) -> None:
    """Labels of every training recording, drawn at random."""
    speech = Speech.at(root)
    rng = np.random.default_rng(0)
    rows = [
        UtteranceLabels(
            u.utterance_id,
            (_BOOK.fingerprint,),
            (rng.integers(0, K, num_frames(u.num_samples)).astype("<i2"),),
        )
        for u in Utterances(speech.corpus, speech.fold.train_speakers)
    ]
    out = ArtifactWriter(speech.context.store, ArtifactKey("label", "1" * 64))
    put_labels(out, "part", rows)
    out.seal(version=1, science={}, inputs={})


def keep_frontend(root: str) -> None:
    """The outputs of the frozen convolutional encoder, as ``runtime.train.frontend_cache`` keeps them."""
    speech = Speech.at(root)
    with speech.context.connection:
        speech.context.connection.open()
        find_or_run(Frontend(speech.corpus, speech.backbone), speech.context)


def kept_frontend(root: str) -> Artifact:
    """What :func:`keep_frontend` left."""
    return sealed_of_kind(Speech.at(root).context.store, "frontend")


def retrain_recipe(
    root: str, notes: Path, steps: int, batch_s: float, *, freeze_conv: bool = False
) -> NotedRetrain:
    """``retrain`` on random labels; it notes its updates in the file ``notes``."""
    speech = Speech.at(root)
    config = RetrainConfig(
        steps=steps,
        batch_s=batch_s,
        micro_batches=RANKS,
        dropout=0.1,
        clip_norm=CLIP_NORM,
        freeze_conv=freeze_conv,
    )
    labels = sealed_of_kind(speech.context.store, "label")
    training = TrainingSet(speech.corpus, speech.fold.training_speakers())
    recipe = NotedRetrain(config, training, speech.backbone, labels, (_BOOK,))
    recipe.notes = notes
    return recipe


def finetune_recipe(root: str, notes: Path, steps: int, batch_s: float) -> NotedFinetune:
    """``finetune`` with the convolutional encoder frozen; it notes its updates likewise."""
    speech = Speech.at(root)
    config = FinetuneConfig(
        epochs=None,
        steps=steps,
        batch_s=batch_s,
        micro_batches=RANKS,
        clip_norm=CLIP_NORM,
        freeze_conv=True,
        select="last",
    )
    training = speech.fold.training_speakers()
    recipe = NotedFinetune(config, speech.corpus, speech.backbone, training, ())
    recipe.notes = notes
    return recipe
