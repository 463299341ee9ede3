"""Keys that are given and change nothing: those of a stage that the arm does not run, or of another loss."""

from __future__ import annotations

from collections.abc import Iterable

from gmp_atl_dist.config.run import RunConfig

_WITH_MARGIN = ("am_softmax", "aam_softmax")
_OF_MARGIN = ("finetune.am_scale", "finetune.am_margin", "finetune.margin_warmup_fraction")


def unused_keys(config: RunConfig, given: Iterable[str]) -> list[str]:
    """One line for each key of ``given``, such as ``retrain.lr``, that changes nothing in ``config``."""
    return [
        f"{key} has no effect: {why}" for key in dict.fromkeys(given) if (why := _why(config, key))
    ]


def _why(config: RunConfig, key: str) -> str:
    section = key.partition(".")[0]
    if section in config.not_science - {"runtime"}:
        if section == "pretrain":
            return "" if key == "pretrain.iterations" else "pretrain.iterations = 0"
        return (
            f"with finetune.start = {config.finetune.start!r} and extract.of = {config.extract.of!r} this "
            f"arm runs no stage that reads it"
        )
    if key in _OF_MARGIN and config.finetune.loss not in _WITH_MARGIN:
        return f"finetune.loss = {config.finetune.loss!r} has no margin"
    runtime = key.removeprefix("runtime.").partition(".")[0]
    if section == "runtime" and runtime in config.unused_workers:
        return "this arm starts no such workers"
    return ""
