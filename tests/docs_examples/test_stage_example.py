"""The worked example of a stage: one file, one line of ``pipeline.py``, and everything knows it."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from support.one_process import Tiny, context_of, tiny_experiment

from gmp_atl_dist import execution, pipeline, stage_order, stage_survey
from gmp_atl_dist.audio import pcm16_to_float
from gmp_atl_dist.cli.main import main
from gmp_atl_dist.config import RunConfig
from gmp_atl_dist.console import Reporter
from gmp_atl_dist.scheduling import walks
from gmp_atl_dist.stages.base import Context
from gmp_atl_dist.stages.report import HTML_NAME, JSON_NAME
from gmp_atl_dist.store.artifact import find_artifact
from gmp_atl_dist.store.readers import AudioReader, read_utterances

pytest_plugins = ["support.one_process"]

DOCS = Path(__file__).resolve().parents[2] / "docs"
AFTER = '        models["warmup"] = ensure(Warmup(config.warmup, corpus, start, fold))\n'
LINE = "        ensure(Loudness(training))\n"


def loaded(path: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The example's module, and ``pipeline.py`` with its one line and import."""
    module = loaded(DOCS / "examples" / "stage_example.py", "stage_example")
    source = Path(pipeline.__file__).read_text()
    assert source.count(AFTER) == 1
    source = source.replace(AFTER, AFTER + LINE)
    source = source.replace(
        "\nEnsure: TypeAlias", "\nfrom stage_example import Loudness\n\nEnsure: TypeAlias", 1
    )
    changed = ModuleType("changed_pipeline")
    exec(compile(source, "changed_pipeline.py", "exec"), changed.__dict__)
    for user in (execution, stage_order, stage_survey, walks):
        monkeypatch.setattr(user, "pipeline", changed)
    yield module
    del sys.modules["stage_example"]


@pytest.fixture
def experiment(tiny: Tiny, tmp_path: Path) -> RunConfig:
    return tiny_experiment(tiny.folder, tmp_path / "root")


@pytest.fixture
def context(tiny: Tiny, experiment: RunConfig, in_process: None) -> Context:
    return context_of(Path(experiment.runtime.root), tiny.folder, experiment)


def test_its_place_in_the_order_is_that_of_its_line(example: ModuleType) -> None:
    names = stage_order.stage_names(RunConfig())
    assert names[names.index("warmup") + 1] == "loudness"
    assert "loudness" in stage_order.all_stage_names()


def test_the_list_of_the_documentation_has_it(example: ModuleType) -> None:
    generator = loaded(DOCS / "generate_stages.py", "generate_stages")
    row = "| `loudness` | fold | `ingest` | RMS level of every utterance of the training set. |\n"
    assert row in generator.page()


def test_status_stage_run_and_report_know_it(
    example: ModuleType, experiment: RunConfig, context: Context, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("ingest", "backbone", "warmup", "loudness"):
        execution.run_stage(experiment, context, name)
    states = {row.label: row.state for row in stage_survey.survey(experiment, context)}
    assert states["loudness fold1"] == "done"
    assert states["extract fold1"] == "waiting"

    report = execution.run_pipeline(experiment, context)
    content = json.loads(report.read_file(JSON_NAME))
    fingerprint = content["folds"][0]["artefacts"]["loudness"]
    assert content["stages"].index("loudness") == content["stages"].index("warmup") + 1
    assert fingerprint in report.read_file(HTML_NAME).decode()
    assert report.manifest.inputs["fold1/loudness"] == fingerprint

    found = stage_survey.find_fold(experiment, context.store, context.source, 1)
    artifact = found.artifacts.artifact("loudness")
    assert find_artifact(context.store, artifact.key) is not None
    levels = example.read_loudness(artifact)
    training = found.artifacts.fold.training_speakers()
    utterances = {u.utterance_id: u for u in read_utterances(found.corpus)}
    assert set(levels) == {i for i, u in utterances.items() if u.speaker in training.speakers}
    reader = AudioReader(found.corpus)
    for utterance_id, level in levels.items():
        wave = pcm16_to_float(reader.samples(utterances[utterance_id]))
        assert level == pytest.approx(10 * np.log10(np.mean(np.square(wave))))

    # A second run computes nothing, and another fingerprint of an input makes another artefact.
    capsys.readouterr()
    execution.run_pipeline(experiment, replace(context, reporter=Reporter(terminal=False)))
    assert "loudness fold1: done before" in capsys.readouterr().out


def test_a_stage_that_is_not_in_the_method_is_not_known(
    experiment: RunConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "c.toml"
    config.write_text(f'[runtime]\nroot = "{tmp_path / "root"}"\ncorpus = "{tmp_path}"\n')
    assert main(["stage", "loudness", "--config", str(config)]) == 2
    assert "stage 'loudness' is not known; known: ingest, backbone" in capsys.readouterr().err
