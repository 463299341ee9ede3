"""Label plans with a sample that a test gives."""

from __future__ import annotations

from gmp_atl_dist.clustering.sample import FrameSample, UtteranceSample
from gmp_atl_dist.stages.label_plan import LabelPlan

EVERYTHING = FrameSample(UtteranceSample(1.0, 0))


def plan_of(
    sample: FrameSample = EVERYTHING, *, fused: bool = False, num_scales: int = 3
) -> LabelPlan:
    return LabelPlan(fused, num_scales, lambda: sample)
