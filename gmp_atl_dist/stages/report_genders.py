"""How sure the warmed-up model was of the genders that it predicted, for the report."""

from __future__ import annotations

import numpy as np

from gmp_atl_dist.records import GENDERS, source_of
from gmp_atl_dist.report.content import SURE_FROM, GendersContent
from gmp_atl_dist.stages.fold_artifacts import FoldArtifacts
from gmp_atl_dist.stages.gender import PredictGender
from gmp_atl_dist.store.genders import read_genders


def genders_content(fold: FoldArtifacts) -> tuple[GendersContent, ...]:
    """The predictions of each unlabelled source, sorted by its name; none if none were needed."""
    if PredictGender.kind not in fold.handles:
        return ()
    table = read_genders(fold.artifact(PredictGender.kind))
    sources = np.array([source_of(name) for name in table["utterance_id"].to_pylist()])
    genders = np.array(table["gender"].to_pylist())
    probabilities = table["probability"].to_numpy()
    contents: list[GendersContent] = []
    for source in sorted({*sources.tolist()}):
        own = sources == source
        contents.append(
            GendersContent(
                source=source,
                per_gender={g: int((genders[own] == g).sum()) for g in GENDERS},
                mean_probability=float(probabilities[own].mean()),
                unsure_share=float((probabilities[own] < SURE_FROM).mean()),
            )
        )
    return tuple(contents)
