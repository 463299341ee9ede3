"""The poolings and losses of ``finetune`` by name: those of ``heads.py``, and those of other packages.

A pooling is a subclass of :class:`~gmp_atl_dist.models.heads.Pooling`, a loss one of
:class:`~gmp_atl_dist.models.heads.ClassificationLoss`. A package offers it through the entry point group
``gmp_atl_dist.poolings`` or ``gmp_atl_dist.losses``. Nothing here imports torch before a part is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from gmp_atl_dist.config import FinetuneConfig, Json, Section
from gmp_atl_dist.errors import ConfigError
from gmp_atl_dist.plugins import PluginGroup

if TYPE_CHECKING:
    from gmp_atl_dist.models.heads import ClassificationLoss, HeadPart, Pooling

PartT = TypeVar("PartT", bound="HeadPart")

ATTENTIVE = "attentive"
AM_SOFTMAX = "am_softmax"
AAM_SOFTMAX = "aam_softmax"
WITH_MARGIN = (AM_SOFTMAX, AAM_SOFTMAX)
"""The losses whose options are ``finetune.am_scale`` and ``finetune.am_margin``."""

POOLINGS = PluginGroup(
    "gmp_atl_dist.poolings",
    "finetune.pooling",
    {
        ATTENTIVE: "gmp_atl_dist.models.heads:AttentivePooling",
        "mean": "gmp_atl_dist.models.heads:MeanPooling",
        "statistics": "gmp_atl_dist.models.heads:StatisticsPooling",
    },
)
LOSSES = PluginGroup(
    "gmp_atl_dist.losses",
    "finetune.loss",
    {
        AM_SOFTMAX: "gmp_atl_dist.models.margin_losses:AmSoftmax",
        AAM_SOFTMAX: "gmp_atl_dist.models.margin_losses:AamSoftmax",
        "cross_entropy": "gmp_atl_dist.models.heads:CrossEntropy",
        "focal": "gmp_atl_dist.models.heads:FocalLoss",
    },
)


def check_head(config: FinetuneConfig) -> None:
    """Refuse a pooling or loss that this process cannot build. Built-in ones cost no import.

    Raises:
        ConfigError: names every unknown part and every wrong option, with what is known.
    """
    problems: list[str] = []
    for group, name, options in (
        (POOLINGS, config.pooling, config.pooling_options),
        (LOSSES, config.loss, config.loss_options),
    ):
        if name in group.built_in and not options:
            continue
        try:
            _checked_options(group, name, options)
        except ConfigError as e:
            problems.append(e.message)
    if len(problems) == 1:
        raise ConfigError(problems[0])
    if problems:
        raise ConfigError.of_all("the head of finetune cannot be built:", problems)


def build_pooling(name: str, dim: int, options: Mapping[str, Json]) -> Pooling:
    """The pooling of that name for frames of size ``dim``.

    Raises:
        ConfigError: it is not installed here, cannot be loaded, or does not take the options.
    """
    from gmp_atl_dist.models.heads import Pooling

    part = _load(POOLINGS, name, Pooling)
    arguments = _arguments(POOLINGS, name, part, options)
    try:
        return part(dim, **arguments)
    except TypeError as e:
        raise POOLINGS.not_loaded(name, e) from e


def build_loss(
    name: str, dim: int, classes: int, options: Mapping[str, Json]
) -> ClassificationLoss:
    """The loss of that name for embeddings of size ``dim``. Not for those of :data:`WITH_MARGIN`.

    Raises:
        ConfigError: as :func:`build_pooling`.
    """
    from gmp_atl_dist.models.heads import ClassificationLoss

    part = _load(LOSSES, name, ClassificationLoss)
    arguments = _arguments(LOSSES, name, part, options)
    try:
        return part(dim, classes, **arguments)
    except TypeError as e:
        raise LOSSES.not_loaded(name, e) from e


def complete_options(
    pooling: str,
    pooling_options: Mapping[str, Json],
    loss: str,
    loss_options: Mapping[str, Json],
) -> tuple[dict[str, Json], dict[str, Json]]:
    """The options of both parts with their defaults, as JSON.

    A stored model keeps these, so that a later default does not change it.

    Raises:
        ConfigError: as :func:`build_pooling`.
    """
    return (
        _checked_options(POOLINGS, pooling, pooling_options).model_dump(mode="json"),
        _checked_options(LOSSES, loss, loss_options).model_dump(mode="json"),
    )


def _checked_options(group: PluginGroup, name: str, options: Mapping[str, Json]) -> Section:
    from gmp_atl_dist.models.heads import ClassificationLoss, Pooling

    part = _load(group, name, Pooling if group is POOLINGS else ClassificationLoss)
    return _parsed(group, name, part, options)


def _load(group: PluginGroup, name: str, base: type[PartT]) -> type[PartT]:
    part = group.load(name)
    if not (isinstance(part, type) and issubclass(part, base)):
        raise ConfigError(
            f"{group.key}: {name!r} is {part!r}, which is not a subclass of "
            f"{base.__module__}.{base.__name__}; correct the entry point"
        )
    return part


def _arguments(
    group: PluginGroup, name: str, part: type[HeadPart], options: Mapping[str, Json]
) -> dict[str, Any]:
    """The options as keyword arguments of the constructor, with their Python types."""
    parsed = _parsed(group, name, part, options)
    return {field: getattr(parsed, field) for field in part.options_model.model_fields}


def _parsed(
    group: PluginGroup, name: str, part: type[HeadPart], options: Mapping[str, Json]
) -> Section:
    try:
        return part.options_model.model_validate(options)
    except ValidationError as e:
        known = ", ".join(sorted(part.options_model.model_fields)) or "none"
        problems = [
            f"{group.key}_options.{'.'.join(map(str, item['loc']))}: {item['msg']}"
            for item in e.errors(include_url=False, include_context=False)
        ]
        hint = (
            " (its keys are finetune.am_scale and finetune.am_margin)"
            if name in WITH_MARGIN
            else ""
        )
        raise ConfigError.of_all(
            f"{group.key}: {name!r} does not take these options; known: {known}{hint}:", problems
        ) from None
