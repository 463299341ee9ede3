"""How many floating-point operations a forward pass of HuBERT takes; a multiply and an add are two.

Products alone are counted: norms, activations and softmax are not, though a GPU may well wait for their
memory. Frames are counted without padding.
"""

from __future__ import annotations

from dataclasses import dataclass

from transformers import HubertConfig


@dataclass(frozen=True)
class FrameFlops:
    """Of one frame, 20 ms of audio."""

    conv: float
    rest: float

    @property
    def forward_share(self) -> float:
        """Of the convolutional encoder in a forward pass."""
        return self.conv / (self.conv + self.rest)

    @property
    def update_share(self) -> float:
        """Of the frozen encoder in an update, in which the backward pass of the rest is two forward ones."""
        return self.conv / (self.conv + 3 * self.rest)


def frame_flops(config: HubertConfig, utterance_frames: float) -> FrameFlops:
    """With attention over utterances of ``utterance_frames`` frames."""
    conv, steps, channels = 0.0, 1.0, 1
    for stride in config.conv_stride:
        steps *= stride
    for kernel, stride, dim in zip(
        config.conv_kernel, config.conv_stride, config.conv_dim, strict=True
    ):
        steps /= stride  # of this layer's output, in one frame
        conv += 2 * steps * kernel * channels * dim
        channels = dim
    hidden = config.hidden_size
    group = hidden // config.num_conv_pos_embedding_groups
    position = 2 * config.num_conv_pos_embeddings * group * hidden
    products = 4 * hidden**2 + 2 * hidden * config.intermediate_size
    attention = 2 * utterance_frames * hidden
    layers = config.num_hidden_layers * 2 * (products + attention)
    return FrameFlops(conv, 2 * channels * hidden + position + layers)
