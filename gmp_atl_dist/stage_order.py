"""Which stages a configuration has, in the order in which they run, told by the method itself."""

from __future__ import annotations

import sys
from itertools import pairwise

from gmp_atl_dist import pipeline
from gmp_atl_dist.config import RunConfig
from gmp_atl_dist.fold import Fold
from gmp_atl_dist.stages.base import Handle, Pending, Stage
from gmp_atl_dist.stages.gender import PredictGender
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.manifest import ArtifactKey, Manifest

EVERY_STAGE = RunConfig.model_validate(
    {"model": {"source": "random:base"}, "pretrain": {"iterations": 2}}
)
"""A configuration that has all stages."""
SEVERAL_CORPORA = RunConfig.model_validate(
    {
        "corpus": {"emotions": ["a class"]},
        "corpora": [{"name": "NAME"}],
        "runtime": {"corpora": {"NAME": "a folder"}},
    }
)
"""A configuration of several corpora, with the stages that only such a one has."""
PREDICTED_GENDER = RunConfig.model_validate(
    {
        "corpus": {"emotions": ["a class"]},
        "corpora": [{"name": "NAME"}, {"name": "MORE", "role": "unlabelled"}],
        "cluster": {"gender": "by_gender"},
        "runtime": {"corpora": {"NAME": "a folder", "MORE": "another folder"}},
    }
)
"""A configuration that predicts the gender of unlabelled speech."""
_ANY_FOLD = Fold("fold1", train_speakers=("train",), test_speakers=("test",))


def planned_stages(config: RunConfig) -> tuple[Stage, ...]:
    """The stages of a configuration in the order in which they run, from the method itself.

    Nothing is read: every artefact is pending, and one fold stands for all.
    """
    stages: dict[str, Stage] = {}

    def note(stage: Stage) -> Handle:
        stages.setdefault(stage.name, stage)
        return Pending(stage) if stage.identity_is_fingerprint else _placeholder(stage)

    pipeline.method(config, Store.open("."), note, lambda *_: (_ANY_FOLD,))
    return tuple(stages.values())


def stage_names(config: RunConfig) -> tuple[str, ...]:
    """The names of :func:`planned_stages`."""
    return tuple(stage.name for stage in planned_stages(config))


def stages_of_all_configurations() -> tuple[Stage, ...]:
    """Each stage that some configuration has, in the order in which they run. For the documentation."""
    first, *others = planned_stages(EVERY_STAGE)
    known = {stage.name for stage in (first, *others)}
    of_several = [s for s in planned_stages(SEVERAL_CORPORA) if s.name not in known]
    stages = [first, *of_several, *others]
    for before, stage in pairwise(planned_stages(PREDICTED_GENDER)):
        if isinstance(stage, PredictGender):
            stages.insert([s.name for s in stages].index(before.name) + 1, stage)
    return tuple(stages)


def _placeholder(stage: Stage) -> Artifact:
    """An artefact of nothing, for walks that only look at the order of the stages."""
    manifest = Manifest(
        kind=stage.kind,
        version=stage.version,
        fingerprint="",
        identity="",
        science={},
        inputs={},
        receipts=(),
        notes={"source": "", "num_layers": str(sys.maxsize)},
    )
    return Artifact(Store.open("."), ArtifactKey(stage.kind, ""), manifest)


def all_stage_names() -> tuple[str, ...]:
    """The stages of all configurations in order, those of pretraining included."""
    return stage_names(EVERY_STAGE)
