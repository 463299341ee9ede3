"""Compares stored runs: same classes, same test set, same protocol, or an error that says what differs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from gmp_atl_dist.comparison.grouping import RunGroup, group_runs
from gmp_atl_dist.comparison.stored_report import Folds, StoredRun
from gmp_atl_dist.errors import ConfigError
from gmp_atl_dist.statistics.arms import Cell, NotComparableError, arms_of
from gmp_atl_dist.statistics.bootstrap import Resampling
from gmp_atl_dist.statistics.comparing import Comparison, compare_arms

UNKNOWN = "unknown"
"""The protocol of a fold that no recorded run names."""

ONE_RUN = "one run alone cannot be compared; give two or more, e.g. gmp-atl compare RUN OTHER"


@dataclass(frozen=True)
class ComparedRuns:
    """A comparison, with the runs and the protocol of each arm in the order of ``comparison.arms``."""

    comparison: Comparison
    groups: tuple[RunGroup, ...]
    protocols: tuple[str, ...]

    @property
    def across_protocols(self) -> bool:
        return len(set(self.protocols)) > 1 or UNKNOWN in self.protocols


def compare_runs(
    runs: Sequence[StoredRun],
    how: Resampling,
    *,
    baseline: str | None = None,
    by_seed: bool = True,
    across_protocols: bool = False,
) -> ComparedRuns:
    """Compare runs with the first arm, or with that of the run called ``baseline``.

    Args:
        by_seed: see :func:`group_runs`.
        across_protocols: compare runs of different protocols, and say so in the result.

    Raises:
        ConfigError: there is one run or one arm only, a run is given twice, or no run is called ``baseline``.
        NotComparableError: classes, test sets or protocols differ.
    """
    if len(runs) < 2:
        raise ConfigError(ONE_RUN)
    groups = group_runs(runs, by_seed=by_seed)
    if len(groups) < 2:
        raise ConfigError(
            f"the {len(runs)} runs differ in their seeds only, so they are one arm; give a run of another "
            f"configuration, or --no-group to compare the seeds"
        )
    protocols = _protocols(groups, across_protocols)
    classes = _classes(runs)
    cells = [
        Cell(group.name, seed, fold, predictions)
        for group in groups
        for run, seed in zip(group.runs, group.seeds, strict=True)
        for fold, predictions in _in_order(run, classes).items()
    ]
    truth, arms = arms_of(cells, classes)
    chosen = _baseline(groups, baseline)
    comparison = compare_arms(truth, arms, chosen, how)
    notes = [*_about_protocols(groups, protocols), *_about_folds(groups)]
    comparison = replace(comparison, sentences=(*notes, *comparison.sentences))
    return ComparedRuns(comparison, groups, protocols)


def _baseline(groups: Sequence[RunGroup], baseline: str | None) -> str:
    if baseline is None:
        return groups[0].name
    for group in groups:
        if baseline in (group.name, *(name for r in group.runs for name in (r.label, r.place))):
            return group.name
    known = ", ".join(run.label for group in groups for run in group.runs)
    raise ConfigError(f"--baseline {baseline}: is none of the compared runs: {known}")


def _classes(runs: Sequence[StoredRun]) -> tuple[str, ...]:
    """The class list of the first run; the others may have the same classes in another order."""
    first = runs[0]
    for run in runs[1:]:
        if set(run.classes) != set(first.classes):
            raise NotComparableError(
                f"{first.label} and {run.label} have different classes, so their scores cannot be compared: "
                f"{', '.join(first.classes)} and {', '.join(run.classes)}"
            )
    return first.classes


def _in_order(run: StoredRun, classes: tuple[str, ...]) -> Folds:
    """The predictions, with probabilities in the order of ``classes``."""
    if run.classes == classes:
        return run.folds
    order = [run.classes.index(name) for name in classes]
    return {
        fold: [
            row._replace(probabilities=tuple(row.probabilities[i] for i in order))
            if row.probabilities
            else row
            for row in rows
        ]
        for fold, rows in run.folds.items()
    }


def _protocols(groups: Sequence[RunGroup], across: bool) -> tuple[str, ...]:
    of_run = {r.label: r.protocol or UNKNOWN for group in groups for r in group.runs}
    if (len(set(of_run.values())) > 1 or UNKNOWN in of_run.values()) and not across:
        raise NotComparableError.of_all(
            "the runs follow different protocols, so their scores do not mean the same; compare runs of one "
            "protocol, or give --across-protocols, which marks the comparison:",
            [f"{name}: {protocol}" for name, protocol in of_run.items()],
        )
    return tuple(
        ", ".join(sorted({run.protocol or UNKNOWN for run in group.runs})) for group in groups
    )


def _about_protocols(groups: Sequence[RunGroup], protocols: Sequence[str]) -> Iterator[str]:
    if len(set(protocols)) > 1 or UNKNOWN in protocols:
        each = ", ".join(f"{g.name} {p}" for g, p in zip(groups, protocols, strict=True))
        yield (
            f"ACROSS PROTOCOLS: {each}. A difference may come from the use of test speakers in training, not "
            f"from the arm."
        )


def _about_folds(groups: Sequence[RunGroup]) -> Iterator[str]:
    """Runs with the same test set may have been trained on other speakers."""
    sides: Mapping[str, frozenset[frozenset[str]]] = {
        run.label: frozenset(
            frozenset(row.utterance_id for row in rows) for rows in run.folds.values()
        )
        for group in groups
        for run in group.runs
    }
    first = next(iter(sides))
    other = [name for name, parts in sides.items() if parts != sides[first]]
    if other:
        yield (
            f"{', '.join(other)} and {first} divide the test set into different folds, so their models were "
            f"trained on different speakers."
        )
