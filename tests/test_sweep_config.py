"""The file of a sweep: what it comes to, and what is refused by name before anything runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gmp_atl_dist.config.sweep import Sweep, is_sweep, load_sweep
from gmp_atl_dist.errors import ConfigError
from gmp_atl_dist.shipped import shipped_sweeps

BASE = '[model]\nsource = "random:tiny"\n[extract]\nlayers = [1]\n[cluster]\nscales = [{layer = 1, k = 5}]\n'
ARMS = """
[[arms]]
name = "plain"
[[arms]]
name = "ce"
set = { "finetune.loss" = "cross_entropy", "cluster.scales" = [{ layer = 1, k = 9 }] }
[[arms]]
name = "other"
config = "arms/other.toml"
"""
Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a sweep beside its base, and gives the path."""
    (tmp_path / "arms").mkdir()
    (tmp_path / "base.toml").write_text(f'{BASE}[runtime]\ncorpus = "voices"\nroot = "here"\n')
    (tmp_path / "arms/other.toml").write_text(
        f'{BASE}[warmup]\nlr = 1e-3\n[runtime]\ncorpus = "x"\n'
    )

    def write(text: str) -> Path:
        path = tmp_path / "s.toml"
        path.write_text(text)
        return path

    return write


def refused(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_sweep(path, overrides)
    assert caught.value.exit_code == 2
    return str(caught.value)


def test_a_sweep_is_arms_times_seeds(write: Write) -> None:
    path = write(f'base = "base.toml"\nseeds = [0, 5]\nfolds = [1, 2]\n{ARMS}')
    sweep = load_sweep(path, ["warmup.epochs=2"], "there")

    assert (sweep.name, sweep.arms, sweep.seeds) == ("s", ("plain", "ce", "other"), (0, 5))
    assert [run.label for run in sweep.runs][::3] == ["plain seed 0", "plain seed 5"]
    assert all(run.config.folds.run == (1, 2) for run in sweep.runs)
    assert {run.config.warmup.epochs for run in sweep.runs} == {2}
    ce, other = sweep.runs[4].config, sweep.runs[5].config
    assert (ce.finetune.loss, ce.cluster.scales[0].k, ce.finetune.seed) == ("cross_entropy", 9, 5)
    assert other.warmup.lr == 1e-3
    # Where and on what is one thing for all of them: that of the base.
    assert {run.config.runtime.corpus for run in sweep.runs} == {"voices"}
    assert {run.config.runtime.root for run in sweep.runs} == {"there"}


def test_values_for_all_arms(write: Write) -> None:
    path = write(f'base = "base.toml"\n[set]\n"folds.by" = "speaker"\n{ARMS}')
    assert {run.config.folds.by for run in load_sweep(path).runs} == {"speaker"}


def test_names_and_seeds_that_stand_twice(write: Write) -> None:
    text = 'base = "base.toml"\nseeds = [1, 2, 1]\nfolds = [3, 3]\n'
    text += '[[arms]]\nname = "a"\n[[arms]]\nname = "A"\n[[arms]]\nname = "b/c"\n'
    said = refused(write(text))
    assert "seeds: 1 stands 2 times" in said
    assert "folds: 3 stands 2 times" in said
    assert "arms: the name 'a' stands 2 times" in said
    assert "arms: 'b/c' is no name" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('base = "base.toml"\nseed = [1]\n', "seed: unknown key; did you mean seeds?"),
        (
            'base = "base.toml"\nfolds = []\n',
            "folds = []: expected 'all', or a list of fold numbers",
        ),
        ('base = "base.toml"\nseeds = []\n', "seeds = []"),
        ('base = "nowhere"\n', "base: 'nowhere' is neither a file in "),
        (
            'base = "base.toml"\n[set]\n"folds.run" = [1]\n',
            "set: folds.run: the sweep gives the folds",
        ),
        ("", "base: is needed"),
    ],
)
def test_a_file_that_is_no_sweep(write: Write, text: str, said: str) -> None:
    assert said in refused(write(text + ARMS))


@pytest.mark.parametrize(
    ("arm", "said"),
    [
        (
            'set = { "finetune.los" = "x" }',
            "arm 'x': finetune.los: unknown key; did you mean loss?",
        ),
        ('set = { "finetune.am_margin" = 7 }', "arm 'x': finetune.am_margin = 7"),
        ('set = { "seed" = 7 }', "arm 'x': seed: the sweep gives each seed by `seeds`"),
        ('set = { "runtime.root" = "r" }', "arm 'x': runtime.root changes no result"),
        ('config = "base"', "arm 'x': config: 'base' is neither a file in "),
        ('color = "red"', "arms[3].color: unknown key"),
    ],
)
def test_an_arm_that_is_no_configuration(write: Write, arm: str, said: str) -> None:
    assert said in refused(write(f'base = "base.toml"\n{ARMS}[[arms]]\nname = "x"\n{arm}\n'))


@pytest.mark.parametrize(
    "changes_nothing",
    [
        '"finetune.loss" = "am_softmax"',  # the default
        '"pretrain.k" = [10, 20]',  # there is no pretraining
        '"evaluate.confidence" = 0.9',  # of the report alone
        '"audit.narrow_hz" = 3000.0',
    ],
)
def test_a_sweep_over_a_key_that_changes_nothing(write: Write, changes_nothing: str) -> None:
    said = refused(
        write(f'base = "base.toml"\n{ARMS}[[arms]]\nname = "x"\nset = {{ {changes_nothing} }}\n')
    )
    key = changes_nothing.partition('"')[2].partition('"')[0]
    assert f"arms 'plain' and 'x' are the same experiment: {key} changes no result" in said


def test_seeds_that_no_section_follows(write: Write) -> None:
    sections = ("model", "warmup", "cluster", "retrain", "finetune")
    fixed = "".join(f'"{name}.seed" = 3\n' for name in sections)
    said = refused(
        write(f'base = "base.toml"\nseeds = [0, 1]\n[set]\n{fixed}[[arms]]\nname = "a"\n')
    )
    assert "seeds: 0 and 1 give the same result in arm 'a'" in said


def test_a_seed_on_the_command_line_is_refused(write: Write) -> None:
    path = write(f'base = "base.toml"\n{ARMS}')
    assert "--set seed: the sweep gives each seed" in refused(path, "seed=3")


def test_sweeps_and_configurations_are_told_apart(write: Write, tmp_path: Path) -> None:
    assert is_sweep(write(f'base = "base.toml"\n{ARMS}'))
    assert not is_sweep(tmp_path / "base.toml")
    assert not is_sweep("emodb")
    assert is_sweep("sweeps/emodb")
    assert not is_sweep(tmp_path / "absent.toml")


@pytest.mark.parametrize("name", shipped_sweeps())
def test_every_shipped_sweep_is_one(name: str) -> None:
    sweep: Sweep = load_sweep(name)
    assert len(sweep.runs) == len(sweep.arms) * len(sweep.seeds) >= 9
