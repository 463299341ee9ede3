"""Stage ``cluster``: one k-means codebook per scale, on training speakers' frames alone.

A scale is a pair (layer, k). One task a layer reads its features once and fits every k of it. With
``by_gender`` each gender has its own codebook and the label ids of the second start after the first's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from gmp_atl_dist.clustering.sample import UtteranceSample
from gmp_atl_dist.config import ClusterConfig, Json
from gmp_atl_dist.device import pin_faiss_threads
from gmp_atl_dist.errors import ArtifactError, CorpusError
from gmp_atl_dist.records import CODEBOOK_SCHEMA, EVERYBODY, GENDERS, TrainingSet
from gmp_atl_dist.runtime import Task
from gmp_atl_dist.stages.base import Context, Pending, Seal, Stage, map_parts, sealed
from gmp_atl_dist.stages.learners import Learners, learning_set
from gmp_atl_dist.store.artifact import Artifact, ArtifactKey, ArtifactWriter, receipts_json
from gmp_atl_dist.store.features import UtteranceFrames, feature_source_parts, read_features
from gmp_atl_dist.store.filesystem import Store


@dataclass(frozen=True)
class Cluster(Stage):
    """Fit every scale's codebook."""

    config: ClusterConfig
    features: Artifact | Pending
    learners: Learners
    sample: UtteranceSample

    kind: ClassVar[str] = "cluster"

    @property
    def label(self) -> str:
        return f"cluster {self.learners.fold.name}"

    def science(self) -> dict[str, Json]:
        return {"cluster": self.config.model_dump(mode="json")}

    def inputs(self) -> Mapping[str, Artifact | Pending]:
        return {"corpus": self.learners.corpus, "features": self.features}

    def run(self, context: Context, out: ArtifactWriter) -> Seal:
        learners = self.learners
        training = learning_set(learners.corpus, learners.fold, learners.transductive)
        layers = sorted({scale.layer for scale in self.config.scales})
        map_parts(
            context,
            out,
            self.label,
            [Task(_part_name(layer)) for layer in layers],
            _Fitter,
            _FitterArgument(
                sealed(self.features), training, self.config, self.sample, context.store, out.key
            ),
            context.settings.cluster,
            outputs=lambda name: [name],
        )
        return Seal()


def _part_name(layer: int) -> str:
    return f"layer{layer:02d}"


@dataclass(frozen=True)
class _FitterArgument:
    features: Artifact
    training: TrainingSet
    config: ClusterConfig
    sample: UtteranceSample
    store: Store
    key: ArtifactKey


class _Fitter:
    """Fits all codebooks of one layer."""

    def __init__(self, argument: _FitterArgument) -> None:
        pin_faiss_threads()
        self._argument = argument
        self._out = ArtifactWriter(argument.store, argument.key)

    def __call__(self, task: Task) -> str:
        argument = self._argument
        layer = next(s.layer for s in argument.config.scales if _part_name(s.layer) == task.name)
        rows: list[dict[str, object]] = []
        next_ids: dict[int, int] = {}
        groups = GENDERS if argument.config.by_gender else (EVERYBODY,)
        for group in groups:
            x_MD = self._sample(layer, group)
            for i, scale in enumerate(argument.config.scales):
                if scale.layer != layer:
                    continue
                centroids_KD = self._fit(x_MD, i, group)
                offset = next_ids.get(i, 0)
                next_ids[i] = offset + len(centroids_KD)
                rows.append(
                    {
                        "scale": i,
                        "layer": layer,
                        "group": group,
                        "offset": offset,
                        "k": centroids_KD.shape[0],
                        "dim": centroids_KD.shape[1],
                        "centroids": centroids_KD.astype("<f4").tobytes(),
                    }
                )
        table = pa.Table.from_pylist(rows, schema=CODEBOOK_SCHEMA)
        return receipts_json([self._out.put_part(task.name, table)])

    def _sample(self, layer: int, group: str) -> np.ndarray:
        from gmp_atl_dist.clustering.kmeans import sample_frames

        argument = self._argument
        # The same ones whether features of all were stored or, in fused mode, of these alone.
        members = {
            u.utterance_id
            for u in argument.training.utterances
            if group in (EVERYBODY, u.gender) and argument.sample.holds(u.utterance_id)
        }
        if not members:
            raise CorpusError(
                f"cluster.by_gender: fold {argument.training.fold.name!r} has no {group} training "
                f"utterance; set cluster.by_gender = false"
            )
        total = sum(len(u.frames_TD) for u in self._frames(layer) if u.utterance_id in members)
        return sample_frames(
            (
                (u.utterance_id, u.frames_TD)
                for u in self._frames(layer)
                if u.utterance_id in members
            ),
            total,
            argument.config.sample_frames,
            f"cluster-{argument.config.seed}-{layer}",
        )

    def _frames(self, layer: int) -> Iterator[UtteranceFrames]:
        """Every utterance's features; one that must not be seen stops the fit."""
        allowed = self._argument.training.ids
        features = self._argument.features
        for part in feature_source_parts(features, layer):
            for frames in read_features(features, part, layer):
                if frames.utterance_id not in allowed:
                    raise CorpusError(
                        f"utterance {frames.utterance_id!r} in features "
                        f"{features.key.fingerprint[:12]} is not of a training speaker of fold "
                        f"{self._argument.training.fold.name!r}; clustering must not see it: extract "
                        f"the training set alone"
                    )
                yield frames

    def _fit(self, x_MD: np.ndarray, i: int, group: str) -> np.ndarray:
        from gmp_atl_dist.clustering.kmeans import fit

        config, scale = self._argument.config, self._argument.config.scales[i]
        if not len(x_MD):
            raise ArtifactError(
                f"features {self._argument.features.key.fingerprint[:12]} hold no frame of layer "
                f"{scale.layer}; run gmp-atl verify"
            )
        return fit(
            x_MD,
            scale.k,
            iterations=config.iterations,
            seed=config.seed,
            what=f"cluster.scales[{i}] (layer {scale.layer}, {group})",
        )
