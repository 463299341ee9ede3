"""Doctor checks every arm of a sweep, and names each problem once, with its arms."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_doctor import Doctor, config, corpus, doctor  # noqa: F401

from gmp_atl_dist.config import RunConfig
from gmp_atl_dist.config.sweep import load_sweep
from gmp_atl_dist.doctor import checkup
from gmp_atl_dist.doctor.arms import Seen, merged, subject_of
from gmp_atl_dist.doctor.findings import Finding, fatal

CODEBOOK = (
    f'"extract.layers" = [2]\n'
    f'"cluster.scales" = [{{ layer = 2, k = 4, codebook = "{"0" * 64}" }}]\n'
)
"""Of a run that is not below the root."""


def sweep(base: Path, *arms: str) -> Path:
    path = base.with_name("sweep.toml")
    path.write_text('name = "all"\nbase = "run.toml"\nseeds = [0, 1]\n' + "\n".join(arms))
    return path


def arm(name: str, **keys: object) -> str:
    lines = "".join(f'"{k}" = {json.dumps(v)}\n' for k, v in keys.items())
    return f'[[arms]]\nname = "{name}"\n[arms.set]\n{lines}'


def test_a_problem_of_a_later_arm_is_found_and_names_it(doctor: Doctor, config: Path) -> None:  # noqa: F811
    arms = (
        arm("first"),
        arm("classes", **{"corpus.emotions": ["joy", "no such class"]}),
        arm("missing", **{"model.source": "random:tiny"}) + CODEBOOK,
        arm("missing_too", **{"model.source": "random:tiny", "warmup.epochs": 3}) + CODEBOOK,
    )
    code, out, _ = doctor("--config", sweep(config, *arms), "--json")
    said = json.loads(out)
    bad = [f for f in said["findings"] if f["severity"] != "ok"]
    assert code == 8
    assert any(f["item"].startswith("arm classes: ") for f in bad), bad
    assert said["findings"][0]["value"] == "loads, with 4 arms"
    of_model = [f for f in bad if f["check"] == "model"]
    assert [f["item"].partition(":")[0] for f in of_model] == ["arms missing, missing_too"]
    assert not any(f["item"].startswith("arm first") for f in bad)


def test_a_problem_of_all_arms_is_named_once_without_them(doctor: Doctor, config: Path) -> None:  # noqa: F811
    file = sweep(config, arm("a"), arm("b", **{"finetune.start": "backbone"}))
    code, out, _ = doctor("--config", file, "--set", "runtime.corpus=/nowhere")
    assert code == 8
    fatal_lines = [line for line in out.splitlines() if line.startswith("fatal")]
    assert len(fatal_lines) == 1
    assert "arm" not in fatal_lines[0]


def test_a_check_that_is_the_same_for_arms_is_made_once(
    config: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[str] = []

    def noted(name: str) -> object:
        return lambda *_, **__: iter(made.append(name) or [])

    for name in ("store", "corpus", "leaks", "cluster", "machine"):
        monkeypatch.setattr(checkup, f"check_{name}", noted(name))
    loaded = load_sweep("sweeps/iemocap", ["runtime.corpus=x"], str(config.with_name("root")))
    arms = {run.arm: run.config for run in loaded.runs if run.seed == 0}
    assert len(arms) == 16
    checkup.examine(arms)
    counted = {name: made.count(name) for name in made}
    assert counted["store"] == 1
    assert counted["machine"] == 2, "some arms make no labels"
    # Arms without gender, without a warmed-up model, or on other folds have labels of their own to check.
    assert counted["corpus"] == counted["leaks"] < 8


def test_arms_that_differ_where_a_check_looks_are_told_apart() -> None:
    plain = RunConfig()
    wide = RunConfig.model_validate({"warmup": {"batch_s": 50}})
    assert subject_of("ray", plain) != subject_of("ray", wide)
    assert subject_of("corpus", plain) == subject_of("corpus", wide)
    for check, other in (
        ("corpus", {"folds": {"by": "speaker"}}),
        ("lineage", {"model": {"source": "random:tiny"}}),
        ("machine", {"finetune": {"start": "backbone"}}),
        ("store", {"runtime": {"root": "elsewhere"}}),
    ):
        assert subject_of(check, plain) != subject_of(check, RunConfig.model_validate(other)), check


def test_findings_keep_their_order_and_name_few_arms() -> None:
    well, bad = Finding("ray", "x", "1 node"), fatal("ray", "y", "no room", "add nodes")
    seen = [Seen(("a", "c"), [well]), Seen(("b", "d", "e", "f"), [well, bad])]
    first, second = merged(seen, tuple("abcdef"))
    assert first == well
    assert second.item == "arms b, d, e and 1 more: y"
