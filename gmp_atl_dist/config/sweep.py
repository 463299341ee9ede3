"""A sweep: one experiment in several arms, over folds and seeds, from one TOML file.

The file is checked as a whole before anything runs; every mistake is named. Whether the arms have the same
test sets is checked where the corpus can be read (``sweeps/tested.py``).
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, cast

from pydantic import Field, JsonValue, ValidationError, field_validator

from gmp_atl_dist.config.file import apply_override, load_config, parse_config, read_values, set_key
from gmp_atl_dist.config.hashing import digest
from gmp_atl_dist.config.inherited import read_toml
from gmp_atl_dist.config.problems import mistyped, problems_of
from gmp_atl_dist.config.run import RunConfig
from gmp_atl_dist.config.sections import PositiveInt, Section
from gmp_atl_dist.errors import ConfigError
from gmp_atl_dist.shipped import shipped_path, shipped_sweep_path, shipped_sweeps

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
_ONLY_REPORTED = ("evaluate", "audit")
"""Sections that change how results are shown, and no result."""
_OF_THE_SWEEP = {
    "seed": "the sweep gives each seed by `seeds`",
    "folds.run": "the sweep gives the folds by `folds`",
}


class ArmConfig(Section):
    """One arm: what it changes, or a configuration of its own."""

    name: str = Field(description="name of the arm: letters, digits, '.', '_' and '-'; at most 40")
    config: str | None = Field(
        default=None,
        min_length=1,
        description="in place of base: a shipped name, or a TOML file relative to the sweep's file. Its "
        "[runtime] is not used",
    )
    set: dict[str, JsonValue] = Field(
        default_factory=dict,
        description="keys of the configuration with the values of this arm, e.g. "
        "{ 'finetune.loss' = 'cross_entropy' }",
    )


class SweepConfig(Section):
    """The file of a sweep."""

    base: str = Field(
        min_length=1,
        description="configuration that the arms change: a shipped name, or a TOML file relative to the "
        "sweep's file. Its [runtime] is that of the whole sweep",
    )
    name: str | None = Field(
        default=None, description="name of the sweep below its root; unset: that of its file"
    )
    set: dict[str, JsonValue] = Field(
        default_factory=dict, description="keys with the values of all arms"
    )
    folds: Literal["all"] | tuple[PositiveInt, ...] = Field(
        default="all", description="numbers of the folds to run, from 1; or 'all'"
    )
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = Field(
        default=(0,), description="seeds; every arm and fold is run with each of them"
    )
    arms: Annotated[tuple[ArmConfig, ...], Field(min_length=1)] = Field(
        description="the arms, in the order in which they are shown"
    )

    @field_validator("folds", mode="before")
    @classmethod
    def _all_or_numbers(cls, raw: object) -> object:
        """A union's own errors would be one for each of its members."""
        if raw == "all":
            return raw
        numbers = list(raw) if isinstance(raw, list | tuple) else []
        if not numbers or any(type(n) is not int or n < 1 for n in numbers):
            raise ValueError("expected 'all', or a list of fold numbers from 1, e.g. [1, 2]")
        return raw


@dataclass(frozen=True)
class SweepRun:
    """One arm with one seed: a configuration, and its name below the root."""

    arm: str
    seed: int
    config: RunConfig

    @property
    def label(self) -> str:
        """As people see it."""
        return f"{self.arm} seed {self.seed}"


@dataclass(frozen=True)
class Sweep:
    """A checked sweep: its configurations, seeds first, then arms in their order."""

    name: str
    file: str
    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    runs: tuple[SweepRun, ...]

    @property
    def fingerprint(self) -> str:
        """Digest of the science of all runs."""
        return digest([[run.arm, run.seed, run.config.science()] for run in self.runs])

    @property
    def config(self) -> RunConfig:
        """A configuration of it. ``corpus`` may differ among arms, ``runtime`` is that of all."""
        return self.runs[0].config


def is_sweep(path: str | os.PathLike[str]) -> bool:
    """Whether a file, or what is shipped under that name, is a sweep and not a configuration."""
    if shipped_sweep_path(path) is not None:
        return True
    if shipped_path(path) is not None or not os.path.isfile(path):
        return False
    return "arms" in read_values(path)


def load_sweep(
    path: str | os.PathLike[str], overrides: Sequence[str] = (), root: str | None = None
) -> Sweep:
    """Read and check the file of a sweep; ``overrides`` (``a.b=c``) and ``root`` go to all arms.

    Raises:
        ConfigError: names everything that is wrong: unknown keys, a name or a seed that stands twice, an
            arm that is not a configuration, two arms that are the same experiment.
    """
    name = os.fspath(path)
    file = shipped_sweep_path(path) or Path(path)
    raw = read_toml(file, name, f"the name of a shipped sweep: {', '.join(shipped_sweeps())}")
    problems = mistyped(raw, SweepConfig, name)
    try:
        sweep = SweepConfig.model_validate(raw)
    except ValidationError as e:
        found = problems_of(e, raw, SweepConfig, name)
        problems = list(dict.fromkeys([*problems, *found]))
        raise ConfigError.of_all(f"{name} is not usable:", problems) from e
    problems += [f"{name}: {problem}" for problem in _problems_of_names(sweep)]
    if problems:
        raise ConfigError.of_all(f"{name} is not usable:", problems)
    rooted = [] if root is None else [f"runtime.root={json.dumps(root)}"]
    runs = _runs(sweep, name, file, [*overrides, *rooted])
    named = sweep.name or re.sub(r"[^A-Za-z0-9._-]+", "-", file.stem).strip("-._") or "sweep"
    arms = tuple(arm.name for arm in sweep.arms)
    loaded = Sweep(named, name, arms, sweep.seeds, tuple(runs))
    if same := [f"{name}: {problem}" for problem in _same_science(sweep, loaded)]:
        raise ConfigError.of_all(f"{name} is not usable:", same)
    return loaded


