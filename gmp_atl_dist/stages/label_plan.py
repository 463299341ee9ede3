"""How features become labels: through stored features, or fused with their computation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from gmp_atl_dist.audio import FRAME_HOP_SAMPLES, SAMPLE_RATE_HZ
from gmp_atl_dist.clustering.sample import FrameSample, UtteranceSample, plan_sample
from gmp_atl_dist.config import ClusterConfig, Json, LabelConfig
from gmp_atl_dist.stages.frame_index import column, frame_index
from gmp_atl_dist.store.training_set import TrainingSet

_DRAWN_BY = ("balance", "sample_frames", "sample_spread", "seed")


@dataclass(frozen=True)
class LabelPlan:
    """Whether labels are fused with extraction, and the frames that k-means is fitted on.

    ``draw`` plans the sample. It reads the corpus, so it is called when the sample is first needed.
    """

    fused: bool
    num_scales: int
    draw: Callable[[], FrameSample]
    drawn_by: Mapping[str, Json] = field(default_factory=dict)
    """The keys of ``cluster`` that the sample follows from, besides the training set."""

    @cached_property
    def frames(self) -> FrameSample:
        """The frames that k-means is fitted on."""
        return self.draw()

    @property
    def sample(self) -> UtteranceSample:
        """The utterances that these frames are of."""
        return self.frames.utterances

    def describe(self, training: TrainingSet, hidden_size: int, num_layers: int) -> str:
        """The cost of both ways, in bytes and forward passes, and which one is used."""
        all_frames, sampled = (_total_frames(training, sample) for sample in (None, self.sample))
        frame_bytes = 2 * hidden_size * num_layers
        label_bytes = 2 * self.num_scales * all_frames
        hours = all_frames * FRAME_HOP_SAMPLES / SAMPLE_RATE_HZ / 3600
        passes = 1 + sampled / all_frames
        stored = f"stored: 1 pass over {hours:.3g} h, {_size(frame_bytes * all_frames)} of features"
        fused = f"fused: {passes:.3g} passes, {_size(frame_bytes * sampled)} of features"
        chosen = "fused" if self.fused else "stored"
        return f"{stored}; {fused}; labels {_size(label_bytes)} either way; this run uses {chosen}"


def plan_labels(label: LabelConfig, cluster: ClusterConfig, training: TrainingSet) -> LabelPlan:
    """The way that ``label`` asks for, and the sample that k-means is fitted on."""

    def draw() -> FrameSample:
        # Predicted genders may not be there yet, and only a sample that is balanced by them waits for them.
        by_gender = cluster.balance == "gender"
        index = frame_index(training if by_gender else replace(training, genders=None))
        groups = [] if cluster.balance == "none" else column(index, cluster.balance)
        frames = index["num_frames"].to_numpy()
        return plan_sample(cluster, column(index, "utterance_id"), groups, frames)

    drawn_by = {name: getattr(cluster, name) for name in _DRAWN_BY}
    return LabelPlan(label.fused, len(cluster.scales), draw, drawn_by)


def _total_frames(training: TrainingSet, sample: UtteranceSample | None) -> int:
    return int(frame_index(training, sample)["num_frames"].to_numpy().sum())


def _size(num_bytes: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.3g} TB"
