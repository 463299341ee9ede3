"""The science configuration: everything that changes what a run produces. All of it is hashed."""

from __future__ import annotations

from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Field, field_validator, model_validator

from gmp_atl_dist.config.hashing import Added
from gmp_atl_dist.config.sections import (
    Fraction,
    Location,
    Name,
    PositiveFloat,
    PositiveInt,
    Section,
)

MAX_UTTERANCE_S = 60.0
RANDOM_SOURCE = "random:"
"""What ``model.source`` begins with where there is no checkpoint; the name of a size follows."""


OptionValue: TypeAlias = bool | int | float | str
"""An option of an adapter, a pooling or a loss, which says what it must be."""


class CorpusConfig(Section):
    """Which utterances, with which labels. Where they lie is ``runtime.corpus``."""

    adapter: str = Field(
        default="iemocap",
        description="who reads the labels: a name that gmp-atl corpora list prints",
    )
    options: Annotated[dict[str, OptionValue], Added("0.4.0", left_out_at={})] = Field(
        default_factory=dict, description="options of the adapter; it checks them"
    )
    emotions: tuple[str, ...] = Field(
        default=(), description="classes in this order; empty: the adapter's own set"
    )
    merge: dict[str, str] = Field(
        default_factory=dict, description="emotions that are renamed, e.g. excited = 'happy'"
    )
    ignore_other_emotions: bool = Field(
        default=False, description="leave out utterances of emotions outside the class list"
    )
    table: Location = Field(
        default="manifest.csv",
        description="table adapter: CSV, TSV or Parquet file; relative to the corpus, or an absolute "
        "path or URI",
    )
    delimiter: Annotated[
        Literal["auto", "comma", "semicolon", "tab"], Added("0.3.0", left_out_at="auto")
    ] = Field(
        default="auto",
        description="table adapter: what separates the columns of a text table; auto: what the "
        "header shows",
    )
    audio_root: Annotated[str, Added("0.3.0", left_out_at="")] = Field(
        default="",
        description="folder or URI in which the corpus lay when the table was written. Absolute "
        "paths below it mean the same files below runtime.corpus",
    )
    channel: Annotated[Literal["mean", "first", "loudest"], Added("0.3.0", left_out_at="mean")] = (
        Field(
            default="mean",
            description="what is used of recordings with several channels: their mean, the first one, "
            "or the one with the most energy",
        )
    )
    columns: dict[str, str] = Field(
        default_factory=dict, description="table adapter: our column = theirs, e.g. id = 'utt_id'"
    )
    max_bad_fraction: Fraction = Field(
        default=0.01,
        description="largest share of bad items. Below it they are left out and listed in the "
        "report; "
        "above it the run stops. 0: the first bad item stops the run",
    )
    allow_incomplete: Annotated[bool, Added("0.4.0", left_out_at=False)] = Field(
        default=False,
        description="accept a corpus that lacks a part of its release, such as sessions of IEMOCAP",
    )
    min_s: PositiveFloat = Field(
        default=0.1, description="seconds; a shorter utterance is a bad item"
    )
    max_s: PositiveFloat = Field(
        default=MAX_UTTERANCE_S, description="seconds; a longer utterance is a bad item"
    )
    part_audio_s: PositiveFloat = Field(
        default=600.0, description="seconds of audio in one part of the store"
    )


