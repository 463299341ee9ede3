"""Whose audio clustering and retraining learn from, and in which pieces it is worked on."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gmp_atl_dist.audio import FRAME_HOP_SAMPLES, MIN_SAMPLES, SAMPLE_RATE_HZ
from gmp_atl_dist.clustering.sample import FrameSample, UtteranceSample, plan_sample
from gmp_atl_dist.config import ClusterConfig, LabelConfig
from gmp_atl_dist.errors import CorpusError
from gmp_atl_dist.inference.audio_slices import AudioSlice
from gmp_atl_dist.records import EVERYBODY, Fold, TrainingSpeakers
from gmp_atl_dist.runtime import Task
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.index import read_index


@dataclass(frozen=True)
class Learners:
    """The speakers of a fold that may be heard; transductive, the arm that says so, hears all."""

    corpus: Artifact
    fold: Fold
    transductive: bool

    @property
    def speakers(self) -> tuple[str, ...]:
        return self.listeners.speakers

    @property
    def listeners(self) -> TrainingSpeakers:
        """The same as what a fitted stage takes."""
        fold = self.fold
        return fold.transductive_speakers() if self.transductive else fold.training_speakers()

    def index(self, sample: UtteranceSample | None = None) -> pa.Table:
        """Their rows of :func:`gmp_atl_dist.store.index.read_index`, and a column ``num_frames``.

        Raises:
            CorpusError: there is none.
        """
        index = read_index(self.corpus)
        index = index.filter(pc.field("speaker").isin(self.speakers))
        if sample is not None and not sample.is_all:
            groups = _column(index, sample.by) if sample.by else None
            held = sample.mask(_column(index, "utterance_id"), groups)
            index = index.filter(pa.array(held, type=pa.bool_()))
        if not index.num_rows:
            raise CorpusError(
                f"fold {self.fold.name!r} has no utterance to extract; check folds.held_out, and "
                f"raise cluster.sample_frames if it is tiny"
            )
        num_samples = index["num_samples"].to_numpy()
        frames = np.maximum(0, (num_samples - MIN_SAMPLES) // FRAME_HOP_SAMPLES + 1)
        return index.append_column("num_frames", pa.array(frames, type=pa.int64()))


def plan_parts(index: pa.Table, part_frames: int) -> list[Task]:
    """Tasks over consecutive utterances of ``index``, as even in frames as utterances allow.

    A task names the rows of each ``ingest`` part that it is made of; its cost is its frames. The
    plan follows from the data and ``part_frames``, never from who does it.
    """
    frames = index["num_frames"].to_numpy()
    ends = np.cumsum(frames)
    total = int(ends[-1])
    count = max(1, round(total / part_frames))
    # An utterance belongs to the part in which its middle lies.
    belongs = np.minimum((ends - frames / 2) * count // max(total, 1), count - 1).astype(np.int64)
    source = index["part"].combine_chunks()
    sources = source.indices.to_numpy()
    rows = index["row"].to_numpy()
    cuts = np.flatnonzero((np.diff(belongs) != 0) | (np.diff(sources) != 0)) + 1
    firsts = np.concatenate([[0], cuts])
    lasts = np.concatenate([cuts, [len(frames)]]) - 1
    names = source.dictionary.to_pylist()
    slices: dict[int, list[AudioSlice]] = {}
    for first, last in zip(firsts, lasts, strict=True):
        piece = AudioSlice(names[sources[first]], int(rows[first]), int(rows[last]) + 1)
        slices.setdefault(int(belongs[first]), []).append(piece)
    costs = np.bincount(belongs, weights=frames, minlength=count)
    # Numbered anew, because a very long utterance may leave a number without any.
    return [
        Task(
            f"part-{number:05d}",
            json.dumps([[s.part, s.start, s.stop] for s in slices[key]]),
            float(costs[key]),
        )
        for number, key in enumerate(sorted(slices))
    ]


def _column(index: pa.Table, name: str) -> list[str]:
    return [value for chunk in index[name].iterchunks() for value in chunk.to_pylist()]


def sampled_frames(learners: Learners, sample: FrameSample, *, by_gender: bool) -> dict[str, int]:
    """About how many frames of each group a fit hears; the group of everybody unless by gender."""
    index = learners.index(sample.utterances)
    frames = index["num_frames"].to_numpy().astype(np.float64)
    if sample.utterances.by:
        shares = dict(sample.shares)
        groups = _column(index, sample.utterances.by)
        frames *= np.array([shares.get(group, sample.share) for group in groups])
    else:
        frames *= sample.share
    if not by_gender:
        return {EVERYBODY: round(float(frames.sum()))}
    genders = np.array(_column(index, "gender"))
    return {str(g): round(float(frames[genders == g].sum())) for g in np.unique(genders)}


@dataclass(frozen=True)
class LabelPlan:
    """How features become labels: through the store, or where they are computed."""

    fused: bool
    frames: FrameSample
    num_scales: int

    @property
    def sample(self) -> UtteranceSample:
        """The utterances that k-means hears."""
        return self.frames.utterances

    def words(self, learners: Learners, hidden_size: int, num_layers: int) -> str:
        """What both ways cost, in bytes and forward passes, and which one it is."""
        everything, sampled = (
            _total_frames(learners.index(sample)) for sample in (None, self.sample)
        )
        frame_bytes = 2 * hidden_size * num_layers
        label_bytes = 2 * self.num_scales * everything
        hours = everything * FRAME_HOP_SAMPLES / SAMPLE_RATE_HZ / 3600
        passes = 1 + sampled / everything
        stored = f"stored: 1 pass over {hours:.3g} h, {_size(frame_bytes * everything)} of features"
        fused = f"fused: {passes:.3g} passes, {_size(frame_bytes * sampled)} of features"
        chosen = "fused" if self.fused else "stored"
        return f"{stored}; {fused}; labels {_size(label_bytes)} either way; it is {chosen}"


def plan_labels(label: LabelConfig, cluster: ClusterConfig, learners: Learners) -> LabelPlan:
    """The way that ``label`` asks for, and the sample that k-means hears in either."""
    index = learners.index()
    groups = [] if cluster.balance == "none" else _column(index, cluster.balance)
    frames = index["num_frames"].to_numpy()
    sample = plan_sample(cluster, _column(index, "utterance_id"), groups, frames)
    return LabelPlan(label.fused, sample, len(cluster.scales))


def _total_frames(index: pa.Table) -> int:
    return int(index["num_frames"].to_numpy().sum())


def _size(num_bytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.3g} TB"
