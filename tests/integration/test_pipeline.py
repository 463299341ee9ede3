from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from support.pipeline_runs import Interrupted, Reference, Root, finished

from gmp_atl_dist.audio import pcm16_to_float
from gmp_atl_dist.config import RunConfig
from gmp_atl_dist.config.file import load_config
from gmp_atl_dist.console import Reporter
from gmp_atl_dist.runtime import RayConnection
from gmp_atl_dist.stage_order import stage_names
from gmp_atl_dist.stage_survey import StageStatus, survey
from gmp_atl_dist.stages.base import Context
from gmp_atl_dist.stages.evaluate import Prediction, read_predictions
from gmp_atl_dist.store.artifact import Artifact, find_artifact
from gmp_atl_dist.store.filesystem import Store
from gmp_atl_dist.store.manifest import ArtifactKey
from gmp_atl_dist.store.readers import read_audio_part, read_utterances

pytest_plugins = ["support.pipeline_runs"]
pytestmark = [pytest.mark.timeout(2400), pytest.mark.slow]

NAMES = stage_names(RunConfig())
FROM_CLUSTER_ON = ("cluster", "label", "retrain", "finetune", "evaluate", "report")


def artifact(root: Root, kind: str) -> Artifact:
    found = find_artifact(Store.open(str(root.folder)), ArtifactKey(kind, root.artifact(kind).name))
    assert found is not None
    return found


@pytest.fixture(scope="module")
def predictions(reference: Reference) -> tuple[Prediction, ...]:
    return read_predictions(artifact(reference.root, "evaluate"))


def test_a_run_ends_with_figures_and_a_report(reference: Reference) -> None:
    report = reference.root.artifact("report") / "files"

    assert re.search(r"^WAR \d+\.\d % \(95 % interval ", reference.output, re.MULTILINE)
    assert re.search(r"^UAR \d+\.\d % \(95 % interval ", reference.output, re.MULTILINE)
    (page,) = reference.root.folder.glob("runs/*/report.html")
    assert f"report: {page.as_uri()}" in reference.output
    assert "</html>" in (report / "report.html").read_text()
    assert '"pooled"' in (report / "report.json").read_text()


def test_a_finished_run_keeps_no_checkpoint(reference: Reference) -> None:
    folder = reference.root.folder / "checkpoints"

    assert [p for p in folder.rglob("*") if p.is_file()] == []


def test_test_speakers_are_in_nothing_that_is_fitted(
    reference: Reference, predictions: tuple[Prediction, ...]
) -> None:
    utterances = read_utterances(artifact(reference.root, "ingest"))
    tested = {p.utterance_id for p in predictions}
    others = {u.utterance_id for u in utterances} - tested

    assert tested == {u.utterance_id for u in utterances if u.speaker.startswith("Ses01")}
    for kind in ("extract", "label"):
        folder = reference.root.artifact(kind) / "parts"
        seen = {
            utterance_id
            for path in folder.iterdir()
            for utterance_id in pq.read_table(path)["utterance_id"].to_pylist()
        }
        assert seen == others
        for path in folder.iterdir():
            assert not [t for t in tested if t.encode() in path.read_bytes()], path


def test_verify_finds_a_flipped_byte(reference: Reference, tmp_path: Path) -> None:
    damaged = reference.root.copy_to(tmp_path / "root")
    log = tmp_path / "log"
    assert "are intact" in finished("verify", "--root", str(damaged.folder), log=log)
    part = sorted((damaged.artifact("extract") / "parts").iterdir())[3]
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)

    output = finished("verify", "--root", str(damaged.folder), log=log, code=4)

    assert str(part) in output
    assert output.count("have sha256") == 1