class FoldsConfig(Section):
    """Who is held out. One fold per held-out group; ``run`` picks some of them."""

    by: Literal["session", "speaker", "split", "corpus"] = Field(
        default="session",
        description="what is held out: sessions, speakers, the split of the table, or one of "
        "[[corpora]]",
    )
    held_out: tuple[tuple[Name, ...], ...] = Field(
        default=(),
        description="groups of sessions, speakers or corpora; empty leaves one out at a time",
    )
    valid: Literal["none", "next", "share", "other_speaker"] = Field(
        default="none",
        description="who is set aside for model selection. next: the next fold's held-out group; of a "
        "split or of lists, their own valid side. share: some of the training speakers. "
        "other_speaker: the others in the sessions of the test speakers, with by = 'speaker'",
    )
    valid_share: Annotated[float, Field(gt=0, lt=1), Added("0.4.0", left_out_at=0.1)] = Field(
        default=0.1, description="share of the training speakers that valid = 'share' sets aside"
    )
    k: Annotated[Annotated[int, Field(ge=2)] | None, Added("0.4.0", left_out_at=None)] = Field(
        default=None,
        description="number of folds. Speakers (with by = 'session' sessions) are dealt into k groups "
        "that are alike in gender and emotion; unset: one fold per session or speaker",
    )
    seed: Annotated[int, Added("0.4.0", left_out_at=0)] = Field(
        default=0, description="random seed of k and of valid = 'share'"
    )
    lists: Annotated[str, Added("0.4.0", left_out_at="")] = Field(
        default="",
        description="lists that say who trains and who is tested, in place of groups: a folder, file or "
        "pattern, relative to the corpus, or an absolute path or URI. EmoBox, s3prl, CSV",
    )
    unlisted: Annotated[Literal["refuse", "leave_out"], Added("0.4.0", left_out_at="refuse")] = (
        Field(
            default="refuse",
            description="what is done with utterances that only the corpus or only the lists name: "
            "refuse the lists, or leave those utterances out and name them",
        )
    )
    run: tuple[PositiveInt, ...] = Field(
        default=(), description="numbers of the folds to run, from 1; empty runs all"
    )
    protocol: Literal["clean", "transductive", "peek", "speaker_dependent"] = Field(
        default="clean",
        description="clean: no fitted stage uses the test speakers. transductive: pretraining, "
        "clustering and retraining use their audio. peek: the epoch is chosen on them as "
        "well. speaker_dependent: lists or a split may have the same speaker in training and test",
    )

    @model_validator(mode="before")
    @classmethod
    def _k_deals_speakers(cls, raw: object) -> object:
        """The default of ``by`` is sessions, and many corpora have none."""
        if isinstance(raw, dict) and raw.get("k") is not None and "by" not in raw:
            return {**raw, "by": "speaker"}
        return raw

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        ways = {"held_out": bool(self.held_out), "k": self.k is not None}
        ways |= {"lists": bool(self.lists), "by = 'split'": self.by == "split"}
        chosen = [name for name, is_set in ways.items() if is_set]
        # folds.held_out with by = 'split' has a message of its own where folds are planned.
        if len(chosen) > 1 and set(chosen) != {"held_out", "by = 'split'"}:
            raise ValueError(f"{' and '.join(chosen)} exclude each other; keep one of them")
        if self.protocol == "speaker_dependent" and not {"lists", "by = 'split'"} & {*chosen}:
            raise ValueError(
                "protocol: 'speaker_dependent' runs lists or a split that share speakers; set lists, or "
                "by = 'split'"
            )
        if self.valid == "other_speaker" and (self.by != "speaker" or self.lists):
            raise ValueError(
                "valid: 'other_speaker' needs by = 'speaker': one speaker of a session is tested, the "
                "others validate"
            )
        if self.valid == "share" and self.protocol == "speaker_dependent":
            raise ValueError(
                "valid: 'share' sets speakers aside, and protocol = 'speaker_dependent' does not keep "
                "speakers apart; use 'none' or 'next'"
            )
        return self

    @property
    def trains_on_test_audio(self) -> bool:
        """Whether pretraining, clustering and retraining use the audio of the test speakers."""
        return self.protocol in ("transductive", "peek")


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


