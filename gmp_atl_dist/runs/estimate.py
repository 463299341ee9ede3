"""How long a run will take, from what its stages took before: in earlier runs below the same root, and in
earlier folds of this run.

A stage of an earlier run has a rate: seconds for a second of audio, or for an update. What a stage of this
run will work through follows from the configuration and the corpus. A stage without audio and updates, such
as ``cluster``, is expected to take what it took before. A stage that runs the model and was never measured
gets the pace of another one that does, e.g. ``retrain`` that of ``warmup``. Where nothing was measured there
is no estimate, and the stage is named.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from gmp_atl_dist.audio import SAMPLE_RATE_HZ
from gmp_atl_dist.config import OptimConfig, RunConfig
from gmp_atl_dist.errors import GmpAtlError
from gmp_atl_dist.fold import Fold, TrainingSpeakers
from gmp_atl_dist.store.artifact import Artifact
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.index import Utterances
from gmp_atl_dist.store.runs import RunRecord, StageRun, read_run, run_names


@dataclass(frozen=True)
class ExpectedWork:
    """What a stage works through. None where that is not known, or does not matter."""

    audio_s: float | None = None
    updates: float | None = None


@dataclass(frozen=True)
class Planned:
    """A stage of one fold, or one that all folds share (``fold`` is empty)."""

    name: str
    fold: str = ""
    work: ExpectedWork = ExpectedWork()

    @property
    def label(self) -> str:
        return f"{self.name} {self.fold}".rstrip()

    @property
    def runs_the_model(self) -> bool:
        """Whether its time goes into passes of the model over the audio."""
        return self.name in _COSTS

    @property
    def is_trained(self) -> bool:
        """Whether the model is trained in it."""
        return _COSTS.get(self.name) == _UPDATE


_UPDATE, _FORWARD = 3.0, 1.0
"""Cost of a second of audio: a backward pass takes about two forward passes."""
_COSTS = {
    **dict.fromkeys(("warmup", "retrain", "finetune", "pretrain1", "pretrain2"), _UPDATE),
    **dict.fromkeys(("extract", "extract1", "extract2", "gender", "evaluate"), _FORWARD),
}
"""Stages whose time goes into passes of the model over the audio."""


@dataclass
class Rates:
    """What stages took, by name. The newest measurement counts, and one of this run above all."""

    earlier: Mapping[str, StageRun] = field(default_factory=dict)
    here_s: dict[str, float] = field(default_factory=dict)
    """Durations of whole stages in this run; another fold has about as much to do."""
    paces: dict[str, float] = field(default_factory=dict)
    """Seconds for a forward pass over a second of audio, as stages of this run showed them, by name."""

    def note_pace(self, planned: Planned, duration_s: float) -> None:
        """A whole stage of this run takes, or took, so long."""
        cost, audio_s = _COSTS.get(planned.name), planned.work.audio_s
        if cost and audio_s and duration_s > 0:
            self.paces.pop(planned.name, None)  # the newest one is the last one
            self.paces[planned.name] = duration_s / audio_s / cost

    def seconds(self, planned: Planned) -> float | None:
        """About how long a stage takes; None where nothing was measured."""
        if planned.name in self.here_s:
            return self.here_s[planned.name]
        run = self.earlier.get(planned.name)
        if run is None or run.duration_s is None:
            return self._by_pace_of_another(planned)
        for before, now in (
            (run.audio_s, planned.work.audio_s),
            (run.updates, planned.work.updates),
        ):
            if before and now is not None:
                return run.duration_s * now / before
        return run.duration_s

    def held(self, planned: Planned) -> Mapping[str, float] | None:
        """Cores and GPUs of the earlier run that :meth:`seconds` follows from; None if it is not known."""
        run = None if planned.name in self.here_s else self.earlier.get(planned.name)
        return run.held or None if run is not None and run.duration_s is not None else None

    def _by_pace_of_another(self, planned: Planned) -> float | None:
        cost, audio_s = _COSTS.get(planned.name), planned.work.audio_s
        if not cost or audio_s is None:
            return None
        paces = list(self.paces.values()) or [
            run.duration_s / run.audio_s / _COSTS[name]
            for name, run in sorted(self.earlier.items(), key=lambda item: item[1].started_s)
            if name in _COSTS and run.duration_s and run.audio_s
        ]
        return paces[-1] * cost * audio_s if paces else None


def earlier_rates(store: Store, config: RunConfig) -> Rates:
    """The newest measured stage of each name, in runs below this root with the same model.

    A stage that was stopped or failed counts where it worked through audio or updates. A finished one is
    preferred.
    """
    stages: dict[str, StageRun] = {}
    for record in _records(store):
        model = record.configuration.get("model")
        source = model.get("source") if isinstance(model, dict) else None
        if source != config.model.source:
            continue
        for stage in record.stages:
            newest = stages.get(stage.name)
            if stage.duration_s is None or not _is_measured(stage):
                continue
            if newest is None or _preference(newest) < _preference(stage):
                stages[stage.name] = stage
    return Rates(stages)


def _is_measured(stage: StageRun) -> bool:
    return stage.state == "done" or stage.audio_s > 0 or stage.updates > 0


def _preference(stage: StageRun) -> tuple[bool, float]:
    return stage.state == "done", stage.started_s


def _records(store: Store) -> Iterable[RunRecord]:
    for name in run_names(store):
        try:
            record = read_run(store, name)
        except GmpAtlError:
            continue  # a damaged record of another run is no reason not to run
        if record is not None:
            yield record


def plan_of(
    config: RunConfig, names: Sequence[tuple[str, bool]], corpus: Artifact, folds: Sequence[Fold]
) -> list[Planned]:
    """All stages in the order in which they run. ``names`` are (name, whether it is run per fold)."""
    shared_first = [Planned(name) for name, per_fold in names if not per_fold and name != "report"]
    plan = list(shared_first)
    for fold in folds:
        hours = _hours(config, corpus, fold)
        plan += [
            Planned(name, fold.name, _work(config, name, *hours))
            for name, per_fold in names
            if per_fold
        ]
    return [*plan, Planned("report")]


def _hours(config: RunConfig, corpus: Artifact, fold: Fold) -> tuple[float, float, float]:
    """Seconds of audio of the training speakers, of all whose audio is used, and of the test speakers."""
    leaky = config.folds.trains_on_test_audio
    every = fold.transductive_speakers() if leaky else fold.pseudo_label_speakers()
    tested = Utterances(corpus, fold.test_speakers, fold.utterance_ids("test"))
    return (
        _audio_s(corpus, fold.training_speakers()),
        _audio_s(corpus, every),
        _seconds(tested),
    )


def _audio_s(corpus: Artifact, training: TrainingSpeakers) -> float:
    return _seconds(Utterances(corpus, training.speakers, training.utterance_ids))


def _seconds(utterances: Utterances) -> float:
    return float(utterances.num_samples.sum()) / SAMPLE_RATE_HZ


def _work(
    config: RunConfig, name: str, training_s: float, corpus_s: float, test_s: float
) -> ExpectedWork:
    trained: dict[str, tuple[OptimConfig, float]] = {
        "warmup": (config.warmup, training_s),
        "retrain": (config.retrain, corpus_s),
        "finetune": (config.finetune, training_s),
        "pretrain1": (config.pretrain.training(1), corpus_s),
        "pretrain2": (config.pretrain.training(2), corpus_s),
    }
    if name in trained:
        optim, audio_s = trained[name]
        if optim.steps is not None:
            return ExpectedWork(optim.steps * min(optim.batch_s, audio_s), optim.steps)
        passes = optim.epochs or 0
        return ExpectedWork(passes * audio_s, passes * max(1.0, audio_s // optim.batch_s))
    if name.rstrip("12") in ("extract", "label", "mfcc"):
        return ExpectedWork(corpus_s)
    if name == "gender":
        # At most: some of the unlabelled speech may tell it.
        return ExpectedWork(max(0.0, corpus_s - training_s))
    if name == "evaluate":
        return ExpectedWork(test_s)
    return ExpectedWork()
