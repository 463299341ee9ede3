"""The unique stages of a sweep: which are there, what the others need, and how long they take.

Stages of arms, folds and seeds that have the same fingerprint are one stage. All fingerprints are known once
the corpus and the backbones are there. Before that, a stand-in takes their places, so the count is the same.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from gmp_atl_dist import pipeline
from gmp_atl_dist.clustering.sample import FrameSample, UtteranceSample
from gmp_atl_dist.config import digest
from gmp_atl_dist.fold import Fold
from gmp_atl_dist.outside_inputs import OutsideInputs
from gmp_atl_dist.runs.estimate import Planned, Rates, earlier_rates, plan_of
from gmp_atl_dist.scheduling.demands import Demand, demands_of_stage, held_by
from gmp_atl_dist.scheduling.room import Grant, Offers, Room
from gmp_atl_dist.scheduling.walks import MethodRun
from gmp_atl_dist.stage_order import planned_stages
from gmp_atl_dist.stages.base import Handle, Pending, Stage
from gmp_atl_dist.stages.evaluate import Evaluate
from gmp_atl_dist.stages.extract import Extract
from gmp_atl_dist.store.artifact import Artifact, find_artifact
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.manifest import ArtifactKey, Manifest


@dataclass(frozen=True)
class PlannedStage:
    """A stage that at least one cell needs."""

    key: ArtifactKey
    label: str
    first: str
    """The run that reaches it first."""
    is_done: bool
    demands: tuple[Demand, ...]
    needs: tuple[ArtifactKey, ...]
    seconds: float | None
    """Expected duration; None where nothing like it was measured."""


@dataclass(frozen=True)
class SweepPlan:
    """All unique stages of a sweep, in the order in which they would run one after another."""

    stages: tuple[PlannedStage, ...]
    asked: int
    """Stages of all runs, shared ones counted each time."""

    @property
    def to_run(self) -> tuple[PlannedStage, ...]:
        return tuple(stage for stage in self.stages if not stage.is_done)

    @property
    def evaluated(self) -> frozenset[str]:
        """Fingerprints of the evaluations that are there. A cell ends with its evaluation."""
        done = (stage.key for stage in self.stages if stage.is_done)
        return frozenset(key.fingerprint for key in done if key.kind == Evaluate.kind)

    @property
    def unknown(self) -> tuple[str, ...]:
        """Names of the stages to run without an estimate."""
        names = (s.label.partition(" ")[0] for s in self.to_run if s.seconds is None)
        return tuple(dict.fromkeys(names))

    @property
    def most_workers(self) -> int:
        """As many nodes as could be of use: all workers of all stages to run, each on its own."""
        return sum(demand.fewest for stage in self.to_run for demand in stage.demands)

    def hours(self) -> dict[str, float]:
        """Core-hours as ``CPU`` and GPU-hours as ``GPU`` of the stages to run, where there is an estimate."""
        found = {"CPU": 0.0, "GPU": 0.0}
        for stage in self.to_run:
            held = held_by(stage.demands, [demand.fewest for demand in stage.demands])
            for device, number in held.items():
                found[device] += (stage.seconds or 0.0) * number / 3600
        return found

    def side_by_side(self, offers: Offers | None) -> float:
        """How many stages run at a time on a cluster, on average, as far as stages have an estimate."""
        wall_s = self.wall_s(offers)
        return sum(s.seconds or 0.0 for s in self.to_run) / wall_s if wall_s else 1.0

    def wall_s(self, offers: Offers | None) -> float:
        """Seconds until all is done on a cluster, as far as stages have an estimate.

        Stages start as ``scheduling/lanes.py`` starts them, each with its fewest workers. Without ``offers``
        one runs at a time.
        """
        left, done_s = {s.key: s for s in self.to_run}, 0.0
        running: list[tuple[float, str, ArtifactKey, Grant]] = []
        now_s = 0.0
        while left or running:
            room = Room(offers or [])
            for _, _, _, grant in running:
                room.hold(grant)
            waiting = set(left) | {key for _, _, key, _ in running}
            for stage in list(left.values()):
                if any(need in waiting for need in stage.needs):
                    continue
                grant = Grant((), ()) if offers is None else room.admit(stage.demands, offers)
                if (offers is None or grant is None) and running:
                    room.reserve(stage.demands)
                    continue
                end_s = now_s + (stage.seconds or 0.0)
                entry = (end_s, stage.key.fingerprint, stage.key, grant or Grant((), ()))
                heapq.heappush(running, entry)
                del left[stage.key]
            now_s = heapq.heappop(running)[0]
            done_s = max(done_s, now_s)
        return done_s


def plan_stages(runs: Sequence[MethodRun]) -> SweepPlan:
    """The plan of runs that are prepared, or looked up by :func:`look_up_shared`."""
    stages: dict[ArtifactKey, PlannedStage] = {}
    asked = 0
    rates: dict[str, Rates] = {}
    for run in runs:
        source = run.config.model.source
        if source not in rates:
            rates[source] = earlier_rates(run.context.store, run.config)
        expected = _expected(run, rates[source])

        def note(stage: Stage, run: MethodRun = run, expected: Mapping = expected) -> Handle:
            nonlocal asked
            asked += 1
            stage = _with_a_sample(stage)
            shared = run.shared.get(stage.label)
            key = shared.key if shared is not None else stage.key
            artifact = shared or find_artifact(run.context.store, key)
            if key not in stages:
                is_done = artifact is not None and not _is_stand_in(artifact)
                stages[key] = PlannedStage(
                    key,
                    stage.label,
                    run.name,
                    is_done,
                    demands_of_stage(stage, run.context.settings),
                    tuple(h.key for h in stage.inputs().values()),
                    None if is_done else expected.get(stage.label),
                )
            return artifact or Pending(stage)

        def folds(*_: object, run: MethodRun = run) -> Sequence[Fold]:
            return run.folds

        pipeline.method(run.config, run.context.source, note, folds)
    return SweepPlan(tuple(stages.values()), asked)


def look_up_shared(
    run: MethodRun, folds: Sequence[Fold] | None, known: dict[str, Artifact]
) -> None:
    """Fill ``run.shared`` and ``run.folds`` without running anything.

    What is not there is replaced by a stand-in; then ``folds`` are those of the listing. ``known`` holds what
    other runs of the sweep have found, because a search lists files outside the store.
    """
    inputs = OutsideInputs(run.context.store)

    class Known(Exception):
        pass

    def look(stage: Stage) -> Handle:
        identities = [handle.identity for handle in stage.inputs().values()]
        name = digest([stage.label, dict(stage.settings()), identities])
        if name not in known:
            found = find_artifact(run.context.store, inputs(stage))
            known[name] = found or _stand_in(stage)
        run.shared[stage.label] = known[name]
        return known[name]

    def planned(_: object, corpus: Artifact) -> Sequence[Fold]:
        if _is_stand_in(corpus):
            run.folds = tuple(folds or ())
        else:
            run.folds = tuple(pipeline.configured_folds(run.config, corpus))
        raise Known

    try:
        pipeline.method(run.config, run.context.source, look, planned)
    except Known:
        return


def _expected(run: MethodRun, rates: Rates) -> dict[str, float | None]:
    """Expected duration of each stage of a run, by label."""
    names = [(stage.name, bool(stage.fold_name)) for stage in planned_stages(run.config)]
    corpus = run.shared.get("combine") or run.shared.get("ingest")
    if corpus is not None and not _is_stand_in(corpus):
        planned = plan_of(run.config, names, corpus, run.folds)
    else:
        # How much audio there is is not known; stages take what they took.
        folds = [fold.name for fold in run.folds]
        planned = [Planned(n, f) for n, per_fold in names for f in (folds if per_fold else [""])]
    return {p.label: rates.seconds(p) for p in planned}


def _with_a_sample(stage: Stage) -> Stage:
    """A stage whose key can be told before ``ingest``.

    With ``label.fused`` the sample of utterances that is extracted follows from the corpus. One that follows
    from the keys that draw it takes its place. So two samples that will both be all of a small corpus are
    counted as two.
    """
    if not (
        isinstance(stage, Extract) and stage.plan.fused and _is_stand_in(stage.training.corpus)
    ):
        return stage
    seed = int(digest(dict(stage.plan.drawn_by))[:12], 16)
    sample = FrameSample(UtteranceSample(0.5, seed))
    return replace(stage, plan=replace(stage.plan, draw=lambda: sample))


def _stand_in(stage: Stage) -> Artifact:
    """An artefact of nothing, in the place of one that follows files outside the store."""
    identity = digest([stage.label, dict(stage.settings()), sorted(stage.inputs())])
    manifest = Manifest(
        kind=stage.kind,
        version=stage.version,
        fingerprint="",
        identity=identity,
        science={},
        inputs={},
        receipts=(),
        notes={"source": "", "num_layers": str(10**6)},
    )
    return Artifact(Store.open("."), ArtifactKey(stage.kind, identity), manifest)


def _is_stand_in(artifact: Artifact) -> bool:
    return not artifact.manifest.fingerprint
