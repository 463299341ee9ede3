"""``configs/mixed.toml`` on a real Ray: killed in ingest and in retrain, and continued to the same bytes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.mixed import NAMES
from support.pipeline_runs import RUN_S, CliRun, Root, finished, started

from gmp_atl_dist.corpora.synth import write_synthetic_corpus
from gmp_atl_dist.shipped import shipped_path

pytest_plugins = ["support.pipeline_runs"]
pytestmark = [pytest.mark.timeout(3600), pytest.mark.nightly]

TRAINED = ("warmup", "retrain", "finetune")
KINDS = ("ingest", "combine", "backbone", *TRAINED, "extract", "cluster", "label", "evaluate")


@dataclass(frozen=True)
class Case:
    config: Path

    def command(self, word: str, root: Root) -> tuple[str, ...]:
        # One worker per stage, so that a kill finds some parts done and others not.
        place = (f"--set=runtime.root={root.folder}", "--set=runtime.ingest.workers=1")
        return (word, "--config", str(self.config), *place)


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    """The shipped file with small parts and short trainings, and its three corpora."""
    folder = tmp_path_factory.mktemp("mixed")
    shipped = shipped_path("mixed")
    assert shipped is not None
    text = shipped.read_text()
    for seed, name in enumerate(NAMES):
        write_synthetic_corpus(folder / name, seed=seed, utterances_per_speaker_and_emotion=2)
        text = text.replace(f"runs/mixed/corpus{seed}", str(folder / name))
    for key, short in {
        "part_audio_s = 60": "part_audio_s = 2",
        "epochs = 12": "epochs = 1",
        "epochs = 15": "epochs = 1",
        "steps = 60": "steps = 80",
    }.items():
        assert key in text
        text = text.replace(key, short)
    config = folder / "mixed.toml"
    config.write_text(text)
    return Case(config)


def objects(root: Root, kind: str) -> dict[str, bytes]:
    """Every object of every artefact of a kind; not the account of how a model was trained."""
    return {
        str(path.relative_to(root.folder)): path.read_bytes()
        for path in root.files(kind)
        if "receipts" not in path.parts and path.name not in ("training.json", "_manifest.json")
    }


def is_in_second_source(run: CliRun, root: Root) -> bool:
    """Whether ``ingest-read`` has some parts and is not done."""
    return "ingest-read: running" in run.output and len(open_receipts(root)) >= 2


def open_receipts(root: Root) -> list[Path]:
    folders = [p for p in (root.folder / "artifacts/ingest").glob("*") if p.is_dir()]
    unsealed = [p for p in folders if not (p / "_manifest.json").exists()]
    return [r for p in unsealed for r in p.glob("receipts/parts/*.json")]


def test_a_mixed_run_that_is_killed_twice_comes_to_the_same_bytes(
    case: Case, tmp_path: Path
) -> None:
    undisturbed, root = Root(tmp_path / "undisturbed"), Root(tmp_path / "root")
    output = finished(*case.command("run", undisturbed), log=tmp_path / "log", limit_s=RUN_S)
    assert "combine: talks:" in output

    with started(*case.command("run", root), log=tmp_path / "first") as run:
        run.until(lambda: is_in_second_source(run, root), "parts of the second source", RUN_S)
        run.kill_driver()
    assert open_receipts(root)
    with started(*case.command("run", root), log=tmp_path / "second") as run:
        run.until(lambda: root.is_beyond_a_checkpoint("retrain"), "a checkpoint", RUN_S)
        run.kill_driver()
    assert "ingest-acted: done before" in (tmp_path / "second").read_text()
    assert "parts were done before" in (tmp_path / "second").read_text()
    assert not root.is_sealed("retrain")
    finished(*case.command("run", root), log=tmp_path / "third", limit_s=RUN_S)

    assert len(root.resumed_at("retrain")) == 1
    for kind in KINDS:
        assert objects(root, kind) == objects(undisturbed, kind), kind
    report = json.loads(root.objects("report")["files/report.json"])
    assert [group["name"] for group in report["groups"]["corpora"]] == ["acted"]
    status = finished(*case.command("status", root), log=tmp_path / "status")
    assert "ingest-talks" in status
    assert "combine" in status
    checked = finished("corpora", "check", "--config", str(case.config), log=tmp_path / "check")
    assert "unlabelled" in checked
    model = tmp_path / "model"
    finished(
        *("model", "export", "--config", str(case.config)),
        *(f"--set=runtime.root={root.folder}", "--to", str(model)),
        log=tmp_path / "export",
    )
    card = (model / "README.md").read_text()
    assert "- talks (unlabelled):" in card
    assert "licence, as the configuration states it: CC0-1.0" in card
