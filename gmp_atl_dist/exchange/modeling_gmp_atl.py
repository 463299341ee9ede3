"""GMP-ATL's emotion classifier for transformers: HuBERT, pooling, and the layer of the loss.

This file is a part of an exported classifier. ``trust_remote_code=True`` runs it. It imports torch and
transformers only. The softmax of the logits gives the probabilities. Padding changes nothing if the
attention mask is given: HuBERT-base's first convolution normalises over the samples of each clip only.

The configuration names the pooling (attentive, mean, statistics) and the loss (am_softmax and aam_softmax:
logits are cosines times ``am_scale``; cross_entropy and focal: a linear layer). ``pool_layers`` says which
frames are pooled: those of the last layer, or a learnt mean of all layers. ``embedding_dim`` is 0 where the
layer of the loss reads the pooled frames.

Method: Pan et al., GMP-ATL, arXiv 2405.02151. Pooling: Zhu et al. 2018 (Interspeech), equations 1-3.
AM-Softmax: Wang et al. 2018, arXiv 1801.05599, equation 6. AAM-Softmax: Deng et al. 2019, arXiv
1801.07698, equation 3. Focal loss: Lin et al. 2017, arXiv 1708.02002, equation 4. Mean of layers: SUPERB,
arXiv 2105.01051.

Shapes: B batch, N samples, T frames, C channels, D hidden size, E embedding size, K emotions.
"""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import HubertConfig, HubertModel
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.models.hubert.modeling_hubert import HubertPreTrainedModel

# Vectors shorter than this get a smaller cosine, so that a vector of zero length has a finite gradient.
_MIN_NORM = 1e-4
_MIN_VARIANCE = 1e-10


class GmpAtlConfig(HubertConfig):
    """The configuration of HuBERT and of the head. The classes are those of ``id2label``."""

    model_type = "gmp_atl"

    embedding_dim: int = 256
    pooling: str = "attentive"
    loss: str = "am_softmax"
    am_scale: float = 30.0
    am_margin: float = 0.2
    pool_layers: str = "last"
    loss_options: dict | None = None


class GmpAtlClipGroupNorm(nn.GroupNorm):
    """GroupNorm over time with the statistics of each clip's own steps. Later steps are zero."""

    def forward(self, input: Tensor, num_steps: list[int] | None = None) -> Tensor:
        total = input.shape[-1]
        if num_steps is None or min(num_steps) == total:
            return super().forward(input)
        clips = [
            F.pad(super(GmpAtlClipGroupNorm, self).forward(clip_CT[None, :, :n]), (0, total - n))
            for clip_CT, n in zip(input.unbind(0), num_steps, strict=True)
        ]
        return torch.cat(clips)


