"""The utterances of a training set, with the number of frames of each."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from gmp_atl_dist.audio import FRAME_HOP_SAMPLES, MIN_SAMPLES
from gmp_atl_dist.clustering.sample import FrameSample, UtteranceSample
from gmp_atl_dist.errors import CorpusError
from gmp_atl_dist.records import EVERYBODY
from gmp_atl_dist.store.genders import training_index
from gmp_atl_dist.store.training_set import TrainingSet


def frame_index(training: TrainingSet, sample: UtteranceSample | None = None) -> pa.Table:
    """Rows of the training set, as ``store.genders.training_index`` has them, sorted by id.

    A column ``num_frames`` is added. With ``sample``, only the sampled utterances are returned.

    Raises:
        CorpusError: there is no such utterance.
        ArtifactError: genders are predicted, and that stage has not run yet.
    """
    index = training_index(training)
    index = index.filter(training.members())
    if sample is not None and not sample.is_all:
        groups = column(index, sample.by) if sample.by else None
        held = sample.mask(column(index, "utterance_id"), groups)
        index = index.filter(pa.array(held, type=pa.bool_()))
    if not index.num_rows:
        raise CorpusError(
            f"fold {training.fold.name!r} has no utterance to extract; check folds.held_out, and "
            f"raise cluster.sample_frames if it is tiny"
        )
    num_samples = index["num_samples"].to_numpy()
    frames = np.maximum(0, (num_samples - MIN_SAMPLES) // FRAME_HOP_SAMPLES + 1)
    return index.append_column("num_frames", pa.array(frames, type=pa.int64()))


def column(index: pa.Table, name: str) -> list[str]:
    """The values of a text column."""
    return [value for chunk in index[name].iterchunks() for value in chunk.to_pylist()]


def sampled_frames(
    training: TrainingSet, sample: FrameSample, *, by_gender: bool
) -> dict[str, int]:
    """About how many frames per group a fit uses; one group of everybody unless ``by_gender``."""
    index = frame_index(training, sample.utterances)
    frames = index["num_frames"].to_numpy().astype(np.float64)
    if sample.utterances.by:
        shares = dict(sample.shares)
        groups = column(index, sample.utterances.by)
        frames *= np.array([shares.get(group, sample.share) for group in groups])
    else:
        frames *= sample.share
    if not by_gender:
        return {EVERYBODY: round(float(frames.sum()))}
    genders = np.array(column(index, "gender"))
    return {str(g): round(float(frames[genders == g].sum())) for g in np.unique(genders)}