class OptimConfig(Section):
    """Keys that all trained stages share."""

    steps: PositiveInt | None = Field(default=None, description="updates; give this or epochs")
    epochs: PositiveInt | None = Field(
        default=None, description="passes over the data; or give steps"
    )
    batch_s: PositiveFloat = Field(
        default=300.0,
        description="audio per update in seconds, over all workers. An epoch is cut into equal "
        "batches "
        "that are at least this long",
    )
    micro_batches: PositiveInt = Field(
        default=4,
        description="forward passes per update, whatever the number of workers. Workers share "
        "them, so "
        "this is the largest useful number of workers",
    )
    lr: PositiveFloat = Field(default=1e-4, description="highest learning rate")
    warmup_fraction: Fraction = Field(
        default=0.1,
        description="share of the updates in which the learning rate rises; then it falls linearly",
    )
    betas: tuple[Fraction, Fraction] = Field(
        default=(0.9, 0.98),
        description="decay rates of AdamW's running means: of the gradient, and of its square",
    )
    weight_decay: Annotated[float, Field(ge=0)] = Field(
        default=0.01, description="weight decay of AdamW; 0: none"
    )
    clip_norm: PositiveFloat = Field(
        default=10.0, description="largest norm of the gradient; larger ones are scaled down to it"
    )
    max_skipped_updates: Annotated[int, Field(ge=0)] = Field(
        default=10,
        description="most updates that may be skipped because a loss or gradient is not "
        "finite; one "
        "more stops the stage",
    )
    freeze_conv: bool = Field(default=True, description="leave the convolutional encoder as it was")
    dropout: Fraction = Field(
        default=0.1, description="dropout of hidden states, attention and projections"
    )
    max_utterance_s: Annotated[float, Field(ge=0.1)] = Field(
        default=15.6, description="longer utterances are cropped to this length, in seconds"
    )
    seed: int = Field(
        default=0,
        description="random seed of the order of utterances, crops, masks, dropout and new heads",
    )

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

    epochs: PositiveInt | None = Field(
        default=10, description="passes over the training set; or give steps"
    )
    gender_weight: Fraction = Field(
        default=0.1, description="weight of the gender loss; the emotion loss has 1 minus this"
    )
    class_weights: Literal["balanced", "none"] = Field(
        default="balanced",
        description="balanced: each class counts the same in the loss, however many utterances "
        "it has",
    )
    pool_layers: Literal["last", "average"] = Field(
        default="last",
        description="what the heads read: the last layer, or a learnt mean of all layers",
    )


class ExtractConfig(Section):
    """Frame features of the warmed-up model."""

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


class FramePredictionConfig(OptimConfig):
    """Keys that the two stages share which learn to predict frame labels."""

    masked: bool = Field(default=True, description="masked prediction; false: plain cross-entropy")
    mask_prob: Fraction = Field(
        default=0.8, description="share of the frames that masks cover, before overlaps"
    )
    mask_length_frames: PositiveInt = Field(
        default=10, description="frames in one mask; a shorter clip has a shorter mask"
    )
    logit_temperature: PositiveFloat = Field(
        default=0.1, description="cosine similarities are divided by it"
    )
    unmasked_weight: Annotated[float, Field(ge=0)] = Field(
        default=0.0,
        description="weight of the loss on frames that are not masked; masked frames have "
        "weight 1. "
        "Training from random weights on little audio needs 1",
    )
    feature_penalty: Annotated[float, Field(ge=0)] = Field(
        default=10.0,
        description="weight of the L2 penalty on the output of the convolutional encoder",
    )
    projection_dim: PositiveInt = Field(
        default=256, description="dimension in which frames and label embeddings are compared"
    )
    freeze_conv: bool = Field(
        default=False, description="leave the convolutional encoder as it was"
    )


class RetrainConfig(FramePredictionConfig):
    """The stock HuBERT, retrained on the frame labels."""

    steps: PositiveInt | None = Field(default=20_000, description="updates; give this or epochs")
    unlabelled_share: Annotated[Fraction | None, Added("0.4.0", left_out_at=None)] = Field(
        default=None,
        description="share of the audio of the updates that is of unlabelled sources; unset: their "
        "share of all audio",
    )


