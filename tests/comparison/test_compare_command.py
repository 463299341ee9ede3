"""``gmp-atl compare`` on real runs, through the command line, in a pipe and on a terminal."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import recall_score
from support.command_line import Run
from support.latex import read_latex_table
from support.one_process import context_of, no_ray, tiny_experiment
from support.s3_server import S3Server
from support.terminal import on_a_terminal
from support.toml_files import toml_of

from gmp_atl_dist import execution
from gmp_atl_dist.config import RunConfig
from gmp_atl_dist.corpora.synth import write_synthetic_corpus
from gmp_atl_dist.runs.names import named
from gmp_atl_dist.runs.recorder import RunRecorder
from gmp_atl_dist.stages.evaluate import read_predictions
from gmp_atl_dist.store.artifact import find_artifact
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.layout import LAYOUT_PATH
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.store.runs import RunRecord, read_run, write_run

pytest_plugins = ["support.command_line", "support.one_process"]


@dataclass(frozen=True)
class Runs:
    """A root with finished runs of one test set: ``plain`` with seeds 0 and 1, and ``other``."""

    root: Path
    corpus: Path
    configs: dict[str, RunConfig]

    def record(self, name: str) -> RunRecord:
        record = read_run(Store.open(str(self.root)), name)
        assert record is not None
        return record

    def report(self, name: str) -> Path:
        return self.root / "artifacts" / "report" / self.record(name).report / "files"

    def evaluate(self, name: str) -> str:
        (stage,) = (s for s in self.record(name).stages if s.kind == "evaluate")
        return stage.fingerprint


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("compared")
    corpus, root = folder / "corpus", folder / "root"
    write_synthetic_corpus(corpus, utterances_per_speaker_and_emotion=1, seconds=(0.3, 0.6))
    # They share everything up to fine-tuning.
    changes: dict[str, dict[str, dict[str, object]]] = {
        "plain": {},
        "plain-1": {"finetune": {"seed": 1}},
        "other": {"finetune": {"loss": "cross_entropy"}},
    }
    return Runs(root, corpus, {n: run_it(corpus, root, n, s) for n, s in changes.items()})


def run_it(
    corpus: Path, root: Path, name: str, sections: dict[str, dict[str, object]]
) -> RunConfig:
    named_so: dict[str, object] = {"run_name": name}
    config = named(tiny_experiment(corpus, root, **sections, runtime=named_so), "mine.toml")
    context = context_of(config.runtime.root, corpus, config)
    with no_ray(), RunRecorder(config, context, "mine.toml") as recorder:
        execution.run_pipeline(config, context, [recorder])
    return config


def test_runs_are_compared_and_seeds_are_one_arm(gmp_atl: Run, runs: Runs, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("t.csv", "t.tex", "t.md")]
    options = [
        w for o, f in zip(("--csv", "--latex", "--markdown"), files, strict=True) for w in (o, f)
    ]
    names = ("plain", "other", "plain-1")

    code, out, err = gmp_atl("compare", *names, "--root", runs.root, *options)

    assert (code, err) == (0, "")
    assert out.startswith("2 arms on the same 8 test utterances of 2 speakers; 95 % intervals\n")
    assert "single utterances, because the test set has fewer than 5 speakers (2)" in out
    assert "They do not cover the random seed, the choice of settings, or other corpora." in out
    code, text, _ = gmp_atl("compare", *names, "--root", runs.root, "--json")
    found = json.loads(text)
    assert [(arm["name"], arm["seeds"]) for arm in found["arms"]] == [
        ("plain", ["0", "1"]),
        ("other", ["0"]),
    ]
    assert [run["name"] for run in found["arms"][0]["runs"]] == ["plain", "plain-1"]
    # Against scikit-learn, from the artefacts themselves.
    store = Store.open(str(runs.root))
    expected = {}
    pinned = {"labels": found["classes"], "average": "macro", "zero_division": 0}
    for name in names:
        artifact = find_artifact(store, ArtifactKey("evaluate", runs.evaluate(name)))
        assert artifact is not None
        rows = read_predictions(artifact)
        expected[name] = recall_score(
            [r.emotion for r in rows],
            [r.predicted for r in rows],
            **pinned,
        )
    plain, other = (arm["scores"]["uar"]["over_seeds"] for arm in found["arms"])
    seeds = [expected["plain"], expected["plain-1"]]
    assert plain["mean"] == pytest.approx(np.mean(seeds))
    assert plain["sd"] == pytest.approx(np.std(seeds, ddof=1))
    assert other["mean"] == pytest.approx(expected["other"])
    difference = found["arms"][1]["difference"]
    assert difference["scores"]["uar"]["value"] == pytest.approx(other["mean"] - plain["mean"])
    assert difference["mcnemar"]["num_pairs"] == 2
    # The files hold the same.
    table = list(csv.DictReader(io.StringIO(files[0].read_text())))
    assert [row["arm"] for row in table] == ["plain", "other"]
    assert float(table[0]["uar"]) == pytest.approx(plain["mean"], abs=1e-6)
    assert table[0]["runs"] == "plain plain-1"
    assert table[0]["uar_difference"] == ""
    tex = files[1].read_text()
    assert [row[0] for row in read_latex_table(tex)] == ["arm", "plain", "other"]
    assert "% Intervals cover the choice of the test data alone." in tex
    assert r"UAR \%" in tex
    markdown = files[2].read_text().splitlines()
    assert markdown[0].startswith("| arm | seeds |")
    assert len({line.count("|") for line in markdown[:4]}) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t.csv", "t.md", "t.tex"]


def test_a_run_has_many_names(gmp_atl: Run, runs: Runs, tmp_path: Path) -> None:
    config = tmp_path / "other.toml"
    config.write_text(toml_of(runs.configs["other"]))
    values = set()
    for reference in (
        "other",
        f"{runs.root}/runs/other",
        f"file://{runs.root}/runs/other",
        runs.report("other") / "report.json",
        config,
        runs.evaluate("other")[:10],
    ):
        code, out, err = gmp_atl("compare", "plain", reference, "--root", runs.root, "--json")
        assert (code, err) == (0, ""), reference
        arm = json.loads(out)["arms"][1]
        values.add((arm["scores"]["uar"]["over_seeds"]["mean"], arm["difference"]["p_holm"]))
    assert len(values) == 1


def test_a_copy_at_another_root_differs_by_nothing(
    gmp_atl: Run, runs: Runs, tmp_path: Path
) -> None:
    shutil.copytree(runs.root, tmp_path / "copy")
    both = ("--root", runs.root, "--root", tmp_path / "copy")
    here, there = f"{runs.root}/runs/plain", f"{tmp_path}/copy/runs/plain"

    code, _, err = gmp_atl("compare", "plain", "other", *both)
    assert (code, "'plain' is a run below several roots; give one of" in err) == (2, True)
    code, _, err = gmp_atl("compare", here, there)
    assert (code, "have the same configuration and the same seeds" in err) == (2, True)
    assert "file://" in err
    code, out, err = gmp_atl("compare", here, there, "--no-group", "--json")
    assert (code, err) == (0, "")
    difference = json.loads(out)["arms"][1]["difference"]
    assert difference["scores"]["uar"] == {"value": 0.0, "interval": [0.0, 0.0], "p": 1.0}
    assert (difference["mcnemar"]["p"], difference["mcnemar"]["cohens_g"]) == (1.0, None)


@pytest.mark.slow
def test_runs_of_another_fold_or_protocol_are_refused_by_name(
    gmp_atl: Run, runs: Runs, tmp_path: Path
) -> None:
    shutil.copytree(runs.root, tmp_path / "root")
    run_it(runs.corpus, tmp_path / "root", "elsewhere", {"folds": {"run": [2]}})
    run_it(runs.corpus, tmp_path / "root", "leaky", {"folds": {"protocol": "transductive"}})
    root = ("--root", tmp_path / "root")
    code, out, err = gmp_atl("compare", "plain", "elsewhere", *root)
    assert (code, out) == (3, "")
    assert (
        "plain (8 utterances) and elsewhere (8 utterances) were not tested on the same test" in err
    )
    assert re.search(r"only plain tests 8 utterances: Ses01\S+, .* and 3 more", err)
    code, out, err = gmp_atl("compare", "plain", "leaky", *root)
    assert (code, out) == (3, "")
    assert "  - plain: clean\n  - leaky: transductive" in err
    code, out, err = gmp_atl("compare", "plain", "leaky", *root, "--across-protocols")
    assert (code, err) == (0, "")
    assert "ACROSS PROTOCOLS: plain clean, leaky transductive." in out


def test_roots_on_s3_are_compared_as_folders_are(
    gmp_atl: Run, runs: Runs, s3_server: S3Server
) -> None:
    root, other = s3_server.new_uri(), s3_server.new_uri()
    for path in sorted(p for p in runs.root.rglob("*") if p.is_file()):
        Store.open(root).put(path.relative_to(runs.root).as_posix(), path.read_bytes())
    for kind in ("evaluate", "report"):
        for path in (p for p in (runs.root / "artifacts" / kind).rglob("*") if p.is_file()):
            Store.open(other).put(path.relative_to(runs.root).as_posix(), path.read_bytes())
    for name in (LAYOUT_PATH, "runs/other/run.json"):
        Store.open(other).put(name, (runs.root / name).read_bytes())

    code, text, err = gmp_atl("compare", "plain", "plain-1", "other", "--root", runs.root, "--json")
    assert (code, err) == (0, "")
    here = json.loads(text)
    report = f"artifacts/report/{runs.record('other').report}/files/report.json"
    for words in (
        ("plain", "plain-1", "other", "--root", root),
        (f"{root}/runs/plain", f"{root}/runs/plain-1/run.json", f"{other}/runs/other"),
        (f"{root}/runs/plain", runs.root / "runs" / "plain-1", f"{other}/{report}"),
    ):
        code, text, err = gmp_atl("compare", *words, "--json")
        assert (code, err) == (0, ""), words
        there = json.loads(text)
        for ours, theirs in zip(here["arms"], there["arms"], strict=True):
            assert ours["scores"] == theirs["scores"]
            assert ours["difference"] == theirs["difference"]
    code, out, err = gmp_atl("compare", "plain", "othe", "--root", root)
    assert (code, out) == (2, "")
    assert f"below {root}" in err
    assert "did you mean other?" in err
    code, out, err = gmp_atl("compare", f"{root}/runs/plain", f"{other}/runs/plain")
    assert (code, out) == (2, "")


def test_what_cannot_be_compared_is_refused_by_name(
    gmp_atl: Run, runs: Runs, tmp_path: Path
) -> None:
    root = ("--root", runs.root)
    report = json.loads((runs.report("other") / "report.json").read_text())

    def changed(**keys: object) -> Path:
        path = tmp_path / "report.json"
        path.write_text(json.dumps({**report, **keys}))
        return path

    found = report["predictions"]
    ids = [f"new-{name}" if i < 2 else name for i, name in enumerate(found["utterances"])]
    code, out, err = gmp_atl(
        "compare", "plain", changed(predictions={**found, "utterances": ids}), *root
    )
    assert (code, out) == (3, "")
    assert "were not tested on the same test set" in err
    assert re.search(r"only plain tests 2 utterances: Ses01\S+, Ses01\S+$", err, re.MULTILINE)
    assert re.search(r"report.json tests 2 utterances: new-Ses01", err)
    classes = [*report["classes"][:-1], "bored"]
    code, out, err = gmp_atl("compare", "plain", changed(classes=classes), *root)
    assert (code, "have different classes" in err) == (3, True)
    leaky = changed(protocol={**report["protocol"], "name": "transductive"})
    code, out, err = gmp_atl("compare", "plain", leaky, *root)
    assert (code, out) == (3, "")
    assert f"  - plain: clean\n  - {leaky}: transductive" in err
    code, out, err = gmp_atl("compare", "plain", leaky, *root, "--across-protocols")
    assert (code, err) == (0, "")
    assert f"ACROSS PROTOCOLS: plain clean, {leaky} transductive." in out
    assert "protocol" in out.splitlines()[2]
    for words, message in (
        (("plain",), "one run alone cannot be compared"),
        (("plain", "plain"), "is given twice; give each run once"),
        (("plain", "plain-1"), "differ in their seeds only, so they are one arm"),
        (("plain", "othe"), "did you mean other?"),
        (("plain", "other", "--baseline", "leaky"), "is none of the compared runs: plain, other"),
        (("plain", "other", "--by", "age"), "give one of fold, class, gender"),
        (("plain", "other", "--confidence", "95"), "between 0 and 1"),
        (("plain", "s3:/bucket/runs/other"), "write s3://bucket/runs/other"),
        (("plain", "gone/report.json"), "'gone/report.json' does not exist"),
    ):
        code, out, err = gmp_atl("compare", *words, *root)
        assert (code, out) == (2, ""), words
        assert message in err
    code, _, err = gmp_atl("compare", "plain", "other", *root, "--csv", runs.root / "no" / "t.csv")
    assert (code, "t.csv: cannot be written (No such file" in err) == (4, True)


def test_seeds_can_be_arms_and_any_arm_the_baseline(gmp_atl: Run, runs: Runs) -> None:
    options = ("--root", runs.root, "--json")
    _, out, _ = gmp_atl("compare", "plain", "plain-1", "other", *options, "--no-group")
    alone = json.loads(out)
    assert [arm["name"] for arm in alone["arms"]] == ["plain", "plain-1", "other"]
    assert any("Holm's correction is over the 2 differences" in s for s in alone["sentences"])
    _, out, _ = gmp_atl("compare", "plain", "other", "plain-1", *options, "--baseline", "plain-1")
    assert json.loads(out)["baseline"] == "plain"  # the arm of plain-1
    _, out, _ = gmp_atl("compare", "plain", "other", *options, "--baseline", "other")
    found = json.loads(out)
    assert found["arms"][1]["difference"] is None
    forward = json.loads(gmp_atl("compare", "plain", "other", *options)[1])["arms"][1]["difference"]
    back = found["arms"][0]["difference"]
    assert back["scores"]["uar"]["value"] == pytest.approx(-forward["scores"]["uar"]["value"])
    assert back["mcnemar"]["p"] == forward["mcnemar"]["p"]


def test_scores_by_part_of_the_test_set(gmp_atl: Run, runs: Runs) -> None:
    for by, names in (("fold", ["fold1"]), ("class", ["angry"]), ("speaker", ["Ses01F", "Ses01M"])):
        code, out, err = gmp_atl("compare", "plain", "other", "--root", runs.root, "--by", by)
        assert (code, err) == (0, "")
        assert all(name in out for name in names)
    _, out, _ = gmp_atl("compare", "plain", "other", "--root", runs.root, "--by", "corpus")
    assert "No corpus is known of these utterances." in out


def test_runs_without_predictions_say_what_to_do(gmp_atl: Run, runs: Runs, tmp_path: Path) -> None:
    root = tmp_path / "copy"
    shutil.copytree(runs.root, root)
    store = Store.open(str(root))
    record = runs.record("other")
    stages = tuple(s for s in record.stages if s.kind not in ("evaluate", "report"))
    write_run(store, record.model_copy(update={"report": "", "stages": stages}))
    code, out, err = gmp_atl("compare", "plain", "other", "--root", root)
    assert (code, out) == (4, "")
    assert "run other below" in err
    assert "has no report yet, so it has no predictions to compare; finetune fold1 is done;" in err
    assert "give the last command again" in err
    # A report that somebody copied without its predictions, an old one, and no report at all.
    report = json.loads((runs.report("plain") / "report.json").read_text())
    alone = tmp_path / "alone" / "report.json"
    alone.parent.mkdir()
    for change, message in (
        ({"predictions": {}}, "has no predictions of single utterances"),
        ({"predictions": None}, "no report that can be compared: predictions"),
        ({"protocol": None}, "no report that can be compared: protocol"),
        (
            {"predictions": {**report["predictions"], "predicted": [0] * 8}},
            "its predictions do not give its confusion matrix",
        ),
    ):
        alone.write_text(json.dumps({**report, **change}))
        code, out, err = gmp_atl("compare", runs.report("other") / "report.json", alone)
        assert (code, out) == (4, ""), change
        assert f"{alone.as_uri()}" in err
        assert message in err
    # Predictions beside it are as good, and an unknown configuration is an arm of its own.
    alone.write_text(json.dumps({**report, "predictions": {}, "configuration": {"new": 1}}))
    shutil.copy(runs.report("plain") / "predictions.csv", alone.parent)
    code, out, err = gmp_atl("compare", runs.report("plain") / "report.json", alone, "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["arms"][1]["difference"]["scores"]["uar"]["value"] == 0


def test_a_pipe_gets_whole_lines_and_a_narrow_terminal_blocks(runs: Runs) -> None:
    words = ["compare", "plain", "other", "--root", str(runs.root)]
    piped = subprocess.run(
        [sys.executable, "-m", "gmp_atl_dist.cli", *words],
        capture_output=True,
        text=True,
        check=True,
    )
    assert piped.stderr == ""
    assert "\x1b" not in piped.stdout
    (row,) = (
        line for line in piped.stdout.splitlines() if " plain " in line and "baseline" in line
    )
    assert re.search(r"plain\s+.\s+\d+\.\d \(\d+\.\d to \d+\.\d\)", row)
    with on_a_terminal("-m", "gmp_atl_dist.cli", *words, columns=60) as terminal:
        assert terminal.wait(120) == 0
        assert "UAR difference: baseline" in terminal.text
        assert "McNemar p: " in terminal.text
