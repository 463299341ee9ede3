"""Named HuBERT architectures, for models with random weights (``model.source = "random:SIZE"``).

All of them have HuBERT's receptive field of 400 samples and hop of 320 samples, which are the defaults of
:class:`transformers.HubertConfig`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

SIZE_VERSIONS: Mapping[str, int] = {"small": 2}
"""Versions of sizes that changed after a release. All other sizes have version 1, which is not hashed."""

ConfigValues: TypeAlias = Mapping[str, int | float | bool | str | tuple[int, ...]]

# A size fixes the architecture. Dropout is a setting of each training stage (``set_dropout``).
NAMED_SIZES: Mapping[str, ConfigValues] = {
    # For a demo on two CPU cores. The convolutions dominate the cost, so they have few channels.
    "tiny": {
        "conv_dim": (32,) * 7,
        "hidden_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 128,
        "num_conv_pos_embeddings": 32,
        "num_conv_pos_embedding_groups": 4,
    },
    # 1.2 M parameters: an experiment of minutes on two CPU cores.
    "mini": {
        "conv_dim": (64,) * 7,
        "hidden_size": 128,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "intermediate_size": 384,
        "num_conv_pos_embeddings": 64,
        "num_conv_pos_embedding_groups": 8,
    },
    # 10.4 M parameters: pretraining from scratch on hours of speech without a GPU.
    "small": {
        "conv_dim": (128,) * 7,
        "hidden_size": 384,
        "num_hidden_layers": 6,
        "num_attention_heads": 6,
        "intermediate_size": 1280,
        "num_conv_pos_embeddings": 64,
        "num_conv_pos_embedding_groups": 16,
    },
    # facebook/hubert-base-ls960: the defaults of HubertConfig, spelled out.
    "base": {
        "conv_dim": (512,) * 7,
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
    },
    # facebook/hubert-large-ll60k.
    "large": {
        "conv_dim": (512,) * 7,
        "conv_bias": True,
        "feat_extract_norm": "layer",
        "do_stable_layer_norm": True,
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
    },
}