class GmpAtlAttentivePooling(nn.Module):
    """Mean over the valid frames, weighted by softmax(v . tanh(W x + b))."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(dim, dim)
        self.score = nn.Linear(dim, 1, bias=False)

    def forward(self, x_BTD: Tensor, valid_BT: Tensor) -> Tensor:
        score_BT = self.score(torch.tanh(self.hidden(x_BTD))).squeeze(-1).float()
        weight_BT = score_BT.masked_fill(~valid_BT, float("-inf")).softmax(-1)
        x_BTD = x_BTD.masked_fill(~valid_BT[..., None], 0.0)
        return torch.einsum("bt,btd->bd", weight_BT.to(x_BTD.dtype), x_BTD)


class GmpAtlMeanPooling(nn.Module):
    """Mean over the valid frames."""

    def __init__(self, dim: int) -> None:
        super().__init__()

    def forward(self, x_BTD: Tensor, valid_BT: Tensor) -> Tensor:
        x_BTD = x_BTD.masked_fill(~valid_BT[..., None], 0.0)
        return x_BTD.sum(1) / valid_BT.sum(1, keepdim=True)


class GmpAtlStatisticsPooling(nn.Module):
    """Mean and standard deviation over the valid frames, one after the other."""

    def __init__(self, dim: int) -> None:
        super().__init__()

    def forward(self, x_BTD: Tensor, valid_BT: Tensor) -> Tensor:
        valid_BT1 = valid_BT[..., None]
        count_B1 = valid_BT.sum(1, keepdim=True)
        with torch.autocast(x_BTD.device.type, enabled=False):
            clean_BTD = x_BTD.float().masked_fill(~valid_BT1, 0.0)
            mean_BD = clean_BTD.sum(1) / count_B1
            centred_BTD = (clean_BTD - mean_BD[:, None]).masked_fill(~valid_BT1, 0.0)
            variance_BD = centred_BTD.square().sum(1) / count_B1
            deviation_BD = variance_BD.clamp_min(_MIN_VARIANCE).sqrt()
            return torch.cat([mean_BD, deviation_BD], dim=-1).to(x_BTD.dtype)


class GmpAtlLayerMean(nn.Module):
    """The mean of all layers with softmax weights."""

    def __init__(self, num_layers: int) -> None:
        super().__init__()
        self.logits_L = nn.Parameter(torch.zeros(num_layers))

    def forward(self, frames: list[Tensor]) -> Tensor:
        weights = self.logits_L.softmax(0).to(frames[0].dtype)
        total_BTD = weights[0] * frames[0]
        for weight, x_BTD in zip(weights[1:], frames[1:], strict=True):
            total_BTD = total_BTD + weight * x_BTD
        return total_BTD


_POOLINGS: dict[str, type[nn.Module]] = {
    "attentive": GmpAtlAttentivePooling,
    "mean": GmpAtlMeanPooling,
    "statistics": GmpAtlStatisticsPooling,
}
_LINEAR = ("cross_entropy", "focal")
_LOSSES = ("am_softmax", "aam_softmax", *_LINEAR)


class GmpAtlForAudioClassification(HubertPreTrainedModel):
    """Classifies the emotion of an utterance."""

    config_class = GmpAtlConfig

    def __init__(self, config: GmpAtlConfig) -> None:
        super().__init__(config)
        if config.pooling not in _POOLINGS or config.loss not in _LOSSES:
            raise ValueError(
                f"pooling {config.pooling!r} with loss {config.loss!r}: this file knows the poolings "
                f"{', '.join(_POOLINGS)} and the losses {', '.join(_LOSSES)}"
            )
        self.hubert = HubertModel(config)
        if config.feat_extract_norm == "group":
            channels = int(config.conv_dim[0])
            setattr(self._first_conv, "layer_norm", GmpAtlClipGroupNorm(channels, channels))  # noqa: B010
        self.pooling = _POOLINGS[config.pooling](config.hidden_size)
        pooled = config.hidden_size * (2 if config.pooling == "statistics" else 1)
        if config.pool_layers == "average":
            self.layer_mean = GmpAtlLayerMean(config.num_hidden_layers + 1)
        if config.embedding_dim:
            self.embedding = nn.Linear(pooled, config.embedding_dim)
        self.classifier = nn.Linear(
            config.embedding_dim or pooled, len(config.id2label or {}), bias=config.loss in _LINEAR
        )
        self.post_init()

    @property
    def _first_conv(self) -> nn.Module:
        return self.hubert.feature_extractor.conv_layers[0]

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        return_dict: bool | None = None,
        **_: object,
    ) -> SequenceClassifierOutput | tuple[Tensor, ...]:
        """Logits (B, K), and with ``labels`` the mean loss of the training, without class weights.

        Args:
            input_values: (B, N), 16 kHz mono, from the feature extractor.
            attention_mask: (B, N), 1 on the samples of a clip and 0 after them; None: no padding.
            labels: (B,) classes.
        """
        lengths = [input_values.shape[1]] * len(input_values)
        if attention_mask is not None:
            lengths = [int(n) for n in attention_mask.long().sum(-1).tolist()]
        num_frames = [self._steps(n, len(self.config.conv_kernel)) for n in lengths]
        if min(num_frames) < 1:
            raise ValueError(
                f"clips of {lengths} samples at 16 kHz: one is shorter than the minimum of 25 ms"
            )
        features_BTC = self._conv_features(input_values, lengths)
        steps_T = torch.arange(features_BTC.shape[1], device=features_BTC.device)
        valid_BT = steps_T < torch.tensor(num_frames, device=features_BTC.device)[:, None]
        x_BTD = self.hubert.feature_projection(features_BTC)
        x_BTD = self._encode(x_BTD, valid_BT)
        x_BE = self.pooling(x_BTD, valid_BT)
        if self.config.embedding_dim:
            x_BE = torch.tanh(self.embedding(x_BE))
        logits_BK, loss_logits_BK = self._scores(x_BE, labels)
        loss = None if labels is None else self._loss(loss_logits_BK.float(), labels)
        if return_dict is False:
            return (logits_BK,) if loss is None else (loss, logits_BK)
        return SequenceClassifierOutput(
            loss=cast("torch.FloatTensor | None", loss), logits=cast("torch.FloatTensor", logits_BK)
        )

    def _encode(self, x_BTD: Tensor, valid_BT: Tensor) -> Tensor:
        """The frames that are pooled (B, T, D)."""
        encoder = self.hubert.encoder
        if self.config.pool_layers != "average":
            return encoder(x_BTD, attention_mask=valid_BT)[0]
        # Versions of transformers differ in how an encoder alone is asked for all of its layers.
        frames: list[Tensor] = []

        def note_input(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            frames.append(args[0])

        def note_output(_: nn.Module, __: object, out: Tensor | tuple[Tensor, ...]) -> None:
            frames.append(out[0] if isinstance(out, tuple) else out)

        layers = list(encoder.layers)
        hooks = [layers[0].register_forward_pre_hook(note_input)]
        hooks += [layer.register_forward_hook(note_output) for layer in layers]
        try:
            last_BTD = encoder(x_BTD, attention_mask=valid_BT)[0]
        finally:
            for hook in hooks:
                hook.remove()
        # The last one after the final norm, which some models have behind their last layer.
        return self.layer_mean([*frames[:-1], last_BTD])

    def _scores(self, x_BE: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """The logits for prediction, and those for the loss, which have the margin."""
        if self.config.loss in _LINEAR:
            logits_BK = self.classifier(x_BE)
            return logits_BK, logits_BK
        with torch.autocast(x_BE.device.type, enabled=False):  # bf16 would change a logit by 0.1
            cosine_BK = F.linear(
                F.normalize(x_BE.float(), dim=-1, eps=_MIN_NORM),
                F.normalize(self.classifier.weight.float(), dim=-1, eps=_MIN_NORM),
            )
        logits_BK = self.config.am_scale * cosine_BK
        if labels is None:
            return logits_BK, logits_BK
        margin = self.config.am_margin
        if self.config.loss == "am_softmax":
            margin_BK = margin * F.one_hot(labels, cosine_BK.shape[-1])
            return logits_BK, self.config.am_scale * (cosine_BK - margin_BK)
        cosine_B1 = cosine_BK.gather(-1, labels[:, None])
        sine_B1 = (1 - cosine_B1.square()).clamp_min(torch.finfo(torch.float32).eps).sqrt()
        added_B1 = torch.where(
            cosine_B1 > -math.cos(margin),
            cosine_B1 * math.cos(margin) - sine_B1 * math.sin(margin),
            cosine_B1 - margin * math.sin(margin),
        )
        return logits_BK, self.config.am_scale * cosine_BK.scatter(-1, labels[:, None], added_B1)

    def _loss(self, logits_BK: Tensor, labels: Tensor) -> Tensor:
        ce_B = F.cross_entropy(logits_BK, labels, reduction="none")
        if self.config.loss == "focal":
            gamma = float((self.config.loss_options or {}).get("gamma", 2.0))
            ce_B = ce_B * (-torch.expm1(-ce_B)).clamp_min(torch.finfo(torch.float32).tiny) ** gamma
        return ce_B.mean()

    def _steps(self, num_samples: int, num_layers: int) -> int:
        """The number of steps after ``num_layers`` convolutions of ``num_samples`` samples."""
        kernels, strides = self.config.conv_kernel, self.config.conv_stride
        for kernel, stride in list(zip(kernels, strides, strict=True))[:num_layers]:
            num_samples = (num_samples - kernel) // stride + 1
        return num_samples

    def _conv_features(self, wave_BN: Tensor, lengths: list[int]) -> Tensor:
        """HuBERT's feature encoder. Its group norm gets the lengths of the clips."""
        layers = list(self.hubert.feature_extractor.conv_layers)
        first = self._first_conv
        conv = cast(nn.Conv1d, first.conv)
        x_BCT = wave_BN[:, None].to(conv.weight.dtype)
        if self.config.feat_extract_norm == "group":
            norm, activation = (
                cast(GmpAtlClipGroupNorm, first.layer_norm),
                cast(nn.Module, first.activation),
            )
            x_BCT = activation(norm(conv(x_BCT), [self._steps(n, 1) for n in lengths]))
            layers = layers[1:]
        for layer in layers:
            x_BCT = layer(x_BCT)
        return x_BCT.transpose(1, 2)
