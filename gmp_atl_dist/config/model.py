"""The model that everything starts from."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from gmp_atl_dist.config.sections import Location, Section

RANDOM_SOURCE = "random:"
"""What ``model.source`` begins with where there is no checkpoint; the name of a size follows."""

_HUB = re.compile(r"hf:/*(?!/*datasets/)", re.IGNORECASE)


def _no_hub_uri(value: object) -> object:
    """``hf://`` names data sets; a model of the hub has an id."""
    if isinstance(value, str) and (match := _HUB.match(value.strip())):
        name = value.strip()[match.end() :]
        known = name if name.count("/") == 1 else "OWNER/NAME"
        raise ValueError(
            f"{value!r} is no model; write the id of a model of the hub without hf:, e.g. {known}"
        )
    return value


class ModelConfig(Section):
    """The stock HuBERT that everything starts from."""

    source: Annotated[Location, BeforeValidator(_no_hub_uri)] = Field(
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
