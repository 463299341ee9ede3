"""Stage ``cluster``: k-means codebooks of every scale, fitted on frames of the training speakers alone.

A scale is a pair (layer, k). Each scale has an artefact (``layer_fit.py``), and the stage's artefact holds
the codebooks of all scales. So adding a scale fits that one alone. Frames are read once for all scales of a
layer. With ``gender = "by_gender"`` each gender has its own codebook, and the label ids of the second one
begin after those of the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, cast

import numpy as np

from gmp_atl_dist import runtime
from gmp_atl_dist.clustering.engines import Engine, chosen_engine, describe_engine
from gmp_atl_dist.config import ClusterConfig, ClusterWorkersConfig, Json, Scale, hashed
from gmp_atl_dist.errors import ConfigError
from gmp_atl_dist.partition import piece_numbers
from gmp_atl_dist.records import EVERYBODY
from gmp_atl_dist.runtime import Pool, Task
from gmp_atl_dist.stages.base import Context, Handle, Seal, Stage, sealed
from gmp_atl_dist.stages.codebook_origin import fit_notes
from gmp_atl_dist.stages.codebook_use import check_codebook
from gmp_atl_dist.stages.frame_index import sampled_frames
from gmp_atl_dist.stages.gender import gender_inputs
from gmp_atl_dist.stages.label_plan import LabelPlan
from gmp_atl_dist.stages.layer_fit import KIND, LayerFit, ScaleFit
from gmp_atl_dist.store.artifact import Artifact, artifact_of, find_artifact
from gmp_atl_dist.store.codebooks import Codebook, at_scale, put_codebooks, read_codebooks
from gmp_atl_dist.store.features import feature_receipts
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.progress import forget_progress
from gmp_atl_dist.store.training_set import TrainingSet
from gmp_atl_dist.store.writer import ArtifactWriter

if TYPE_CHECKING:
    from gmp_atl_dist.inference.fitter import Answer, Order

_MOST_PIECES = 256
"""Per layer. In every iteration each piece gives cluster statistics, which the driver adds up."""
_ONE_PROCESS_FLOP = 2e11
"""One process finishes a smaller assignment step in seconds; others would have to start first."""
_ONE_GPU_FLOP = 5e13
"""The same for a process with GPUs."""
_GPU_PIECE_FRAMES = 250_000
"""Frames of a piece, about, if there are GPUs: they finish small pieces faster than the driver adds them."""
_BYTES_PER_VALUE = 2


@dataclass(frozen=True)
class Cluster(Stage):
    """Fit the codebooks of every scale that was not fitted before."""

    config: ClusterConfig
    features: Handle
    training: TrainingSet
    plan: LabelPlan
    iteration: int = 0

    kind: ClassVar[str] = "cluster"
    version: ClassVar[int] = 2

    @property
    def fold_name(self) -> str:
        return self.training.fold.name

    def science(self) -> dict[str, Json]:
        return {"cluster": hashed(self.config)}

    def inputs(self) -> Mapping[str, Handle]:
        inputs = {"corpus": self.training.corpus, "features": self.features}
        return {**inputs, **gender_inputs(self.training)}

    def run(self, context: Context, out: ArtifactWriter) -> Seal:
        artifacts: dict[int, Artifact] = {}
        missing: list[ScaleFit] = []
        inputs = {name: handle.identity for name, handle in self.inputs().items()}
        for number, scale in enumerate(self.config.scales):
            fit = ScaleFit.of(number, scale, self.config, inputs, self._config_key(number))
            named = self._named(context.store, number, scale)
            artifact = named or find_artifact(context.store, fit.key)
            if artifact is None:
                missing.append(fit)
                continue
            artifacts[number] = artifact
            context.reporter.line(
                f"{self.label}: {self._config_key(number)} is codebook {artifact.key.fingerprint[:12]}, "
                f"{'as the configuration names it' if named else 'fitted before'}"
            )
        if missing:
            artifacts |= self._fitted(context, missing)
        books: list[Codebook] = []
        for number in sorted(artifacts):
            books += at_scale(read_codebooks(artifacts[number]), number)
        put_codebooks(out, books)
        forget_progress(context.store, out.key)
        return Seal()

    def _config_key(self, number: int) -> str:
        """The key of the configuration that asks for a scale."""
        if self.iteration:
            return f"pretrain.k[{self.iteration - 1}]"
        return f"cluster.scales[{number}]"

    def named_codebooks(self, store: Store) -> list[Artifact]:
        """The codebooks that scales name, checked; nothing is fitted.

        Raises:
            GmpAtlError: as :func:`gmp_atl_dist.stages.codebook_use.check_codebook`, or there is no such
                codebook, or it is of another layer or k.
        """
        named = (self._named(store, i, scale) for i, scale in enumerate(self.config.scales))
        return [artifact for artifact in named if artifact is not None]

    def _named(self, store: Store, number: int, scale: Scale) -> Artifact | None:
        """The codebook that a scale names; None if it names none.

        Raises:
            ArtifactError: there is none of that fingerprint.
            ConfigError: it is of another layer or k, by gender, or of another model.
            CorpusError: it may know speech outside the training set.
        """
        if scale.codebook is None:
            return None
        artifact = artifact_of(store, KIND, scale.codebook)
        books = read_codebooks(artifact)
        shapes = [(book.layer, len(book.centroids_KD), book.group) for book in books]
        if shapes != [(scale.layer, scale.k, EVERYBODY)] or self.config.gender == "by_gender":
            raise ConfigError(
                f"cluster.scales[{number}]: codebook {artifact.key.fingerprint[:12]} is of (layer, "
                f"k, group) {shapes}, the scale asks for layer {scale.layer}, k = {scale.k}, gender "
                f"{self.config.gender!r}; name another codebook, or change the scale"
            )
        where = f"cluster.scales[{number}].codebook"
        check_codebook(artifact, where, self.training, self.features)
        return artifact

    def _fitted(self, context: Context, missing: Sequence[ScaleFit]) -> dict[int, Artifact]:
        from gmp_atl_dist.inference.fitter import Fitter, FitterArgument
        from gmp_atl_dist.inference.stored_frames import FrameSelection

        config, training, features = self.config, self.training, sealed(self.features)
        settings = context.settings.cluster
        selection = FrameSelection(
            training,
            features,
            self.plan.frames,
            config.gender == "by_gender",
            config.silence_db if config.silence == "drop" else None,
        )
        frames = sampled_frames(training, self.plan.frames, by_gender=selection.by_gender)
        layers = sorted({fit.scale.layer for fit in missing})
        plans = {
            layer: LayerFit(
                context,
                self,
                config,
                layer,
                [fit for fit in missing if fit.scale.layer == layer],
                pieces(features, layer, _MOST_PIECES, _GPU_PIECE_FRAMES if settings.gpus else 1),
                frames,
                fit_notes(training, self.features),
            )
            for layer in layers
        }
        most_processes = 1
        for layer, plan in plans.items():
            size = FitSize.of(plan, _dim(features, layer))
            most_processes = max(most_processes, size.processes(settings))
            context.reporter.line(f"{self.label}: {size.describe(settings)}")
        context.connection.open()
        fitted: dict[int, Artifact] = {}
        with runtime.open_pool(
            Fitter,
            FitterArgument(selection, settings),
            workers=settings,
            most=most_processes,
            retries=context.settings.task_retries,
            stalled_after_s=settings.stalled_after_s,
            tags=context.tags(self),
        ) as pool:
            engine = self._engine(settings, pool, next(iter(plans.values())).pieces)
            words = describe_engine(settings.engine, engine, settings.gpus)
            context.reporter.line(f"{self.label}: {words}")
            for plan in plans.values():
                artifacts = replace(plan, engine=engine).run(pool)
                fitted |= {fit.number: a for fit, a in zip(plan.scales, artifacts, strict=True)}
        return fitted

    def _engine(
        self, settings: ClusterWorkersConfig, pool: Pool[Order, Answer], pieces: Sequence[Task]
    ) -> Engine:
        """The engine of all processes; with ``auto`` and GPUs, the one that a process finds first."""
        from gmp_atl_dist.inference.fitter import WhichEngine

        if settings.engine != "auto" or not settings.gpus:
            return chosen_engine(settings.engine, 0)
        (answer,) = pool.ask(pieces[:1], WhichEngine())
        return cast("Engine", answer)


def pieces(features: Artifact, layer: int, most: int, least_frames: int = 1) -> list[Task]:
    """Tasks over consecutive parts of a layer, as even in frames as parts allow; at most ``most``, of about
    ``least_frames`` frames or more.

    The cut follows from the data alone. Statistics are added within a piece and then piece by piece, so
    they do not depend on which process does it.
    """
    from gmp_atl_dist.inference.fitter import piece_task

    receipts = feature_receipts(features, layer)
    frames = np.array([receipt.frames for receipt in receipts.values()], dtype=np.int64)
    count = min(most, len(frames), max(1, int(frames.sum()) // least_frames))
    numbers = piece_numbers(frames, count)
    names = list(receipts)
    tasks: list[Task] = []
    for number in np.unique(numbers):
        members = np.flatnonzero(numbers == number)
        name = f"layer{layer:02d}-piece-{len(tasks):03d}"
        cost = float(frames[members].sum())
        tasks.append(piece_task(name, layer, [names[i] for i in members], cost))
    return tasks


def _dim(features: Artifact, layer: int) -> int:
    from gmp_atl_dist.store.features import FeatureReader

    first = next(iter(feature_receipts(features, layer).values())).first
    return FeatureReader(features, layer).frames(first).shape[1]


@dataclass(frozen=True)
class FitSize:
    """The size of a layer's fit. It decides the number of processes."""

    layer: int
    frames: int
    dim: int
    clusters: int
    pieces: int

    @classmethod
    def of(cls, plan: LayerFit, dim: int) -> FitSize:
        clusters = sum(fit.scale.k for fit in plan.scales)
        return cls(plan.layer, sum(plan.frames.values()), dim, clusters, len(plan.pieces))

    def processes(self, settings: ClusterWorkersConfig) -> int:
        """One if that is enough; otherwise as many as are allowed, and not more than pieces."""
        fits_one = self.frames * self.dim * _BYTES_PER_VALUE < settings.memory_gib * 2**29
        most_flop = _ONE_GPU_FLOP if settings.gpus else _ONE_PROCESS_FLOP
        if fits_one and 2.0 * self.frames * self.dim * self.clusters < most_flop:
            return 1
        return min(self.pieces, settings.max_workers)

    def describe(self, settings: ClusterWorkersConfig) -> str:
        """One line for the user before the fit starts."""
        num_bytes, processes = self.frames * self.dim * _BYTES_PER_VALUE, self.processes(settings)
        memory = processes * settings.memory_gib * 2**30
        where = "in memory" if num_bytes < 0.8 * memory else "in memory as far as there is room"
        if settings.gpus:
            where = "on the GPUs as far as there is room, others " + where
        how = f"on {settings.gpus:g} GPUs each" if settings.gpus else f"{settings.cpus} cores each"
        who = "one process" if processes == 1 else f"{processes} processes at most (distributed)"
        return (
            f"layer {self.layer}: {self.frames} frames x {self.dim}, {num_bytes / 1e9:.3g} GB, for "
            f"{self.clusters} clusters in total; {who}, {how}, frames kept {where} "
            f"({settings.memory_gib:g} GiB per process)"
        )
