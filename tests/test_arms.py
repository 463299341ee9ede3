"""The shipped arms: which stages each one runs, what it changes, and that files extend each other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gmp_atl_dist.cli.main import main
from gmp_atl_dist.config import RunConfig
from gmp_atl_dist.config.file import load_config, load_with_notes
from gmp_atl_dist.errors import ConfigError
from gmp_atl_dist.shipped import shipped_configs
from gmp_atl_dist.stage_order import stage_names

SHARED, END = ("ingest", "backbone"), ("finetune", "evaluate", "report")
LABELS = ("extract", "cluster", "label", "retrain")
WHOLE = (*SHARED, "warmup", *LABELS, *END)
FROM_STOCK = (*SHARED, *LABELS, *END)
ALONE = (*SHARED, *END)
STAGES = {
    "gmp_atl": WHOLE,
    "gmp_atl_frame_ce": WHOLE,
    "finetune": ALONE,
    "frozen": ALONE,
    "tapt": FROM_STOCK,
    "p_tapt": WHOLE,
    "no_gender": WHOLE,
    "by_gender": WHOLE,
    "single_scale": WHOLE,
    "last_layer": WHOLE,
    "no_retraining": (*SHARED, "warmup", *END),
    "cross_entropy": WHOLE,
    "mean_pooling": WHOLE,
    "transductive": WHOLE,
    "matched_finetune": ALONE,
    "generic_labels": FROM_STOCK,
}
CORPORA = ("iemocap", "iemocap_large", "nemo", "emodb")
ARMS = [f"{corpus}/{arm}" for corpus in CORPORA for arm in STAGES]


@pytest.mark.parametrize("name", ARMS)
def test_an_arm_runs_the_stages_that_it_needs_and_no_others(name: str) -> None:
    assert stage_names(load_config(name)) == STAGES[name.partition("/")[2]]


def test_every_shipped_arm_is_in_this_list() -> None:
    assert sorted(name for name in shipped_configs() if "/" in name) == sorted(ARMS)


def changed(name: str) -> set[str]:
    """The keys of an arm that differ from its corpus's own configuration."""
    base = "iemocap_large/gmp_atl" if name.startswith("iemocap_large") else name.partition("/")[0]
    ours, theirs = (load_config(n).model_dump(mode="json", exclude={"seed"}) for n in (name, base))
    return {f"{s}.{k}" for s in ours for k in ours[s] if ours[s][k] != theirs[s][k]}


@pytest.mark.parametrize("arm", STAGES)
def test_an_arm_changes_the_same_keys_for_every_corpus(arm: str) -> None:
    keys = [changed(f"{corpus}/{arm}") for corpus in CORPORA]
    # CPU-size models train their convolutions, which a frozen model cannot; length is in steps or epochs.
    spared = {"finetune.freeze_conv"}
    assert all(found - spared == keys[0] - spared for found in keys)
    assert bool(keys[0]) == (arm != "gmp_atl")


@pytest.mark.parametrize(
    "by", [{"finetune": {"start": "backbone"}}, {"extract": {"of": "backbone"}}]
)
def test_a_default_changes_no_hash_and_an_unused_section_is_not_hashed(by: dict) -> None:
    assert "start" not in RunConfig().science()["finetune"]  # pyright: ignore[reportOperatorIssue, reportArgumentType]
    raw = {"cluster": {"gender": "none"}, **by}
    one = RunConfig.model_validate(raw)
    other = RunConfig.model_validate({**raw, "warmup": {"lr": 0.5}})
    assert one.science() == other.science()
    assert not one.warms_up


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"extract": {"of": "backbone"}}, "cluster.gender: 'multitask' means"),
        (
            {"finetune": {"start": "backbone"}, "folds": {"protocol": "transductive"}},
            "runs none of them",
        ),
        ({"finetune": {"freeze_backbone": True, "freeze_conv": False}}, "set freeze_conv = true"),
        ({"finetune": {"start": "retrained"}}, "retrain"),
    ],
)
def test_contradictions_are_refused_by_name(given: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        RunConfig.model_validate(given)


def test_an_arm_without_gender_accepts_a_corpus_that_tells_none() -> None:
    assert not RunConfig.model_validate({"finetune": {"start": "backbone"}}).needs_gender
    assert RunConfig().needs_gender


def test_a_key_that_changes_nothing_is_named_and_the_rest_is_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = ("retrain.lr=1e-3", "finetune.am_margin=0.3", "finetune.loss=focal", "finetune.lr=1e-3")
    options = [part for key in given for part in ("--set", key)]
    assert main(["config", "check", "--config", "iemocap/finetune", *options]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["finetune"]["start"] == "backbone"
    assert [line.split()[2] for line in err.splitlines()] == ["retrain.lr", "finetune.am_margin"]
    assert "finetune.loss = 'focal' has no margin" in err


@pytest.mark.parametrize("name", ["iemocap", *ARMS[:16]])
def test_a_shipped_arm_gives_no_key_in_vain(name: str) -> None:
    assert load_with_notes(name)[1] == []


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.toml").write_text(text, encoding="utf-8")
    return folder


def test_a_file_wins_over_what_it_extends_and_the_result_is_the_merged_document(
    tmp_path: Path,
) -> None:
    write(
        tmp_path,
        base="[finetune]\nepochs = 7\nlr = 1e-3\n[extract]\nlayers = [6, 9, 12]\n",
        child='extends = "base.toml"\n[finetune]\nsteps = 50\n',
        plain="[finetune]\nsteps = 50\nlr = 1e-3\n[extract]\nlayers = [6, 9, 12]\n",
    )
    child, plain = (load_config(tmp_path / f"{name}.toml") for name in ("child", "plain"))
    assert child == plain
    assert child.science() == plain.science()
    assert load_config(tmp_path / "child.toml", ["finetune.lr=2e-3"]).finetune.lr == 2e-3


def test_an_error_names_the_file_that_gave_the_key(tmp_path: Path) -> None:
    write(
        tmp_path,
        base="[finetune]\nlr = -1\ndropout = 7\n",
        child='extends = "base.toml"\n[warmup]\nlr = -2\n',
    )
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "child.toml", ["finetune.dropout=8"])
    lines = str(caught.value).splitlines()
    (of_base,) = [line for line in lines if "finetune.lr" in line]
    (of_child,) = [line for line in lines if "warmup.lr" in line]
    (of_option,) = [line for line in lines if "finetune.dropout" in line]
    assert "base.toml" in of_base
    assert "child.toml" in of_child
    assert "--set finetune.dropout=8" in of_option


def test_a_circle_and_a_missing_base_are_refused_by_name(tmp_path: Path) -> None:
    write(tmp_path, a='extends = "b.toml"\n', b='extends = "a.toml"\n', c='extends = "no.toml"\n')
    with pytest.raises(ConfigError, match=r"closes a circle: a\.toml -> b\.toml -> a\.toml"):
        load_config(tmp_path / "a.toml")
    with pytest.raises(ConfigError, match=r"no\.toml: cannot be read"):
        load_config(tmp_path / "c.toml")


def test_a_shipped_configuration_is_extended_by_its_name(tmp_path: Path) -> None:
    write(tmp_path, mine='extends = "nemo/p_tapt"\n[cluster]\nseed = 4\n')
    config = load_config(tmp_path / "mine.toml")
    assert (config.cluster.seed, config.cluster.scales[2].k) == (4, 4096)