def _problems_of_names(sweep: SweepConfig) -> Iterator[str]:
    if sweep.name is not None and not _NAME.fullmatch(sweep.name):
        yield f"name: {sweep.name!r}; use 1 to 40 letters, digits, '.', '_' and '-'"
    for arm in sweep.arms:
        if not _NAME.fullmatch(arm.name):
            yield f"arms: {arm.name!r} is no name; use 1 to 40 letters, digits, '.', '_' and '-'"
    # Names are parts of paths, and a file system may not tell letters of two cases apart.
    for name, count in Counter(arm.name.lower() for arm in sweep.arms).items():
        if count > 1:
            yield f"arms: the name {name!r} stands {count} times; give each arm its own"
    for seed, count in Counter(sweep.seeds).items():
        if count > 1:
            yield f"seeds: {seed} stands {count} times, and would be counted {count} times; list it once"
    if sweep.folds != "all":
        for fold, count in Counter(sweep.folds).items():
            if count > 1:
                yield f"folds: {fold} stands {count} times; list it once"
    for where, given in [("set", sweep.set), *((f"arm {a.name!r}", a.set) for a in sweep.arms)]:
        for key in given:
            for known, why in _OF_THE_SWEEP.items():
                if key == known:
                    yield f"{where}: {key}: {why}; remove it"
            if key.partition(".")[0] == "runtime" and where != "set":
                yield (
                    f"{where}: {key} changes no result, so it cannot tell arms apart; give it in `set`, or "
                    f"by --set, for all of them"
                )


def _runs(sweep: SweepConfig, name: str, file: Path, overrides: Sequence[str]) -> list[SweepRun]:
    """The configuration of each arm with each seed."""
    base_path = _path_of(sweep.base, file, f"{name}: base")
    base = read_values(base_path)
    checked = load_config(base_path, overrides)
    problems: list[str] = []
    arms: list[tuple[str, dict[str, object]]] = []
    for arm in sweep.arms:
        raw = base
        if arm.config is not None:
            raw = read_values(_path_of(arm.config, file, f"{name}: arm {arm.name!r}: config"))
            raw["runtime"] = base.get("runtime", {})
        raw = cast("dict[str, object]", json.loads(json.dumps(raw, default=str)))
        for key, value in {**sweep.set, **arm.set}.items():
            set_key(raw, key.split("."), value, f"{name}: arm {arm.name!r}: {key}")
        arms.append((arm.name, raw))
    runs: list[SweepRun] = []
    for seed in sweep.seeds:
        for arm, raw in arms:
            folds = [] if sweep.folds == "all" else list(sweep.folds)
            try:
                config = _configured(raw, f"{name}: arm {arm!r}", overrides, seed, folds)
            except ConfigError as e:
                problems += [line.removeprefix("  - ") for line in e.message.splitlines()[1:]]
                continue
            config = config.model_copy(update={"runtime": checked.runtime})
            runs.append(SweepRun(arm, seed, config))
    if problems:
        raise ConfigError.of_all(f"{name} is not usable:", list(dict.fromkeys(problems)))
    return runs


def _configured(
    raw: Mapping[str, object], name: str, overrides: Sequence[str], seed: int, folds: list[int]
) -> RunConfig:
    document = cast("dict[str, object]", json.loads(json.dumps(raw)))
    given: dict[str, str] = {}
    for override in overrides:
        given[apply_override(document, override)] = f"--set {override}"
    for key, why in _OF_THE_SWEEP.items():
        if key in given:
            raise ConfigError.of_all(f"{name} is not usable:", [f"--set {key}: {why}"])
    set_key(document, ("folds", "run"), folds, f"{name}: folds")
    document["seed"] = seed
    return parse_config(document, name, given)


def _path_of(given: str, sweep_file: Path, what: str) -> Path:
    """The file that ``base`` or ``config`` names: one beside the sweep's file, else a shipped one.

    Raises:
        ConfigError: there is neither.
    """
    beside = sweep_file.parent / given
    if beside.is_file():
        return beside
    shipped = shipped_path(given)
    if shipped is not None:
        return shipped
    raise ConfigError(
        f"{what}: {given!r} is neither a file in {sweep_file.parent} nor the name of a shipped "
        f"configuration: gmp-atl config list"
    )


def _same_science(sweep: SweepConfig, loaded: Sweep) -> Iterator[str]:
    """Two arms, or two seeds of an arm, that would give the same result."""
    keys = {arm.name: ", ".join(arm.set) or arm.config or "nothing" for arm in sweep.arms}
    first_seed: dict[str, str] = {}
    for run in loaded.runs:
        if run.seed != loaded.seeds[0]:
            continue
        told = _told_apart_by(run.config)
        other = first_seed.setdefault(told, run.arm)
        if other != run.arm:
            yield (
                f"arms {other!r} and {run.arm!r} are the same experiment: {keys[run.arm]} changes no result "
                f"compared with {keys[other]}; change a key that matters, or remove one of them"
            )
    for arm in loaded.arms:
        seeds: dict[str, int] = {}
        for run in (run for run in loaded.runs if run.arm == arm):
            other_seed = seeds.setdefault(_told_apart_by(run.config), run.seed)
            if other_seed != run.seed:
                yield (
                    f"seeds: {other_seed} and {run.seed} give the same result in arm {arm!r}, whose sections "
                    f"all have a seed of their own; remove these"
                )


def _told_apart_by(config: RunConfig) -> str:
    """Digest of what decides a result."""
    science = config.science()
    return digest({name: value for name, value in science.items() if name not in _ONLY_REPORTED})
