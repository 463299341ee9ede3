"""What a backbone is: a speech model that turns waveforms into frames of hidden states.

The method knows :class:`SpeechBackbone` only. An implementation is found by the ``model_type`` in the
model's ``config.json``, through the entry points of group ``gmp_atl_dist.backbones``: the name of the entry
point is the model type, its object is the class. So a backbone is one module in any installed package, and
every process finds it, Ray's workers included. HuBERT is built in (``models/hubert.py``). A complete example
is ``docs/examples/backbone_example.py``.

A backbone is a :class:`transformers.PreTrainedModel`, which loads and saves it. The defaults here fit the
models of transformers that have wav2vec 2.0's layout: configuration keys such as ``conv_dim``, a
convolutional encoder called ``feature_extractor``, and ``masked_spec_embed``.

Shapes: B batch, N samples, T frames, D hidden size, C channels of the convolutional encoder.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedConfig, PreTrainedModel

from gmp_atl_dist.audio import FRAME_HOP_SAMPLES, MIN_SAMPLES, num_frames
from gmp_atl_dist.device import autocast
from gmp_atl_dist.errors import ModelError
from gmp_atl_dist.models.backbone_config import (
    BackboneFacts,
    check_layers,
    model_name,
    set_normalize_waveform,
)
from gmp_atl_dist.models.clip_by_clip import ClipByClip
from gmp_atl_dist.models.flops import FrameFlops, frame_flops
from gmp_atl_dist.models.packing import PackedFrames, pad_rows
from gmp_atl_dist.models.padding import check_shapes, valid_steps
from gmp_atl_dist.models.training_controls import TrainingControls

DEFAULT_MODEL_TYPE = "hubert"
"""Of the random sizes, and of fine-tuned models whose files name no model type of their backbone."""


_DROPOUT_KEYS = (
    *("hidden_dropout", "attention_dropout", "activation_dropout"),
    *("feat_proj_dropout", "final_dropout"),
)

FrontEnd = Callable[[Sequence[Tensor]], list[Tensor]]
"""The convolutional encoder at inference: (T, C) for each float32 wave (N,), no clip seeing another."""


class FrameModel(Protocol):
    """Hidden states at inference: float32 (T, D) by layer for each float32 wave (N,) at 16 kHz.

    One forward pass of the encoder takes at most ``most_frames`` frames. A single window may be longer.
    """

    def __call__(self, waves: Sequence[Tensor], most_frames: int) -> list[dict[int, Tensor]]: ...


class FrameOutput(NamedTuple):
    """What :meth:`SpeechBackbone.forward_frames` returns.

    Attributes:
        hidden: (B, T, D) per wanted layer. 0 is the input of the first layer, i is the output of layer i.
            The last layer's is the model's final hidden state, after its final norm if it has one. Values
            in padding frames mean nothing.
        num_frames_B: frames of each clip, int64.
        valid_BT: True on a clip's own frames.
        conv_features_BTC: output of the convolutional encoder, before norm and projection.
    """

    hidden: dict[int, Tensor]
    num_frames_B: Tensor
    valid_BT: Tensor
    conv_features_BTC: Tensor


class SpeechBackbone(TrainingControls, PreTrainedModel, ABC):
    """A speech model with frames of chosen layers that do not depend on padding.

    Inherit from the model of transformers first and from this class second, for example
    ``class Hubert(HubertModel, SpeechBackbone)``. In ``__init__`` call :meth:`prepare_config` before
    ``super().__init__(config)``, and create ``masked_spec_embed`` after it. Then define
    :meth:`conv_features`, :meth:`project` and :meth:`encode`. Everything else has a default.
    """

    exact_padding: ClassVar[bool] = True
    """See :class:`BackboneFacts`. A backbone without it is refused."""
    front_end_prefix: ClassVar[str] = "feature_extractor."
    """Names of the convolutional encoder's weights begin with this."""
    front_end_keys: ClassVar[tuple[str, ...]] = (
        *("conv_dim", "conv_kernel", "conv_stride", "conv_bias"),
        *("feat_extract_norm", "feat_extract_activation", "normalize_waveform"),
    )
    """The configuration keys that decide what the convolutional encoder computes."""
    optional_weights: ClassVar[frozenset[str]] = frozenset({"masked_spec_embed"})
    """Weights that a checkpoint may lack. They are then drawn at random."""

    @abstractmethod
    def conv_features(self, wave_BN: Tensor, num_samples_B: Tensor, lengths: list[int]) -> Tensor:
        """(B, T, C): the convolutional encoder. A clip's own frames must not depend on its padding.

        Args:
            wave_BN: 16 kHz mono in [-1, 1), padded with anything.
            num_samples_B: int64 on the device, each clip's own samples.
            lengths: the same as a list.
        """

    @abstractmethod
    def project(self, conv_features_BTC: Tensor) -> Tensor:
        """(B, T, D): what the encoder reads, from the output of the convolutional encoder."""

    @abstractmethod
    def encode(self, x_BTD: Tensor, valid_BT: Tensor, layers: Sequence[int]) -> dict[int, Tensor]:
        """(B, T, D) of each wanted layer, see :class:`FrameOutput`; no layer above them is computed.

        ``x_BTD`` is zero on padding frames. Attention must not see them (``valid_BT`` is False there).
        """

    @classmethod
    def configuration(cls) -> type[PreTrainedConfig]:
        """The class of ``config``, which transformers derives from its annotation."""
        assert cls.config_class is not None
        return cls.config_class

    @classmethod
    def facts(cls, config: PreTrainedConfig) -> BackboneFacts:
        """The facts of the model that ``config`` describes."""
        values = cast(Any, config)
        return BackboneFacts(
            model_type=config.model_type,
            hidden_size=int(values.hidden_size),
            num_layers=int(values.num_hidden_layers),
            front_end_dim=int(values.conv_dim[-1]),
            front_end_kernels=tuple(map(int, values.conv_kernel)),
            front_end_strides=tuple(map(int, values.conv_stride)),
            exact_padding=cls.exact_padding,
        )

    @classmethod
    def flops(cls, config: PreTrainedConfig, utterance_frames: float) -> FrameFlops:
        """Floating-point operations per frame, with attention over ``utterance_frames`` frames."""
        return frame_flops(config, utterance_frames)

    @classmethod
    def prepare_config(cls, config: PreTrainedConfig) -> None:
        """Check the frame rate, and switch off what transformers does at random in training.

        Its layer drop and SpecAugment stay off: they follow no seed of ours, parameters without gradient
        stall distributed training, and frames that a mask hides would be clustered. Ours are
        ``layer_drop``, ``mask_time_prob`` and ``mask_feature_prob``. ``normalize_waveform`` is set where
        it is missing: True where the convolutions use layer norm. It is saved with the model.

        Raises:
            ModelError: the model has another frame rate or frame length than this package's labels.
        """
        values = cast(Any, config)
        facts = cls.facts(config)
        if (facts.hop_samples, facts.field_samples) != (FRAME_HOP_SAMPLES, MIN_SAMPLES):
            raise ModelError(
                f"{model_name(config)} yields a frame every {facts.hop_samples} samples, of "
                f"{facts.field_samples} samples each; the labels of this package are made for a frame "
                f"every {FRAME_HOP_SAMPLES} samples, of {MIN_SAMPLES}. Use a model with those numbers"
            )
        values.layerdrop = 0.0
        values.apply_spec_augment = False
        values.mask_time_prob = values.mask_feature_prob = 0.0
        if not hasattr(config, "normalize_waveform"):
            set_normalize_waveform(config, values.feat_extract_norm == "layer")

    @classmethod
    def build_random(cls, size: str, seed: int, *, normalize: bool | None = None) -> SpeechBackbone:
        """A model of a named size with random weights, for ``model.source = "random:SIZE"``.

        Raises:
            ModelError: there are no named sizes of this model type, or ``size`` is none of them.
        """
        raise ModelError(
            f"there are no random sizes of model type {cls.configuration().model_type!r}; make a model "
            f"with random weights, save it with save_pretrained and give its folder as model.source"
        )

    def forward_frames(
        self,
        wave_BN: Tensor,
        num_samples_B: Tensor,
        *,
        mask_BT: Tensor | None = None,
        mask_BD: Tensor | None = None,
        want: Sequence[int] | None = None,
    ) -> FrameOutput:
        """Hidden states of the wanted layers. Layers above the highest of them are not computed.

        Args:
            wave_BN: 16 kHz mono in [-1, 1); what lies behind a clip's end is not read. Or (B, T, C), the
                output of the convolutional encoder, which then is not computed.
            num_samples_B: int64, each clip's own samples.
            mask_BT: frames to replace with ``masked_spec_embed``.
            mask_BD: features of each clip to set to zero in all of its frames, after ``mask_BT``
                (SpecAugment, Park et al. 2019, in the manner of wav2vec 2.0).
            want: layers, see :class:`FrameOutput`; None is the last one.

        Raises:
            ModelError: the model lacks a wanted layer.
            CorpusError: a clip is too short for one frame.
            ValueError: shapes do not fit together.
        """
        layers = [self.num_layers] if want is None else list(want)
        check_layers(self.config, layers)
        lengths: list[int] = num_samples_B.tolist()
        check_shapes(wave_BN, lengths, mask_BT)
        num_samples_B = num_samples_B.to(wave_BN.device)

        conv_features_BTC = (
            wave_BN if wave_BN.ndim == 3 else self.conv_features(wave_BN, num_samples_B, lengths)
        )
        conv_features_BTC = self._controlled_front_end(conv_features_BTC)
        num_frames_B = torch.tensor([num_frames(n) for n in lengths], device=wave_BN.device)
        valid_BT = valid_steps(num_frames_B, conv_features_BTC.shape[1])

        x_BTD = self.project(conv_features_BTC)
        if mask_BT is not None:
            # torch.where, not assignment: with no masked frame the embedding still gets a zero gradient.
            embedding_D = cast(Tensor, self.masked_spec_embed)
            x_BTD = torch.where(mask_BT[..., None], embedding_D.to(x_BTD.dtype), x_BTD)
        if mask_BD is not None:
            x_BTD = x_BTD.masked_fill(mask_BD[:, None], 0.0)
        # Zeros, as behind the end of a clip that is alone: the positional convolution looks 1.3 s ahead.
        x_BTD = x_BTD.masked_fill(~valid_BT[..., None], 0.0)
        encoded = self.encode(x_BTD, valid_BT, layers)
        hidden = {layer: self._controlled_output(h_BTD) for layer, h_BTD in encoded.items()}
        conv_features_BTC = self._controlled_output(conv_features_BTC)
        return FrameOutput(hidden, num_frames_B, valid_BT, conv_features_BTC)

    def packed_frames(
        self,
        wave_BN: Tensor,
        num_samples_B: Tensor,
        *,
        mask_M: Tensor | None = None,
        mask_BD: Tensor | None = None,
        want: Sequence[int] | None = None,
        seeds: Sequence[int] | None = None,
    ) -> PackedFrames:
        """What training computes: as :meth:`forward_frames`, and the frames of all clips in one row.

        The default selects them from what :meth:`forward_frames` returns.

        Args:
            wave_BN: see :meth:`forward_frames`.
            num_samples_B: int64, each clip's own samples.
            mask_M: frames of all clips to replace with ``masked_spec_embed``.
            mask_BD: see :meth:`forward_frames`.
            want: layers; None is the last one.
            seeds: of each clip's dropout; None: drawn from the global random state. The default leaves them
                unused, and drops by the global random state.

        Raises:
            ModelError: the model lacks a wanted layer.
            CorpusError: a clip is too short for one frame.
            ValueError: shapes do not fit together.
        """
        counts = tuple(num_frames(n) for n in num_samples_B.tolist())
        mask_BT = None
        if mask_M is not None:
            steps = wave_BN.shape[1] if wave_BN.ndim == 3 else num_frames(wave_BN.shape[1])
            mask_BT = pad_rows(mask_M, counts)
            mask_BT = F.pad(mask_BT, (0, steps - mask_BT.shape[1]))
        frames = self.forward_frames(
            wave_BN, num_samples_B, mask_BT=mask_BT, mask_BD=mask_BD, want=want
        )
        hidden = {layer: x_BTD[frames.valid_BT] for layer, x_BTD in frames.hidden.items()}
        return PackedFrames(hidden, counts, frames.conv_features_BTC[frames.valid_BT])

    @property
    def num_layers(self) -> int:
        return self.facts(self.config).num_layers

    @property
    def hidden_size(self) -> int:
        return self.facts(self.config).hidden_size

    def frame_model(
        self, layers: Sequence[int], *, window_frames: int, context_frames: int
    ) -> FrameModel:
        """The inference path of extraction and labelling. The default takes one window at a time.

        Args:
            layers: 1 to the number of layers.
            window_frames: attention sees longer clips in overlapping windows of at most this length.
            context_frames: on either side of what is kept of a window.

        Raises:
            ModelError: the model lacks a layer.
        """
        check_layers(self.config, layers)
        return ClipByClip(
            self.front_end(torch.float32),
            lambda x_BTC, num_samples_B, want: (
                self.forward_frames(x_BTC, num_samples_B, want=want).hidden
            ),
            layers,
            window_frames=window_frames,
            context_frames=context_frames,
        )

    def front_end(self, dtype: torch.dtype) -> FrontEnd:
        """The convolutional encoder alone, with the weights that it has now; one clip at a time."""

        @torch.no_grad()
        def features(waves: Sequence[Tensor]) -> list[Tensor]:
            clips: list[Tensor] = []
            with autocast():
                for wave_N in waves:
                    length_1 = torch.tensor([len(wave_N)], device=wave_N.device)
                    (x_TC,) = self.conv_features(wave_N[None], length_1, [len(wave_N)])
                    clips.append(x_TC.to(dtype))
            return clips

        return features

    def freeze_front_end(self) -> None:
        """Train no weight of the convolutional encoder. Its weights must be loaded before."""
        for name, parameter in self.named_parameters():
            if name.startswith(self.front_end_prefix):
                parameter.requires_grad_(False)

    def checkpoint_activations(self) -> None:
        """Keep no activations of encoder layers in training; compute them again in the backward pass."""
        self.activation_checkpointing_enable({"use_reentrant": False})

    def train_mask_embedding(self, trained: bool) -> None:
        """False where nothing is masked: parameters without gradient stall distributed training."""
        cast(Tensor, self.masked_spec_embed).requires_grad_(trained)

    def set_dropout(self, p: float) -> None:
        """Set every dropout probability of the model, in its configuration too.

        Raises:
            ValueError: ``p`` is not in [0, 1).
        """
        if not 0.0 <= p < 1.0:
            raise ValueError(f"dropout {p} is not in [0, 1)")
        for key in _DROPOUT_KEYS:
            if hasattr(self.config, key):
                setattr(self.config, key, p)
        for module in self.modules():
            if isinstance(module, nn.Dropout):
                module.p = p
            elif isinstance(getattr(module, "dropout", None), int | float):
                # Attention modules of transformers hold the probability as a number.
                module.dropout = cast(Any, p)
