"""What the report says of the protocol: which speech each fitted stage has seen."""

from __future__ import annotations

from gmp_atl_dist.config import RunConfig
from gmp_atl_dist.records import Split
from gmp_atl_dist.report.protocol import FITTED, Protocol, SelectionRule, UnlabelledUse
from gmp_atl_dist.stages.codebook_origin import CODEBOOK, origin_sentence
from gmp_atl_dist.stages.finetune import selection_side
from gmp_atl_dist.stages.lineage import start_sentence
from gmp_atl_dist.store.artifact import Artifact, artifact_of


def protocol_of(config: RunConfig, backbone: Artifact) -> Protocol:
    """The protocol of a configuration, with what is known of the start model and of named codebooks."""
    side = selection_side(config.finetune, config.folds)
    pretrained = config.pretrain.iterations > 0
    named = [s.codebook for s in config.cluster.scales if s.codebook is not None]
    return Protocol.of(
        config.folds.protocol,
        rule_of(side),
        fitted=fitted_stages(config),
        pretrained=pretrained,
        unlabelled=_unlabelled_use(config),
        start=start_sentence(backbone, transductive=config.folds.trains_on_test_audio),
        codebooks=[
            origin_sentence(artifact_of(backbone.store, CODEBOOK, name))
            for name in named
            if config.makes_labels
        ],
    )


def _unlabelled_use(config: RunConfig) -> UnlabelledUse | None:
    """What the arm uses speech of unlabelled sources for."""
    uses = {source.use for source in config.corpora if not source.is_labelled}
    if config.makes_labels and "pseudo_labels" in uses:
        return "pseudo_labels"
    return "pretrain" if uses and config.pretrain.iterations > 0 else None


def fitted_stages(config: RunConfig) -> tuple[str, ...]:
    """What a configuration fits beside pretraining, in words; see ``report/protocol.py``."""
    runs = (config.warms_up, config.makes_labels, config.makes_labels, True)
    return tuple(name for name, is_run in zip(FITTED, runs, strict=True) if is_run)


def method_name(config: RunConfig) -> str:
    """What the title of the report calls it."""
    return "GMP-ATL" if config.makes_labels else "Fine-tuning without pseudo-labels"


def rule_of(side: Split | None) -> SelectionRule:
    """How the epoch was chosen: by the speakers of ``side``, or the last one."""
    return "last" if side is None or side == "train" else side