class PretrainConfig(FramePredictionConfig):
    """HuBERT from random weights, for sites without a checkpoint (arXiv 2106.07447, section IV).

    Iteration 1 predicts clusters of MFCC, iteration 2 clusters of a layer of iteration 1's model. Both
    start from the same random weights and use the training speakers of the fold alone.
    """

    iterations: Literal[0, 1, 2] = Field(
        default=0,
        description="0: no pretraining; the other keys of this section then have no effect",
    )
    steps: PositiveInt | None = Field(
        default=250_000, description="updates per iteration; give this or epochs"
    )
    second_steps: PositiveInt | None = Field(
        default=None, description="updates of iteration 2; unset: as many as iteration 1"
    )
    lr: PositiveFloat = Field(default=5e-4, description="highest learning rate")
    k: tuple[Annotated[int, Field(ge=2)], Annotated[int, Field(ge=2)]] = Field(
        default=(100, 500),
        description="clusters of MFCC in iteration 1, and of iteration 1's layer in iteration 2",
    )
    layer: PositiveInt = Field(
        default=6, description="layer of iteration 1's model that iteration 2 clusters"
    )
    sample_frames: PositiveInt | Literal["all"] = Field(
        default=2_000_000, description="most frames in the fit of each codebook"
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
    """The retrained HuBERT on emotion labels, with a pooling and a loss that are chosen by name.

    Packages can add poolings and losses through entry points; see ``models/head_registry.py``.
    """

    epochs: PositiveInt | None = Field(
        default=40, description="passes over the training set; or give steps"
    )
    class_weights: Literal["balanced", "none"] = Field(
        default="balanced",
        description="balanced: each class counts the same in the loss, however many utterances "
        "it has",
    )
    pooling: Annotated[str, Field(min_length=1), Added("0.2.0", left_out_at="attentive")] = Field(
        default="attentive", description="attentive, mean, or the name of an installed pooling"
    )
    pooling_options: Annotated[dict[str, OptionValue], Added("0.2.0", left_out_at={})] = Field(
        default_factory=dict, description="options of an installed pooling; it checks them"
    )
    loss: Annotated[str, Field(min_length=1), Added("0.2.0", left_out_at="am_softmax")] = Field(
        default="am_softmax",
        description="am_softmax, cross_entropy, or the name of an installed loss",
    )
    loss_options: Annotated[dict[str, OptionValue], Added("0.2.0", left_out_at={})] = Field(
        default_factory=dict, description="options of an installed loss; it checks them"
    )
    am_scale: PositiveFloat = Field(default=30.0, description="factor of the cosines of am_softmax")
    am_margin: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.2, description="what am_softmax subtracts from the target's cosine in training"
    )
    embedding_dim: PositiveInt = Field(
        default=256, description="dimension of the pooled utterance embedding"
    )
    select: Literal["last", "valid"] = Field(
        default="last", description="which epoch is kept; 'valid' needs folds.valid = 'next'"
    )


class EvaluateConfig(Section):
    """Scores of the test speakers, with bootstrap intervals."""

    bootstrap_samples: PositiveInt = Field(
        default=2000, description="bootstrap resamples per interval; more make its ends more exact"
    )
    confidence: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.95, description="confidence level of the intervals; 0.95: 95 % intervals"
    )
    seed: int = Field(default=0, description="random seed of the resampling")


class AuditConfig(Section):
    """Limits of the audio audit. It names utterances beyond them, and leaves none of them out."""

    quiet_dbfs: Annotated[float, Field(lt=0)] = Field(
        default=-50.0, description="an utterance with a lower level is quiet; dB of full scale"
    )
    level_spread_db: PositiveFloat = Field(
        default=25.0,
        description="an utterance whose level is further from the median of the corpus is named",
    )
    clipped_share: Fraction = Field(
        default=0.01,
        description="an utterance with a larger share of samples at full scale is clipped",
    )
    zero_share: Fraction = Field(
        default=0.5,
        description="an utterance with a larger share of samples that are exactly 0 is partly silent",
    )
    dc_share: Fraction = Field(
        default=0.02,
        description="an utterance whose mean sample is a larger share of full scale has an offset",
    )
    narrow_hz: PositiveFloat = Field(
        default=4200.0,
        description="an utterance without sound above this frequency has a narrow band; audio of 8 kHz "
        "has none above 4,000",
    )
