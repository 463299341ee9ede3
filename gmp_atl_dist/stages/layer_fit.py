"""The fit of a layer's codebooks, as the driver sees it: start, passes, a checkpoint an update, the seal.

Shape suffixes: D hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from gmp_atl_dist.config import ClusterConfig, Json, Scale, hashed
from gmp_atl_dist.console import Bar
from gmp_atl_dist.errors import CorpusError
from gmp_atl_dist.records import EVERYBODY, GENDERS
from gmp_atl_dist.runtime import Pool, Task
from gmp_atl_dist.stages.base import Context, Stage
from gmp_atl_dist.store.artifact import Artifact, ArtifactKey, ArtifactWriter
from gmp_atl_dist.store.codebooks import Codebook, FitRecord, put_codebooks
from gmp_atl_dist.store.progress import ProgressFile, ProgressSnapshot

if TYPE_CHECKING:
    from gmp_atl_dist.clustering.lloyd import Fit, Request, State
    from gmp_atl_dist.clustering.statistics import ClusterStatistics
    from gmp_atl_dist.inference.fitter import Answer, Order

KIND = "codebook"
VERSION = 1


@dataclass(frozen=True)
class ScaleFit:
    """A scale that is to be fitted, and the artefact of its own that its codebooks become.

    That is of the scale alone, so that another one beside it leaves it as it is.
    """

    number: int
    scale: Scale
    key: ArtifactKey
    science: Mapping[str, Json]
    inputs: Mapping[str, str]
    called: str
    """What of the configuration asks for it."""

    @classmethod
    def of(
        cls,
        number: int,
        scale: Scale,
        config: ClusterConfig,
        inputs: Mapping[str, str],
        called: str,
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
        return cls(number, scale, key, science, inputs, called)

    def fits(self, config: ClusterConfig, groups: Sequence[str]) -> list[Fit]:
        from gmp_atl_dist.clustering.lloyd import Fit

        scale = self.scale
        return [
            Fit(
                what=f"{self.called} (layer {scale.layer}, {group})",
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
    """All scales of one layer that are to be fitted, in the same passes over its frames.

    ``frames`` are how many frames of each group are heard, about; shares of them are drawn.
    """

    context: Context
    stage: Stage
    config: ClusterConfig
    layer: int
    scales: Sequence[ScaleFit]
    pieces: Sequence[Task]
    frames: Mapping[str, int]

    def run(self, pool: Pool[Order, Answer]) -> list[Artifact]:
        """Fit them; an artefact a scale, sealed.

        Raises:
            ConfigError: a scale has more clusters than there are (different) frames.
            CorpusError: by gender, a gender has no frame.
        """
        from gmp_atl_dist.clustering.initialization import initialization_frames
        from gmp_atl_dist.clustering.lloyd import run_fits

        asked = [(scale, fit) for scale in self.scales for fit in self._fits(scale)]
        fits = [fit for _, fit in asked]
        states = [self._saved(scale, fit) for scale, fit in asked]
        # Apart for each number wanted, so that a scale begins as it would without the others.
        wanted = [initialization_frames(fit.k) for fit in fits]
        frames = {number: self._start_frames(pool, number) for number in sorted({*wanted})}
        begin = [frames[number][fit.group] for number, fit in zip(wanted, fits, strict=True)]
        now = [
            state or _first(fit, x_SD) for fit, state, x_SD in zip(fits, states, begin, strict=True)
        ]
        stability = self._stability(pool, fits, begin)
        progress = ProgressFile(self.context.store, self.stage.key)
        with self.context.reporter.bar(self.context.tags(self.stage), f"layer {self.layer}") as bar:
            for i, state in run_fits(fits, now, self._pass(pool)):
                now[i] = state
                self._save(asked[i][0], fits[i], state)
                self._show(bar, progress, now)
        return [self._seal(scale, fits, now, stability) for scale in self.scales]

    @property
    def _groups(self) -> tuple[str, ...]:
        return GENDERS if self.config.gender == "by_gender" else (EVERYBODY,)

    def _fits(self, scale: ScaleFit) -> list[Fit]:
        return scale.fits(self.config, self._groups)

    def _saved(self, scale: ScaleFit, fit: Fit) -> State | None:
        """Where a fit that was stopped goes on."""
        from gmp_atl_dist.clustering.lloyd import state_from_bytes

        store, path = self.context.store, scale.checkpoint(fit.group)
        if not store.exists(path):
            return None
        state = state_from_bytes(store.read(path))
        if state is None or len(state.centroids_KD) != fit.k:
            self.context.reporter.line(
                f"{self.stage.label}: {store.uri}/{path} is no whole checkpoint; {fit.what} begins anew"
            )
            return None
        self.context.reporter.line(
            f"{self.stage.label}: {fit.what} goes on after update {state.updates}"
        )
        return state

    def _start_frames(self, pool: Pool[Order, Answer], wanted: int) -> dict[str, np.ndarray]:
        """An even share of each group's frames: fits begin from them, and stability is measured."""
        from gmp_atl_dist.inference.fitter import Start

        shares = {g: min(1.0, wanted / max(self.frames.get(g, 0), 1)) for g in self._groups}
        found: dict[str, list[np.ndarray]] = {}
        for answer in pool.ask(self.pieces, Start(shares, self.config.seed)):
            for group, x_SD in cast("Mapping[str, np.ndarray]", answer).items():
                found.setdefault(group, []).append(x_SD)
        missing = [group for group in self._groups if group not in found]
        if missing:
            raise CorpusError(
                f"{self.stage.label}: there is no frame of group {', '.join(missing)!r} in layer "
                f"{self.layer} to fit; look at cluster.gender, cluster.silence_db and "
                f"cluster.sample_frames"
            )
        return {group: np.concatenate(rows) for group, rows in found.items()}

    def _stability(
        self, pool: Pool[Order, Answer], fits: Sequence[Fit], begin: Sequence[np.ndarray]
    ) -> list[float | None]:
        """How far two seeds agree, of each fit; None of all where nobody asks."""
        from gmp_atl_dist.clustering.initialization import evenly
        from gmp_atl_dist.inference.fitter import Stability

        most = self.config.stability_frames
        if not most:
            return [None] * len(fits)
        thinned = [x_SD[evenly(len(x_SD), most)] for x_SD in begin]
        # One fit a task, so that processes share them.
        tasks = [Task(f"stability of {fit.what}", str(i)) for i, fit in enumerate(fits)]
        answers = pool.ask(tasks, Stability(list(zip(fits, thinned, strict=True))))
        return [cast("float | None", answer) for answer in answers]

    def _pass(
        self, pool: Pool[Order, Answer]
    ) -> Callable[[Sequence[Request]], Sequence[ClusterStatistics]]:
        from gmp_atl_dist.clustering.statistics import ClusterStatistics

        def over_all(requests: Sequence[Request]) -> Sequence[ClusterStatistics]:
            totals = [ClusterStatistics.zero(*request.centroids_KD.shape) for request in requests]
            # In the order of the pieces, whoever answers first.
            for answer in pool.ask(self.pieces, requests):
                for total, sums in zip(
                    totals, cast("Sequence[ClusterStatistics]", answer), strict=True
                ):
                    total.add(sums)
            return totals

        return over_all

    def _save(self, scale: ScaleFit, fit: Fit, state: State) -> None:
        from gmp_atl_dist.clustering.lloyd import state_to_bytes

        self.context.store.put(scale.checkpoint(fit.group), state_to_bytes(state))

    def _show(self, bar: Bar, progress: ProgressFile, now: Sequence[State]) -> None:
        mean_squared_distances = {
            f"mean_squared_distance{i}": round(s.mean_squared_distances[-1], 6)
            for i, s in enumerate(now)
            if s.mean_squared_distances
        }
        done = max(state.updates for state in now)
        shown = ProgressSnapshot(
            done=done,
            total=self.config.iterations,
            unit="iterations",
            metrics=mean_squared_distances,
        )
        bar.update(shown.done, shown.total, shown.note())
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
        for mine in self._fits(scale):
            i = fits.index(mine)
            counts = states[i].counts_K
            record = FitRecord(
                mine.seed,
                0 if counts is None else int(counts.sum()),
                states[i].mean_squared_distances,
                states[i].relocated,
                stability[i],
            )
            centroids_KD = states[i].centroids_KD
            book = Codebook(
                0, self.layer, mine.group, offset, centroids_KD, mine.metric, fit=record
            )
            books.append(book)
            offset = book.end
            self.context.reporter.line(
                f"{self.stage.label}: {mine.what} {_words(record, mine.k, counts)}"
            )
        out = ArtifactWriter(self.context.store, scale.key)
        put_codebooks(out, books)
        sealed = out.seal(version=VERSION, science=scale.science, inputs=scale.inputs)
        self.context.store.delete(f"{scale.key.prefix}/lloyd")
        return sealed


def _first(fit: Fit, x_SD: np.ndarray) -> State:
    from gmp_atl_dist.clustering.initialization import initial_centroids
    from gmp_atl_dist.clustering.lloyd import State

    return State(
        initial_centroids(
            x_SD, fit.k, init=fit.init, metric=fit.metric, seed=fit.seed, what=fit.what
        )
    )


def _words(record: FitRecord, k: int, counts_K: np.ndarray | None) -> str:
    dead = 0 if counts_K is None else int(np.count_nonzero(counts_K == 0))
    words = (
        f"k = {k}: {record.frames} frames, all of them used, {record.frames / k:.0f} a centroid; "
        f"mean_squared_distance {record.mean_squared_distance:.6g} after {record.iterations} updates"
    )
    if record.relocated or dead:
        words += f"; {record.relocated} dead clusters begun anew, {dead} left"
    if record.stability is not None:
        words += f"; two seeds agree to {record.stability:.2f} (adjusted Rand)"
    return words
