"""The science configuration: everything that changes what a run produces. All of it is hashed."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from gmp_atl_dist.config.sections import Fraction, PositiveFloat, PositiveInt, Section

MAX_UTTERANCE_S = 60.0
RANDOM_SOURCE = "random:"
"""What ``model.source`` begins with where there is no checkpoint; the name of a size follows."""


class CorpusConfig(Section):
    """Which utterances, with which labels. Where they lie is ``runtime.corpus``."""

    adapter: str = Field(
        default="iemocap", description="iemocap, table, or an installed plug-in's name"
    )
    emotions: tuple[str, ...] = Field(
        default=(), description="classes in this order; empty means the adapter's own set"
    )
    merge: dict[str, str] = Field(
        default_factory=dict, description="emotion renamed to another, e.g. excited = 'happy'"
    )
    ignore_other_emotions: bool = Field(
        default=False, description="leave out utterances of emotions outside the class list"
    )
    table: str = Field(
        default="manifest.csv", description="table adapter: CSV or Parquet in the corpus"
    )
    columns: dict[str, str] = Field(
        default_factory=dict, description="table adapter: our column = theirs, e.g. id = 'utt_id'"
    )
    max_bad_fraction: Fraction = Field(
        default=0.01,
        description="bad items of all listed, above which the run stops; the bad ones are left out "
        "and listed in the report; 0: the first stops the run",
    )
    min_s: PositiveFloat = Field(default=0.1, description="shorter utterances are bad")
    max_s: PositiveFloat = Field(default=MAX_UTTERANCE_S, description="longer utterances are bad")
    part_audio_s: PositiveFloat = Field(default=600.0, description="audio in one part of the store")


class FoldsConfig(Section):
    """Who is held out. One fold per held-out group; ``run`` picks some of them."""

    by: Literal["session", "speaker", "split"] = "session"
    held_out: tuple[tuple[str, ...], ...] = Field(
        default=(), description="groups of sessions or speakers; empty leaves one out at a time"
    )
    valid: Literal["none", "next"] = Field(
        default="none",
        description="'next' sets the next fold's held-out group aside for model selection",
    )
    run: tuple[PositiveInt, ...] = Field(
        default=(), description="fold numbers from 1; empty runs all"
    )
    protocol: Literal["clean", "transductive", "peek"] = Field(
        default="clean",
        description="clean: the test speakers are unseen by every fitted stage. transductive: "
        "clustering and retraining see their audio. peek: the epoch is chosen on them as well",
    )


class ModelConfig(Section):
    """The stock HuBERT that everything starts from."""

    source: str = Field(
        default="facebook/hubert-base-ls960",
        description="hub id, local folder, store URI, or random:tiny|mini|small|base|large",
    )
    revision: str = Field(
        default="dba3bb02fda4248b6e082697eee756de8fe8aa8a", description="pinned commit of a hub id"
    )
    seed: int = Field(default=0, description="of random weights")
    normalize_waveform: Literal["auto", "yes", "no"] = Field(
        default="auto",
        description="zero mean and unit variance; auto: where the convolutions use layer norm",
    )


class OptimConfig(Section):
    """What every trained stage shares."""

    steps: PositiveInt | None = Field(default=None, description="updates; give this or epochs")
    epochs: PositiveInt | None = Field(
        default=None, description="passes over the data; or give steps"
    )
    batch_s: PositiveFloat = Field(
        default=300.0,
        description="audio an update, over all workers; an epoch is cut into as many equal batches as "
        "are at least so long",
    )
    micro_batches: PositiveInt = Field(
        default=4,
        description="forward passes that an update is cut into, whatever the number of workers, which "
        "share them; so at most this many workers have something to do",
    )
    lr: PositiveFloat = 1e-4
    warmup_fraction: Fraction = Field(default=0.1, description="of the updates, with a rising rate")
    betas: tuple[Fraction, Fraction] = (0.9, 0.98)
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    clip_norm: PositiveFloat = 10.0
    max_skipped_updates: Annotated[int, Field(ge=0)] = Field(
        default=10, description="updates skipped for a loss or gradient that is not finite"
    )
    freeze_conv: bool = Field(default=True, description="leave the convolutional encoder as it was")
    dropout: Fraction = Field(
        default=0.1, description="of hidden states, attention and projections"
    )
    max_utterance_s: Annotated[float, Field(ge=0.1)] = Field(
        default=15.6, description="longer utterances are cropped"
    )
    seed: int = 0

    @model_validator(mode="before")
    @classmethod
    def _given_length_replaces_the_default(cls, raw: object) -> object:
        """TOML has no null, so naming one of the two unsets the other's default."""
        if not isinstance(raw, dict) or ("steps" in raw) == ("epochs" in raw):
            return raw
        return {**raw, "epochs" if "steps" in raw else "steps": None}

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError(
                f"steps = {self.steps} and epochs = {self.epochs}: give exactly one of them"
            )
        return self


