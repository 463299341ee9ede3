"""From a model to frame labels: features, codebooks, labels."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from gmp_atl_dist.config.corpus import MAX_UTTERANCE_S
from gmp_atl_dist.config.hashing import Added
from gmp_atl_dist.config.sections import PositiveFloat, PositiveInt, Section


class ExtractConfig(Section):
    """Frame features of the model whose clusters become the pseudo-labels."""

    of: Annotated[Literal["warmup", "backbone"], Added("0.5.0", left_out_at="warmup")] = Field(
        default="warmup",
        description="whose features: the warmed-up model's, or those of the model that a fold starts "
        "from. With backbone, the labels know nothing of emotion or gender",
    )

    layers: tuple[PositiveInt, ...] = Field(
        default=(6, 9, 12),
        min_length=1,
        description="layers whose features are stored; cluster.scales uses them",
    )
    part_frames: Annotated[int, Field(gt=0, le=1_000_000)] = Field(
        default=30_000,
        description="frames per part (50 per second); parts are as even as utterances allow",
    )
    max_window_s: PositiveFloat = Field(
        default=MAX_UTTERANCE_S,
        description="longer recordings are seen by attention in overlapping windows",
    )
    window_context_s: Annotated[float, Field(ge=0)] = Field(
        default=5.0, description="context on either side of the part of a window that is kept"
    )
    compression: Literal["none", "zstd"] = Field(
        default="none",
        description="compression of the stored features; zstd saves some 8 %, and costs time",
    )

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if len(set(self.layers)) != len(self.layers):
            raise ValueError(f"layers {list(self.layers)} names one twice; list each once")
        if self.max_window_s < 2 * self.window_context_s + 1:
            raise ValueError(
                f"max_window_s: {self.max_window_s:g} leaves less than a second between two contexts "
                f"of window_context_s = {self.window_context_s:g}; raise it, or lower that"
            )
        return self


class Scale(Section):
    """One set of pseudo-labels: ``k`` clusters of layer ``layer``."""

    layer: Annotated[int, Field(ge=0)] = Field(
        description="one of extract.layers; 0 stands for the MFCCs that pretraining starts from"
    )
    k: Annotated[int, Field(ge=2)] = Field(
        description="number of clusters, which is the number of pseudo-labels"
    )
    seed: int | None = Field(
        default=None, description="random seed of this scale; unset: cluster.seed"
    )
    codebook: str | None = Field(
        default=None,
        min_length=6,
        description="fingerprint of an imported or fitted codebook that is used as it is, instead of a "
        "fit. It must not know speech outside the training set",
    )

    @field_validator("k", mode="before")
    @classmethod
    def _two_or_more(cls, raw: object) -> object:
        if isinstance(raw, int) and raw < 2:
            raise ValueError(
                "fewer than two clusters give every frame the same label, which teaches nothing; "
                "give 2 or more, e.g. 50"
            )
        return raw


class ClusterConfig(Section):
    """k-means per scale, on training speakers' frames alone."""

    scales: tuple[Scale, ...] = Field(
        default=(Scale(layer=6, k=50), Scale(layer=9, k=50), Scale(layer=12, k=50)),
        min_length=1,
        description="layers that are clustered and numbers of clusters; one set of pseudo-labels each",
    )
    gender: Literal["multitask", "by_gender", "none"] = Field(
        default="multitask",
        description="multitask: gender reaches the codebooks through the warmed-up features. "
        "by_gender: a codebook for each gender as well, whose label ids are never shared. "
        "none: the "
        "ablation, which needs warmup.gender_weight = 0",
    )
    metric: Literal["euclidean", "cosine"] = Field(
        default="euclidean", description="cosine: frames and centroids have unit length"
    )
    init: Literal["random", "k-means++"] = Field(
        default="random",
        description="how the first centroids are chosen among frames; k-means++ prefers those "
        "apart",
    )
    iterations: PositiveInt = Field(default=25, description="most updates of the centroids")
    tolerance: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=3e-4,
        description="stop when an update lowers the mean squared distance by a smaller share; "
        "0: only "
        "when it lowers it no more",
    )
    sample_frames: PositiveInt | Literal["all"] = Field(
        default=2_000_000,
        description="most frames per layer in the fit; 'all': every frame",
    )
    sample_spread: Annotated[float, Field(ge=1)] = Field(
        default=4.0,
        description="the sample is drawn from utterances that hold about this many times as "
        "many frames",
    )
    balance: Literal["none", "speaker", "gender", "emotion"] = Field(
        default="none",
        description="groups that give equally many frames to the sample, as far as they have them; "
        "none: no groups",
    )
    silence: Literal["keep", "drop"] = Field(
        default="keep",
        description="whether silent frames are used in the fit; they are labelled either way",
    )
    silence_db: PositiveFloat = Field(
        default=40.0,
        description="a frame this far below the loudest frame of its utterance is silence",
    )
    stability_frames: Annotated[int, Field(ge=0)] = Field(
        default=20_000,
        description="frames on which a scale is fitted from two seeds, to compare the labels; "
        "0: no "
        "comparison",
    )
    seed: int = Field(
        default=0, description="random seed of the sample of frames and of the initialization"
    )


class LabelConfig(Section):
    """Nearest centroid of every frame."""

    fused: bool = Field(
        default=False,
        description="assign labels where features are computed, and store only the features of the "
        "clustering sample. The labels are the same; the features of the sample are "
        "computed twice",
    )
