"""What the trained stages share, and the keys of each of them."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from gmp_atl_dist.config.hashing import Added
from gmp_atl_dist.config.pseudo_labels import ClusterConfig, Scale
from gmp_atl_dist.config.sections import Fraction, OptionValue, PositiveFloat, PositiveInt, Section


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
    adam_eps: Annotated[PositiveFloat, Added("0.5.0", left_out_at=1e-8)] = Field(
        default=1e-8, description="what AdamW adds to the root of the mean squared gradient"
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
    feature_grad_mult: Annotated[PositiveFloat, Added("0.5.0", left_out_at=1.0)] = Field(
        default=1.0,
        description="factor of the gradient that the convolutional encoder gets; needs freeze_conv = "
        "false",
    )
    dropout: Fraction = Field(
        default=0.1, description="dropout of hidden states, attention and projections"
    )
    layer_drop: Annotated[float, Field(ge=0, lt=1), Added("0.5.0", left_out_at=0.0)] = Field(
        default=0.0,
        description="probability that a layer of the encoder passes its input on in an update, the same "
        "for the whole batch",
    )
    max_utterance_s: Annotated[float, Field(ge=0.1)] = Field(
        default=15.6, description="longer utterances are cropped to this length, in seconds"
    )
    seed: int = Field(
        default=0,
        description="random seed of the order of utterances, crops, masks, dropout, layer drop and new "
        "heads",
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

    @model_validator(mode="after")
    def _gradient_of_a_trained_encoder(self) -> Self:
        if self.freeze_conv and self.feature_grad_mult != 1:
            raise ValueError(
                f"feature_grad_mult: {self.feature_grad_mult:g} with freeze_conv = true has no effect, "
                f"because a frozen convolutional encoder gets no gradient; set freeze_conv = false, or "
                f"leave this key out"
            )
        return self


class AdaptedConfig(OptimConfig):
    """Keys of the stages that train a new head on a trained backbone."""

    head_lr_factor: Annotated[PositiveFloat, Added("0.5.0", left_out_at=1.0)] = Field(
        default=1.0,
        description="the learning rate of everything outside the backbone is lr times this",
    )
    layer_lr_decay: Annotated[float, Field(gt=0, le=1), Added("0.5.0", left_out_at=1.0)] = Field(
        default=1.0,
        description="a layer has the learning rate of the layer above times this; the last layer has lr, "
        "and what lies before the first layer counts as one more",
    )
    freeze_backbone_steps: Annotated[int, Field(ge=0), Added("0.5.0", left_out_at=0)] = Field(
        default=0,
        description="updates, from the first, in which the head alone is trained; the backbone then "
        "begins with the learning rate of that update",
    )


class AugmentedConfig(AdaptedConfig):
    """Keys of the stages that learn from labels of whole utterances."""

    mask_time_prob: Annotated[Fraction, Added("0.5.0", left_out_at=0.0)] = Field(
        default=0.0,
        description="SpecAugment: share of the frames that masks cover in training, before overlaps",
    )
    mask_time_length_frames: Annotated[PositiveInt, Added("0.5.0", left_out_at=10)] = Field(
        default=10, description="frames in one mask of mask_time_prob"
    )
    mask_feature_prob: Annotated[Fraction, Added("0.5.0", left_out_at=0.0)] = Field(
        default=0.0,
        description="SpecAugment: share of the features of all frames that masks set to zero in "
        "training, before overlaps",
    )
    mask_feature_length: Annotated[PositiveInt, Added("0.5.0", left_out_at=64)] = Field(
        default=64, description="features in one mask of mask_feature_prob"
    )
    head_dropout: Annotated[float, Field(ge=0, lt=1), Added("0.5.0", left_out_at=0.0)] = Field(
        default=0.0, description="dropout of the pooled vector, which the head reads"
    )

    @model_validator(mode="after")
    def _lengths_of_masks_that_are_drawn(self) -> Self:
        for prob, length in (
            ("mask_time_prob", "mask_time_length_frames"),
            ("mask_feature_prob", "mask_feature_length"),
        ):
            given = getattr(self, length)
            if getattr(self, prob) == 0 and given != type(self).model_fields[length].default:
                raise ValueError(
                    f"{length}: {given} with {prob} = 0 has no effect, because nothing is masked; raise "
                    f"{prob}, or leave this key out"
                )
        return self


class WarmupConfig(AugmentedConfig):
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


class RetrainConfig(FramePredictionConfig, AdaptedConfig):
    """The stock HuBERT, retrained on the frame labels."""

    steps: PositiveInt | None = Field(default=20_000, description="updates; give this or epochs")
    scale_weights: Annotated[tuple[PositiveFloat, ...], Added("0.5.0", left_out_at=())] = Field(
        default=(),
        description="weight of the loss of each of cluster.scales, in their order; empty: 1 each",
    )
    scale_reduction: Annotated[Literal["mean", "sum"], Added("0.5.0", left_out_at="mean")] = Field(
        default="mean",
        description="how the losses of the scales are joined. mean: the weighted mean. sum: the weighted "
        "sum, as in fairseq, where each further scale lessens the share of feature_penalty",
    )
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


class FinetuneConfig(AugmentedConfig):
    """A HuBERT on emotion labels, with a pooling and a loss that are chosen by name.

    Packages can add poolings and losses through entry points; see ``models/head_registry.py``.
    """

    start: Annotated[
        Literal["retrain", "warmup", "backbone"], Added("0.5.0", left_out_at="retrain")
    ] = Field(
        default="retrain",
        description="which model is fine-tuned: the retrained one, the warmed-up one, or the one that a "
        "fold starts from. A stage that is then not needed is not run",
    )

    epochs: PositiveInt | None = Field(
        default=40, description="passes over the training set; or give steps"
    )
    class_weights: Literal["balanced", "none"] = Field(
        default="balanced",
        description="balanced: each class counts the same in the loss, however many utterances "
        "it has",
    )
    pooling: Annotated[str, Field(min_length=1), Added("0.2.0", left_out_at="attentive")] = Field(
        default="attentive",
        description="attentive, mean, statistics (mean and standard deviation), or the name of an "
        "installed pooling",
    )
    pooling_options: Annotated[dict[str, OptionValue], Added("0.2.0", left_out_at={})] = Field(
        default_factory=dict, description="options of an installed pooling; it checks them"
    )
    loss: Annotated[str, Field(min_length=1), Added("0.2.0", left_out_at="am_softmax")] = Field(
        default="am_softmax",
        description="am_softmax, aam_softmax (ArcFace), cross_entropy, focal, or the name of an "
        "installed loss",
    )
    loss_options: Annotated[dict[str, OptionValue], Added("0.2.0", left_out_at={})] = Field(
        default_factory=dict,
        description="options of the loss: gamma of focal, or those of an installed loss; it checks them",
    )
    am_scale: PositiveFloat = Field(
        default=30.0, description="factor of the cosines of am_softmax and aam_softmax"
    )
    am_margin: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.2,
        description="what am_softmax subtracts from the target's cosine in training; what aam_softmax adds "
        "to the target's angle, in radians",
    )
    margin_warmup_fraction: Annotated[Fraction, Added("0.5.0", left_out_at=0.0)] = Field(
        default=0.0,
        description="share of the updates in which the margin rises linearly from 0 to am_margin; 0: it is "
        "am_margin from the first update",
    )
    embedding_dim: Annotated[int, Field(ge=0)] = Field(
        default=256,
        description="dimension of the utterance embedding: a linear layer and tanh on the pooled frames. "
        "0: no such layer, so the layer of the loss reads the pooled frames",
    )
    pool_layers: Annotated[Literal["last", "average"], Added("0.5.0", left_out_at="last")] = Field(
        default="last",
        description="which frames are pooled: those of the last layer, or a learnt mean of all layers",
    )
    freeze_backbone: Annotated[bool, Added("0.5.0", left_out_at=False)] = Field(
        default=False,
        description="train the head alone. The model below it has no dropout then, and freeze_conv must be "
        "true",
    )
    select: Literal["last", "valid"] = Field(
        default="last", description="which epoch is kept; 'valid' needs folds.valid = 'next'"
    )

    @model_validator(mode="after")
    def _frozen_as_a_whole(self) -> Self:
        if self.freeze_backbone and not self.freeze_conv:
            raise ValueError(
                "freeze_backbone: true leaves the convolutional encoder as it was too; set freeze_conv = "
                "true"
            )
        without_effect = {
            "layer_drop": self.layer_drop > 0,
            "layer_lr_decay": self.layer_lr_decay != 1,
            "freeze_backbone_steps": self.freeze_backbone_steps > 0,
            "mask_time_prob": self.mask_time_prob > 0,
            "mask_feature_prob": self.mask_feature_prob > 0,
        }
        if self.freeze_backbone and any(without_effect.values()):
            names = " and ".join(name for name, is_set in without_effect.items() if is_set)
            raise ValueError(
                f"freeze_backbone: true trains the head alone, on the features of inference, and {names} "
                f"is for a model that is trained; remove it, or set freeze_backbone = false"
            )
        return self