class WarmupConfig(OptimConfig):
    """HuBERT with an emotion and a gender head, trained together."""

    epochs: PositiveInt | None = 10
    gender_weight: Fraction = Field(default=0.1, description="emotion gets 1 minus this")
    class_weights: Literal["balanced", "none"] = "balanced"
    pool_layers: Literal["last", "average"] = Field(
        default="last",
        description="what the heads read: the last layer, or a learnt mean of all layers",
    )


class ExtractConfig(Section):
    """Frame features of the warmed-up model."""

    layers: tuple[PositiveInt, ...] = Field(default=(6, 9, 12), min_length=1)
    part_frames: Annotated[int, Field(gt=0, le=1_000_000)] = Field(
        default=30_000, description="frames in one part, as evenly as utterances allow; 50 a second"
    )
    max_window_s: PositiveFloat = Field(
        default=MAX_UTTERANCE_S,
        description="longer recordings are seen by attention in overlapping windows",
    )
    window_context_s: Annotated[float, Field(ge=0)] = Field(
        default=5.0, description="on either side of what is kept of a window"
    )
    compression: Literal["none", "zstd"] = Field(
        default="none", description="of the stored features; zstd saves some 8 %, and costs time"
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
        description="one of extract.layers; 0 are the MFCCs that pretraining begins with"
    )
    k: Annotated[int, Field(ge=2)]
    seed: int | None = Field(default=None, description="of this scale; none: cluster.seed")
    codebook: str | None = Field(
        default=None,
        min_length=6,
        description="fingerprint of an imported codebook that is used as it is, instead of a fit",
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
        default=(Scale(layer=6, k=50), Scale(layer=9, k=50), Scale(layer=12, k=50)), min_length=1
    )
    gender: Literal["multitask", "by_gender", "none"] = Field(
        default="multitask",
        description="multitask: gender reaches the codebooks through the warmed-up features. "
        "by_gender: a codebook for each gender as well, whose label ids are never shared. none: the "
        "ablation, which needs warmup.gender_weight = 0",
    )
    metric: Literal["euclidean", "cosine"] = Field(
        default="euclidean", description="cosine: frames and centroids have unit length"
    )
    init: Literal["random", "k-means++"] = Field(
        default="random",
        description="how the first centroids are chosen among frames; k-means++ prefers those apart",
    )
    iterations: PositiveInt = Field(default=25, description="most updates of the centroids")
    tolerance: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=3e-4,
        description="stop when an update lowers the mean squared distance by a smaller share; 0: stop "
        "when it lowers it by nothing",
    )
    sample_frames: PositiveInt | Literal["all"] = Field(
        default=2_000_000,
        description="most frames of a layer that are heard; 'all' hears every one",
    )
    sample_spread: Annotated[float, Field(ge=1)] = Field(
        default=4.0,
        description="the frames are drawn from utterances that hold about this many times as many",
    )
    balance: Literal["none", "speaker", "gender", "emotion"] = Field(
        default="none",
        description="groups that give equally many frames to the sample, as far as they have them",
    )
    silence: Literal["keep", "drop"] = Field(
        default="keep", description="whether quiet frames are fitted; they are labelled either way"
    )
    silence_db: PositiveFloat = Field(
        default=40.0, description="a frame so far below its utterance's loudest is silence"
    )
    stability_frames: Annotated[int, Field(ge=0)] = Field(
        default=20_000,
        description="frames on which a scale is fitted from two seeds to compare the labels; 0: not",
    )
    seed: int = 0


