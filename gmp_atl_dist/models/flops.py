"""Floating-point operations of a forward pass of a speech backbone. A multiply and an add are two.

Only matrix products and convolutions are counted. Norms, activations and softmax are not, though a GPU may
well wait for their memory. Frames are counted without padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from transformers import PreTrainedConfig


@dataclass(frozen=True)
class FrameFlops:
    """Operations per frame, which is 20 ms of audio.

    Attributes:
        conv: of the convolutional encoder.
        rest: of everything above it.
    """

    conv: float
    rest: float

    @property
    def forward_share(self) -> float:
        """The convolutional encoder's share of a forward pass."""
        return self.conv / (self.conv + self.rest)

    @property
    def update_share(self) -> float:
        """The frozen encoder's share of an update. The backward pass of the rest costs two forward passes."""
        return self.conv / (self.conv + 3 * self.rest)


def frame_flops(config: PreTrainedConfig, utterance_frames: float) -> FrameFlops:
    """Operations per frame, with attention over utterances of ``utterance_frames`` frames.

    Args:
        config: with the keys of wav2vec 2.0's family: ``conv_dim``, ``conv_kernel``, ``conv_stride``,
            ``hidden_size``, ``intermediate_size``, ``num_hidden_layers`` and ``num_conv_pos_embeddings``.
        utterance_frames: the mean number of frames of an utterance.
    """
    values = cast(Any, config)
    conv, steps, channels = 0.0, 1.0, 1
    for stride in values.conv_stride:
        steps *= stride
    for kernel, stride, dim in zip(
        values.conv_kernel, values.conv_stride, values.conv_dim, strict=True
    ):
        steps /= stride  # outputs of this convolution per frame
        conv += 2 * steps * kernel * channels * dim
        channels = dim
    hidden = values.hidden_size
    group = hidden // values.num_conv_pos_embedding_groups
    position = 2 * values.num_conv_pos_embeddings * group * hidden
    products = 4 * hidden**2 + 2 * hidden * values.intermediate_size
    attention = 2 * utterance_frames * hidden
    layers = values.num_hidden_layers * 2 * (products + attention)
    return FrameFlops(conv, 2 * channels * hidden + position + layers)
