"""The keys of each trained stage."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from gmp_atl_dist.config.hashing import Added
from gmp_atl_dist.config.optim import AdaptedConfig, AugmentedConfig, OptimConfig
from gmp_atl_dist.config.pseudo_labels import ClusterConfig, Scale
from gmp_atl_dist.config.sections import Fraction, OptionValue, PositiveFloat, PositiveInt


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