def test_the_model_predicts_for_others_what_it_predicted_in_the_run(
    reference: Reference, predictions: tuple[Prediction, ...], tmp_path: Path
) -> None:
    from transformers import AutoModelForAudioClassification

    import gmp_atl_dist.models.emotion  # noqa: F401  (makes the model known to transformers)

    folder = reference.root.artifact("finetune") / "files"
    model = AutoModelForAudioClassification.from_pretrained(str(folder)).eval()
    stored = predictions[5]
    corpus = artifact(reference.root, "ingest")
    (utterance,) = (u for u in read_utterances(corpus) if u.utterance_id == stored.utterance_id)
    samples = read_audio_part(corpus, utterance.part).samples(utterance.row)
    with torch.inference_mode():
        wave_BN = torch.from_numpy(pcm16_to_float(samples))[None]
        logits_BK = model(wave_BN, torch.tensor([len(samples)]))
    np.testing.assert_allclose(logits_BK.softmax(-1)[0], stored.probabilities, atol=1e-4)

    (wav,) = reference.corpus.rglob(f"{stored.utterance_id}.wav")
    output = finished("predict", str(folder), str(wav), log=tmp_path / "log")

    (line,) = (line for line in output.splitlines() if line.startswith(f"{wav}: "))
    *words, arrow, verdict = line.removeprefix(f"{wav}: ").split()
    assert (arrow, verdict) == ("->", stored.predicted)
    assert words[::2] == list(model.config.emotions)
    printed = [float(word) for word in words[1::2]]
    assert sum(printed) == pytest.approx(1, abs=0.002)
    np.testing.assert_allclose(printed, stored.probabilities, atol=0.001)


def test_a_second_run_does_nothing_and_needs_no_ray(
    reference: Reference, ray_folder: Path, tmp_path: Path
) -> None:
    before, rays = reference.root.state(), ray_sessions(ray_folder)
    assert rays

    output = finished(*reference.command("run", root=reference.root), log=tmp_path / "log")

    assert output.count(": done before, ") == len(NAMES)
    assert ": running, " not in output
    assert reference.root.state() == before
    assert ray_sessions(ray_folder) == rays


def ray_sessions(ray_folder: Path) -> list[Path]:
    """A folder for each Ray that was ever started."""
    return sorted(p for p in ray_folder.glob("ray/session_*") if not p.is_symlink())


def surveyed(reference: Reference, *overrides: str) -> dict[str, StageStatus]:
    """Where each stage stands, by its name without the fold's."""
    config = load_config(reference.config, overrides)
    store, source = Store.open(str(reference.root.folder)), Store.open(str(reference.corpus))
    context = Context(store, source, config.runtime, Reporter(), RayConnection(config.runtime))
    return {status.label.split()[0]: status for status in survey(config, context)}


def test_another_k_redoes_cluster_and_what_follows(reference: Reference) -> None:
    before = surveyed(reference)
    scales = "cluster.scales=[{layer = 1, k = 8}, {layer = 2, k = 9}]"

    after = surveyed(reference, scales)

    assert tuple(before) == tuple(after) == NAMES
    assert {name: status.state for name, status in after.items()} == {
        name: "waiting" if name in FROM_CLUSTER_ON else "done" for name in NAMES
    }
    changed = {name for name in NAMES if after[name].fingerprint != before[name].fingerprint}
    assert changed == set(FROM_CLUSTER_ON)


@pytest.mark.parametrize(
    "override",
    [
        "runtime.ingest.workers=5",
        "runtime.extract.workers=7",
        "runtime.train.workers=3",
        "runtime.train.workers=[1,4]",
        "runtime.train.zero_stage=2",
        "runtime.train.checkpoint_every_steps=1",
    ],
)
def test_what_it_runs_on_redoes_nothing(reference: Reference, override: str) -> None:
    assert surveyed(reference, override) == surveyed(reference)


@pytest.mark.parametrize("kind", ["extract", "cluster", "label"])
def test_one_worker_makes_the_bytes_that_two_make(
    reference: Reference, interrupted: Interrupted, kind: str
) -> None:
    assert len(reference.root.hashes(kind)) >= (1 if kind == "cluster" else 2)
    assert interrupted.root.hashes(kind) == reference.root.hashes(kind)
    assert interrupted.root.objects(kind) == reference.root.objects(kind)


def test_a_stage_says_which_one_it_waits_for(reference: Reference, tmp_path: Path) -> None:
    command = reference.command("stage", "cluster", root=str(tmp_path / "root"))

    output = finished(*command, log=tmp_path / "log", code=4)

    assert "run gmp-atl stage ingest" in output
    assert not list((tmp_path / "root").rglob("*.parquet"))
