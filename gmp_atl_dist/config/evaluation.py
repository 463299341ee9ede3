"""How the test speakers are scored."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from gmp_atl_dist.config.sections import PositiveInt, Section


class EvaluateConfig(Section):
    """Scores of the test speakers, with bootstrap intervals."""

    bootstrap_samples: PositiveInt = Field(
        default=2000, description="bootstrap resamples per interval; more make its ends more exact"
    )
    confidence: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.95, description="confidence level of the intervals; 0.95: 95 % intervals"
    )
    seed: int = Field(default=0, description="random seed of the resampling")
