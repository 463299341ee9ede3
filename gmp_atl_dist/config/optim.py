"""What all trained stages share: length, learning rates, masks, and what of the model is trained."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from gmp_atl_dist.config.hashing import Added
from gmp_atl_dist.config.sections import Fraction, PositiveFloat, PositiveInt, Section


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
