"""Runs that differ in their seeds only are one arm, by their stored configurations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gmp_atl_dist.comparison.stored_report import StoredRun
from gmp_atl_dist.config import canonical_json
from gmp_atl_dist.config.file import parse_config
from gmp_atl_dist.errors import ConfigError

Seeds = Mapping[str, int | None]
"""Dotted key -> seed."""

_NOT_TRAINING = ("evaluate", "audit", "runtime")
"""Sections that change no prediction."""
_SPLIT = "folds"
"""``folds.seed`` chooses who is tested in which fold; it is no seed of a training."""


@dataclass(frozen=True)
class RunGroup:
    """The runs of one arm, and the seed of each."""

    name: str
    runs: tuple[StoredRun, ...]
    seeds: tuple[str, ...]


def group_runs(runs: Sequence[StoredRun], *, by_seed: bool = True) -> tuple[RunGroup, ...]:
    """The arms of ``runs``, in the order in which their first run is given.

    Args:
        by_seed: whether runs that differ in seeds only are one arm; otherwise each run is one.

    Raises:
        ConfigError: a run is given twice, or two runs of an arm have the same seeds.
    """
    _check_places(runs)
    split = [_split(run) for run in runs]
    labels = _seed_labels([seeds for _, seeds in split])
    names = _names(runs)
    if not by_seed:
        return tuple(
            RunGroup(name, (run,), (label,))
            for name, run, label in zip(names, runs, labels, strict=True)
        )
    groups: dict[str, list[int]] = {}
    for i, (arm, _) in enumerate(split):
        # A run whose configuration is not known is an arm of its own.
        groups.setdefault(arm or f"run {i}", []).append(i)
    for members in groups.values():
        _check_seeds([(names[i], split[i][1]) for i in members])
    arms = [runs[members[0]].arm for members in groups.values()]
    return tuple(
        RunGroup(
            # The arms of two sweeps may have the same name.
            arm if arm and arms.count(arm) == 1 else names[members[0]],
            tuple(runs[i] for i in members),
            tuple(labels[i] for i in members),
        )
        for arm, members in zip(arms, groups.values(), strict=True)
    )


def _check_places(runs: Sequence[StoredRun]) -> None:
    places = [run.place for run in runs]
    twice = sorted({place for place in places if places.count(place) > 1})
    if twice:
        raise ConfigError(f"{', '.join(twice)} is given twice; give each run once")


def _check_seeds(members: Sequence[tuple[str, Seeds]]) -> None:
    first: dict[str, str] = {}
    for name, seeds in members:
        key = canonical_json(dict(seeds))
        if key in first:
            raise ConfigError(
                f"{first[key]} and {name} have the same configuration and the same seeds, so one seed would "
                f"count twice; leave one out, or compare them as two arms with --no-group"
            )
        first[key] = name


def _split(run: StoredRun) -> tuple[str, Seeds]:
    """What makes a run's arm, as canonical JSON without seeds (empty if not known), and its seeds."""
    if run.configuration is None:
        return "", {}
    try:
        config = parse_config(run.configuration, f"the stored configuration of {run.label}")
    except ConfigError:
        return "", {}  # written by a release that this one does not know
    science = {name: v for name, v in config.science().items() if name not in _NOT_TRAINING}
    seeds: dict[str, int | None] = {}
    arm = {
        name: value if name == _SPLIT else _without_seeds(value, name, seeds)
        for name, value in science.items()
        if name != "seed"
    }
    if "seed" in science:
        seeds["seed"] = science["seed"]  # pyright: ignore[reportArgumentType]
    return canonical_json(arm), seeds


def _without_seeds(value: Any, path: str, seeds: dict[str, int | None]) -> Any:
    if isinstance(value, Mapping):
        if "seed" in value:
            seeds[path] = value["seed"]
        return {k: _without_seeds(v, f"{path}.{k}", seeds) for k, v in value.items() if k != "seed"}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_without_seeds(v, f"{path}[{i}]", seeds) for i, v in enumerate(value)]
    return value


def _seed_labels(all_seeds: Sequence[Seeds]) -> list[str]:
    """The seed of each run: one number, or those that differ between the runs with their sections."""
    paths = sorted({path for seeds in all_seeds for path in seeds})
    varying = [p for p in paths if len({seeds.get(p) for seeds in all_seeds}) > 1] or paths
    labels = []
    for seeds in all_seeds:
        values = {path: seeds[path] for path in varying if seeds.get(path) is not None}
        if len(set(values.values())) == 1:
            labels.append(str(next(iter(values.values()))))
        else:
            labels.append(", ".join(f"{path} {value}" for path, value in values.items()) or "?")
    return labels


def _names(runs: Sequence[StoredRun]) -> list[str]:
    """The label of each run, or its place where two runs have the same label."""
    labels = [run.label for run in runs]
    return [run.place if labels.count(run.label) > 1 else run.label for run in runs]
