"""The quality table: which cells are compared, and what its sweep says."""

from __future__ import annotations

from benchmarks.subjects.quality_cells import finished
from gmp_atl_dist.config.sweep import load_sweep
from gmp_atl_dist.sweeps.record import GridCell, SweepRecord


def _record(done: set[tuple[str, str, int]]) -> SweepRecord:
    arms, folds, seeds = ("a", "b"), ("fold1", "fold2", "fold3"), (0, 1, 2)
    cells = tuple(
        GridCell(
            arm=arm,
            fold=fold,
            seed=seed,
            run=f"{arm}-{seed}",
            state="done" if (arm, fold, seed) in done else "waiting",
        )
        for arm in arms
        for fold in folds
        for seed in seeds
    )
    return SweepRecord(
        name="x", file="x", fingerprint="", arms=arms, seeds=seeds, folds=folds, cells=cells
    )


def _both(*blocks: tuple[str, int]) -> set[tuple[str, str, int]]:
    return {(arm, fold, seed) for arm in ("a", "b") for fold, seed in blocks}


def test_nothing_is_compared_before_all_arms_are_done() -> None:
    only_one_arm = {("a", "fold1", 0), ("a", "fold2", 0), ("b", "fold2", 1)}

    assert finished(_record(only_one_arm)).cells == ()


def test_folds_and_seeds_form_the_largest_rectangle() -> None:
    done = _both(("fold1", 0), ("fold2", 0), ("fold3", 0), ("fold1", 1), ("fold2", 1))

    found = finished(_record(done))

    # Two folds of two seeds are more than three folds of one.
    assert (found.folds, found.seeds) == (("fold1", "fold2"), (0, 1))
    assert len(found.cells) == 8


def test_more_folds_win_over_more_seeds_of_equal_size() -> None:
    done = _both(("fold1", 0), ("fold2", 0), ("fold3", 0), ("fold1", 1), ("fold1", 2), ("fold2", 1))

    found = finished(_record(done - _both(("fold2", 1))))

    assert (found.folds, found.seeds) == (("fold1", "fold2", "fold3"), (0,))


def test_arms_of_the_quality_sweep_take_the_updates_they_claim() -> None:
    sweep = load_sweep("sweeps/quality")
    configs = {run.arm: run.config for run in sweep.runs if run.seed == 0}
    method = configs["gmp_atl"]

    steps = (method.warmup.steps, method.retrain.steps, method.finetune.steps)
    assert configs["matched_finetune"].finetune.steps == sum(filter(None, steps))
    assert all(steps)
    assert [run.config.pretrain.seed for run in sweep.runs if run.config.pretrain] == [0] * len(
        sweep.runs
    )
    assert {run.config.finetune.seed for run in sweep.runs} == {0, 1, 2}


def test_the_shorter_sweep_has_arms_of_the_whole_one() -> None:
    whole, main = load_sweep("sweeps/quality"), load_sweep("sweeps/quality_main")
    science = {
        (run.arm, run.seed): run.config.model_dump(exclude={"runtime"}) for run in whole.runs
    }

    assert main.arms[0] == whole.arms[0]
    for run in main.runs:
        assert run.config.model_dump(exclude={"runtime"}) == science[run.arm, run.seed]
