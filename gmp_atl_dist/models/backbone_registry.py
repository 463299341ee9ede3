"""Finds the backbone for a model by the ``model_type`` in its ``config.json``."""

from __future__ import annotations

from transformers import PreTrainedConfig

from gmp_atl_dist.errors import ConfigError, ModelError
from gmp_atl_dist.models.backbone import SpeechBackbone
from gmp_atl_dist.models.backbone_config import read_config_values
from gmp_atl_dist.plugins import PluginGroup

BACKBONES = PluginGroup(
    "gmp_atl_dist.backbones", "model_type", {"hubert": "gmp_atl_dist.models.hubert:Hubert"}
)


def backbone_types() -> tuple[str, ...]:
    """Every ``model_type`` that has an implementation here, sorted."""
    return BACKBONES.names()


def find_backbone(model_type: str, name: str = "the model") -> type[SpeechBackbone]:
    """The implementation of a model type.

    Args:
        model_type: as in ``config.json`` of the model.
        name: what errors call the model.

    Raises:
        ModelError: there is none, it cannot be loaded, or it is not a backbone with exact padding.
    """
    if not BACKBONES.has(model_type):
        raise ModelError(
            f"{name} is a model of type {model_type!r}, which is not supported here; supported: "
            f"{', '.join(backbone_types())}. Give a model of a supported type, such as "
            f"facebook/hubert-base-ls960, or install a package that declares the entry point "
            f"{model_type!r} in group {BACKBONES.name} (docs/extending.md)"
        )
    try:
        implementation = BACKBONES.load(model_type)
    except ConfigError as e:
        raise ModelError(f"the backbone of {name}: {e.message}") from e
    if not (isinstance(implementation, type) and issubclass(implementation, SpeechBackbone)):
        raise ModelError(
            f"the entry point {model_type!r} of group {BACKBONES.name} is {implementation!r}, which "
            f"is not a subclass of gmp_atl_dist.models.backbone.SpeechBackbone"
        )
    if not implementation.exact_padding:
        raise ModelError(
            f"the backbone {implementation.__name__} for model type {model_type!r} has no exact "
            f"padding, so features would depend on the batch; make its conv_features and encode "
            f"independent of padding, and set exact_padding = True"
        )
    return implementation


def read_config(
    config_json: bytes, name: str = "the model"
) -> tuple[type[SpeechBackbone], PreTrainedConfig]:
    """The implementation and the configuration of the model that a ``config.json`` describes.

    Raises:
        ModelError: the file is damaged, or its model type is not supported.
    """
    values = read_config_values(config_json, name)
    implementation = find_backbone(str(values.get("model_type")), name)
    return implementation, implementation.configuration().from_dict(values)
