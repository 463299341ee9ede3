"""Which runs are one arm."""

from __future__ import annotations

from typing import Any

import pytest

from gmp_atl_dist.comparison.comparing import compare_runs
from gmp_atl_dist.comparison.grouping import RunGroup, group_runs
from gmp_atl_dist.comparison.stored_report import StoredRun
from gmp_atl_dist.config import RunConfig
from gmp_atl_dist.errors import ConfigError
from gmp_atl_dist.statistics.arms import PredictedUtterance
from gmp_atl_dist.statistics.bootstrap import Resampling


def stored(label: str, /, *, classes: Any = ("x", "y"), **sections: dict[str, Any]) -> StoredRun:
    config = RunConfig.model_validate(sections).model_dump(mode="json")
    rows = [
        PredictedUtterance(f"u{i}", f"s{i % 2}", "male", "xy"[i % 2], "x", (0.7, 0.3))
        for i in range(6)
    ]
    if classes == ("y", "x"):
        rows = [row._replace(probabilities=(0.3, 0.7)) for row in rows]
    return StoredRun(label, f"/root/runs/{label}", "clean", classes, config, {"fold1": rows})


def arms(*runs: StoredRun, **options: bool) -> list[tuple[str, tuple[str, ...]]]:
    return [(group.name, group.seeds) for group in group_runs(runs, **options)]


def all_seeds(seed: int) -> dict[str, dict[str, Any]]:
    return {name: {"seed": seed} for name in ("model", "warmup", "cluster", "retrain", "finetune")}


def test_runs_that_differ_in_any_seed_are_one_arm() -> None:
    scales = [{"layer": 6, "k": 50, "seed": 3}, {"layer": 9, "k": 50}]
    assert arms(
        stored("a"), stored("b", finetune={"seed": 4}), stored("c", warmup={"lr": 1e-5})
    ) == [
        ("a", ("0", "4")),
        ("c", ("0",)),
    ]
    assert arms(stored("a", **all_seeds(1)), stored("b", **all_seeds(2))) == [("a", ("1", "2"))]
    assert len(arms(stored("a"), stored("b", cluster={"seed": 3}))) == 1
    one = stored("a", cluster={"scales": scales})
    other = stored("b", cluster={"scales": [{**scales[0], "seed": 5}, scales[1]]})
    assert len(arms(one, other)) == 1


def test_what_changes_no_prediction_makes_no_arm_and_is_no_seed() -> None:
    """Other resamples of the intervals, another root: the same run."""
    for section in ("evaluate", "runtime"):
        other = {"evaluate": {"seed": 9}, "runtime": {"root": "elsewhere"}}[section]
        with pytest.raises(
            ConfigError, match="a and b have the same configuration and the same seeds"
        ):
            group_runs([stored("a"), stored("b", **{section: other})])


def test_the_seed_of_the_split_is_no_seed_of_a_training() -> None:
    folds: dict[str, Any] = {"by": "speaker", "k": 5}
    assert len(arms(stored("a", folds=folds), stored("b", folds={**folds, "seed": 1}))) == 2


def test_every_run_can_be_an_arm_and_places_tell_equal_names_apart() -> None:
    first, second = stored("a"), stored("b", finetune={"seed": 1})
    assert arms(first, second, by_seed=False) == [("a", ("0",)), ("b", ("1",))]
    there = StoredRun("a", "s3://b/runs/a", "clean", ("x", "y"), None, first.folds)
    assert [g.name for g in group_runs([first, there])] == ["/root/runs/a", "s3://b/runs/a"]
    with pytest.raises(ConfigError, match="/root/runs/a is given twice"):
        group_runs([first, first])


def test_classes_in_another_order_are_the_same_classes() -> None:
    first, second = stored("a"), stored("b", classes=("y", "x"), warmup={"lr": 1e-5})

    found = compare_runs([first, second], Resampling(samples=100)).comparison

    assert found.classes == ("x", "y")
    difference = found.arms[1].difference
    assert difference is not None
    assert difference.scores["uar"].value == 0
    assert found.arms[0].calibration_error == found.arms[1].calibration_error
    assert found.arms[0].calibration_error is not None


def test_other_folds_of_the_same_test_set_are_said() -> None:
    first, second = stored("a"), stored("b", warmup={"lr": 1e-5})
    rows = second.folds["fold1"]
    split = StoredRun("b", "/b", "clean", ("x", "y"), None, {"f1": rows[:3], "f2": rows[3:]})

    found = compare_runs([first, split], Resampling(samples=100))

    assert isinstance(found.groups[0], RunGroup)
    assert found.comparison.sentences[0].startswith(
        "b and a divide the test set into different folds"
    )