class LabelConfig(Section):
    """Nearest centroid of every frame."""

    fused: bool = Field(
        default=False,
        description="assign labels where features are computed and store features of the "
        "clustering sample alone; the same labels, for a second pass over that sample",
    )


class FramePredictionConfig(OptimConfig):
    """What the two stages share that learn to predict frame labels."""

    masked: bool = Field(default=True, description="masked prediction; false: plain cross-entropy")
    mask_prob: Fraction = 0.8
    mask_length_frames: PositiveInt = 10
    logit_temperature: PositiveFloat = 0.1
    unmasked_weight: Annotated[float, Field(ge=0)] = Field(
        default=0.0,
        description="of the loss on frames that are not masked, beside 1 for those that are; from random "
        "weights it is what is learnt first, and what little audio needs",
    )
    feature_penalty: Annotated[float, Field(ge=0)] = 10.0
    projection_dim: PositiveInt = 256
    freeze_conv: bool = False


class RetrainConfig(FramePredictionConfig):
    """The stock HuBERT, retrained on the frame labels."""

    steps: PositiveInt | None = 20_000


class PretrainConfig(FramePredictionConfig):
    """HuBERT from random weights, for sites without a checkpoint (arXiv 2106.07447, section IV).

    Iteration 1 predicts clusters of MFCC, iteration 2 clusters of a layer of iteration 1's model; both
    begin with the same random weights, and hear the fold's training speakers alone.
    """

    iterations: Literal[0, 1, 2] = Field(
        default=0, description="0: no pretraining, and nothing else here matters"
    )
    steps: PositiveInt | None = Field(
        default=250_000, description="updates of an iteration; give this or epochs"
    )
    second_steps: PositiveInt | None = Field(
        default=None, description="updates of iteration 2; none: as many as iteration 1"
    )
    lr: PositiveFloat = 5e-4
    k: tuple[Annotated[int, Field(ge=2)], Annotated[int, Field(ge=2)]] = Field(
        default=(100, 500), description="clusters of MFCC, and of iteration 1's layer"
    )
    layer: PositiveInt = Field(
        default=6, description="of iteration 1's model, that iteration 2 clusters"
    )
    sample_frames: PositiveInt | Literal["all"] = Field(
        default=2_000_000, description="most frames that either codebook is fitted on"
    )

    def clusters(self, iteration: int) -> ClusterConfig:
        """How the labels of an iteration are made: one codebook, for everybody."""
        scale = Scale(layer=0 if iteration == 1 else self.layer, k=self.k[iteration - 1])
        return ClusterConfig(scales=(scale,), sample_frames=self.sample_frames, seed=self.seed)

    def training(self, iteration: int) -> FramePredictionConfig:
        """What an iteration's training depends on beside its labels: nothing of the other one's."""
        shared = {name: getattr(self, name) for name in FramePredictionConfig.model_fields}
        if iteration == 2 and self.second_steps is not None:
            shared |= {"steps": self.second_steps, "epochs": None}
        return FramePredictionConfig.model_validate(shared)


class FinetuneConfig(OptimConfig):
    """The retrained HuBERT on emotion labels: attentive pooling, AM-Softmax."""

    epochs: PositiveInt | None = 40
    class_weights: Literal["balanced", "none"] = "balanced"
    am_scale: PositiveFloat = 30.0
    am_margin: Annotated[float, Field(ge=0, lt=1)] = 0.2
    embedding_dim: PositiveInt = 256
    select: Literal["last", "valid"] = Field(
        default="last", description="which epoch is kept; 'valid' needs folds.valid = 'next'"
    )


class EvaluateConfig(Section):
    bootstrap_samples: PositiveInt = 2000
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    seed: int = 0
