"""The fit of a layer's codebooks, on the driver: initialization, assignment steps, checkpoints, the seal.

Shape suffixes: D hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from gmp_atl_dist import stopping
from gmp_atl_dist.clustering.state import Fit, Request, State, state_from_bytes, state_to_bytes
from gmp_atl_dist.config import ClusterConfig, Json, Scale, hashed
from gmp_atl_dist.console import Bar
from gmp_atl_dist.errors import CorpusError
from gmp_atl_dist.records import EVERYBODY, GENDERS
from gmp_atl_dist.runtime import Pool, Task
from gmp_atl_dist.stages.base import Context, Stage
from gmp_atl_dist.stages.codebook_origin import CODEBOOK
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.codebooks import Codebook, FitRecord, put_codebooks
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.store.progress import ProgressFile, ProgressSnapshot
from gmp_atl_dist.store.writer import ArtifactWriter

if TYPE_CHECKING:
    from gmp_atl_dist.clustering.engines import Engine
    from gmp_atl_dist.clustering.statistics import ClusterStatistics
    from gmp_atl_dist.inference.fitter import Answer, Order

KIND = CODEBOOK
VERSION = 1


@dataclass(frozen=True)
class ScaleFit:
    """A scale to be fitted, and the artefact that holds its codebooks.

    The artefact is keyed by this scale alone, so it does not change when another scale is added.
    """

    number: int
    scale: Scale
    key: ArtifactKey
    science: Mapping[str, Json]
    inputs: Mapping[str, str]
    config_key: str
    """The key of the configuration that asks for it."""

    @classmethod
    def of(
        cls,
        number: int,
        scale: Scale,
        config: ClusterConfig,
        inputs: Mapping[str, str],
        config_key: str,
    ) -> ScaleFit:
        shared = hashed(config, exclude={"scales", "gender", "seed"})
        science: dict[str, Json] = {
            "layer": scale.layer,
            "k": scale.k,
            "seed": config.seed if scale.seed is None else scale.seed,
            "sample_seed": config.seed,
            "by_gender": config.gender == "by_gender",
            "fit": shared,
        }
        key = ArtifactKey.of(KIND, VERSION, science, inputs)
        return cls(number, scale, key, science, inputs, config_key)

    def fits(self, config: ClusterConfig, groups: Sequence[str]) -> list[Fit]:
        scale = self.scale
        return [
            Fit(
                what=f"{self.config_key} (layer {scale.layer}, {group})",
                k=scale.k,
                seed=config.seed if scale.seed is None else scale.seed,
                group=group,
                metric=config.metric,
                init=config.init,
                iterations=config.iterations,
                tolerance=config.tolerance,
            )
            for group in groups
        ]

    def checkpoint(self, group: str) -> str:
        return f"{self.key.prefix}/lloyd/{group}.safetensors"


@dataclass(frozen=True)
class LayerFit:
    """Fits all missing scales of one layer, in the same assignment steps over its frames.

    ``frames`` is about how many frames of each group are used; shares of them are drawn.
    """

    context: Context
    stage: Stage
    config: ClusterConfig
    layer: int
    scales: Sequence[ScaleFit]
    pieces: Sequence[Task]
    frames: Mapping[str, int]
    notes: Mapping[str, str]
    """What the codebooks note about what they were fitted on."""
    engine: Engine = "faiss"
    """The engine of all processes."""

    def run(self, pool: Pool[Order, Answer]) -> list[Artifact]:
        """The sealed artefact of each scale.

        Raises:
            ConfigError: a scale has more clusters than there are (different) frames.
            CorpusError: by gender, a gender has no frame.
        """
        from gmp_atl_dist.clustering.initialization import initialization_frames
        from gmp_atl_dist.clustering.lloyd import run_fits

        scale_fits = [(scale, fit) for scale in self.scales for fit in self._fits(scale)]
        fits = [fit for _, fit in scale_fits]
        saved = [self._saved(scale, fit) for scale, fit in scale_fits]
        # One draw per number of frames, so that a scale's initialization does not depend on the others.
        counts = [initialization_frames(fit.k) for fit in fits]
        drawn = {count: self._initialization_frames(pool, count) for count in sorted({*counts})}
        candidates = [drawn[count][fit.group] for count, fit in zip(counts, fits, strict=True)]
        states = [
            state or _initial_state(fit, x_SD)
            for fit, state, x_SD in zip(fits, saved, candidates, strict=True)
        ]
        stability = self._stability(pool, fits, candidates)
        progress = ProgressFile(self.context.store, self.stage.key)
        with self.context.reporter.bar(self.context.tags(self.stage), f"layer {self.layer}") as bar:
            for i, state in run_fits(fits, states, self._assign_frames(pool)):
                states[i] = state
                self._save(scale_fits[i][0], fits[i], state)
                stopping.check()
                self._show(bar, progress, states)
        return [self._seal(scale, fits, states, stability) for scale in self.scales]

    @property
    def _groups(self) -> tuple[str, ...]:
        return GENDERS if self.config.gender == "by_gender" else (EVERYBODY,)

    def _fits(self, scale: ScaleFit) -> list[Fit]:
        return scale.fits(self.config, self._groups)

    def _saved(self, scale: ScaleFit, fit: Fit) -> State | None:
        """The checkpoint that an interrupted fit resumes from; None to start again."""
        store, path = self.context.store, scale.checkpoint(fit.group)
        if not store.exists(path):
            return None
        state = state_from_bytes(store.read(path))
        if state is None or len(state.centroids_KD) != fit.k:
            self.context.reporter.line(
                f"{self.stage.label}: {store.uri}/{path} is damaged; {fit.what} starts again"
            )
            return None
        self.context.reporter.line(
            f"{self.stage.label}: {fit.what} resumes after update {state.updates}"
        )
        return state

    def _initialization_frames(
        self, pool: Pool[Order, Answer], count: int
    ) -> dict[str, np.ndarray]:
        """About ``count`` frames of each group, drawn evenly: for first centroids and for stability."""
        from gmp_atl_dist.inference.fitter import Initialization

        shares = {g: min(1.0, count / max(self.frames.get(g, 0), 1)) for g in self._groups}
        by_group: dict[str, list[np.ndarray]] = {}
        for answer in pool.ask(self.pieces, Initialization(shares, self.config.seed)):
            for group, x_SD in cast("Mapping[str, np.ndarray]", answer).items():
                by_group.setdefault(group, []).append(x_SD)
        missing = [group for group in self._groups if group not in by_group]
        if missing:
            raise CorpusError(
                f"{self.stage.label}: there is no frame of group {', '.join(missing)!r} in layer "
                f"{self.layer} to fit; check cluster.gender, cluster.silence_db and "
                f"cluster.sample_frames"
            )
        return {group: np.concatenate(rows) for group, rows in by_group.items()}

    def _stability(
        self, pool: Pool[Order, Answer], fits: Sequence[Fit], candidates: Sequence[np.ndarray]
    ) -> list[float | None]:
        """The agreement of two seeds, of each fit; None with ``stability_frames = 0``."""
        from gmp_atl_dist.clustering.initialization import evenly
        from gmp_atl_dist.inference.fitter import Stability

        most = self.config.stability_frames
        if not most:
            return [None] * len(fits)
        thinned = [x_SD[evenly(len(x_SD), most)] for x_SD in candidates]
        # One task per fit, so that processes share them.
        tasks = [Task(f"stability of {fit.what}", str(i)) for i, fit in enumerate(fits)]
        answers = pool.ask(tasks, Stability(list(zip(fits, thinned, strict=True)), self.engine))
        return [cast("float | None", answer) for answer in answers]

    def _assign_frames(
        self, pool: Pool[Order, Answer]
    ) -> Callable[[Sequence[Request]], Sequence[ClusterStatistics]]:
        from gmp_atl_dist.clustering.statistics import ClusterStatistics
        from gmp_atl_dist.inference.fitter import Assign

        def assign_frames(requests: Sequence[Request]) -> Sequence[ClusterStatistics]:
            totals = [ClusterStatistics.zero(*request.centroids_KD.shape) for request in requests]
            # Added in the order of the pieces, whichever process answers first.
            for answer in pool.ask(self.pieces, Assign(requests, self.engine)):
                of_piece = cast("Sequence[ClusterStatistics]", answer)
                for total, statistics in zip(totals, of_piece, strict=True):
                    total.add(statistics)
            return totals

        return assign_frames

    def _save(self, scale: ScaleFit, fit: Fit, state: State) -> None:
        self.context.store.put(scale.checkpoint(fit.group), state_to_bytes(state))

    def _show(self, bar: Bar, progress: ProgressFile, states: Sequence[State]) -> None:
        # A short name for the mean squared distance, because a bar has little room.
        metrics = {
            f"msd{i}": round(state.mean_squared_distances[-1], 6)
            for i, state in enumerate(states)
            if state.mean_squared_distances
        }
        done = max(state.updates for state in states)
        shown = ProgressSnapshot(
            done=done,
            total=self.config.iterations,
            unit="iterations",
            metrics=metrics,
        )
        bar.update(shown.done, shown.total, shown.unit, measures=shown.measures())
        progress.write(shown)

    def _seal(
        self,
        scale: ScaleFit,
        fits: Sequence[Fit],
        states: Sequence[State],
        stability: Sequence[float | None],
    ) -> Artifact:
        books: list[Codebook] = []
        offset = 0
        for fit in self._fits(scale):
            i = fits.index(fit)
            counts = states[i].counts_K
            record = FitRecord(
                fit.seed,
                0 if counts is None else int(counts.sum()),
                states[i].mean_squared_distances,
                states[i].relocated,
                stability[i],
            )
            centroids_KD = states[i].centroids_KD
            book = Codebook(0, self.layer, fit.group, offset, centroids_KD, fit.metric, fit=record)
            books.append(book)
            offset = book.end
            self.context.reporter.line(
                f"{self.stage.label}: {fit.what} {_summary(record, fit.k, counts)}"
            )
        out = ArtifactWriter(self.context.store, scale.key)
        put_codebooks(out, books)
        sealed = out.seal(
            version=VERSION, science=scale.science, inputs=scale.inputs, notes=self.notes
        )
        self.context.store.delete(f"{scale.key.prefix}/lloyd")
        return sealed


def _initial_state(fit: Fit, x_SD: np.ndarray) -> State:
    from gmp_atl_dist.clustering.initialization import initial_centroids

    return State(
        initial_centroids(
            x_SD, fit.k, init=fit.init, metric=fit.metric, seed=fit.seed, what=fit.what
        )
    )


def _summary(record: FitRecord, k: int, counts_K: np.ndarray | None) -> str:
    empty = 0 if counts_K is None else int(np.count_nonzero(counts_K == 0))
    words = (
        f"k = {k}: {record.frames} frames, all of them used, {record.frames / k:.0f} per centroid; "
        f"mean squared distance {record.mean_squared_distance:.6g} after {record.iterations} updates"
    )
    if record.relocated or empty:
        words += f"; {record.relocated} empty clusters relocated, {empty} still empty"
    if record.stability is not None:
        words += f"; agreement of two seeds {record.stability:.2f} (adjusted Rand index)"
    return words
