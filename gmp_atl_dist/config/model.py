"""The model that everything starts from."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gmp_atl_dist.config.sections import Location, Section

RANDOM_SOURCE = "random:"
"""What ``model.source`` begins with where there is no checkpoint; the name of a size follows."""


class ModelConfig(Section):
    """The stock HuBERT that everything starts from."""

    source: Location = Field(
        default="facebook/hubert-base-ls960",
        description="hub id, local folder, store URI, or random:tiny|mini|small|base|large",
    )
    revision: str = Field(
        default="dba3bb02fda4248b6e082697eee756de8fe8aa8a", description="pinned commit of a hub id"
    )
    seed: int = Field(default=0, description="random seed of the weights of random:SIZE")
    normalize_waveform: Literal["auto", "yes", "no"] = Field(
        default="auto",
        description="zero mean and unit variance; auto: where the convolutions use layer norm",
    )
